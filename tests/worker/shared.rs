//! Payloads in shared memory: what lies there crosses without being copied.

#![allow(clippy::float_cmp, reason = "what is copied and doubled is exact")]

use std::collections::BTreeSet;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustkernel::actors::{KernelRef, Runtime};
use rustkernel::core::codec;
use rustkernel::core::error::{KernelError, KernelErrorKind};
use rustkernel::core::resilience::{ErrorKind, RecoveryPolicy};
use rustkernel::core::traits::{Context, Kernel, Payload};
use rustkernel::worker::{Domain, Kernels, SharedSlice};
use serde::{Deserialize, Serialize};

use crate::kit::{NONE, assert_balanced, kind, ms, soon};
use crate::puppets::{Do, config, domain, kill, puppet, spawned, until};

/// What a [`Slices`] is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Order {
    /// Give the values back as they lie there.
    Echo(SharedSlice<f32>),
    /// Twice the values, in memory of the worker's.
    Double(SharedSlice<f32>),
    /// Both, one behind the other.
    Join([SharedSlice<f32>; 2]),
    /// Keep the values, and say what was kept before.
    Keep(SharedSlice<f32>),
    /// Ends when nobody waits for it any more, and only after the values have been read once more.
    Wait(SharedSlice<f32>),
    Forget,
    Panic,
    /// The sum of what is in all of them.
    Sum(Vec<SharedSlice<f32>>),
}

impl Payload for Order {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Echo(values) | Self::Double(values) | Self::Keep(values) | Self::Wait(values) => {
                values.size_bytes()
            }
            Self::Join(both) => both.iter().map(Payload::size_bytes).sum(),
            Self::Sum(all) => all.iter().map(Payload::size_bytes).sum(),
            Self::Forget | Self::Panic => 0,
        }
    }

    fn schema() -> String {
        "order".into()
    }
}

struct Slices(SharedSlice<f32>);

impl Kernel for Slices {
    type Input = Order;
    type Output = SharedSlice<f32>;

    async fn execute(
        &mut self,
        order: &Order,
        cx: &mut Context<'_>,
    ) -> Result<SharedSlice<f32>, KernelError> {
        match order {
            Order::Echo(values) => Ok(values.clone()),
            Order::Double(values) => doubled(values),
            Order::Join([first, second]) => SharedSlice::copy_of(&[&**first, &**second].concat()),
            Order::Keep(values) => Ok(std::mem::replace(&mut self.0, values.clone())),
            Order::Wait(values) => {
                while !cx.is_cancelled() {
                    std::hint::spin_loop();
                }
                self.0 = SharedSlice::copy_of(values)?;
                Ok(self.0.clone())
            }
            Order::Panic => std::panic::resume_unwind(Box::new("told to panic")),
            Order::Sum(all) => {
                SharedSlice::copy_of(&[all.iter().map(|values| values.iter().sum::<f32>()).sum()])
            }
            Order::Forget => Ok(std::mem::replace(&mut self.0, SharedSlice::alloc(0)?)),
        }
    }
}

fn doubled(values: &[f32]) -> Result<SharedSlice<f32>, KernelError> {
    let mut answer = SharedSlice::alloc(values.len())?;
    let place = answer.get_mut().ok_or_else(|| KernelError::permanent("nobody else has it"))?;
    place.iter_mut().zip(values).for_each(|(place, value)| *place = value * 2.0);
    Ok(answer)
}

pub(crate) fn kernels(kernels: &mut Kernels) {
    kernels.register("slices", |()| Ok(Slices(SharedSlice::alloc(0)?)));
}

type SlicesRef = KernelRef<Order, SharedSlice<f32>>;

async fn slices(domain: &Domain, id: &str) -> (Runtime, SlicesRef) {
    let runtime = Runtime::builder().build().await.unwrap();
    let recovery = RecoveryPolicy { max_restarts: 100, restart_delay: ms(0), ..RecoveryPolicy::default() };
    let spec = domain.kernel::<Slices>(id, "slices", &()).breaker(None).recovery(recovery).idempotent();
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    (runtime, kernel)
}

fn some(len: u16) -> Vec<f32> {
    (0..len).map(|n| f32::from(n) * 0.5).collect()
}

async fn ask(kernel: &SlicesRef, order: Order) -> SharedSlice<f32> {
    soon(kernel.call(order, NONE)).await.unwrap()
}

