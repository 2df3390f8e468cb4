//! Degrade: a path that gives less answers while the kernel cannot.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;
#[path = "support/tally.rs"]
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kit::{DOWN_ISOLATED, Do, Latch, NONE, assert_balanced, kind, ms, soon, status};
use rustkernel::actors::{
    Cause, Events, Fact, KernelSpec, KernelState, Pipeline, Runtime, RuntimeState, Variant,
};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{HealthStatus, RecoveryPolicy, RecoveryStrategy};
use tally::{
    COUNT, DELAY, Fault, Script, Tally, TallyRef, Told, backup, fact, health, policy, runtime, spawn_slowly,
    tally,
};

/// A tally with a degraded path that says `reduced`, reached by the strategy itself.
fn reduced(script: &Arc<Script>) -> KernelSpec<Tally> {
    tally(script).degraded(script.maker("reduced")).recovery(policy(RecoveryStrategy::Degrade))
}

/// Who answers one more request, and whether the report calls it degraded.
async fn next(kernel: &TallyRef) -> (&'static str, bool) {
    let (told, report) = soon(kernel.call_reported(COUNT, NONE)).await;
    (told.unwrap().who, report.degraded)
}

async fn recovered(events: &mut Events) {
    fact(events, |fact| *fact == Fact::Recovered).await;
}

async fn state(runtime: &Runtime) -> KernelState {
    status(runtime, "a/b").await.state
}

