//! Failover: queue and checkpoint move to the backup device, and come back when somebody says so.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;
#[path = "support/tally.rs"]
mod tally;

use std::sync::Arc;

use kit::{DOWN_ISOLATED, Do, Latch, NONE, assert_balanced, kind, ms, soon, status};
use rustkernel::actors::{
    Cause, Events, Fact, HandOverError, KernelSpec, KernelState, Runtime, SpawnError, Variant,
};
use rustkernel::core::DeviceId;
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{RecoveryPolicy, RecoveryStrategy};
use tally::{
    COUNT, DELAY, Fault, Script, Tally, TallyRef, backup, fact, policy, runtime, spawn_slowly, standbys,
    tally,
};

fn with_backup(script: &Arc<Script>) -> KernelSpec<Tally> {
    tally(script).backup(backup(), script.maker("backup")).recovery(policy(RecoveryStrategy::Failover))
}

async fn next(kernel: &TallyRef) -> (&'static str, u64) {
    let told = soon(kernel.call(COUNT, NONE)).await.unwrap();
    (told.who, told.count)
}

/// A kernel that has counted one and then failed over.
async fn failed_over(runtime: &Runtime, spec: KernelSpec<Tally>) -> TallyRef {
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    assert_eq!(next(&kernel).await, ("main", 1));
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, ("backup", 2));
    kernel
}

async fn started(events: &mut Events, number: u64) {
    let wanted = |fact: &Fact| matches!(fact, Fact::Started { incarnation, .. } if *incarnation == number);
    fact(events, wanted).await;
}

#[tokio::test]
async fn queue_and_newest_checkpoint_move_to_the_backup_device_at_once() {
    for inline in [false, true] {
        let (runtime, _hand) = runtime().await;
        let mut events = runtime.events();
        let spec = with_backup(&Script::new());
        let kernel = soon(runtime.spawn(if inline { spec.inline() } else { spec })).await.unwrap();
        assert_eq!(next(&kernel).await, ("main", 1));
        assert_eq!(status(&runtime, "a/b").await.device, DeviceId::CPU);
        let [fatal, queued] = [Do::Panic, COUNT].map(|input| kernel.try_call(input, NONE).unwrap());
        assert_eq!(kind(soon(fatal).await), KernelErrorKind::Crashed);
        let told = soon(queued).await.unwrap();
        assert_eq!((told.who, told.count), ("backup", 2), "no delay, and from the checkpoint");
        fact(&mut events, |fact| *fact == Fact::FailedOver { to: backup() }).await;
        let now = status(&runtime, "a/b").await;
        assert_eq!((now.device, now.state), (backup(), KernelState::Serving));
        assert_balanced(&kernel);
    }
}

