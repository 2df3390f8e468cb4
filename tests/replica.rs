//! UseReplica: standbys that are made beforehand and take over.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;
#[path = "support/tally.rs"]
mod tally;

use std::sync::Arc;

use kit::{DOWN_ISOLATED, Do, Latch, NONE, assert_balanced, kind, ms, soon, status};
use rustkernel::actors::{Cause, Fact, KernelSpec, KernelState, Variant};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{RecoveryPolicy, RecoveryStrategy};
use tally::{
    COUNT, DELAY, Fault, Script, Tally, TallyRef, fact, fact_in_time, policy, runtime, standbys, tally,
};

fn replicated(script: &Arc<Script>) -> KernelSpec<Tally> {
    tally(script).replicas(1).recovery(policy(RecoveryStrategy::UseReplica))
}

/// Who answers one more request: the number of its life, and its count.
async fn next(kernel: &TallyRef) -> (u64, u64) {
    let told = soon(kernel.call(COUNT, NONE)).await.unwrap();
    (told.life, told.count)
}

#[tokio::test]
async fn a_standby_is_there_when_the_spawn_returns_and_takes_over_with_the_newest_checkpoint() {
    for inline in [false, true] {
        let (runtime, hand) = runtime().await;
        let mut events = runtime.events();
        let spec = replicated(&Script::new());
        let kernel = soon(runtime.spawn(if inline { spec.inline() } else { spec })).await.unwrap();
        assert_eq!(status(&runtime, "a/b").await.standbys, 1);
        for count in 1..=3 {
            assert_eq!(next(&kernel).await, (1, count));
        }
        assert_eq!(kind(soon(kernel.call(Do::Panic, NONE)).await), KernelErrorKind::Crashed);
        assert_eq!(next(&kernel).await, (2, 4));
        let took_over = Fact::TookOver { incarnation: 2, variant: Variant::Main };
        fact(&mut events, |fact| *fact == took_over).await;
        let now = status(&runtime, "a/b").await;
        assert_eq!((now.state, now.incarnation, now.standbys), (KernelState::Serving, 2, 0));

        hand.advance(DELAY);
        fact(&mut events, |fact| *fact == Fact::StandbyReady { incarnation: 3 }).await;
        let now = status(&runtime, "a/b").await;
        assert_eq!((now.incarnation, now.standbys, now.restarts), (2, 1, 1));
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert_eq!(next(&kernel).await, (3, 5));
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn the_failed_one_is_rebuilt_after_the_delay_and_not_before() {
    let (runtime, hand) = runtime().await;
    let script = Script::new();
    let kernel = soon(runtime.spawn(replicated(&script))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, (2, 1));
    hand.advance(DELAY - ms(1));
    assert_eq!(next(&kernel).await, (2, 2));
    assert_eq!(status(&runtime, "a/b").await.standbys, 0);
    hand.advance(ms(1));
    standbys(&runtime, 1).await;
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_kill_moves_the_queue_to_the_standby_and_only_an_idempotent_request_is_run_again() {
    for (inline, idempotent) in [(false, false), (false, true), (true, false), (true, true)] {
        let (runtime, _hand) = runtime().await;
        let mut spec = replicated(&Script::new());
        if inline {
            spec = spec.inline();
        }
        if idempotent {
            spec = spec.idempotent();
        }
        let kernel = soon(runtime.spawn(spec)).await.unwrap();
        let door = Latch::new();
        let in_hand = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        let queued: Vec<_> = (0..3).map(|_| kernel.try_call(COUNT, NONE).unwrap()).collect();
        door.arrived(1).await;
        assert!(runtime.kill("a/b").await);
        door.open();
        let in_hand = soon(in_hand).await;
        if idempotent {
            let told = in_hand.unwrap();
            assert_eq!((told.life, told.attempt, told.count), (2, 2, 1), "re-run first");
        } else {
            assert_eq!(kind(in_hand), KernelErrorKind::Crashed);
        }
        for reply in queued {
            assert_eq!(soon(reply).await.unwrap().life, 2);
        }
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn a_hang_moves_the_queue_to_the_standby_while_the_thread_still_blocks() {
    let (runtime, hand) = runtime().await;
    let kernel = soon(runtime.spawn(replicated(&Script::new()).hang_limit(ms(500)))).await.unwrap();
    let door = Latch::new();
    let hung = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    let queued = kernel.try_call(COUNT, NONE).unwrap();
    door.arrived(1).await;
    hand.advance(ms(500));
    assert_eq!(kind(soon(hung).await), KernelErrorKind::Hung);
    assert_eq!(soon(queued).await.unwrap().life, 2);
    assert_eq!(runtime.abandoned_threads(), 1);
    door.open();
    assert_eq!(next(&kernel).await.0, 2, "the late thread takes nothing");
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_used_up_budget_escalates() {
    let (runtime, hand) = runtime().await;
    let once = RecoveryPolicy { max_restarts: 1, ..policy(RecoveryStrategy::UseReplica) };
    let kernel = soon(runtime.spawn(replicated(&Script::new()).recovery(once))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await.0, 2);
    hand.advance(DELAY);
    standbys(&runtime, 1).await;
    let behind = [kernel.try_call(Do::Panic, NONE).unwrap(), kernel.try_call(COUNT, NONE).unwrap()];
    let [fatal, queued] = behind;
    soon(fatal).await.unwrap_err();
    assert_eq!(kind(soon(queued).await), DOWN_ISOLATED);
    assert_eq!(status(&runtime, "a/b").await.standbys, 0, "a standby of an isolated kernel is let go");
    assert!(runtime.resume("a/b").await);
    assert_eq!(soon(kernel.call(COUNT, NONE)).await.unwrap().count, 2, "from the checkpoint");
    standbys(&runtime, 1).await;
    assert_balanced(&kernel);
}

#[tokio::test]
async fn without_a_warm_standby_use_replica_restarts() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let kernel = soon(runtime.spawn(replicated(&script))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, (2, 1));
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    let waits = kernel.try_call(COUNT, NONE).unwrap();
    hand.advance(DELAY);
    assert_eq!(soon(waits).await.unwrap().count, 2);
    standbys(&runtime, 1).await;
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_standby_that_is_warm_before_the_restarted_kernel_serves_in_its_place() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let kernel = soon(runtime.spawn(replicated(&script))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, (2, 1));
    let starts = Latch::new();
    script.breaks("main", Fault::Blocks(Arc::clone(&starts)));
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    hand.advance(DELAY);
    // Both are made: what is to serve, and the standby.
    starts.arrived(2).await;
    starts.open();
    assert_eq!(next(&kernel).await.1, 2);
    standbys(&runtime, 1).await;
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.state, now.standbys), (KernelState::Serving, 1));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_standby_that_fails_to_start_disturbs_nobody_and_is_tried_again() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let spec = replicated(&script);
    let door = Latch::new();
    script.breaks("main", Fault::Blocks(Arc::clone(&door)));
    let other = runtime.clone();
    let spawning = kit::spawn(async move { other.spawn(spec).await });
    door.arrived(1).await;
    script.breaks("main", Fault::Panics);
    door.open();
    let kernel = soon(spawning).await.unwrap().unwrap();
    let failed = fact(&mut events, |fact| matches!(fact, Fact::StandbyFailed { .. })).await;
    let Fact::StandbyFailed { incarnation: 2, cause: Cause::StartFailed(text) } = failed else {
        panic!("{failed:?}")
    };
    assert!(text.contains("main is broken"), "{text}");
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.state, now.incarnation, now.last_failure), (KernelState::Serving, 1, None));
    assert_eq!(next(&kernel).await, (1, 1));
    script.mends("main");
    hand.advance(DELAY);
    standbys(&runtime, 1).await;
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_standby_that_dies_disturbs_nobody_and_is_rebuilt() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let kernel = soon(runtime.spawn(replicated(&script).replicas_follow())).await.unwrap();
    script.fail_restores(1);
    assert_eq!(next(&kernel).await, (1, 1));
    fact(&mut events, |fact| matches!(fact, Fact::StandbyFailed { incarnation: 2, .. })).await;
    assert_eq!(next(&kernel).await, (1, 2));
    assert_eq!(status(&runtime, "a/b").await.standbys, 0);
    hand.advance(DELAY);
    standbys(&runtime, 1).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, (3, 3));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_standby_that_becomes_ready_while_the_kernel_waits_for_its_restart_takes_over_at_once() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let kernel = soon(runtime.spawn(replicated(&script))).await.unwrap();
    let door = Latch::new();
    script.breaks("main", Fault::Blocks(Arc::clone(&door)));
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    hand.advance(DELAY);
    door.arrived(1).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    let waits = kernel.try_call(COUNT, NONE).unwrap();
    script.mends("main");
    door.open();
    assert_eq!(soon(waits).await.unwrap().life, 3, "the clock has not moved");
    hand.advance(DELAY);
    standbys(&runtime, 1).await;
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.state, now.incarnation), (KernelState::Serving, 3));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn standbys_that_follow_restore_every_checkpoint_and_others_only_when_they_take_over() {
    for follow in [true, false] {
        let (runtime, _hand) = runtime().await;
        let script = Script::new();
        let spec = replicated(&script);
        let spec = if follow { spec.replicas_follow() } else { spec };
        let kernel = soon(runtime.spawn(spec)).await.unwrap();
        for count in 1..=3 {
            assert_eq!(next(&kernel).await, (1, count));
            if follow {
                script.has_restored(count).await;
            }
        }
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert_eq!(next(&kernel).await, (2, 4));
        assert_eq!(script.restored(), if follow { vec![1, 2, 3] } else { vec![3] });
        assert_balanced(&kernel);
    }
}

