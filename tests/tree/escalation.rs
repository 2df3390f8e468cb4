//! Failures that no restart cures: level by level, up to the runtime itself.

use std::sync::Arc;
use std::time::Duration;

use rustkernel::actors::{Cause, ChildPhase, Fact, KernelState, Runtime, RuntimeState, SpawnError};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{BackoffStrategy, RecoveryPolicy};
use rustkernel::core::supervision::{Restart, SupervisorConfig};

use crate::cast::{Cast, HOUR, NO_DELAY, Tell, flat, quick, runtime, until, until_all_up, until_child};
use crate::kit::{self, Do, Latch, NONE, PuppetRef, assert_balanced, at_once, kind, ms, soon, status};

const PERIOD: Duration = Duration::from_secs(5);

/// With one restart on each of three levels, the leaf lives 2 * 2 * 2 times.
#[tokio::test]
async fn a_failure_that_no_restart_cures_passes_three_levels_and_the_runtime_gives_up() {
    let root = SupervisorConfig { intensity: 1, backoff: NO_DELAY, ..SupervisorConfig::default() };
    let builder = Runtime::builder().root(root);
    let (runtime, hand) = builder.build_with_manual_clock().await.unwrap();
    let cast = Cast::default();
    let level = |name| quick(name).intensity(1, PERIOD);
    let low = level("low").task(cast.task("leaf")).kernel(cast.kernel("k/a").shutdown(ms(100)));
    let tree = level("top").kernel(cast.kernel("k/b").inline().shutdown(ms(100))).supervisor(low);
    soon(runtime.supervise(tree)).await.unwrap();
    cast.expect(["+k/b", "+leaf", "+k/a"]).await;
    let kernels: [PuppetRef; 2] = ["k/a", "k/b"].map(|name| runtime.kernel(name).unwrap());
    for life in 1..8 {
        // A failure during a boot is another matter.
        until_all_up(&runtime).await;
        cast.tell("leaf", Tell::Panic);
        match life % 4 {
            1 | 3 => cast.expect(["-leaf", "+leaf"]).await,
            2 => cast.expect(["-leaf", "-k/a", "+leaf", "+k/a"]).await,
            _ => cast.expect(["-leaf", "-k/a", "-k/b", "+k/b", "+leaf", "+k/a"]).await,
        }
    }
    until_all_up(&runtime).await;
    let door = Latch::new();
    let waiting = kernels.each_ref().map(|kernel| {
        let held = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        (held, kernel.try_call(Do::Double(1), NONE).unwrap())
    });
    door.arrived(2).await;
    cast.tell("leaf", Tell::Panic);
    cast.expect(["-leaf"]).await;
    // Each kernel has its grace time, one after the other.
    for name in ["k/a", "k/b"] {
        soon(async { while status(&runtime, name).await.state != KernelState::Stopping {} }).await;
        hand.advance(ms(100));
    }
    for (held, behind) in waiting {
        soon(held).await.unwrap_err();
        soon(behind).await.unwrap_err();
    }
    assert_eq!(soon(runtime.ended()).await, RuntimeState::GaveUp);
    cast.expect_all(["-k/a", "-k/b"]).await;
    assert!(cast.alive().is_empty());
    for kernel in &kernels {
        assert!(matches!(kind(kernel.call(Do::Double(1), NONE).await), KernelErrorKind::Down(_)));
        assert_balanced(kernel);
    }
    let error = soon(runtime.root().start_task(cast.task("new"))).await.unwrap_err();
    assert!(matches!(error, SpawnError::RuntimeGone), "{error}");
    assert!(runtime.tree().await.is_none());
}

