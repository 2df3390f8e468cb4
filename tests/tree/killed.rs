//! Supervisors that die without a word: nothing below them is overlooked.

use std::sync::Arc;

use rustkernel::actors::{ChildPhase, Runtime, SpawnError};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::supervision::{Shutdown, SupervisorConfig};

use crate::cast::{Cast, HOUR, NO_DELAY, Tell, quick, runtime, until, until_child};
use crate::kit::{self, Do, Latch, NONE, PuppetRef, after, assert_balanced, kind, ms, soon, status};

#[tokio::test]
async fn everything_below_a_killed_supervisor_is_gone_before_its_next_life_begins() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let deep = quick("deep").task(cast.task("c").shutdown(Shutdown::Infinity)).kernel(cast.kernel("k/d"));
    let low = quick("low").task(cast.task("a")).kernel(cast.kernel("k/b").inline()).supervisor(deep);
    let top = soon(runtime.supervise(quick("top").supervisor(low).task(cast.task("z")))).await.unwrap();
    let up = ["+a", "+k/b", "+c", "+k/d"];
    cast.expect(up).await;
    cast.expect(["+z"]).await;
    let names = ["k/b", "k/d"];
    let kernels: Vec<PuppetRef> = names.map(|name| runtime.kernel(name).unwrap()).into();
    for life in 2..=20 {
        cast.tell("c", Tell::Linger);
        let door = Latch::new();
        let held: Vec<_> = kernels
            .iter()
            .map(|kernel| kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap())
            .collect();
        let queued: Vec<_> =
            kernels.iter().map(|kernel| kernel.try_call(Do::Double(4), NONE).unwrap()).collect();
        door.arrived(2).await;
        assert!(soon(top.kill_child("low")).await.unwrap());
        cast.expect_all(["-a", "-k/b", "-c", "-k/d"]).await;
        cast.expect(up).await;
        for reply in held {
            assert_eq!(kind(soon(reply).await), KernelErrorKind::Crashed);
        }
        for reply in queued {
            assert_eq!(soon(reply).await.unwrap(), 8, "what waited is kept");
        }
        let low = until_child(&top, "low", ChildPhase::Up).await;
        assert_eq!(low.life, life);
    }
    kernels.iter().for_each(assert_balanced);
}

#[tokio::test]
async fn a_kernel_that_blocks_its_thread_is_fenced_before_the_next_life_of_its_supervisor_begins() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low").kernel(cast.kernel("k/a").hang_limit(None)).task(cast.task("b"));
    let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/a").unwrap();
    cast.expect(["+k/a", "+b"]).await;
    let door = Latch::new();
    let held = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    let queued = kernel.try_call(Do::Incarnation, NONE).unwrap();
    door.arrived(1).await;
    assert!(soon(top.kill_child("low")).await.unwrap());
    cast.expect(["-b"]).await;
    assert_eq!(kind(soon(held).await), KernelErrorKind::Crashed);
    // It may still notice; until then nothing is started in its place.
    hand.advance(ms(4_999));
    cast.expect_nothing().await;
    assert_eq!(runtime.abandoned_threads(), 0);
    hand.advance(ms(1));
    assert_eq!(soon(queued).await.unwrap(), 2);
    assert_eq!(runtime.abandoned_threads(), 1);
    cast.expect(["+k/a", "k/a LIVES TWICE", "+b"]).await;
    door.open();
    cast.expect(["-k/a"]).await;
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 2);
    assert_balanced(&kernel);
    until(&top, |_| runtime.abandoned_threads() == 0).await;
}