/// A request that cannot wait for the restart is answered by the standby, whatever the strategy.
#[tokio::test]
async fn a_queued_request_whose_deadline_comes_before_the_restart_is_answered_by_the_standby() {
    let (runtime, hand) = runtime().await;
    let spec = replicated(&Script::new()).recovery(policy(RecoveryStrategy::RestartKernel));
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    let [fatal, queued] = [Do::Panic, COUNT].map(|input| kernel.try_call(input, DELAY / 2).unwrap());
    soon(fatal).await.unwrap_err();
    assert_eq!(soon(queued).await.unwrap().life, 2);
    hand.advance(DELAY);
    standbys(&runtime, 1).await;
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_new_request_whose_deadline_comes_before_the_restart_is_answered_by_the_standby() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let spec = replicated(&Script::new()).recovery(policy(RecoveryStrategy::RestartKernel));
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    let patient = kernel.try_call(COUNT, DELAY * 2).unwrap();
    assert_eq!(status(&runtime, "a/b").await.state, KernelState::Restarting, "that one can wait");
    let pressed = kernel.try_call(COUNT, DELAY / 2).unwrap();
    assert_eq!(soon(pressed).await.unwrap().life, 2);
    assert_eq!(soon(patient).await.unwrap().life, 2);
    hand.advance(DELAY);
    standbys(&runtime, 1).await;
    assert_eq!(next(&kernel).await.0, 2, "the restart has become a rebuild of the standby");
    assert_balanced(&kernel);
}

