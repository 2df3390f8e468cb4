//! A kernel that is over may have more than its own life: a standby, a degraded path, a move to another device. What becomes of those.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;
#[path = "support/tally.rs"]
mod tally;

use std::sync::Arc;

use kit::{DOWN_ISOLATED, Do, Latch, NONE, assert_balanced, kind, puppet, soon, status};
use rustkernel::actors::{Fact, KernelSpec, KernelState, Runtime, Supervisor, SupervisorRef};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{BackoffStrategy, CircuitBreakerConfig, RecoveryPolicy, RecoveryStrategy};
use rustkernel::core::supervision::{Restart, SupervisorConfig};
use tally::{
    COUNT, DELAY, Fault, Script, Tally, TallyRef, backup, fact, fact_in_time, policy, runtime, standbys,
    tally,
};

/// A policy without a further step: it gives up, and its supervisor ends.
fn gives_up(strategy: RecoveryStrategy, max_restarts: u32) -> RecoveryPolicy {
    RecoveryPolicy { max_restarts, escalation: None, ..policy(strategy) }
}

/// The kernel in a supervisor of its own, called `group`.
async fn grouped(runtime: &Runtime, spec: KernelSpec<Tally>) -> (SupervisorRef, TallyRef) {
    let group = soon(runtime.supervise(Supervisor::new("group").kernel(spec))).await.unwrap();
    (group, runtime.kernel("a/b").unwrap())
}

async fn life(kernel: &TallyRef) -> u64 {
    soon(kernel.call(COUNT, NONE)).await.unwrap().life
}

fn placed(spec: KernelSpec<Tally>, inline: bool) -> KernelSpec<Tally> {
    if inline { spec.inline() } else { spec }
}

/// The standby was left in the slot: the next life of the supervisor called it to serve, and nobody did.
#[tokio::test]
async fn a_ladder_that_ends_takes_the_warm_standby_along() {
    for inline in [false, true] {
        let (runtime, hand) = runtime().await;
        let mut events = runtime.events();
        let script = Script::new();
        let spec = tally(&script).replicas(1).recovery(gives_up(RecoveryStrategy::UseReplica, 1));
        let (_group, kernel) = grouped(&runtime, placed(spec, inline)).await;
        standbys(&runtime, 1).await;
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert_eq!(life(&kernel).await, 2);
        hand.advance(DELAY);
        standbys(&runtime, 1).await;
        fact(&mut events, |fact| *fact == Fact::StandbyReady { incarnation: 3 }).await;

        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        fact_in_time(&mut events, &hand, |fact| matches!(fact, Fact::StandbyReady { .. })).await;
        let served_by = life(&kernel).await;
        assert!(served_by > 3, "{served_by}");
        script.lives(2).await;
        assert_eq!(status(&runtime, "a/b").await.standbys, 1, "only its own");
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert!(life(&kernel).await > served_by);
        assert_balanced(&kernel);
    }
}

/// The request was forgotten with the path that ran it: its caller waited for ever.
#[tokio::test]
async fn a_supervisor_that_ends_waits_for_the_degraded_path_of_a_kernel_in_its_delay() {
    for inline in [false, true] {
        let (runtime, hand) = runtime().await;
        let mut events = runtime.events();
        let script = Script::new();
        let spec = tally(&script)
            .degraded(script.maker("reduced"))
            .recovery(policy(RecoveryStrategy::RestartKernel));
        let sibling = puppet("a/sibling").recovery(gives_up(RecoveryStrategy::RestartKernel, 0));
        let group = Supervisor::new("group").kernel(placed(spec, inline)).kernel(sibling);
        soon(runtime.supervise(group)).await.unwrap();
        let kernel: TallyRef = runtime.kernel("a/b").unwrap();
        let sibling: kit::PuppetRef = runtime.kernel("a/sibling").unwrap();

        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
        let door = Latch::new();
        let in_hand = kernel.try_call(Do::Wait(Arc::clone(&door)), DELAY / 2).unwrap();
        door.arrived(1).await;
        soon(sibling.call(Do::Panic, NONE)).await.unwrap_err();
        // Its own stop is answered before it: then the group is on its way down.
        soon(events.find("a/sibling", |fact| matches!(fact, Fact::Failed { .. }))).await.unwrap();
        door.open();
        assert_eq!(soon(in_hand).await.unwrap().who, "reduced");
        fact_in_time(&mut events, &hand, |fact| matches!(fact, Fact::Started { .. })).await;
        assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().who, "main");
        script.lives(1).await;
        assert_balanced(&kernel);
        assert_balanced(&sibling);
    }
}

