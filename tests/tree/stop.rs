//! How children are stopped: in reverse, awaited, with the time their rules give them.

use std::sync::Arc;

use rustkernel::actors::{ChildPhase, RuntimeState, ShutdownReport, Supervisor};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::supervision::Shutdown;

use crate::cast::{Cast, HOUR, Tell, quick, runtime, until_child};
use crate::kit::{self, DOWN_STOPPED, Do, Latch, NONE, PuppetRef, kind, ms, soon};

#[tokio::test]
async fn a_tree_shuts_down_in_reverse_order_each_child_awaited() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let mid = quick("mid").task(cast.task("b")).kernel(cast.kernel("k/c")).task(cast.task("d"));
    let tree = quick("top").task(cast.task("a")).supervisor(mid).kernel(cast.kernel("k/e").inline());
    soon(runtime.supervise(tree)).await.unwrap();
    soon(runtime.root().start_task(cast.task("f"))).await.unwrap();
    cast.expect(["+a", "+b", "+k/c", "+d", "+k/e", "+f"]).await;
    ["a", "b", "d"].iter().for_each(|name| cast.tell(name, Tell::Linger));
    let other = runtime.clone();
    let ending = kit::spawn(async move { other.shutdown(HOUR).await });
    cast.expect(["-f", "-k/e"]).await;
    cast.expect_nothing().await;
    cast.tell("d", Tell::Finish);
    cast.expect(["-d", "-k/c"]).await;
    cast.expect_nothing().await;
    cast.tell("b", Tell::Fail);
    cast.expect(["-b"]).await;
    cast.expect_nothing().await;
    assert_eq!(runtime.state(), RuntimeState::Draining);
    cast.tell("a", Tell::Panic);
    cast.expect(["-a"]).await;
    let report = soon(ending).await.unwrap().unwrap();
    assert_eq!(report, ShutdownReport { stopped: 2, killed: 0, abandoned_threads: 0 });
    assert_eq!(runtime.state(), RuntimeState::Stopped);
    assert!(runtime.tree().await.is_none() && runtime.supervisor("top").is_none());
}

#[tokio::test]
async fn a_child_of_a_stopped_tree_answers_nothing_and_is_not_restarted() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let top =
        soon(runtime.supervise(quick("top").task(cast.task("a")).kernel(cast.kernel("k/b")))).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/b").unwrap();
    soon(runtime.root().terminate_child("top")).await.unwrap();
    cast.expect(["+a", "+k/b", "-k/b", "-a"]).await;
    assert_eq!(kind(kernel.call(Do::Double(1), NONE).await), DOWN_STOPPED);
    soon(top.count_children()).await.unwrap_err();
    hand.advance(HOUR);
    cast.expect_nothing().await;
    soon(runtime.root().restart_child("top")).await.unwrap();
    cast.expect(["+a", "+k/b"]).await;
    assert_eq!(soon(kernel.call(Do::Double(1), NONE)).await.unwrap(), 2);
    assert_eq!(soon(top.count_children()).await.unwrap().active, 2);
}

#[tokio::test]
async fn a_task_gets_the_time_that_its_rules_give_it() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top")
        .task(cast.task("brutal").shutdown(Shutdown::Brutal))
        .task(cast.task("within").shutdown(ms(100).into()))
        .task(cast.task("infinity").shutdown(Shutdown::Infinity));
    let top = soon(runtime.supervise(tree)).await.unwrap();
    cast.expect(["+brutal", "+within", "+infinity"]).await;
    let stop = |name: &'static str| {
        cast.tell(name, Tell::Linger);
        let top = top.clone();
        kit::spawn(async move { top.terminate_child(name).await })
    };
    let stopping = stop("brutal");
    cast.expect(["-brutal"]).await;
    soon(stopping).await.unwrap().unwrap();

    let stopping = stop("within");
    until_child(&top, "within", ChildPhase::Stopping).await;
    hand.advance(ms(99));
    cast.expect_nothing().await;
    hand.advance(ms(1));
    cast.expect(["-within"]).await;
    soon(stopping).await.unwrap().unwrap();

    let stopping = stop("infinity");
    until_child(&top, "infinity", ChildPhase::Stopping).await;
    hand.advance(HOUR);
    cast.expect_nothing().await;
    cast.tell("infinity", Tell::Finish);
    cast.expect(["-infinity"]).await;
    soon(stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_inline_kernel_gets_the_time_that_its_rules_give_it() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    for shutdown in [Shutdown::Brutal, Shutdown::Within(ms(100)), Shutdown::Infinity] {
        let spec = cast.kernel("k/a").inline().shutdown(shutdown);
        let top = soon(runtime.supervise(quick("top").kernel(spec))).await.unwrap();
        let kernel: PuppetRef = runtime.kernel("k/a").unwrap();
        cast.expect(["+k/a"]).await;
        let door = Latch::new();
        let reply = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        let behind = kernel.try_call(Do::Double(1), NONE).unwrap();
        door.arrived(1).await;
        let other = top.clone();
        let stopping = kit::spawn(async move { other.terminate_child("k/a").await });
        if shutdown != Shutdown::Brutal {
            until_child(&top, "k/a", ChildPhase::Stopping).await;
            hand.advance(ms(99));
            cast.expect_nothing().await;
            hand.advance(ms(1));
        }
        if shutdown == Shutdown::Infinity {
            hand.advance(HOUR);
            cast.expect_nothing().await;
            door.open();
            assert_eq!(soon(reply).await.unwrap(), 1);
        } else {
            assert_eq!(kind(soon(reply).await), KernelErrorKind::Crashed);
        }
        cast.expect(["-k/a"]).await;
        soon(stopping).await.unwrap().unwrap();
        assert_eq!(kind(soon(behind).await), DOWN_STOPPED);
        kit::assert_balanced(&kernel);
        soon(runtime.root().terminate_child("top")).await.unwrap();
        soon(runtime.root().delete_child("top")).await.unwrap();
    }
}

