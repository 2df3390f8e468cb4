//! What the soaks have found, each in the fewest steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustkernel::actors::{ChildError, Fact, KernelSpec, KernelState, Loss, Supervisor, Suspicion};
use rustkernel::core::resilience::{CircuitBreakerConfig, ErrorKind, RecoveryPolicy, RecoveryStrategy};

use crate::kit::{self, DOWN_STOPPED, Do, Latch, NONE, assert_balanced, kind, puppet, soon, status};
use crate::tally::{COUNT, DELAY, Script, TallyRef, fact, fact_in_time, policy, runtime, standbys, tally};
use crate::world::World;

/// Its open breaker was forgotten with it and stayed open: callers were told to try again, for ever.
#[tokio::test]
async fn a_kernel_that_is_gone_says_so_whatever_its_breaker_has_seen() {
    let (runtime, _hand) = runtime().await;
    let breaker = CircuitBreakerConfig { failure_threshold: 1, ..CircuitBreakerConfig::default() };
    let kernel = soon(runtime.spawn(tally(&Script::new()).breaker(breaker))).await.unwrap();
    soon(kernel.call(Do::Fail(ErrorKind::Transient), NONE)).await.unwrap_err();
    assert_eq!(status(&runtime, "a/b").await.breaker, "open");
    assert!(soon(runtime.stop("a/b", false)).await);
    // The breaker hears of it a moment later.
    let hears = async {
        while kind(kernel.call(COUNT, NONE).await) != DOWN_STOPPED {
            tokio::task::yield_now().await;
        }
    };
    soon(hears).await;
}

/// Its policy took care of it while its supervisor had it down: it was answered for as stopped, and lived.
#[tokio::test]
async fn a_child_that_does_not_start_when_it_is_told_to_is_down_whatever_its_policy() {
    for strategy in [RecoveryStrategy::RestartKernel, RecoveryStrategy::UseReplica, RecoveryStrategy::Degrade]
    {
        let (runtime, hand) = runtime().await;
        let script = Script::new();
        let spec = tally(&script).replicas(1).degraded(script.maker("reduced")).recovery(policy(strategy));
        let group = soon(runtime.supervise(Supervisor::new("group").kernel(spec))).await.unwrap();
        let kernel: TallyRef = runtime.kernel("a/b").unwrap();
        soon(kernel.call(COUNT, NONE)).await.unwrap();
        soon(group.terminate_child("a/b")).await.unwrap();
        script.fail_restores(1);
        let error = soon(group.restart_child("a/b")).await.unwrap_err();
        assert!(matches!(error, ChildError::Failed(_)), "{error}");
        hand.advance(DELAY);
        assert_eq!(status(&runtime, "a/b").await.state, KernelState::Stopped);
        assert_eq!(kind(soon(kernel.call(COUNT, NONE)).await), DOWN_STOPPED);
        assert_eq!(script.living(), 0);
        soon(group.restart_child("a/b")).await.unwrap();
        assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().who, "main");
        assert_balanced(&kernel);
    }
}

/// The standby took over, heard that it was lost, and nobody served any more.
#[tokio::test]
async fn a_kernel_that_is_lost_together_with_its_standby_is_made_again() {
    let (runtime, _hand) = runtime().await;
    let world = World::new();
    let recovery = RecoveryPolicy { restart_delay: DELAY, ..policy(RecoveryStrategy::UseReplica) };
    let spec = KernelSpec::elsewhere("a/b", world.maker_elsewhere()).breaker(None).replicas(1);
    let kernel = soon(runtime.spawn(spec.recovery(recovery))).await.unwrap();
    standbys(&runtime, 1).await;
    world.lose(&Loss::Domain { reason: "signal 9".into(), suspicion: Suspicion::Suspect });
    assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().life, 3);
    assert_balanced(&kernel);
}

/// Whoever had started it was not told that it was up.
#[tokio::test]
async fn a_start_is_answered_when_a_standby_takes_over_while_the_group_waits() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let (script, door, made) = (Script::new(), Latch::new(), AtomicUsize::new(0));
    let (maker, before) = (script.maker("main"), Arc::clone(&door));
    let factory = move || {
        if made.fetch_add(1, Ordering::AcqRel) == 1 {
            before.block();
        }
        maker()
    };
    let spec = KernelSpec::new("a/b", factory).breaker(None).replicas(1);
    let spec = spec.recovery(policy(RecoveryStrategy::RestartKernel));
    let group = soon(runtime.supervise(Supervisor::new("group").one_for_all())).await.unwrap();
    let starting = kit::spawn(async move { group.start_kernel(spec).await.map(drop) });
    door.arrived(1).await;
    let kernel: TallyRef = runtime.kernel("a/b").unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    door.open();
    fact(&mut events, |fact| matches!(fact, Fact::TookOver { .. })).await;
    fact(&mut events, |fact| matches!(fact, Fact::StandbyReady { .. })).await;
    hand.advance(DELAY);
    soon(starting).await.unwrap().unwrap();
    soon(kernel.call(COUNT, NONE)).await.unwrap();
    assert_balanced(&kernel);
}