#[tokio::test]
async fn a_stop_in_the_restart_delay_is_answered_when_the_standby_is_gone_too() {
    for inline in [false, true] {
        let (runtime, _hand) = runtime().await;
        let mut events = runtime.events();
        let script = Script::new();
        let spec = tally(&script).replicas(1).recovery(policy(RecoveryStrategy::RestartKernel));
        let kernel: TallyRef = soon(runtime.spawn(placed(spec, inline))).await.unwrap();
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
        assert_eq!(status(&runtime, "a/b").await.state, KernelState::Restarting);
        assert!(soon(runtime.stop("a/b", false)).await);
        assert_eq!(script.living(), 0);
        let again = soon(runtime.spawn(placed(tally(&script), inline))).await.unwrap();
        assert_eq!(life(&again).await, 1, "the name was free");
    }
}

#[tokio::test]
async fn a_child_terminated_while_its_standby_is_made_stays_down_and_can_be_started_again() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let spec = tally(&script).replicas(1).recovery(policy(RecoveryStrategy::UseReplica));
    let (group, kernel) = grouped(&runtime, spec).await;
    standbys(&runtime, 1).await;
    let door = Latch::new();
    script.breaks("main", Fault::Blocks(Arc::clone(&door)));
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(life(&kernel).await, 2);
    hand.advance(DELAY);
    door.arrived(1).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    let terminated = kit::spawn({
        let group = group.clone();
        async move { group.terminate_child("a/b").await }
    });
    script.mends("main");
    door.open();
    soon(terminated).await.unwrap().unwrap();
    assert_eq!(script.living(), 0);
    assert_eq!(kind(soon(kernel.call(COUNT, NONE)).await), kit::DOWN_STOPPED);
    soon(group.restart_child("a/b")).await.unwrap();
    assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().count, 2, "from its checkpoint");
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_temporary_kernel_that_failed_takes_its_standbys_along() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let spec = tally(&script).replicas(2).restart(Restart::Temporary);
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    assert_eq!(script.living(), 3);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    script.lives(0).await;
    assert_eq!(kind(soon(kernel.call(COUNT, NONE)).await), kit::DOWN_STOPPED);
}

/// The machine took it for isolated still, and left the next failure without an answer.
#[tokio::test]
async fn an_isolated_kernel_that_is_terminated_and_started_again_is_supervised_again() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let spec = tally(&script).recovery(policy(RecoveryStrategy::NotifyOperator));
    let (group, kernel) = grouped(&runtime, spec).await;
    for _ in 0..2 {
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        fact(&mut events, |fact| matches!(fact, Fact::Isolated { .. })).await;
        assert_eq!(kind(soon(kernel.call(COUNT, NONE)).await), DOWN_ISOLATED);
        soon(group.terminate_child("a/b")).await.unwrap();
        soon(group.restart_child("a/b")).await.unwrap();
        life(&kernel).await;
    }
    assert_balanced(&kernel);
}

/// Its open breaker refused, with a time after which to come back.
#[tokio::test]
async fn an_isolated_kernel_is_down_whatever_its_breaker_says() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let one = CircuitBreakerConfig { failure_threshold: 1, ..CircuitBreakerConfig::default() };
    let spec = tally(&Script::new()).recovery(policy(RecoveryStrategy::NotifyOperator)).breaker(one);
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Isolated { .. })).await;
    assert_eq!(status(&runtime, "a/b").await.breaker, "open");
    assert_eq!(kind(soon(kernel.call(COUNT, NONE)).await), DOWN_ISOLATED);
}

#[tokio::test]
async fn a_kernel_that_failed_over_stays_there_when_its_supervisor_is_restarted() {
    let (runtime, hand) = runtime().await;
    let script = Script::new();
    let spec =
        tally(&script).backup(backup(), script.maker("backup")).recovery(policy(RecoveryStrategy::Failover));
    let (_group, kernel) = grouped(&runtime, spec).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().who, "backup");
    // Its own device is lost: a start there would end the supervisor.
    script.breaks("main", Fault::Panics);
    let mut events = runtime.events();
    assert!(runtime.root().kill_child("group").await.unwrap());
    fact_in_time(&mut events, &hand, |fact| matches!(fact, Fact::Started { .. })).await;
    assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().who, "backup");
    assert_eq!(status(&runtime, "a/b").await.device, backup());
    script.mends("main");
    soon(runtime.fail_back("a/b")).await.unwrap();
    assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().who, "main");
    assert_balanced(&kernel);
}