#[tokio::test]
async fn a_kernel_in_its_delay_a_starting_one_and_a_standby_are_no_orphans_either() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low")
        .kernel(cast.kernel("k/delayed").recovery(after(ms(1_000), 9)))
        .kernel(cast.kernel("k/standby").replicas(1));
    let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
    let low = runtime.supervisor("low").unwrap();
    hand.advance(ms(1));
    cast.expect(["+k/delayed", "+k/standby", "+k/standby", "k/standby LIVES TWICE"]).await;
    let delayed: PuppetRef = runtime.kernel("k/delayed").unwrap();
    let standby: PuppetRef = runtime.kernel("k/standby").unwrap();
    soon(delayed.call(Do::Panic, NONE)).await.unwrap_err();
    until_child(&low, "k/delayed", ChildPhase::Restarting).await;
    cast.expect(["-k/delayed"]).await;
    soon(async { while status(&runtime, "k/standby").await.standbys == 0 {} }).await;
    let waits = delayed.try_call(Do::Incarnation, NONE).unwrap();
    assert!(soon(top.kill_child("low")).await.unwrap());
    assert_eq!(soon(waits).await.unwrap(), 2, "the new life does not wait for the old one's delay");
    cast.expect_all(["-k/standby", "-k/standby"]).await;
    cast.expect(["+k/delayed", "+k/standby"]).await;
    until_child(&low, "k/standby", ChildPhase::Up).await;
    hand.advance(ms(1));
    soon(async { while status(&runtime, "k/standby").await.standbys == 0 {} }).await;
    cast.expect(["+k/standby", "k/standby LIVES TWICE"]).await;
    hand.advance(HOUR);
    cast.expect_nothing().await;
    assert_eq!(soon(standby.call(Do::Incarnation, NONE)).await.unwrap(), 3);
    assert_eq!(status(&runtime, "k/standby").await.incarnation, 3);
    assert_eq!(runtime.abandoned_threads(), 0);
}

/// The new life of the supervisor kept the slot draining for ever.
#[tokio::test]
async fn a_kernel_that_was_draining_for_good_is_gone_with_its_supervisor() {
    for inline in [false, true] {
        let (runtime, _hand) = runtime().await;
        let cast = Cast::default();
        let spec = cast.kernel("k/a");
        let spec = if inline { spec.inline() } else { spec };
        let low = quick("low").kernel(spec).task(cast.task("b"));
        let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
        let kernel: PuppetRef = runtime.kernel("k/a").unwrap();
        cast.expect(["+k/a", "+b"]).await;
        let door = Latch::new();
        let held = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        let queued = kernel.try_call(Do::Double(1), NONE).unwrap();
        door.arrived(1).await;
        let other = runtime.clone();
        let stopping = kit::spawn(async move { other.stop("k/a", true).await });
        let draining = rustkernel::actors::KernelState::Draining;
        soon(async { while status(&runtime, "k/a").await.state != draining {} }).await;
        assert!(soon(top.kill_child("low")).await.unwrap());
        cast.expect_all(["-k/a", "-b", "+b"]).await;
        soon(stopping).await.unwrap();
        soon(held).await.unwrap_err();
        assert!(matches!(kind(soon(queued).await), KernelErrorKind::Down(_)));
        assert_balanced(&kernel);
        assert!(runtime.kernel::<Do, u64>("k/a").is_none());
        soon(runtime.spawn(cast.kernel("k/a"))).await.unwrap();
    }
}

#[tokio::test]
async fn guests_of_a_killed_supervisor_are_answered_and_their_names_are_free_after_their_end() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let top =
        soon(runtime.supervise(quick("top").supervisor(quick("low").task(cast.task("a"))))).await.unwrap();
    let low = runtime.supervisor("low").unwrap();
    let guest = soon(low.start_kernel(cast.kernel("k/guest").hang_limit(None))).await.unwrap();
    soon(low.start_supervisor(quick("below").kernel(cast.kernel("k/below")))).await.unwrap();
    cast.expect(["+a", "+k/guest", "+k/below"]).await;
    let below: PuppetRef = runtime.kernel("k/below").unwrap();
    let door = Latch::new();
    let held = guest.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    let queued = guest.try_call(Do::Double(1), NONE).unwrap();
    door.arrived(1).await;
    assert!(soon(top.kill_child("low")).await.unwrap());
    assert_eq!(kind(soon(held).await), KernelErrorKind::Crashed);
    cast.expect_all(["-a", "-k/below"]).await;
    let taken = soon(runtime.spawn(cast.kernel("k/guest"))).await.unwrap_err();
    assert!(matches!(taken, SpawnError::NameTaken(_)), "{taken}");
    door.open();
    cast.expect(["-k/guest", "+a"]).await;
    assert!(matches!(kind(soon(queued).await), KernelErrorKind::Down(_)));
    assert!(matches!(kind(soon(below.call(Do::Double(1), NONE)).await), KernelErrorKind::Down(_)));
    assert_balanced(&guest);
    soon(runtime.spawn(cast.kernel("k/guest"))).await.unwrap();
    soon(low.start_supervisor(quick("below").kernel(cast.kernel("k/below")))).await.unwrap();
    hand.advance(HOUR);
}