/// A blocked thread cannot be ended: it is fenced, counted, and left.
#[tokio::test]
async fn a_kernel_that_blocks_its_thread_is_left_behind_when_its_time_is_over() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    for shutdown in [Shutdown::Brutal, Shutdown::Within(ms(100)), Shutdown::Infinity] {
        let spec = cast.kernel("k/a").shutdown(shutdown).hang_limit(None);
        let top = soon(runtime.supervise(quick("top").kernel(spec))).await.unwrap();
        let kernel: PuppetRef = runtime.kernel("k/a").unwrap();
        cast.expect(["+k/a"]).await;
        let door = Latch::new();
        let reply = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
        door.arrived(1).await;
        let other = top.clone();
        let stopping = kit::spawn(async move { other.terminate_child("k/a").await });
        if shutdown != Shutdown::Brutal {
            until_child(&top, "k/a", ChildPhase::Stopping).await;
            hand.advance(ms(100));
        }
        if shutdown == Shutdown::Infinity {
            hand.advance(HOUR);
            cast.expect_nothing().await;
            door.open();
            assert_eq!(soon(reply).await.unwrap(), 1);
            soon(stopping).await.unwrap().unwrap();
            assert_eq!(runtime.abandoned_threads(), 0);
        } else {
            assert_eq!(kind(soon(reply).await), KernelErrorKind::Crashed);
            soon(stopping).await.unwrap().unwrap();
            assert_eq!(runtime.abandoned_threads(), 1);
            door.open();
        }
        cast.expect(["-k/a"]).await;
        soon(async {
            while runtime.abandoned_threads() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        soon(runtime.root().terminate_child("top")).await.unwrap();
        soon(runtime.root().delete_child("top")).await.unwrap();
    }
}

#[tokio::test]
async fn a_supervisor_with_a_limit_of_its_own_is_killed_with_everything_below_it() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low").task(cast.task("b").shutdown(Shutdown::Infinity)).kernel(cast.kernel("k/c"));
    let mid = quick("mid").task(cast.task("a")).supervisor(low).shutdown(ms(100).into());
    let top = soon(runtime.supervise(quick("top").supervisor(mid))).await.unwrap();
    cast.expect(["+a", "+b", "+k/c"]).await;
    cast.tell("b", Tell::Linger);
    let other = top.clone();
    let stopping = kit::spawn(async move { other.terminate_child("mid").await });
    cast.expect(["-k/c"]).await;
    hand.advance(ms(99));
    cast.expect_nothing().await;
    assert!(!stopping.is_finished());
    hand.advance(ms(1));
    soon(stopping).await.unwrap().unwrap();
    cast.expect_all(["-a", "-b"]).await;
    soon(top.restart_child("mid")).await.unwrap();
    cast.expect(["+a", "+b", "+k/c"]).await;
}

#[tokio::test]
async fn dynamic_children_are_stopped_all_at_once() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let pool = soon(runtime.supervise(Supervisor::new("pool").dynamic(9))).await.unwrap();
    for name in ["a", "b", "c"] {
        soon(pool.start_task(cast.task(name))).await.unwrap();
    }
    cast.expect(["+a", "+b", "+c"]).await;
    ["a", "c"].iter().for_each(|name| cast.tell(name, Tell::Linger));
    let root = runtime.root();
    let stopping = kit::spawn(async move { root.terminate_child("pool").await });
    cast.expect(["-b"]).await;
    cast.expect_nothing().await;
    cast.tell("a", Tell::Finish);
    cast.expect(["-a"]).await;
    cast.tell("c", Tell::Finish);
    cast.expect(["-c"]).await;
    soon(stopping).await.unwrap().unwrap();
}