#[tokio::test]
async fn the_degraded_path_answers_and_says_so_until_the_kernel_is_rebuilt() {
    for inline in [false, true] {
        let (runtime, hand) = runtime().await;
        let mut events = runtime.events();
        let spec = reduced(&Script::new());
        let kernel = soon(runtime.spawn(if inline { spec.inline() } else { spec })).await.unwrap();
        assert_eq!(next(&kernel).await, ("main", false));
        assert_eq!(health(&kernel).await.0, HealthStatus::Healthy);
        assert_eq!(kind(soon(kernel.call(Do::Panic, NONE)).await), KernelErrorKind::Crashed);
        assert_eq!(next(&kernel).await, ("reduced", true));
        assert_eq!(state(&runtime).await, KernelState::Degraded);
        let (status_now, reason) = health(&kernel).await;
        assert_eq!(
            (status_now, reason.as_deref()),
            (HealthStatus::Degraded, Some("its degraded path answers"))
        );

        hand.advance(DELAY - ms(1));
        assert_eq!(next(&kernel).await, ("reduced", true));
        hand.advance(ms(1));
        recovered(&mut events).await;
        let (told, report) = soon(kernel.call_reported(COUNT, NONE)).await;
        assert_eq!((told.unwrap().count, report.degraded), (2, false), "it goes on from its checkpoint");
        assert_eq!(state(&runtime).await, KernelState::Serving);
        assert_eq!(health(&kernel).await.0, HealthStatus::Healthy);
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn a_probe_and_the_runtimes_health_call_it_degraded() {
    let (runtime, hand) = runtime().await;
    let slow = RecoveryPolicy { restart_delay: ms(3_600_000), ..policy(RecoveryStrategy::Degrade) };
    let kernel = soon(runtime.spawn(reduced(&Script::new()).recovery(slow))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    next(&kernel).await;
    hand.advance(ms(60_000));
    let health = runtime.health();
    assert_eq!((health.status, health.ready), (HealthStatus::Degraded, true));
    assert_eq!(health.kernels[0].reason.as_deref(), Some("its degraded path answers"));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_pipelines_report_names_the_stage_and_a_chain_behind_it_hears_of_it() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let kernel = soon(runtime.spawn(reduced(&script))).await.unwrap();
    struct Heard(Arc<AtomicBool>);
    impl rustkernel::core::traits::Kernel for Heard {
        type Input = Told;
        type Output = u64;

        async fn execute(
            &mut self,
            told: &Told,
            cx: &mut rustkernel::core::traits::Context<'_>,
        ) -> rustkernel::core::Result<u64> {
            self.0.store(cx.header().degraded, Ordering::Release);
            Ok(told.count)
        }
    }
    let heard = Arc::new(AtomicBool::new(false));
    let hears = Arc::clone(&heard);
    let spec = KernelSpec::new("a/behind", move || Heard(Arc::clone(&hears)));
    let behind = soon(runtime.spawn(spec)).await.unwrap();
    let chain = Pipeline::from(&kernel).then(&behind);
    let (result, report) = soon(chain.run_reported(COUNT, NONE)).await;
    assert_eq!((result.unwrap(), heard.load(Ordering::Acquire)), (1, false));
    assert_eq!(report.stages.iter().map(|stage| stage.degraded).collect::<Vec<_>>(), [0, 0]);

    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    let (result, report) = soon(chain.run_reported(COUNT, NONE)).await;
    assert!(result.is_ok());
    assert_eq!(report.stages.iter().map(|stage| stage.degraded).collect::<Vec<_>>(), [1, 0]);
    assert!(heard.load(Ordering::Acquire), "the next stage works on a degraded answer and is told");
    assert_balanced(&kernel);
}

#[tokio::test]
async fn it_stays_degraded_until_the_rebuilt_kernel_has_passed_its_canary() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let door = Latch::new();
    let holds = Arc::new(AtomicBool::new(false));
    let (asks, before) = (Arc::clone(&holds), Arc::clone(&door));
    let spec = reduced(&Script::new()).canary(COUNT, move |told: &Told| {
        if asks.load(Ordering::Acquire) {
            before.block();
        }
        told.who == "main"
    });
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    holds.store(true, Ordering::Release);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, ("reduced", true));
    hand.advance(DELAY);
    door.arrived(1).await;
    assert_eq!(next(&kernel).await, ("reduced", true), "the new one has still to answer its canary");
    assert_eq!(state(&runtime).await, KernelState::Degraded);
    door.open();
    recovered(&mut events).await;
    assert_eq!(next(&kernel).await, ("main", false));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_degraded_request_in_hand_is_finished_before_the_rebuilt_kernel_takes_over() {
    for inline in [false, true] {
        let (runtime, hand) = runtime().await;
        let mut events = runtime.events();
        let script = Script::new();
        let spec = reduced(&script);
        let kernel = soon(runtime.spawn(if inline { spec.inline() } else { spec })).await.unwrap();
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        let door = Latch::new();
        let in_hand = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        door.arrived(1).await;
        let queued = kernel.try_call(COUNT, NONE).unwrap();
        hand.advance(DELAY);
        script.made(3).await;
        assert_eq!(state(&runtime).await, KernelState::Degraded);
        door.open();
        assert_eq!(soon(in_hand).await.unwrap().who, "reduced");
        assert!(soon(queued).await.is_ok(), "by whoever serves then");
        recovered(&mut events).await;
        assert_eq!(next(&kernel).await, ("main", false));
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn a_rebuild_that_fails_keeps_it_degraded_and_is_tried_again() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let kernel = soon(runtime.spawn(reduced(&script))).await.unwrap();
    script.breaks("main", Fault::Panics);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Failed { .. })).await;
    hand.advance(DELAY);
    let failed = fact(&mut events, |fact| matches!(fact, Fact::Failed { .. })).await;
    assert!(matches!(failed, Fact::Failed { cause: Cause::StartFailed(_), .. }), "{failed:?}");
    assert_eq!(next(&kernel).await, ("reduced", true));
    script.mends("main");
    hand.advance(DELAY);
    recovered(&mut events).await;
    assert_eq!(next(&kernel).await, ("main", false));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn used_up_rebuilds_escalate_to_the_next_step() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let once = RecoveryPolicy { max_restarts: 1, ..policy(RecoveryStrategy::Degrade) };
    let kernel = soon(runtime.spawn(reduced(&script).recovery(once))).await.unwrap();
    script.breaks("main", Fault::Panics);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, ("reduced", true));
    hand.advance(DELAY);
    fact(&mut events, |fact| matches!(fact, Fact::Isolated { .. })).await;
    assert_eq!(kind(soon(kernel.call(COUNT, NONE)).await), DOWN_ISOLATED);
    assert_balanced(&kernel);
}