#[tokio::test]
async fn what_lies_in_shared_memory_goes_there_and_comes_back_where_it_lies() {
    let domain = domain();
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    for len in [0, 1, 5_000, 60_000] {
        let values = domain.copy_of(&some(len)).unwrap();
        let echo = ask(&kernel, Order::Echo(values.clone())).await;
        assert_eq!(echo.as_ptr(), values.as_ptr(), "it is the same memory");
        let answer = ask(&kernel, Order::Double(values.clone())).await;
        assert!(answer.iter().zip(&*values).all(|(answer, value)| *answer == value * 2.0));
        assert_eq!(answer.len(), usize::from(len));
        let again = ask(&kernel, Order::Echo(answer.clone())).await;
        assert_eq!(again.as_ptr(), answer.as_ptr(), "also where it is the worker's");
        let both = ask(&kernel, Order::Join([answer.clone(), values.clone()])).await;
        assert_eq!(*both, [&*answer, &*values].concat());
    }
}

#[tokio::test]
async fn what_lies_elsewhere_is_copied_on_its_way() {
    let (domain, other) = (domain(), Domain::start("other", config()).unwrap());
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    let own = SharedSlice::copy_of(&some(3_000)).unwrap();
    let others = other.copy_of(&some(3_000)).unwrap();
    for values in [own, others] {
        let echo = ask(&kernel, Order::Echo(values.clone())).await;
        assert_eq!(*echo, *values);
        assert_ne!(echo.as_ptr(), values.as_ptr());
    }
}

#[tokio::test]
async fn only_who_has_it_alone_may_write_it() {
    let domain = domain();
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    let mut values = domain.alloc::<f32>(100).unwrap();
    values.get_mut().unwrap().fill(1.0);
    let mut clone = values.clone();
    assert!(values.get_mut().is_none() && clone.get_mut().is_none());
    drop(clone);
    assert!(values.get_mut().is_some());
    let kept = ask(&kernel, Order::Keep(values.clone())).await;
    assert!(kept.is_empty());
    assert!(values.get_mut().is_none(), "the worker has kept it");
    let mut answer = ask(&kernel, Order::Double(values.clone())).await;
    assert!(answer.get_mut().is_none(), "it is the worker's");
    drop(ask(&kernel, Order::Forget).await);
    until(|| values.get_mut().is_some()).await;
}

#[tokio::test]
async fn what_a_worker_still_reads_is_not_used_again() {
    let domain = domain();
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    for wait in (1..).map(|round| ms(50 * round)) {
        let values = domain.copy_of(&some(5_000)).unwrap();
        let late = soon(kernel.call(Order::Wait(values), wait)).await;
        assert_eq!(kind(late), KernelErrorKind::DeadlineExceeded);
        // Nobody has it here; the worker reads it once more when it hears of that.
        let _other = domain.copy_of(&vec![-1.0_f32; 5_000]).unwrap();
        let read = ask(&kernel, Order::Forget).await;
        if !read.is_empty() {
            assert_eq!(*read, some(5_000));
            break;
        }
        // It had not come there by then.
    }
}

fn quick_domain() -> Domain {
    let heartbeat = std::time::Duration::from_millis(2);
    Domain::start("test", rustkernel::worker::DomainConfig { heartbeat, ..config() }).unwrap()
}

async fn all_come_back(mut lent: Vec<SharedSlice<f32>>) {
    until(|| {
        lent.retain_mut(|values| values.get_mut().is_none());
        lent.is_empty()
    })
    .await;
}

/// Each of them stayed lent until the worker died.
#[tokio::test]
async fn answers_that_nobody_waits_for_any_more_are_returned() {
    let domain = domain();
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    let values = domain.copy_of(&some(60_000)).unwrap();
    let mut places = BTreeSet::new();
    for _ in 0..40 {
        let late = soon(kernel.call(Order::Wait(values.clone()), ms(5))).await;
        assert_eq!(kind(late), KernelErrorKind::DeadlineExceeded);
        places.insert(ask(&kernel, Order::Double(values.clone())).await.as_ptr() as usize);
    }
    assert!(places.len() <= 20, "{places:?}");
}

