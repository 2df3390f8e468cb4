//! Ten times more than a kernel can do: what piles up, and what a refusal costs.

use std::collections::VecDeque;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context as TaskContext, Waker};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use rustkernel::actors::{KernelSpec, Runtime};
use rustkernel::core::KernelError;
use rustkernel::core::clock::Clock;
use rustkernel::core::envelope::Deadline;
use rustkernel::core::traits::{Context, Kernel};
use tokio::sync::{mpsc, oneshot};

use crate::alloc::count;
use crate::call::INPUT;
use crate::report::{Group, Report, Target};
use crate::rounds::{Side, nanos_per};
use crate::sides::{Bare, CAPACITY, Flavour, Payload, kernel};

/// What one request costs its executor.
const SERVICE: Duration = Duration::from_micros(1);
/// A request is offered this often: ten in the time that one takes.
const INTERVAL: Duration = Duration::from_nanos(100);

pub(crate) fn run(report: &mut Report) {
    if !report.wants("overload") {
        return;
    }
    let offered = report.scale(200_000);
    report.run(Group {
        name: "overload x10, peak memory".into(),
        unit: "KB",
        rounds: 7,
        baseline: Side::new("bounded tokio mpsc, try_send", || of_task(offered)),
        contenders: vec![
            (Side::new("inline kernel, try_call", || of_kernel(offered)), Target::Ratio(1.5)),
            (Side::new("ractor cast", || of_actor(offered)), Target::None),
        ],
    });
    refusals(report);
}

/// Offers to a full queue that nobody empties: this one thread does not turn its tokio runtime meanwhile.
fn refusals(report: &mut Report) {
    let offers = report.scale(50_000);
    let runtime = Flavour::CurrentThread.runtime();
    let (requests, _queue) = mpsc::channel::<Bare>(CAPACITY);
    let (_supervisor, echo) = kernel(&runtime);
    let mut held = Vec::new();
    for _ in 0..CAPACITY {
        requests.try_send((INPUT, oneshot::channel().0)).unwrap();
        held.push(echo.try_call(INPUT, Deadline::None).unwrap());
    }
    report.run(Group {
        name: "overload, one refusal".into(),
        unit: "ns",
        rounds: 15,
        baseline: Side::new("oneshot + bounded tokio mpsc, try_send", || {
            nanos_per(offers, || {
                for _ in 0..offers {
                    let (reply, answer) = oneshot::channel();
                    assert!(black_box(requests.try_send((black_box(INPUT), reply))).is_err());
                    drop(answer);
                }
            })
        }),
        contenders: vec![(
            Side::new("inline kernel, try_call", || {
                nanos_per(offers, || {
                    for _ in 0..offers {
                        assert!(black_box(echo.try_call(black_box(INPUT), Deadline::None)).is_err());
                    }
                })
            }),
            Target::None,
        )],
    });
}

fn of_task(offered: usize) -> f64 {
    let runtime = Flavour::MultiThread.runtime();
    let (requests, mut queue) = mpsc::channel::<Bare>(CAPACITY);
    let server = runtime.spawn(async move {
        let clock = Clock::system();
        while let Some((input, reply)) = queue.recv().await {
            spin(&clock);
            let _ = reply.send(input);
        }
    });
    let peak = peak_of(offered, || {
        let (reply, answer) = oneshot::channel();
        requests.try_send((INPUT, reply)).ok().map(|()| answer)
    });
    drop(requests);
    runtime.block_on(server).unwrap();
    peak
}

fn of_kernel(offered: usize) -> f64 {
    let runtime = Flavour::MultiThread.runtime();
    let (supervisor, kernel) = runtime.block_on(async {
        let supervisor = Runtime::builder().build().await.unwrap();
        let slow = || Slow(Clock::system());
        let kernel = supervisor.spawn(KernelSpec::new("bench/slow", slow).inline()).await.unwrap();
        (supervisor, kernel)
    });
    let peak = peak_of(offered, || kernel.try_call(INPUT, Deadline::None).ok());
    runtime.block_on(supervisor.shutdown(Duration::from_secs(10)));
    peak
}

fn of_actor(offered: usize) -> f64 {
    let runtime = Flavour::MultiThread.runtime();
    let (actor, ended) = runtime.block_on(Actor::spawn(None, SlowActor(Clock::system()), ())).unwrap();
    let peak = peak_of(offered, || {
        let _ = actor.send_message(Cast(INPUT));
        Some(std::future::ready(()))
    });
    actor.kill();
    runtime.block_on(ended).unwrap();
    peak
}

/// Offers requests from this thread at ten times the pace of their executor, and gives the most kilobytes that were live.
/// Answers are taken as they come.
fn peak_of<R: Future + Unpin>(offered: usize, mut offer: impl FnMut() -> Option<R>) -> f64 {
    let clock = Clock::system();
    let mut replies = VecDeque::with_capacity(2 * CAPACITY);
    let mut cx = TaskContext::from_waker(Waker::noop());
    let ((), counted) = count(|| {
        let mut next = clock.now();
        for _ in 0..offered {
            while clock.now() < next {
                std::hint::spin_loop();
            }
            next = next + INTERVAL;
            replies.extend(offer());
            while replies.front_mut().is_some_and(|reply| Pin::new(reply).poll(&mut cx).is_ready()) {
                replies.pop_front();
            }
        }
    });
    counted.peak as f64 / 1024.0
}

/// Takes a microsecond for each request.
struct Slow(Clock);

impl Kernel for Slow {
    type Input = Payload;
    type Output = Payload;

    async fn execute(&mut self, input: &Payload, _: &mut Context<'_>) -> Result<Payload, KernelError> {
        spin(&self.0);
        Ok(*input)
    }
}

struct SlowActor(Clock);

#[derive(Debug)]
struct Cast(Payload);

impl ractor::Message for Cast {}

impl Actor for SlowActor {
    type Msg = Cast;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Cast>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Cast>, cast: Cast, (): &mut ()) -> Result<(), ActorProcessingErr> {
        spin(&self.0);
        black_box(cast.0);
        Ok(())
    }
}

fn spin(clock: &Clock) {
    let end = clock.now() + SERVICE;
    while clock.now() < end {
        std::hint::spin_loop();
    }
}
