//! Kernels whose work is done elsewhere, and what their loss there means here.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::future::{Future, pending};
use std::sync::{Arc, Mutex};

use kit::{DOWN_ISOLATED, Latch, NONE, after, at_once, kind, ms, soon, status};
use rustkernel::actors::{
    Cause, Fact, FailureClass, KernelRef, KernelSpec, KernelState, Lifeline, Loss, Runtime, SharedBreaker,
    Supervisor, Suspicion,
};
use rustkernel::core::error::{BreakerScope, KernelErrorKind};
use rustkernel::core::resilience::{RecoveryPolicy, RecoveryStrategy};
use rustkernel::core::supervision::{Strategy, SupervisorConfig};
use rustkernel::core::traits::{Context, Kernel};
use rustkernel::core::{KernelError, Result};

/// A place elsewhere: it knows who lives there, and answers while it is `open`.
#[derive(Default)]
struct Place {
    lives: Mutex<Vec<Lifeline>>,
    asked: Option<Arc<Latch>>,
}

/// Stands for a kernel there. Says which life it is, whether its request is a suspect, and which attempt it is.
struct Proxy(Arc<Place>);

type Told = (u64, u64);

fn panicked(reason: &str) -> Loss {
    Loss::Panicked { reason: reason.into(), suspicion: Suspicion::Alone }
}

impl Kernel for Proxy {
    type Input = u64;
    type Output = Told;

    /// 0 is never answered.
    async fn execute(&mut self, input: &u64, cx: &mut Context<'_>) -> Result<Told> {
        if let Some(asked) = &self.0.asked {
            asked.arrive();
        }
        if *input == 0 && cx.header().attempt < 3 {
            return pending().await;
        }
        Ok((cx.incarnation(), u64::from(cx.header().suspect) * 10 + u64::from(cx.header().attempt)))
    }
}

impl Place {
    fn new() -> (Arc<Self>, Arc<Latch>) {
        let asked = Latch::new();
        (Arc::new(Self { lives: Mutex::default(), asked: Some(Arc::clone(&asked)) }), asked)
    }

    fn move_in(
        self: &Arc<Self>,
    ) -> impl Fn(Lifeline) -> std::future::Ready<Result<Proxy>> + Clone + Send + Sync + use<> {
        let place = Arc::clone(self);
        move |lifeline| {
            place.lives.lock().unwrap().push(lifeline);
            std::future::ready(Ok(Proxy(Arc::clone(&place))))
        }
    }

    fn newest(&self) -> Lifeline {
        self.lives.lock().unwrap().last().unwrap().clone()
    }

    fn ends(&self, suspicion: Suspicion) {
        self.newest().lost(Loss::Domain { reason: "signal 9".into(), suspicion });
    }
}

fn proxied(place: &Arc<Place>) -> KernelSpec<Proxy> {
    KernelSpec::elsewhere("a/b", place.move_in()).breaker(None).recovery(at_once(1))
}

async fn spawned(spec: KernelSpec<Proxy>) -> (Runtime, KernelRef<u64, Told>) {
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    (runtime, kernel)
}

#[tokio::test]
async fn what_was_in_hand_is_run_again_as_a_suspect_and_nobody_pays() {
    let (place, asked) = Place::new();
    let (runtime, kernel) = spawned(proxied(&place).idempotent()).await;
    let in_hand = kernel.try_call(0, NONE).unwrap();
    let queued = kernel.try_call(1, NONE).unwrap();
    for life in 1..=2 {
        asked.arrived(life).await;
        place.ends(Suspicion::Suspect);
    }
    assert_eq!(soon(in_hand).await.unwrap(), (3, 13), "the third attempt, a suspect");
    assert_eq!(soon(queued).await.unwrap(), (3, 1), "innocent");
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.state, now.restarts, now.incarnation), (KernelState::Serving, 0, 3));
    assert_eq!(now.last_failure, Some(Cause::DomainLost("signal 9".into())));
    let reports = runtime.failures();
    assert!(reports.iter().all(|report| report.class == FailureClass::Domain), "{reports:?}");
    kit_balanced(&kernel);
}

#[tokio::test]
async fn only_a_death_alone_convicts() {
    let (place, asked) = Place::new();
    let (runtime, kernel) = spawned(proxied(&place).idempotent()).await;
    let in_hand = kernel.try_call(0, NONE).unwrap();
    asked.arrived(1).await;
    place.ends(Suspicion::Alone);
    asked.arrived(2).await;
    place.ends(Suspicion::Alone);
    assert_eq!(kind(soon(in_hand).await), KernelErrorKind::Crashed);
    assert_eq!(runtime.dead_letters().0, 1);
    kit_balanced(&kernel);
}