/// It was down, and waited for ever to be forgotten; so did whoever had stopped it.
#[tokio::test]
async fn a_kernel_that_is_stopped_before_its_turn_to_start_is_gone() {
    let (runtime, _hand) = runtime().await;
    let door = Latch::new();
    let before = Arc::clone(&door);
    let first = KernelSpec::new("a/first", move || {
        before.block();
        kit::Puppet
    });
    let tree = Supervisor::new("group").kernel(first).kernel(puppet("a/b"));
    let starting = kit::spawn({
        let runtime = runtime.clone();
        async move { runtime.supervise(tree).await.map(drop) }
    });
    door.arrived(1).await;
    assert!(soon(runtime.stop("a/b", false)).await);
    assert!(runtime.kernel::<Do, u64>("a/b").is_none(), "its name is free");
    door.open();
    soon(starting).await.unwrap().unwrap();
}

/// Its group brought it back, to drain for ever.
#[tokio::test]
async fn a_kernel_that_drains_for_its_stop_does_not_come_back_with_its_group() {
    let (runtime, hand) = runtime().await;
    let script = Script::new();
    let tree = Supervisor::new("group").one_for_all().kernel(tally(&script)).kernel(puppet("a/c"));
    soon(runtime.supervise(tree)).await.unwrap();
    let kernel: TallyRef = runtime.kernel("a/b").unwrap();
    let other: kit::PuppetRef = runtime.kernel("a/c").unwrap();
    let door = Latch::new();
    let in_hand = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let stopping = kit::spawn({
        let runtime = runtime.clone();
        async move { runtime.stop("a/b", true).await }
    });
    let draining = async {
        while status(&runtime, "a/b").await.state != KernelState::Draining {
            tokio::task::yield_now().await;
        }
    };
    soon(draining).await;
    soon(other.call(Do::Panic, NONE)).await.unwrap_err();
    let ends = async {
        while status(&runtime, "a/b").await.state != KernelState::Stopping {
            tokio::task::yield_now().await;
        }
    };
    soon(ends).await;
    door.open();
    soon(in_hand).await.unwrap();
    assert!(soon(stopping).await.unwrap());
    script.lives(0).await;
    hand.advance(DELAY);
    soon(other.call(Do::Attempt, NONE)).await.unwrap();
    assert_eq!(kind(soon(kernel.call(COUNT, NONE)).await), DOWN_STOPPED);
    assert_balanced(&kernel);
}

/// It counted as gone, and its standby was left to the next life of its supervisor.
#[tokio::test]
async fn a_kernel_that_fails_again_while_its_supervisor_ends_takes_its_standby_along() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let gives_up = RecoveryPolicy { max_restarts: 0, escalation: None, ..kit::at_once(1) };
    let tree = Supervisor::new("group")
        .rest_for_one()
        .kernel(puppet("a/first").recovery(gives_up))
        .kernel(tally(&script).replicas(1).recovery(policy(RecoveryStrategy::RestartKernel)))
        .kernel(puppet("a/last"));
    soon(runtime.supervise(tree)).await.unwrap();
    let [first, last] = ["a/first", "a/last"].map(|id| runtime.kernel::<Do, u64>(id).unwrap());
    let kernel: TallyRef = runtime.kernel("a/b").unwrap();
    standbys(&runtime, 1).await;
    // The group's restart waits for the last one, and the standby answers meanwhile.
    let door = Latch::new();
    let in_hand = last.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(soon(kernel.call(COUNT, DELAY / 2)).await.unwrap().life, 2);
    standbys(&runtime, 1).await;
    soon(first.call(Do::Panic, NONE)).await.unwrap_err();
    soon(events.find("a/first", |fact| matches!(fact, Fact::Failed { .. }))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Failed { incarnation: 2, .. })).await;
    door.open();
    soon(in_hand).await.unwrap();
    fact_in_time(&mut events, &hand, |fact| matches!(fact, Fact::Started { .. })).await;
    soon(kernel.call(COUNT, NONE)).await.unwrap();
    standbys(&runtime, 1).await;
    script.lives(2).await;
    assert_balanced(&kernel);
}