#[tokio::test]
async fn two_standbys_take_over_one_after_the_other() {
    let (runtime, hand) = runtime().await;
    let kernel = soon(runtime.spawn(replicated(&Script::new()).replicas(2))).await.unwrap();
    assert_eq!(status(&runtime, "a/b").await.standbys, 2);
    let mut lives = Vec::new();
    for _ in 2..=3 {
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        lives.push(next(&kernel).await.0);
    }
    lives.sort_unstable();
    assert_eq!(lives, [2, 3], "whichever was warm first");
    hand.advance(DELAY);
    standbys(&runtime, 2).await;
    assert_balanced(&kernel);
}

/// A supervisor that died left its standbys in the slot: the next one promoted a dead life, and nobody served any more.
#[tokio::test]
async fn standbys_of_a_supervisor_that_was_killed_are_gone_with_it() {
    for inline in [false, true] {
        let (runtime, hand) = runtime().await;
        let spec = replicated(&Script::new());
        let spec = if inline { spec.inline() } else { spec };
        let group = rustkernel::actors::Supervisor::new("group").kernel(spec);
        soon(runtime.supervise(group)).await.unwrap();
        let kernel = runtime.kernel::<Do, tally::Told>("a/b").unwrap();
        let mut events = runtime.events();
        assert!(runtime.root().kill_child("group").await.unwrap());
        // The supervisor's delay begins when what it has left behind is gone.
        fact_in_time(&mut events, &hand, |fact| matches!(fact, Fact::StandbyReady { .. })).await;
        let served_by = next(&kernel).await.0;
        assert_eq!(status(&runtime, "a/b").await.standbys, 1, "only its own");
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert!(next(&kernel).await.0 > served_by);
        assert_balanced(&kernel);
    }
}