#[tokio::test]
async fn requests_that_are_given_up_before_they_run_return_what_they_took_along() {
    let domain = quick_domain();
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    let lent: Vec<_> = (0..200).map(|_| domain.copy_of(&some(10)).unwrap()).collect();
    for round in lent.chunks(40) {
        drop(ask(&kernel, Order::Forget).await);
        let calls: Vec<_> =
            round.iter().map(|values| kernel.try_call(Order::Echo(values.clone()), NONE).unwrap()).collect();
        tokio::task::yield_now().await;
        drop(calls);
    }
    // The first of the last ones may have run, and its answer is read before the next request.
    drop(ask(&kernel, Order::Forget).await);
    all_come_back(lent).await;
    assert_eq!(domain.status().deaths, 0);
}

#[tokio::test]
async fn what_lies_behind_a_panic_comes_back_too() {
    let domain = quick_domain();
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    let lent: Vec<_> = (0..120).map(|_| domain.copy_of(&some(10)).unwrap()).collect();
    for round in lent.chunks(40) {
        let before: Vec<_> = (0..10).map(|_| kernel.try_call(Order::Forget, NONE).unwrap()).collect();
        let panics = kernel.try_call(Order::Panic, NONE).unwrap();
        let calls: Vec<_> =
            round.iter().map(|values| kernel.try_call(Order::Echo(values.clone()), NONE).unwrap()).collect();
        for call in before.into_iter().chain(calls) {
            drop(soon(call).await.unwrap());
        }
        assert_eq!(kind(soon(panics).await), KernelErrorKind::Crashed);
    }
    all_come_back(lent).await;
    assert_eq!(domain.status().deaths, 0);
}

#[tokio::test]
async fn however_many_a_request_takes_along_all_come_back() {
    let domain = quick_domain();
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    let lent: Vec<_> = (0..9_000).map(|_| SharedSlice::copy_of(&[1.0_f32]).unwrap()).collect();
    let mut places = BTreeSet::new();
    for _ in 0..3 {
        let sum = ask(&kernel, Order::Sum(lent.clone())).await;
        assert_eq!(sum[..], [9_000.0]);
        places.insert(domain.alloc::<f32>(1).unwrap().as_ptr() as usize);
    }
    until(|| {
        let free: Vec<_> = (0..9_000).map(|_| domain.alloc::<f32>(1).unwrap()).collect();
        let end = free.iter().map(|values| values.as_ptr() as usize).max().unwrap();
        end - free.iter().map(|values| values.as_ptr() as usize).min().unwrap() < 2 * 9_000 * 4_096
    })
    .await;
}

#[tokio::test]
async fn a_kernel_that_is_stopped_with_answers_unread_leaves_nothing_lent() {
    let domain = quick_domain();
    let lent: Vec<_> = (0..60).map(|_| domain.copy_of(&some(10)).unwrap()).collect();
    for round in lent.chunks(20) {
        let (runtime, kernel) = slices(&domain, "a/b").await;
        let calls: Vec<_> =
            round.iter().map(|values| kernel.try_call(Order::Echo(values.clone()), NONE).unwrap()).collect();
        tokio::task::yield_now().await;
        drop((calls, kernel));
        soon(runtime.shutdown(ms(1_000))).await;
    }
    all_come_back(lent).await;
    assert_eq!(domain.status().deaths, 0);
}

#[tokio::test]
async fn it_outlives_the_worker() {
    let domain = domain();
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    let values = domain.copy_of(&some(5_000)).unwrap();
    for death in 1..=3 {
        let answer = ask(&kernel, Order::Double(values.clone())).await;
        kill(domain.status().pid.unwrap(), Signal::KILL);
        until(|| domain.status().deaths == death).await;
        assert!(answer.iter().zip(&*values).all(|(answer, value)| *answer == value * 2.0));
        // The next worker has not mapped what was the last one's: it gets a copy.
        let echo = ask(&kernel, Order::Echo(answer.clone())).await;
        assert_eq!(*echo, *answer);
        let echo = ask(&kernel, Order::Echo(values.clone())).await;
        assert_eq!(echo.as_ptr(), values.as_ptr(), "what is the domain's is every worker's");
    }
}

/// It was the last to have it, and is gone.
#[tokio::test]
async fn what_a_worker_has_kept_is_its_owners_again_when_it_dies() {
    let domain = domain();
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    let mut values = domain.copy_of(&some(5_000)).unwrap();
    drop(ask(&kernel, Order::Keep(values.clone())).await);
    assert!(values.get_mut().is_none());
    kill(domain.status().pid.unwrap(), Signal::KILL);
    until(|| values.get_mut().is_some()).await;
}