#[tokio::test]
async fn as_the_last_step_it_answers_for_as_long_as_it_takes_and_rebuilds_when_the_window_allows() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let last = RecoveryPolicy {
        max_restarts: 1,
        escalation: Some(RecoveryStrategy::Degrade),
        ..policy(RecoveryStrategy::RestartKernel)
    };
    let kernel = soon(runtime.spawn(reduced(&script).recovery(last))).await.unwrap();
    script.breaks("main", Fault::Panics);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    let queued = kernel.try_call(COUNT, NONE).unwrap();
    hand.advance(DELAY);
    let start_failed = |fact: &Fact| matches!(fact, Fact::Failed { cause: Cause::StartFailed(_), .. });
    fact(&mut events, start_failed).await;
    assert_eq!(soon(queued).await.unwrap().who, "reduced", "the next step");
    for _ in 0..3 {
        hand.advance(DELAY * 61);
        fact(&mut events, start_failed).await;
        assert_eq!(next(&kernel).await, ("reduced", true));
    }
    script.mends("main");
    hand.advance(DELAY * 61);
    recovered(&mut events).await;
    assert_eq!(next(&kernel).await, ("main", false));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_degraded_path_that_fails_itself_gives_way_to_the_next_step() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let kernel = soon(runtime.spawn(reduced(&Script::new()))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, ("reduced", true));
    let [fatal, queued] = [Do::Panic, COUNT].map(|input| kernel.try_call(input, NONE).unwrap());
    assert_eq!(kind(soon(fatal).await), KernelErrorKind::Crashed);
    assert_eq!(kind(soon(queued).await), DOWN_ISOLATED);
    fact(&mut events, |fact| matches!(fact, Fact::Isolated { .. })).await;
    assert!(runtime.resume("a/b").await);
    assert_eq!(next(&kernel).await, ("main", false));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_degraded_path_that_cannot_even_be_made_gives_way_to_the_next_step() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let last = RecoveryPolicy { escalation: None, ..policy(RecoveryStrategy::Degrade) };
    let kernel = soon(runtime.spawn(reduced(&script).recovery(last))).await.unwrap();
    script.breaks("reduced", Fault::Panics);
    let [fatal, queued] = [Do::Panic, COUNT].map(|input| kernel.try_call(input, NONE).unwrap());
    soon(fatal).await.unwrap_err();
    assert!(matches!(kind(soon(queued).await), KernelErrorKind::Down(_)));
    assert_eq!(soon(runtime.ended()).await, RuntimeState::GaveUp, "no step was left");
    assert_balanced(&kernel);
}