#[tokio::test]
async fn a_request_that_may_not_run_twice_is_answered_at_once() {
    let (place, asked) = Place::new();
    let (_runtime, kernel) = spawned(proxied(&place)).await;
    let in_hand = kernel.try_call(0, NONE).unwrap();
    asked.arrived(1).await;
    place.ends(Suspicion::Suspect);
    let error = soon(in_hand).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::Crashed);
    assert!(error.to_string().contains("signal 9"), "{error}");
    assert_eq!(soon(kernel.call(1, NONE)).await.unwrap().0, 2);
    kit_balanced(&kernel);
}

/// It had been taken, and had not come there yet.
#[tokio::test]
async fn a_request_that_had_not_come_there_goes_back_as_it_was() {
    let (place, asked) = Place::new();
    let (_runtime, kernel) = spawned(proxied(&place)).await;
    let in_hand = kernel.try_call(0, ms(3_600_000)).unwrap();
    asked.arrived(1).await;
    place.ends(Suspicion::None);
    asked.arrived(2).await;
    assert_eq!(kernel.accounts().reruns, 0);
    place.ends(Suspicion::Suspect);
    assert_eq!(kind(soon(in_hand).await), KernelErrorKind::Crashed, "it may not run twice, and did not");
    kit_balanced(&kernel);
}

#[tokio::test]
async fn an_idle_kernel_is_restarted_too_and_a_panic_there_costs_its_budget() {
    let (place, _asked) = Place::new();
    let (runtime, kernel) = spawned(proxied(&place)).await;
    place.ends(Suspicion::Suspect);
    assert_eq!(soon(kernel.call(1, NONE)).await.unwrap().0, 2);
    place.newest().lost(panicked("there"));
    assert_eq!(soon(kernel.call(1, NONE)).await.unwrap().0, 3);
    place.newest().lost(panicked("again"));
    assert_eq!(kind(soon(kernel.call(1, NONE)).await), DOWN_ISOLATED);
    assert_eq!(status(&runtime, "a/b").await.last_failure, Some(Cause::Panicked("again".into())));
}

#[tokio::test]
async fn a_loss_of_an_earlier_life_and_a_second_one_change_nothing() {
    let (place, _asked) = Place::new();
    let (runtime, kernel) = spawned(proxied(&place)).await;
    let first = place.newest();
    first.lost(panicked("once"));
    assert_eq!(soon(kernel.call(1, NONE)).await.unwrap().0, 2);
    first.lost(panicked("twice"));
    first.lost(Loss::Domain { reason: "late".into(), suspicion: Suspicion::Alone });
    assert_eq!(soon(kernel.call(1, NONE)).await.unwrap().0, 2);
    assert_eq!(runtime.failures().len(), 1);
    let name = first.kernel().unwrap();
    assert_eq!((name.as_str(), first.incarnation()), ("a/b", 1));
}

#[tokio::test]
async fn a_standby_that_is_lost_disturbs_nobody_and_one_elsewhere_takes_over() {
    let (place, asked) = Place::new();
    let replica = RecoveryPolicy { strategy: RecoveryStrategy::UseReplica, ..after(ms(3_600_000), 3) };
    let (runtime, kernel) = spawned(proxied(&place).replicas(1).recovery(replica).idempotent()).await;
    let mut events = runtime.events();
    let [serving, standby] = [0, 1].map(|at| place.lives.lock().unwrap()[at].clone());
    let in_hand = kernel.try_call(0, NONE).unwrap();
    asked.arrived(1).await;
    serving.lost(Loss::Domain { reason: "gone".into(), suspicion: Suspicion::Suspect });
    asked.arrived(2).await;
    standby.lost(Loss::Domain { reason: "gone, too".into(), suspicion: Suspicion::Suspect });
    assert_eq!(soon(in_hand).await.unwrap().1, 13, "by a life that was rebuilt at once");
    soon(events.find("a/b", |fact| matches!(fact, Fact::StandbyReady { .. }))).await.unwrap();
    kit_balanced(&kernel);
}