/// The kernel's actor was dead, its thread was not: nobody knew of the thread any more.
#[tokio::test]
async fn a_thread_that_outlives_its_killed_kernel_is_no_orphan_of_a_killed_supervisor() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low").kernel(cast.kernel("k/a").hang_limit(None)).task(cast.task("b"));
    let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/a").unwrap();
    cast.expect(["+k/a", "+b"]).await;
    let door = Latch::new();
    let held = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    // It is fenced; its thread is not gone, so the kill is not over.
    let crashed = tokio::select! {
        killed = runtime.kill("k/a") => panic!("{killed}"),
        answer = soon(held) => kind(answer),
    };
    assert_eq!(crashed, KernelErrorKind::Crashed);
    assert!(soon(top.kill_child("low")).await.unwrap());
    cast.expect(["-b"]).await;
    hand.advance(ms(4_999));
    cast.expect_nothing().await;
    door.open();
    cast.expect(["-k/a", "+k/a", "+b"]).await;
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 2);
    assert_eq!(runtime.abandoned_threads(), 0);
}

/// The one above died while a dead supervisor's children were being ended: its next life did not know of them.
#[tokio::test]
async fn a_supervisor_that_dies_while_a_dead_one_below_it_is_cleaned_up_overlooks_nothing() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low").kernel(cast.kernel("k/a").hang_limit(None));
    let mid = quick("mid").task(cast.task("b")).supervisor(low);
    let top = soon(runtime.supervise(quick("top").supervisor(mid))).await.unwrap();
    cast.expect(["+b", "+k/a"]).await;
    let kernel: PuppetRef = runtime.kernel("k/a").unwrap();
    let door = Latch::new();
    let held = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let mid = runtime.supervisor("mid").unwrap();
    assert!(soon(mid.kill_child("low")).await.unwrap());
    soon(held).await.unwrap_err();
    assert!(soon(top.kill_child("mid")).await.unwrap());
    cast.expect(["-b"]).await;
    hand.advance(ms(4_999));
    cast.expect_nothing().await;
    door.open();
    cast.expect(["-k/a", "+b", "+k/a"]).await;
    assert_eq!(soon(kernel.call(Do::Double(1), NONE)).await.unwrap(), 2);
    assert_eq!(runtime.abandoned_threads(), 0);
}

#[tokio::test]
async fn a_supervisor_that_is_killed_while_it_starts_leaves_nothing() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low").task(cast.task("a")).task(cast.slow("b"));
    let tree = quick("top").supervisor(low);
    let other = runtime.clone();
    let starting = kit::spawn(async move { other.supervise(tree).await });
    cast.expect(["+a", "+b"]).await;
    let top = runtime.supervisor("top").unwrap();
    assert!(soon(top.kill_child("low")).await.unwrap());
    soon(starting).await.unwrap().unwrap_err();
    cast.expect_all(["-a", "-b"]).await;
    assert!(runtime.supervisor("top").is_none() && runtime.supervisor("low").is_none());
    soon(runtime.supervise(quick("top").supervisor(quick("low")))).await.unwrap();
}

#[tokio::test]
async fn one_that_is_killed_in_the_middle_of_an_orderly_end_is_gone_all_the_same() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low").task(cast.task("a").shutdown(Shutdown::Infinity)).task(cast.task("b"));
    let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
    cast.expect(["+a", "+b"]).await;
    cast.tell("a", Tell::Linger);
    let other = top.clone();
    let stopping = kit::spawn(async move { other.terminate_child("low").await });
    cast.expect(["-b"]).await;
    assert!(soon(top.kill_child("low")).await.unwrap());
    cast.expect(["-a"]).await;
    soon(stopping).await.unwrap().unwrap();
    until_child(&top, "low", ChildPhase::Down).await;
    soon(top.restart_child("low")).await.unwrap();
    cast.expect(["+a", "+b"]).await;
    // What the last life left behind in order is not taken for the end of this one.
    assert!(soon(top.kill_child("low")).await.unwrap());
    cast.expect_all(["-a", "-b", "+a", "+b"]).await;
}