#[tokio::test]
async fn what_was_lent_comes_back_and_is_used_again() {
    let domain = domain();
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    let mut places = BTreeSet::new();
    for _ in 0..200 {
        let values = domain.copy_of(&some(60_000)).unwrap();
        places.insert(values.as_ptr() as usize);
        let answer = ask(&kernel, Order::Double(values)).await;
        assert_eq!(answer[59_999], 59_999.0);
        places.insert(answer.as_ptr() as usize);
    }
    assert!(places.len() <= 40, "{places:?}");
}

/// Nobody asks anything any more: what this process holds of the worker's goes back with a heartbeat.
#[tokio::test]
async fn what_is_held_goes_back_though_nothing_more_is_asked() {
    let heartbeat = std::time::Duration::from_millis(2);
    let domain = Domain::start("test", rustkernel::worker::DomainConfig { heartbeat, ..config() }).unwrap();
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    let mut values = domain.copy_of(&some(5_000)).unwrap();
    let answer = ask(&kernel, Order::Keep(values.clone())).await;
    drop(answer);
    let kept = ask(&kernel, Order::Forget).await;
    assert_eq!(kept.as_ptr(), values.as_ptr());
    drop(kept);
    until(|| values.get_mut().is_some()).await;
}

#[tokio::test]
async fn memory_that_there_is_not_is_refused_by_name() {
    let domain = domain();
    for len in [usize::MAX, 1 << 40] {
        let error = domain.alloc::<f32>(len).unwrap_err();
        assert_eq!(*error.kind(), KernelErrorKind::Kernel(ErrorKind::Exhausted));
    }
    let (_runtime, kernel) = slices(&domain, "a/b").await;
    assert_eq!(ask(&kernel, Order::Double(domain.copy_of(&[1.0]).unwrap())).await[..], [2.0]);
}

#[test]
fn elsewhere_it_is_written_as_its_values() {
    let values = SharedSlice::copy_of(&some(100)).unwrap();
    let bytes = codec::encode(&values).unwrap();
    assert_eq!(*codec::decode::<SharedSlice<f32>>(&bytes).unwrap(), *values);
    let text = serde_json::to_string(&values).unwrap();
    assert_eq!(*serde_json::from_str::<SharedSlice<f32>>(&text).unwrap(), *values);
    assert!(text.starts_with("[0.0,0.5,"));
    assert!(
        codec::decode::<SharedSlice<f64>>(
            &codec::encode(&SharedSlice::copy_of(&[1.0_f32]).unwrap()).unwrap()
        )
        .is_err()
    );
}

/// The system would have ended the process by a signal: this one, for what it sends, or the worker, for what it answers.
#[tokio::test]
async fn where_the_system_gives_no_memory_it_is_a_typed_error_and_others_are_answered() {
    const INSIDE: &str = "RUSTKERNEL_TEST_LIMIT";
    if std::env::var_os(INSIDE).is_none() {
        let test = "shared::where_the_system_gives_no_memory_it_is_a_typed_error_and_others_are_answered";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let limit = Rlimit { current: Some(1 << 20), maximum: getrlimit(Resource::Fsize).maximum };
    setrlimit(Resource::Fsize, limit).unwrap();
    let (domain, beside) = (domain(), Domain::start("beside", config()).unwrap());
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    let (_beside, neighbour) = spawned(puppet(&beside, "a/c")).await;
    for order in [Do::Echo(vec![7; 4 << 20]), Do::Repeat(vec![7; 1 << 10], 4 << 10)] {
        let error = soon(kernel.call(order, NONE)).await.unwrap_err();
        assert_eq!(*error.kind(), KernelErrorKind::Kernel(ErrorKind::Exhausted), "{error}");
        assert!(error.to_string().contains("ulimit -f"), "{error}");
        assert_eq!(soon(kernel.call(Do::Echo(vec![7; 100_000]), NONE)).await.unwrap().echo, [7; 100_000]);
        assert_eq!(soon(neighbour.call(Do::Echo(vec![7; 100_000]), NONE)).await.unwrap().echo.len(), 100_000);
    }
    assert!(domain.alloc::<u8>(4 << 20).is_err());
    assert_eq!((domain.status().deaths, beside.status().deaths), (0, 0));
    assert_balanced(&kernel);
}