#[tokio::test]
async fn a_supervisor_whose_intensity_is_used_up_ends_and_its_parent_brings_everything_back() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low")
        .intensity(1, PERIOD)
        .task(cast.task("leaf"))
        .kernel(cast.kernel("k/thread"))
        .kernel(cast.kernel("k/inline").inline())
        .supervisor(quick("deep").kernel(cast.kernel("k/deep").inline()));
    let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
    cast.expect(["+leaf", "+k/thread", "+k/inline", "+k/deep"]).await;
    let names = ["k/thread", "k/inline", "k/deep"];
    let kernels: Vec<PuppetRef> = names.map(|name| runtime.kernel(name).unwrap()).into();
    let door = Latch::new();
    let held = kernels[0].try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    cast.tell("leaf", Tell::Fail);
    cast.expect(["-leaf", "+leaf"]).await;
    cast.tell("leaf", Tell::Fail);
    cast.expect(["-leaf", "-k/deep", "-k/inline"]).await;
    // The supervisor waits for the one that executes; requests still come.
    let queued: Vec<_> =
        kernels.iter().map(|kernel| kernel.try_call(Do::Double(21), NONE).unwrap()).collect();
    cast.expect_nothing().await;
    door.open();
    assert_eq!(soon(held).await.unwrap(), 1);
    cast.expect(["-k/thread", "+leaf", "+k/thread", "+k/inline", "+k/deep"]).await;
    for reply in queued {
        assert_eq!(soon(reply).await.unwrap(), 42);
    }
    for (kernel, name) in kernels.iter().zip(names) {
        assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 2);
        assert!(runtime.kernel::<Do, u64>(name).is_some(), "the name is still its own");
        assert_balanced(kernel);
        assert_eq!(kernel.accounts().failed, 0);
    }
    let low = until_child(&top, "low", ChildPhase::Up).await;
    assert_eq!(low.life, 2);
    assert!(matches!(&low.last_failure, Some(Cause::GaveUp(text)) if text.contains("leaf")), "{low:?}");
}

#[tokio::test]
async fn requests_wait_for_a_supervisor_in_its_delay_and_know_how_long() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low").intensity(0, PERIOD).task(cast.task("leaf")).kernel(cast.kernel("k/a"));
    let backoff = BackoffStrategy::Fixed { delay: ms(500) };
    let top = soon(runtime.supervise(quick("top").backoff(backoff).supervisor(low))).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/a").unwrap();
    cast.expect(["+leaf", "+k/a"]).await;
    cast.tell("leaf", Tell::Fail);
    cast.expect(["-leaf", "-k/a"]).await;
    until_child(&top, "low", ChildPhase::Restarting).await;
    let refused = kernel.try_call(Do::Double(1), ms(499)).unwrap_err();
    assert_eq!(refused.error.kind(), &KernelErrorKind::Restarting { retry_after: ms(500) });
    let waits = kernel.try_call(Do::Double(1), ms(501)).unwrap();
    let tree = soon(runtime.tree()).await.unwrap();
    let low = flat(&tree).into_iter().find(|branch| branch.child.name == "low").unwrap();
    assert_eq!(low.supervisor.as_ref().unwrap().restarts_in_period, None, "it is not there to ask");
    hand.advance(ms(500));
    assert_eq!(soon(waits).await.unwrap(), 2);
    cast.expect(["+leaf", "+k/a"]).await;
}

#[tokio::test]
async fn children_that_came_at_run_time_do_not_come_back_with_their_supervisor() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low").intensity(0, PERIOD).task(cast.task("leaf"));
    let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
    let low = runtime.supervisor("low").unwrap();
    let guest = soon(low.start_kernel(cast.kernel("k/guest").inline())).await.unwrap();
    soon(low.start_supervisor(quick("below").kernel(cast.kernel("k/below")))).await.unwrap();
    cast.expect(["+leaf", "+k/guest", "+k/below"]).await;
    let below: PuppetRef = runtime.kernel("k/below").unwrap();
    let door = Latch::new();
    let held = guest.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let queued = guest.try_call(Do::Double(1), NONE).unwrap();
    cast.tell("leaf", Tell::Fail);
    cast.expect(["-leaf", "-k/below"]).await;
    until_child(&low, "k/guest", ChildPhase::Stopping).await;
    let also_queued = below.try_call(Do::Double(1), NONE).unwrap();
    door.open();
    assert_eq!(soon(held).await.unwrap(), 1);
    cast.expect(["-k/guest", "+leaf"]).await;
    for reply in [queued, also_queued] {
        assert!(matches!(kind(soon(reply).await), KernelErrorKind::Down(_)));
    }
    assert_balanced(&guest);
    assert!(runtime.kernel::<Do, u64>("k/guest").is_none() && runtime.supervisor("below").is_none());
    let children = until(&top, |children| children[0].life == 2).await;
    assert_eq!(children[0].name, "low");
    soon(low.start_kernel(cast.kernel("k/guest"))).await.unwrap();
    soon(low.start_supervisor(quick("below").kernel(cast.kernel("k/below")))).await.unwrap();
}