/// The one that was lost second had been called to serve by then, and nobody served any more.
#[tokio::test]
async fn a_kernel_and_its_standby_that_are_lost_together_come_back() {
    for order in [[0, 1], [1, 0]] {
        let (place, _asked) = Place::new();
        let replica = RecoveryPolicy { strategy: RecoveryStrategy::UseReplica, ..after(ms(3_600_000), 3) };
        let (runtime, kernel) = spawned(proxied(&place).replicas(1).recovery(replica)).await;
        let lives = place.lives.lock().unwrap().clone();
        for life in order {
            lives[life].lost(Loss::Domain { reason: "gone".into(), suspicion: Suspicion::None });
        }
        let life = soon(kernel.call(1, NONE)).await.unwrap().0;
        assert!(life > 2, "{life}");
        soon(async {
            while status(&runtime, "a/b").await.standbys == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        place.newest().lost(Loss::Domain { reason: "gone again".into(), suspicion: Suspicion::None });
        soon(kernel.call(1, NONE)).await.unwrap();
    }
}

/// Its turn may come late: that is not the kernel's doing.
#[tokio::test]
async fn a_request_that_waits_for_its_turn_elsewhere_is_not_hung() {
    let (place, asked) = Place::new();
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    let kernel = soon(runtime.spawn(proxied(&place).hang_limit(ms(500)))).await.unwrap();
    place.newest().set_waits(true);
    let in_hand = kernel.try_call(0, NONE).unwrap();
    asked.arrived(1).await;
    for _ in 0..10 {
        hand.advance(ms(500));
        soon(runtime.status()).await;
    }
    assert_eq!(kernel.accounts().failed, 0);
    place.newest().set_waits(false);
    hand.advance(ms(1_000));
    assert_eq!(kind(soon(in_hand).await), KernelErrorKind::Hung);
}

/// Each start that was late was a failure, and a device that took its time cost its kernels their budgets.
#[tokio::test]
async fn a_life_that_waits_for_its_place_is_not_late_but_the_first_one_is() {
    let (place, came) = (Arc::new(Place::default()), Latch::new());
    let (move_in, gate) = (place.move_in(), Arc::clone(&came));
    let waits = move |lifeline: Lifeline| {
        let (ready, gate) = (move_in(lifeline.clone()), Arc::clone(&gate));
        async move {
            if lifeline.incarnation() > 1 || lifeline.kernel().unwrap().as_str() == "a/first" {
                lifeline.set_waits(true);
                gate.pass().await;
                lifeline.set_waits(false);
            }
            ready.await
        }
    };
    let spec = |name| KernelSpec::elsewhere(name, waits.clone()).start_limit(ms(500)).recovery(at_once(1));
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    let kernel = soon(runtime.spawn(spec("a/b"))).await.unwrap();
    place.ends(Suspicion::None);
    came.arrived(1).await;
    for _ in 0..10 {
        hand.advance(ms(500));
        soon(runtime.status()).await;
    }
    assert!(runtime.failures().iter().all(|report| report.class == FailureClass::Domain));
    let first = soon(async {
        let spawned = runtime.spawn(spec("a/first"));
        let late = async {
            came.arrived(2).await;
            hand.advance(ms(500));
        };
        tokio::join!(spawned, late).0
    });
    assert!(first.await.unwrap_err().to_string().contains("not ready after 500ms"));
    came.open();
    assert_eq!(soon(kernel.call(1, NONE)).await.unwrap().0, 2);
    assert_eq!(status(&runtime, "a/b").await.restarts, 0);
}

/// Lives there stand behind the place's breaker, too.
fn behind(
    place: &Arc<Place>,
    breaker: &SharedBreaker,
) -> impl Fn(Lifeline) -> std::future::Ready<Result<Proxy>> + Send + Sync + use<> {
    let (move_in, breaker) = (place.move_in(), breaker.clone());
    move |lifeline| {
        lifeline.behind(std::slice::from_ref(&breaker));
        move_in(lifeline)
    }
}

#[tokio::test]
async fn while_the_breaker_of_its_place_is_open_nothing_new_comes_in_and_what_is_there_is_answered() {
    let (place, asked) = Place::new();
    let breaker = SharedBreaker::new(BreakerScope::Device);
    let spec = KernelSpec::elsewhere("a/b", behind(&place, &breaker)).breaker(None).recovery(at_once(1));
    let (runtime, kernel) = spawned(spec.idempotent()).await;
    let in_hand = kernel.try_call(0, NONE).unwrap();
    asked.arrived(1).await;
    let queued = kernel.try_call(1, NONE).unwrap();
    breaker.open(Some(ms(5_000)));
    let error = kind(soon(kernel.call(2, NONE)).await);
    let KernelErrorKind::Rejected(rejection) = &error else { panic!("{error}") };
    assert_eq!((rejection.scope, rejection.retry_after), (BreakerScope::Device, Some(ms(5_000))));
    assert_eq!(error.to_string(), "rejected: the breaker of the device is open");
    // A new life there is behind the same breaker, and has what the one before it was given.
    for life in 1..=2 {
        asked.arrived(life).await;
        place.ends(Suspicion::Suspect);
    }
    assert_eq!(soon(in_hand).await.unwrap().0, 3);
    assert_eq!(soon(queued).await.unwrap().0, 3);
    assert!(matches!(kind(soon(kernel.call(2, NONE)).await), KernelErrorKind::Rejected(_)));
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.refused_by, now.rejected), (Some(BreakerScope::Device), 2));
    let health = runtime.health().kernels[0].clone();
    assert_eq!(health.reason.unwrap(), "the breaker of its device is open");
    assert!(!runtime.health().ready);
    breaker.close();
    assert_eq!(soon(kernel.call(2, NONE)).await.unwrap().0, 3);
    kit_balanced(&kernel);
    drop(runtime);
}