/// A hand-over that was asked for was treated as the return from a failure: two probes, and everybody else was refused.
#[tokio::test]
async fn a_planned_hand_over_and_a_degraded_path_leave_a_closed_breaker_closed() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let guarded = |who| {
        let recovery = policy(RecoveryStrategy::Degrade);
        KernelSpec::new("a/b", script.maker(who))
            .checkpointed()
            .degraded(script.maker("reduced"))
            .recovery(recovery)
            .breaker(CircuitBreakerConfig { success_threshold: 1, ..CircuitBreakerConfig::default() })
    };
    let kernel = soon(runtime.spawn(guarded("old"))).await.unwrap();
    soon(runtime.replace(guarded("new"))).await.unwrap();
    assert_eq!(status(&runtime, "a/b").await.breaker, "closed");
    let calls: Vec<_> = (0..8).map(|_| kernel.try_call(COUNT, NONE).unwrap()).collect();
    for call in calls {
        assert_eq!(soon(call).await.unwrap().who, "new");
    }
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().who, "reduced");
    let calls: Vec<_> = (0..8).map(|_| kernel.try_call(COUNT, NONE).unwrap()).collect();
    for call in calls {
        assert_eq!(soon(call).await.unwrap().who, "reduced");
    }
    assert_balanced(&kernel);
}

/// It went on draining for ever.
#[tokio::test]
async fn a_terminate_that_its_supervisor_did_not_live_to_finish_is_forgotten() {
    let (runtime, hand) = runtime().await;
    let script = Script::new();
    let spec = tally(&script).idempotent();
    let (group, kernel) = grouped(&runtime, spec).await;
    let door = Latch::new();
    let in_hand = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let terminated = kit::spawn(async move { group.terminate_child("a/b").await });
    soon(async {
        while status(&runtime, "a/b").await.state != KernelState::Stopping {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut events = runtime.events();
    assert!(runtime.root().kill_child("group").await.unwrap());
    soon(terminated).await.unwrap().unwrap_err();
    fact_in_time(&mut events, &hand, |fact| matches!(fact, Fact::Started { .. })).await;
    door.open();
    soon(in_hand).await.unwrap();
    assert_eq!(life(&kernel).await, 2);
    assert_balanced(&kernel);
}

/// A kernel with standbys in general, but none now, took what nobody could answer in time.
#[tokio::test]
async fn without_a_warm_standby_a_request_that_cannot_wait_is_refused_at_once() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let spec = tally(&script).replicas(1).recovery(policy(RecoveryStrategy::UseReplica));
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(life(&kernel).await, 2);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    let refused = kernel.try_call(COUNT, DELAY / 2).unwrap_err();
    assert!(matches!(refused.error.kind(), KernelErrorKind::Restarting { .. }), "{:?}", refused.error);
}

/// It was taken for the degraded path, which nobody was there to call.
#[tokio::test]
async fn a_request_that_cannot_wait_for_its_supervisor_is_refused_at_once() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let spec =
        tally(&script).degraded(script.maker("reduced")).recovery(policy(RecoveryStrategy::RestartKernel));
    let backoff = BackoffStrategy::Fixed { delay: DELAY };
    let config = SupervisorConfig { backoff, ..SupervisorConfig::default() };
    let group = Supervisor::new("group").kernel(spec);
    let above = Supervisor::new("above").config(config).supervisor(group);
    let above = soon(runtime.supervise(above)).await.unwrap();
    let kernel: TallyRef = runtime.kernel("a/b").unwrap();
    assert!(above.kill_child("group").await.unwrap());
    soon(async {
        // Until what it left behind is gone requests are taken: it may come back at once.
        while let Ok(reply) = kernel.try_call(COUNT, DELAY / 1000) {
            drop(reply);
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = kernel.try_call(COUNT, DELAY / 1000).unwrap_err();
    assert!(matches!(refused.error.kind(), KernelErrorKind::Restarting { .. }), "{:?}", refused.error);
}

#[tokio::test]
async fn a_spawn_does_not_wait_for_the_standby_of_a_kernel_that_is_isolated_meanwhile() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let door = Latch::new();
    let made = script.maker("main");
    let (holds, count) = (Arc::clone(&door), std::sync::atomic::AtomicUsize::new(0));
    let factory = move || {
        if count.fetch_add(1, std::sync::atomic::Ordering::AcqRel) == 1 {
            holds.block();
        }
        made()
    };
    let spec = KernelSpec::new("a/b", factory)
        .breaker(None)
        .replicas(1)
        .recovery(policy(RecoveryStrategy::NotifyOperator));
    let other = runtime.clone();
    let spawning = kit::spawn(async move { other.spawn(spec).await.map(drop) });
    door.arrived(1).await;
    let kernel: TallyRef = runtime.kernel("a/b").unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    soon(spawning).await.unwrap().unwrap();
    assert_eq!(kind(soon(kernel.call(COUNT, NONE)).await), DOWN_ISOLATED);
    door.open();
}