/// A declared child that was deleted came back with the next life of its supervisor, without its name.
#[tokio::test]
async fn a_declared_child_that_left_for_good_does_not_come_back_and_its_name_is_anybodys() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low")
        .intensity(0, PERIOD)
        .kernel(cast.kernel("k/stopped"))
        .kernel(cast.kernel("k/deleted"))
        .kernel(cast.kernel("k/temporary").restart(Restart::Temporary))
        .task(cast.task("leaf"));
    let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
    cast.expect(["+k/stopped", "+k/deleted", "+k/temporary", "+leaf"]).await;
    let low = runtime.supervisor("low").unwrap();
    assert!(soon(runtime.stop("k/stopped", false)).await);
    soon(low.terminate_child("k/deleted")).await.unwrap();
    soon(low.delete_child("k/deleted")).await.unwrap();
    let temporary: PuppetRef = runtime.kernel("k/temporary").unwrap();
    soon(temporary.call(Do::Panic, NONE)).await.unwrap_err();
    until(&low, |children| children.len() == 1).await;
    cast.expect(["-k/stopped", "-k/deleted", "-k/temporary"]).await;
    soon(runtime.spawn(cast.kernel("k/stopped"))).await.unwrap();
    soon(runtime.spawn(cast.kernel("k/deleted"))).await.unwrap();
    assert!(matches!(kind(temporary.call(Do::Double(1), NONE).await), KernelErrorKind::Down(_)));
    let taken = soon(runtime.spawn(cast.kernel("k/temporary"))).await.unwrap_err();
    assert!(matches!(taken, SpawnError::NameTaken(_)), "it comes back with its supervisor: {taken}");
    cast.expect(["+k/stopped", "+k/deleted"]).await;
    cast.tell("leaf", Tell::Fail);
    cast.expect(["-leaf", "+k/temporary", "+leaf"]).await;
    until_child(&top, "low", ChildPhase::Up).await;
    assert_eq!(soon(temporary.call(Do::Double(2), NONE)).await.unwrap(), 4);
    // One that is over can still be stopped for good.
    soon(temporary.call(Do::Panic, NONE)).await.unwrap_err();
    until(&low, |children| children.len() == 1).await;
    assert!(soon(runtime.stop("k/temporary", false)).await);
    soon(runtime.spawn(cast.kernel("k/temporary"))).await.unwrap();
}

#[tokio::test]
async fn a_kernels_own_escalation_comes_before_the_end_of_its_supervisor() {
    for escalates in [true, false] {
        let (runtime, _hand) = runtime().await;
        let cast = Cast::default();
        let mut events = runtime.events();
        let policy = if escalates { at_once(9) } else { RecoveryPolicy { escalation: None, ..at_once(9) } };
        let low = quick("low")
            .intensity(2, PERIOD)
            .task(cast.task("a"))
            .kernel(cast.kernel("k/b").recovery(policy));
        let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
        let kernel: PuppetRef = runtime.kernel("k/b").unwrap();
        cast.expect(["+a", "+k/b"]).await;
        for _ in 0..2 {
            soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
            cast.expect(["-k/b", "+k/b"]).await;
        }
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        cast.expect(["-k/b"]).await;
        if escalates {
            soon(events.find("k/b", |fact| matches!(fact, Fact::Isolated { .. }))).await.unwrap();
            let low = runtime.supervisor("low").unwrap();
            until_child(&low, "k/b", ChildPhase::Held).await;
            assert_eq!(kind(kernel.call(Do::Double(1), NONE).await), kit::DOWN_ISOLATED);
            cast.expect_nothing().await;
            assert_eq!(until_child(&top, "low", ChildPhase::Up).await.life, 1);
            // The supervisor's own intensity is as it was: used up.
            cast.tell("a", Tell::Fail);
            cast.expect(["-a", "+a", "+k/b"]).await;
            assert_eq!(soon(kernel.call(Do::Double(1), NONE)).await.unwrap(), 2);
        } else {
            cast.expect(["-a", "+a", "+k/b"]).await;
        }
        assert_eq!(until_child(&top, "low", ChildPhase::Up).await.life, 2);
    }
}