/// It was queued behind the backup's start and ran out of time there.
#[tokio::test]
async fn who_cannot_wait_for_the_backup_is_answered_by_the_degraded_path() {
    for queued in [true, false] {
        let (runtime, hand) = runtime().await;
        let mut events = runtime.events();
        let script = Script::new();
        let spec = with_backup(&script).degraded(script.maker("reduced"));
        let kernel = spawn_slowly(&runtime, &hand, &script, spec).await;
        let door = Latch::new();
        script.breaks("backup", Fault::Blocks(Arc::clone(&door)));
        let fatal = kernel.try_call(Do::Panic, NONE).unwrap();
        let early = queued.then(|| kernel.try_call(COUNT, ms(200)).unwrap());
        soon(fatal).await.unwrap_err();
        door.arrived(1).await;
        let pressed = early.unwrap_or_else(|| kernel.try_call(COUNT, ms(200)).unwrap());
        assert_eq!(soon(pressed).await.unwrap().who, "reduced");
        door.open();
        fact(&mut events, |fact| matches!(fact, Fact::Recovered)).await;
        assert_eq!(next(&kernel).await.0, "backup");
        assert_eq!(status(&runtime, "a/b").await.device, backup());
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn a_kill_and_a_hang_fail_over_too() {
    for hang in [false, true] {
        let (runtime, hand) = runtime().await;
        let kernel = soon(runtime.spawn(with_backup(&Script::new()).hang_limit(ms(500)))).await.unwrap();
        let door = Latch::new();
        let input = if hang { Do::Block(Arc::clone(&door)) } else { Do::Wait(Arc::clone(&door)) };
        let in_hand = kernel.try_call(input, NONE).unwrap();
        let queued = kernel.try_call(COUNT, NONE).unwrap();
        door.arrived(1).await;
        if hang {
            hand.advance(ms(500));
        } else {
            assert!(runtime.kill("a/b").await);
        }
        let expected = if hang { KernelErrorKind::Hung } else { KernelErrorKind::Crashed };
        assert_eq!(kind(soon(in_hand).await), expected);
        assert_eq!(soon(queued).await.unwrap().who, "backup");
        door.open();
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn restarts_go_on_there_and_it_never_flips_back_by_itself() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let kernel = failed_over(&runtime, with_backup(&Script::new())).await;
    for count in 3..=5 {
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
        hand.advance(DELAY);
        assert_eq!(next(&kernel).await, ("backup", count));
    }
    hand.advance(ms(600_000));
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    hand.advance(DELAY);
    assert_eq!(next(&kernel).await, ("backup", 6), "after a quiet window, too");
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_used_up_budget_on_the_backup_escalates_and_resume_stays_there() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let once = RecoveryPolicy { max_restarts: 1, ..policy(RecoveryStrategy::Failover) };
    let kernel = failed_over(&runtime, with_backup(&Script::new()).recovery(once)).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    hand.advance(DELAY);
    assert_eq!(next(&kernel).await.0, "backup");
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Isolated { .. })).await;
    assert_eq!(kind(soon(kernel.call(COUNT, NONE)).await), DOWN_ISOLATED);
    assert!(runtime.resume("a/b").await);
    assert_eq!(next(&kernel).await, ("backup", 4));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_backup_that_cannot_be_made_is_restarted_and_then_escalates() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let once = RecoveryPolicy { max_restarts: 1, ..policy(RecoveryStrategy::Failover) };
    let kernel = soon(runtime.spawn(with_backup(&script).recovery(once))).await.unwrap();
    script.breaks("backup", Fault::Panics);
    let [fatal, queued] = [Do::Panic, COUNT].map(|input| kernel.try_call(input, NONE).unwrap());
    soon(fatal).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    hand.advance(DELAY);
    assert_eq!(kind(soon(queued).await), DOWN_ISOLATED);
    assert!(matches!(status(&runtime, "a/b").await.last_failure, Some(Cause::StartFailed(_))));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_fail_back_brings_it_home_with_its_state_and_loses_no_request() {
    for inline in [false, true] {
        let (runtime, _hand) = runtime().await;
        let mut events = runtime.events();
        let script = Script::new();
        let spec = with_backup(&script).checkpoint_every(100);
        let spec = if inline { spec.inline() } else { spec };
        let kernel = soon(runtime.spawn(spec)).await.unwrap();
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert_eq!(next(&kernel).await, ("backup", 1));
        let door = Latch::new();
        let in_hand = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        door.arrived(1).await;
        let queued: Vec<_> = (0..3).map(|_| kernel.try_call(COUNT, NONE).unwrap()).collect();
        let other = runtime.clone();
        let back = kit::spawn(async move { other.fail_back("a/b").await });
        script.made(3).await;
        assert!(matches!(runtime.fail_back("a/b").await, Err(HandOverError::Busy)), "one at a time");
        door.open();
        let told = soon(in_hand).await.unwrap();
        assert_eq!((told.who, told.count), ("backup", 2), "what it has in hand it finishes");
        soon(back).await.unwrap().unwrap();
        let mut last = told;
        for reply in queued {
            let told = soon(reply).await.unwrap();
            assert_eq!(told.count, last.count + 1, "the state came along");
            last = told;
        }
        assert_eq!(next(&kernel).await, ("main", last.count + 1));
        fact(&mut events, |fact| *fact == Fact::Recovered).await;
        assert_eq!(status(&runtime, "a/b").await.device, DeviceId::CPU);
        assert!(matches!(runtime.fail_back("a/b").await, Err(HandOverError::AtHome)));
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert_eq!(next(&kernel).await.0, "backup", "it can fail over again");
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn a_fail_back_whose_factory_fails_leaves_the_backup_serving() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let kernel = failed_over(&runtime, with_backup(&script)).await;
    script.breaks("main", Fault::Panics);
    let error = soon(runtime.fail_back("a/b")).await.unwrap_err();
    assert!(matches!(error, HandOverError::Start(Cause::StartFailed(_))), "{error}");
    assert_eq!(next(&kernel).await, ("backup", 3));
    assert_eq!(status(&runtime, "a/b").await.device, backup());
    script.mends("main");
    soon(runtime.fail_back("a/b")).await.unwrap();
    assert_eq!(next(&kernel).await, ("main", 4));
    assert!(matches!(runtime.fail_back("a/unknown").await, Err(HandOverError::UnknownKernel)));
    assert_balanced(&kernel);
}

/// The backup had handed over to a life that then could not take its state: nobody served as before.
#[tokio::test]
async fn a_fail_back_that_cannot_restore_the_last_state_leaves_the_backup_serving() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let spec = with_backup(&script).checkpoint_every(100);
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, ("backup", 1));
    script.fail_restores(1);
    let error = soon(runtime.fail_back("a/b")).await.unwrap_err();
    assert!(matches!(error, HandOverError::Start(Cause::StartFailed(_))), "{error}");
    assert_eq!(next(&kernel).await, ("backup", 2), "made again, with the state of the last checkpoint");
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.device, now.restarts), (backup(), 0));
    soon(runtime.fail_back("a/b")).await.unwrap();
    assert_eq!(next(&kernel).await, ("main", 3));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn standbys_move_along() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let policy = RecoveryPolicy {
        max_restarts: 1,
        escalation: Some(RecoveryStrategy::Failover),
        ..policy(RecoveryStrategy::UseReplica)
    };
    let spec = with_backup(&script).replicas(1).recovery(policy);
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await.0, "main");
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await.0, "backup");
    fact(&mut events, |fact| *fact == Fact::FailedOver { to: backup() }).await;
    hand.advance(DELAY);
    standbys(&runtime, 1).await;
    soon(runtime.fail_back("a/b")).await.unwrap();
    assert_eq!(next(&kernel).await.0, "main");
    fact(&mut events, |fact| *fact == Fact::Recovered).await;
    standbys(&runtime, 1).await;
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_backup_on_the_kernels_own_device_and_failover_without_one_are_refused_by_field() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let refused = async |spec| {
        let SpawnError::Config { source, .. } = runtime.spawn(spec).await.unwrap_err() else { panic!() };
        source.field
    };
    let same = with_backup(&script).device(backup());
    assert_eq!(refused(same).await, "backup.device");
    let without = tally(&script).recovery(policy(RecoveryStrategy::Failover));
    assert_eq!(refused(without).await, "recovery.strategy");
    let later = RecoveryPolicy { escalation: None, ..policy(RecoveryStrategy::RestartKernel) };
    assert_eq!(
        refused(tally(&script).recovery(later).escalations([RecoveryStrategy::NotifyOperator])).await,
        "escalations"
    );
    assert_eq!(
        refused(tally(&script).escalations([RecoveryStrategy::Failover])).await,
        "escalations",
        "it has no backup, and after the operator nothing comes"
    );
    assert_eq!(refused(with_backup(&script).escalations([RecoveryStrategy::Failover])).await, "escalations");
}

/// Who had failed over was replaced by the new version's main factory, called the backup.
#[tokio::test]
async fn a_new_version_of_a_kernel_that_has_failed_over_comes_with_its_own_backup() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let kernel = failed_over(&runtime, with_backup(&script)).await;
    let without = KernelSpec::new("a/b", script.maker("main 2")).checkpointed();
    let Err(HandOverError::Config(refused)) = soon(runtime.replace(without)).await else { panic!() };
    assert_eq!(refused.field, "backup");
    let version = KernelSpec::new("a/b", script.maker("main 2"))
        .checkpointed()
        .backup(backup(), script.maker("backup 2"));
    soon(runtime.replace(version)).await.unwrap();
    assert_eq!(next(&kernel).await, ("backup 2", 3));
    let took_over = |fact: &Fact| matches!(fact, Fact::TookOver { variant: Variant::Backup, .. });
    fact(&mut events, took_over).await;
    soon(runtime.fail_back("a/b")).await.unwrap();
    assert_eq!(next(&kernel).await, ("main 2", 4));
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, ("backup 2", 5));
    started(&mut events, status(&runtime, "a/b").await.incarnation).await;
    assert_balanced(&kernel);
}