#[tokio::test]
async fn who_is_answered_from_another_place_is_not_behind_the_breaker_of_the_first() {
    let (place, _) = Place::new();
    let (other, _) = Place::new();
    let breaker = SharedBreaker::new(BreakerScope::Domain);
    let policy = RecoveryPolicy { strategy: RecoveryStrategy::Degrade, ..at_once(1) };
    let spec = KernelSpec::elsewhere("a/b", behind(&place, &breaker))
        .degraded_elsewhere(other.move_in())
        .breaker(None)
        .recovery(policy);
    let (_runtime, kernel) = spawned(spec).await;
    breaker.open(None);
    assert!(matches!(kind(soon(kernel.call(1, NONE)).await), KernelErrorKind::Rejected(_)));
    place.newest().lost(panicked("it did"));
    // Accepted while the degraded path is being made, or after; the kernel itself comes back behind the breaker.
    assert!(soon(kernel.call(1, NONE)).await.is_ok());
    kit_balanced(&kernel);
}

#[tokio::test]
async fn a_group_that_is_lost_together_costs_its_supervisor_nothing() {
    let (place, _asked) = Place::new();
    let runtime = Runtime::builder().build().await.unwrap();
    let config =
        SupervisorConfig { strategy: Strategy::OneForAll, intensity: 0, ..SupervisorConfig::default() };
    let spec = |id: &str| KernelSpec::elsewhere(id, place.move_in()).breaker(None).recovery(at_once(1));
    let group = Supervisor::new("gpu0").config(config).kernel(spec("a/b")).kernel(spec("a/c"));
    soon(runtime.supervise(group)).await.unwrap();
    for _ in 0..5 {
        let lives: Vec<_> = place.lives.lock().unwrap().drain(..).collect();
        for life in lives {
            life.lost(Loss::Domain { reason: "gone".into(), suspicion: Suspicion::Suspect });
        }
        for id in ["a/b", "a/c"] {
            let kernel: KernelRef<u64, Told> = runtime.kernel(id).unwrap();
            soon(kernel.call(1, NONE)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_start_elsewhere_that_fails_fails_the_spawn() {
    let runtime = Runtime::builder().build().await.unwrap();
    let spec =
        KernelSpec::<Proxy>::elsewhere("a/b", |_| async { Err(KernelError::permanent("nobody is there")) });
    let error = soon(runtime.spawn(spec)).await.unwrap_err();
    assert!(error.to_string().contains("nobody is there"), "{error}");
}

fn kit_balanced(kernel: &KernelRef<u64, Told>) {
    let accounts = kernel.accounts();
    assert_eq!(accounts.accepted, accounts.answered + accounts.failed, "{accounts:?}");
}

/// The factory's future may be held across threads.
fn _is_send(place: &Arc<Place>, lifeline: Lifeline) -> impl Future + Send {
    place.move_in()(lifeline)
}

/// Two of its lives, and no more, are what it has in the end: whichever were lost, in whatever order, and whoever was pressing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_lost_at_no_cost_the_standby_comes_back() {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut rng = fastrand::Rng::with_seed(seed);
    println!("SEED={seed}");
    for strategy in [RecoveryStrategy::RestartKernel, RecoveryStrategy::UseReplica] {
        let (place, _asked) = Place::new();
        let never = RecoveryPolicy { strategy, ..at_once(0) };
        let spec = KernelSpec::elsewhere("a/b", {
            let move_in = place.move_in();
            move |lifeline| {
                let made = move_in(lifeline);
                async move {
                    for _ in 0..3 {
                        tokio::task::yield_now().await;
                    }
                    made.await
                }
            }
        });
        let (runtime, kernel) = spawned(spec.breaker(None).recovery(never).replicas(1).idempotent()).await;
        for _ in 0..300 {
            let mut lives = place.lives.lock().unwrap().clone();
            let keep = lives.len().saturating_sub(rng.usize(1..4));
            lives.drain(..keep);
            rng.shuffle(&mut lives);
            for life in lives {
                let pressing = rng.bool().then(|| kernel.try_call(1, ms(5)));
                life.lost(Loss::Domain { reason: "gone".into(), suspicion: Suspicion::None });
                for _ in 0..rng.usize(0..20) {
                    tokio::task::yield_now().await;
                }
                drop(pressing);
            }
            let back = async {
                while status(&runtime, "a/b").await.standbys == 0 {
                    tokio::task::yield_now().await;
                }
                kernel.call(1, NONE).await
            };
            let back = tokio::time::timeout(std::time::Duration::from_secs(10), back).await;
            assert!(matches!(back, Ok(Ok(_))), "SEED={seed} {back:?} {:?}", status(&runtime, "a/b").await);
        }
    }
}