#[tokio::test]
async fn a_restart_of_age_period_no_longer_counts_for_the_supervisor() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low").intensity(1, ms(100)).task(cast.task("leaf"));
    let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
    let low = runtime.supervisor("low").unwrap();
    cast.expect(["+leaf"]).await;
    for life in 2..=6 {
        cast.tell("leaf", Tell::Fail);
        cast.expect(["-leaf", "+leaf"]).await;
        assert_eq!(until_child(&low, "leaf", ChildPhase::Up).await.life, life);
        hand.advance(ms(100));
    }
    assert_eq!(until_child(&top, "low", ChildPhase::Up).await.life, 1);
    cast.tell("leaf", Tell::Fail);
    cast.expect(["-leaf", "+leaf"]).await;
    hand.advance(ms(99));
    cast.tell("leaf", Tell::Fail);
    cast.expect(["-leaf", "+leaf"]).await;
    assert_eq!(until_child(&top, "low", ChildPhase::Up).await.life, 2);
}

#[tokio::test]
async fn restarts_that_fail_count_and_a_supervisor_that_cannot_boot_again_escalates() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let policy = RecoveryPolicy { escalation: None, ..at_once(9) };
    let low =
        quick("low").intensity(2, PERIOD).task(cast.task("a")).kernel(cast.kernel("k/b").recovery(policy));
    let top = quick("top").intensity(3, PERIOD).supervisor(low).task(cast.task("z"));
    soon(runtime.supervise(top)).await.unwrap();
    let root = runtime.root();
    let kernel: PuppetRef = runtime.kernel("k/b").unwrap();
    cast.expect(["+a", "+k/b", "+z"]).await;
    // Two restarts of the kernel fail, then three boots of `low`, then one more: `top` ends, and the root starts it again.
    cast.fail("k/b", 5);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    cast.expect(["-k/b", "-a"]).await;
    cast.expect(["+a", "-a", "+a", "-a", "+a", "-a", "-z"]).await;
    until_child(&root, "top", ChildPhase::Restarting).await;
    hand.advance(ms(10));
    cast.expect(["+a", "+k/b", "+z"]).await;
    assert_eq!(until_child(&root, "top", ChildPhase::Up).await.life, 2);
    assert_eq!(soon(kernel.call(Do::Double(1), NONE)).await.unwrap(), 2);
}

#[tokio::test]
async fn a_transient_supervisor_that_gives_up_is_not_restarted_and_its_kernels_say_so() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low")
        .restart(Restart::Transient)
        .intensity(0, PERIOD)
        .task(cast.task("leaf"))
        .kernel(cast.kernel("k/a"));
    let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/a").unwrap();
    cast.expect(["+leaf", "+k/a"]).await;
    cast.tell("leaf", Tell::Fail);
    cast.expect(["-leaf", "-k/a"]).await;
    until_child(&top, "low", ChildPhase::Down).await;
    assert_eq!(kind(kernel.call(Do::Double(1), NONE).await), kit::DOWN_STOPPED);
    hand.advance(HOUR);
    cast.expect_nothing().await;
    soon(top.restart_child("low")).await.unwrap();
    assert_eq!(soon(kernel.call(Do::Double(1), NONE)).await.unwrap(), 2);
}