/// A degraded path that failed while the kernel was nearly back gave it up: it was isolated with its successor ready.
#[tokio::test]
async fn a_degraded_path_that_fails_while_the_kernel_is_rebuilt_waits_for_that() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let kernel = soon(runtime.spawn(reduced(&script))).await.unwrap();
    let door = Latch::new();
    script.breaks("main", Fault::Blocks(Arc::clone(&door)));
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    hand.advance(DELAY);
    door.arrived(1).await;
    let [fatal, queued] = [Do::Panic, COUNT].map(|input| kernel.try_call(input, NONE).unwrap());
    assert_eq!(kind(soon(fatal).await), KernelErrorKind::Crashed);
    door.open();
    assert_eq!(soon(queued).await.unwrap().who, "main");
    recovered(&mut events).await;
    assert_eq!(state(&runtime).await, KernelState::Serving);
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_hung_degraded_request_makes_way_for_the_rebuilt_kernel_that_waits() {
    let (runtime, hand) = runtime().await;
    let script = Script::new();
    let kernel = soon(runtime.spawn(reduced(&script).hang_limit(DELAY * 2))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    let door = Latch::new();
    let hung = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    let queued = kernel.try_call(COUNT, NONE).unwrap();
    door.arrived(1).await;
    hand.advance(DELAY);
    script.made(3).await;
    hand.advance(DELAY);
    assert_eq!(kind(soon(hung).await), KernelErrorKind::Hung);
    assert_eq!(soon(queued).await.unwrap().who, "main");
    assert_eq!(state(&runtime).await, KernelState::Serving);
    door.open();
    assert_balanced(&kernel);
}

#[tokio::test]
async fn resume_rebuilds_a_degraded_kernel_now() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let kernel = soon(runtime.spawn(reduced(&Script::new()))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, ("reduced", true));
    assert!(runtime.resume("a/b").await);
    recovered(&mut events).await;
    assert_eq!(next(&kernel).await, ("main", false));
    assert!(!runtime.resume("a/b").await, "it needs no resuming");
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_queued_or_new_request_that_cannot_wait_for_the_restart_is_answered_by_the_degraded_path() {
    for queued in [true, false] {
        let (runtime, hand) = runtime().await;
        let mut events = runtime.events();
        let spec = reduced(&Script::new()).recovery(policy(RecoveryStrategy::RestartKernel));
        let kernel = soon(runtime.spawn(spec)).await.unwrap();
        let fatal = kernel.try_call(Do::Panic, NONE).unwrap();
        let pressed = if queued {
            kernel.try_call(COUNT, DELAY / 2).unwrap()
        } else {
            fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
            kernel.try_call(COUNT, DELAY / 2).unwrap()
        };
        soon(fatal).await.unwrap_err();
        assert_eq!(soon(pressed).await.unwrap().who, "reduced");
        assert_eq!(state(&runtime).await, KernelState::Degraded);
        hand.advance(DELAY);
        recovered(&mut events).await;
        assert_eq!(next(&kernel).await, ("main", false));
        assert_eq!(status(&runtime, "a/b").await.restarts, 1);
        assert_balanced(&kernel);
    }
}

/// It was queued behind the start and ran out of time there.
#[tokio::test]
async fn a_request_that_cannot_wait_for_a_slow_start_is_answered_by_the_degraded_path() {
    for delay in [ms(0), DELAY] {
        let (runtime, hand) = runtime().await;
        let mut events = runtime.events();
        let script = Script::new();
        let restarts = RecoveryPolicy { restart_delay: delay, ..policy(RecoveryStrategy::RestartKernel) };
        let kernel = spawn_slowly(&runtime, &hand, &script, reduced(&script).recovery(restarts)).await;
        let door = Latch::new();
        script.breaks("main", Fault::Blocks(Arc::clone(&door)));
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
        hand.advance(delay);
        door.arrived(1).await;
        let patient = kernel.try_call(COUNT, ms(5_000)).unwrap();
        let told = soon(kernel.call(COUNT, ms(200))).await.unwrap();
        assert_eq!(told.who, "reduced");
        assert_eq!(soon(patient).await.unwrap().who, "reduced", "it was first in the queue");
        script.mends("main");
        door.open();
        recovered(&mut events).await;
        assert_eq!(next(&kernel).await, ("main", false));
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn without_standby_and_degraded_path_it_is_refused_as_restarting() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let spec = tally(&Script::new()).recovery(policy(RecoveryStrategy::RestartKernel));
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    let refused = kernel.try_call(COUNT, DELAY / 2).unwrap_err();
    assert_eq!(refused.error.kind(), &KernelErrorKind::Restarting { retry_after: DELAY });
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_degraded_path_that_fails_in_the_restart_delay_is_made_again_for_the_next_who_cannot_wait() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let spec = reduced(&Script::new()).recovery(policy(RecoveryStrategy::RestartKernel));
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    assert_eq!(kind(soon(kernel.call(Do::Panic, DELAY / 2)).await), KernelErrorKind::Crashed);
    fact(&mut events, |fact| matches!(fact, Fact::Failed { .. })).await;
    assert_eq!(soon(kernel.call(COUNT, DELAY / 2)).await.unwrap().who, "reduced");
    let patient = kernel.try_call(Do::Panic, NONE).unwrap();
    soon(patient).await.unwrap_err();
    let waits = kernel.try_call(COUNT, NONE).unwrap();
    hand.advance(DELAY);
    assert_eq!(soon(waits).await.unwrap().who, "main");
    assert_balanced(&kernel);
}

/// The backup fenced the degraded path with a request in hand, which nobody ever answered.
#[tokio::test]
async fn an_escalation_to_the_backup_lets_the_degraded_path_finish_what_it_has_in_hand() {
    for strategy in [RecoveryStrategy::Failover, RecoveryStrategy::UseReplica] {
        let (runtime, hand) = runtime().await;
        let mut events = runtime.events();
        let script = Script::new();
        let once = RecoveryPolicy {
            max_restarts: 1,
            escalation: Some(strategy),
            ..policy(RecoveryStrategy::Degrade)
        };
        let spec = reduced(&script).backup(backup(), script.maker("backup")).replicas(1).recovery(once);
        let kernel = soon(runtime.spawn(spec)).await.unwrap();
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        let door = Latch::new();
        let in_hand = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        let queued = kernel.try_call(COUNT, NONE).unwrap();
        door.arrived(1).await;
        script.breaks("main", Fault::Panics);
        hand.advance(DELAY);
        fact(&mut events, |fact| matches!(fact, Fact::Failed { cause: Cause::StartFailed(_), .. })).await;
        assert_eq!(state(&runtime).await, KernelState::Degraded);
        door.open();
        assert_eq!(soon(in_hand).await.unwrap().who, "reduced");
        let failed_over = strategy == RecoveryStrategy::Failover;
        assert!(soon(queued).await.is_ok(), "by whoever serves then");
        recovered(&mut events).await;
        assert_eq!(next(&kernel).await.0, if failed_over { "backup" } else { "main" });
        let to = if failed_over { Variant::Backup } else { Variant::Main };
        assert_eq!(status(&runtime, "a/b").await.device == backup(), to == Variant::Backup);
        assert_balanced(&kernel);
    }
}