/// Not even a task that blocks a worker holds the others up for longer than the patience.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_task_that_blocks_its_worker_is_let_go_and_its_late_word_counts_for_nothing() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low").task(cast.task("a")).task(cast.task("b"));
    let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
    cast.expect_all(["+a", "+b"]).await;
    let door = Latch::new();
    cast.tell("a", Tell::Block(Arc::clone(&door)));
    door.arrived(1).await;
    assert!(soon(top.kill_child("low")).await.unwrap());
    cast.expect(["-b"]).await;
    hand.advance(ms(4_999));
    cast.expect_nothing().await;
    until(&top, |children| children[0].life == 1).await;
    soon(async {
        while until(&top, |_| true).await[0].life == 1 {
            hand.advance(ms(1));
            tokio::task::yield_now().await;
        }
    })
    .await;
    until_child(&top, "low", ChildPhase::Up).await;
    cast.expect_all(["+a", "a LIVES TWICE", "+b"]).await;
    door.open();
    cast.expect(["-a"]).await;
    cast.expect_nothing().await;
}

/// Killed again and again by several workers, while kernels fail, start and stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_at_any_moment_makes_anything_live_twice() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let deep = quick("deep").one_for_all().task(cast.task("c")).kernel(cast.kernel("k/d").inline());
    let low = quick("low").rest_for_one().task(cast.task("a")).kernel(cast.kernel("k/b")).supervisor(deep);
    let unlimited = |tree: rustkernel::actors::Supervisor| tree.intensity(u32::MAX, HOUR);
    let top = soon(runtime.supervise(unlimited(quick("top")).supervisor(unlimited(low)))).await.unwrap();
    let (low, deep) = (runtime.supervisor("low").unwrap(), runtime.supervisor("deep").unwrap());
    let kernel: PuppetRef = runtime.kernel("k/d").unwrap();
    for round in 0..200 {
        let killers = [
            soon(top.kill_child("low")).await.unwrap_or(false),
            round % 2 == 0 && soon(low.kill_child("deep")).await.unwrap_or(false),
            round % 3 == 0 && soon(deep.kill_child("c")).await.unwrap_or(false),
            soon(runtime.kill("k/b")).await,
        ];
        let _ = killers;
        if round % 5 == 0 {
            // Whatever becomes of it, it is answered.
            let _ = soon(kernel.call(Do::Panic, NONE)).await;
        }
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
    }
    // The last kills may be under way still, and a task is up before it runs.
    let all_alive = async {
        while cast.alive() != ["a", "c", "k/b", "k/d"] {
            tokio::task::yield_now().await;
        }
    };
    soon(all_alive).await;
    for supervisor in [&top, &low, &deep] {
        until(supervisor, |children| children.iter().all(|child| child.state == ChildPhase::Up)).await;
    }
    assert_eq!(cast.twice(), Vec::<String>::new());
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_runtime_that_is_dropped_leaves_nothing_alive() {
    let root = SupervisorConfig { backoff: NO_DELAY, ..SupervisorConfig::default() };
    let (runtime, hand) = Runtime::builder().root(root).build_with_manual_clock().await.unwrap();
    let cast = Cast::default();
    let deep = quick("deep").task(cast.task("c").shutdown(Shutdown::Infinity)).kernel(cast.kernel("k/d"));
    let low = quick("low").task(cast.task("a")).kernel(cast.kernel("k/b").inline()).supervisor(deep);
    soon(runtime.supervise(low)).await.unwrap();
    let (other, spec) = (runtime.clone(), cast.kernel("k/e").replicas(2));
    let spawning = kit::spawn(async move { other.spawn(spec).await });
    soon(async {
        while !spawning.is_finished() {
            hand.advance(ms(1));
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(spawning);
    soon(runtime.root().start_task(cast.task("f"))).await.unwrap();
    cast.tell("c", Tell::Linger);
    let kernel: PuppetRef = runtime.kernel("k/d").unwrap();
    let door = Latch::new();
    let held = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    let queued = kernel.try_call(Do::Double(1), NONE).unwrap();
    door.arrived(1).await;
    drop(runtime);
    soon(held).await.unwrap_err();
    soon(queued).await.unwrap_err();
    soon(async {
        while !cast.alive().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_balanced(&kernel);
}
