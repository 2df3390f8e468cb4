//! Who is restarted when a child ends, in which order, and when.

use std::sync::Arc;

use rustkernel::actors::{Cause, ChildPhase, Fact};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::BackoffStrategy;
use rustkernel::core::supervision::{AutoShutdown, Restart, Shutdown};

use crate::cast::{Cast, HOUR, Tell, phases, quick, runtime, until, until_child};
use crate::kit::{self, Do, Latch, NONE, PuppetRef, after, assert_balanced, kind, ms, soon};

#[tokio::test]
async fn one_for_one_restarts_the_failed_child_alone() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top").task(cast.task("a")).kernel(cast.kernel("k/b")).task(cast.task("c"));
    let top = soon(runtime.supervise(tree)).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/b").unwrap();
    cast.expect(["+a", "+k/b", "+c"]).await;
    cast.tell("a", Tell::Panic);
    cast.expect(["-a", "+a"]).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    cast.expect(["-k/b", "+k/b"]).await;
    assert!(soon(top.kill_child("c")).await.unwrap());
    cast.expect(["-c", "+c"]).await;
    let children = until(&top, |children| children.iter().all(|child| child.state == ChildPhase::Up)).await;
    assert!(children.iter().all(|child| child.life == 2), "{children:?}");
    assert!(
        matches!(&children[0].last_failure, Some(Cause::Panicked(text)) if text.contains("told to panic"))
    );
    assert_eq!(children[2].last_failure, Some(Cause::Killed));
}

#[tokio::test]
async fn one_for_all_stops_the_others_in_reverse_and_starts_all_in_order() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let mid = quick("mid").task(cast.task("c")).kernel(cast.kernel("k/d"));
    let tree = quick("top")
        .one_for_all()
        .task(cast.task("a"))
        .kernel(cast.kernel("k/b"))
        .supervisor(mid)
        .kernel(cast.kernel("k/e").inline());
    soon(runtime.supervise(tree)).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/b").unwrap();
    let all = ["+a", "+k/b", "+c", "+k/d", "+k/e"];
    cast.expect(all).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    cast.expect(["-k/b", "-k/e", "-k/d", "-c", "-a"]).await;
    cast.expect(all).await;
    cast.tell("a", Tell::Fail);
    cast.expect(["-a", "-k/e", "-k/d", "-c", "-k/b"]).await;
    cast.expect(all).await;
}

#[tokio::test]
async fn rest_for_one_restarts_the_failed_child_and_those_after_it() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top")
        .rest_for_one()
        .task(cast.task("a"))
        .kernel(cast.kernel("k/b"))
        .task(cast.task("c"))
        .kernel(cast.kernel("k/d").inline());
    soon(runtime.supervise(tree)).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/b").unwrap();
    cast.expect(["+a", "+k/b", "+c", "+k/d"]).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    cast.expect(["-k/b", "-k/d", "-c", "+k/b", "+c", "+k/d"]).await;
    let last: PuppetRef = runtime.kernel("k/d").unwrap();
    soon(last.call(Do::Panic, NONE)).await.unwrap_err();
    cast.expect(["-k/d", "+k/d"]).await;
}

#[tokio::test]
async fn refs_and_queued_requests_of_kernels_survive_the_restart_of_their_group() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let mid = quick("mid").kernel(cast.kernel("k/deep").inline());
    let tree = quick("top")
        .one_for_all()
        .task(cast.task("a"))
        .kernel(cast.kernel("k/thread"))
        .kernel(cast.kernel("k/inline").inline())
        .supervisor(mid);
    soon(runtime.supervise(tree)).await.unwrap();
    let all = ["+a", "+k/thread", "+k/inline", "+k/deep"];
    cast.expect(all).await;
    let door = Latch::new();
    let names = ["k/thread", "k/inline", "k/deep"];
    let kernels: Vec<PuppetRef> = names.map(|name| runtime.kernel(name).unwrap()).into();
    let mut first = Vec::new();
    let mut queued = Vec::new();
    for kernel in &kernels {
        first.push(kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap());
        queued.extend((0..20).map(|value| (value, kernel.try_call(Do::Double(value), NONE).unwrap())));
    }
    door.arrived(3).await;
    cast.tell("a", Tell::Fail);
    cast.expect(["-a"]).await;
    // Those that execute finish first; what waits behind them is kept.
    door.open();
    for reply in first {
        assert_eq!(soon(reply).await.unwrap(), 1);
    }
    cast.expect(["-k/deep", "-k/inline", "-k/thread", "+a", "+k/thread", "+k/inline", "+k/deep"]).await;
    for (value, reply) in queued {
        assert_eq!(soon(reply).await.unwrap(), value * 2);
    }
    for kernel in &kernels {
        assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 2);
        assert_balanced(kernel);
        assert_eq!(kernel.accounts().failed, 0);
    }
}

#[tokio::test]
async fn a_group_restart_waits_for_a_slow_stop_and_kills_what_takes_too_long() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top")
        .one_for_all()
        .task(cast.task("a"))
        .task(cast.task("b").shutdown(Shutdown::Infinity))
        .task(cast.task("c").shutdown(ms(100).into()));
    let top = soon(runtime.supervise(tree)).await.unwrap();
    cast.expect(["+a", "+b", "+c"]).await;
    ["b", "c"].iter().for_each(|name| cast.tell(name, Tell::Linger));
    cast.tell("a", Tell::Fail);
    cast.expect(["-a"]).await;
    until_child(&top, "c", ChildPhase::Stopping).await;
    hand.advance(ms(99));
    cast.expect_nothing().await;
    hand.advance(ms(1));
    cast.expect(["-c"]).await;
    hand.advance(HOUR);
    cast.expect_nothing().await;
    cast.tell("b", Tell::Finish);
    cast.expect(["-b", "+a", "+b", "+c"]).await;
}

#[tokio::test]
async fn failures_at_the_same_time_are_one_restart_of_the_group() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top")
        .one_for_all()
        .task(cast.task("a"))
        .kernel(cast.kernel("k/b").inline())
        .task(cast.task("c"));
    let top = soon(runtime.supervise(tree)).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/b").unwrap();
    cast.expect(["+a", "+k/b", "+c"]).await;
    let reply = kernel.try_call(Do::Panic, NONE).unwrap();
    cast.tell("a", Tell::Fail);
    cast.tell("c", Tell::Panic);
    soon(reply).await.unwrap_err();
    cast.expect_all(["-a", "-k/b", "-c", "+a", "+k/b", "+c"]).await;
    until(&top, |children| children.iter().all(|child| child.state == ChildPhase::Up)).await;
    let tree = soon(runtime.tree()).await.unwrap();
    let top = tree.children[0].supervisor.as_ref().unwrap();
    assert_eq!((top.restarts, top.restarts_in_period), (1, Some(1)));
}

#[tokio::test]
async fn restart_types_say_after_which_ends_a_task_comes_back() {
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        for how in ["finish", "fail", "panic", "kill"] {
            let (runtime, _hand) = runtime().await;
            let cast = Cast::default();
            let top =
                soon(runtime.supervise(quick("top").task(cast.task("a").restart(restart)))).await.unwrap();
            cast.expect(["+a"]).await;
            match how {
                "finish" => cast.tell("a", Tell::Finish),
                "fail" => cast.tell("a", Tell::Fail),
                "panic" => cast.tell("a", Tell::Panic),
                _ => assert!(soon(top.kill_child("a")).await.unwrap()),
            }
            let comes_back = match restart {
                Restart::Permanent => true,
                Restart::Transient => how != "finish",
                Restart::Temporary => false,
            };
            if comes_back {
                cast.expect(["-a", "+a"]).await;
                assert_eq!(until_child(&top, "a", ChildPhase::Up).await.life, 2);
            } else if restart == Restart::Transient {
                cast.expect(["-a"]).await;
                until_child(&top, "a", ChildPhase::Down).await;
                assert!(!soon(top.kill_child("a")).await.unwrap(), "nothing lives");
            } else {
                cast.expect(["-a"]).await;
                until(&top, <[_]>::is_empty).await;
            }
            cast.expect_nothing().await;
        }
    }
}

#[tokio::test]
async fn with_its_group_a_temporary_child_goes_and_an_ended_transient_one_comes_back() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top")
        .one_for_all()
        .task(cast.task("a"))
        .task(cast.task("temporary").restart(Restart::Temporary))
        .task(cast.task("transient").restart(Restart::Transient))
        .kernel(cast.kernel("k/temporary").restart(Restart::Temporary));
    let top = soon(runtime.supervise(tree)).await.unwrap();
    cast.expect(["+a", "+temporary", "+transient", "+k/temporary"]).await;
    cast.tell("transient", Tell::Finish);
    cast.expect(["-transient"]).await;
    until_child(&top, "transient", ChildPhase::Down).await;
    cast.tell("a", Tell::Fail);
    cast.expect(["-a", "-k/temporary", "-temporary", "+a", "+transient"]).await;
    let left = until(&top, |children| children.iter().all(|child| child.state == ChildPhase::Up)).await;
    let left: Vec<_> = left.into_iter().map(|child| child.name).collect();
    assert_eq!(left, ["a", "transient"]);
}

#[tokio::test]
async fn the_end_of_significant_children_ends_their_supervisor() {
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let (runtime, _hand) = runtime().await;
        let cast = Cast::default();
        let significant = |name| cast.task(name).restart(Restart::Transient).significant();
        let tree = quick("low")
            .auto_shutdown(auto_shutdown)
            .restart(Restart::Transient)
            .task(cast.task("a"))
            .task(significant("b"))
            .task(significant("c"))
            .kernel(cast.kernel("k/d"));
        let top = soon(runtime.supervise(quick("top").supervisor(tree))).await.unwrap();
        cast.expect(["+a", "+b", "+c", "+k/d"]).await;
        cast.tell("c", Tell::Fail);
        cast.expect(["-c", "+c"]).await;
        cast.tell("b", Tell::Finish);
        if auto_shutdown == AutoShutdown::AnySignificant {
            cast.expect(["-b", "-k/d", "-c", "-a"]).await;
        } else {
            cast.expect(["-b"]).await;
            cast.expect_nothing().await;
            cast.tell("c", Tell::Finish);
            cast.expect(["-c", "-k/d", "-a"]).await;
        }
        let low = until_child(&top, "low", ChildPhase::Down).await;
        assert!(matches!(low.last_failure, Some(Cause::GaveUp(_))), "{low:?}");
        cast.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_backoff_delays_the_restart_and_blocks_nothing() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top")
        .backoff(BackoffStrategy::Linear { initial: ms(100), increment: ms(50), max: ms(1_000) })
        .task(cast.task("a"))
        .task(cast.task("b"));
    let top = soon(runtime.supervise(tree)).await.unwrap();
    cast.expect(["+a", "+b"]).await;
    for delay in [100, 150, 200] {
        cast.tell("a", Tell::Fail);
        cast.expect(["-a"]).await;
        until_child(&top, "a", ChildPhase::Restarting).await;
        soon(top.start_task(cast.task("c").restart(Restart::Temporary))).await.unwrap();
        soon(top.terminate_child("c")).await.unwrap();
        cast.expect(["+c", "-c"]).await;
        hand.advance(ms(delay - 1));
        cast.expect_nothing().await;
        hand.advance(ms(1));
        cast.expect(["+a"]).await;
    }
}

#[tokio::test]
async fn a_backoff_with_jitter_waits_somewhere_up_to_its_limit_and_not_always_as_long() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    let backoff =
        BackoffStrategy::ExponentialWithJitter { initial: ms(1_000), max: ms(8_000), multiplier: 2.0 };
    let tree = quick("top").intensity(u32::MAX, HOUR).backoff(backoff).task(cast.task("a"));
    let top = soon(runtime.supervise(tree)).await.unwrap();
    let mut events = runtime.events();
    cast.expect(["+a"]).await;
    let mut delays = Vec::new();
    for restarts in 1..=20 {
        cast.tell("a", Tell::Panic);
        cast.expect(["-a"]).await;
        let event = soon(events.find("a", |fact| matches!(fact, Fact::Restarting { .. }))).await.unwrap();
        let Fact::Restarting { delay, in_window } = event.fact else { unreachable!() };
        assert_eq!(in_window, restarts);
        assert!(delay <= ms(8_000));
        delays.push(delay);
        until_child(&top, "a", ChildPhase::Restarting).await;
        hand.advance(delay);
        cast.expect(["+a"]).await;
    }
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 10, "{delays:?}");
}

#[tokio::test]
async fn a_stop_during_the_delay_is_final() {
    let (runtime, hand) = runtime().await;
    let cast = Cast::default();
    for strategy in 0..3 {
        let tree = quick("top").backoff(BackoffStrategy::Fixed { delay: ms(100) });
        let tree = match strategy {
            0 => tree.one_for_one(),
            1 => tree.rest_for_one(),
            _ => tree.one_for_all(),
        };
        let kernel = cast.kernel("k/b").recovery(after(ms(100), 9));
        let tree = tree.task(cast.task("a")).kernel(kernel);
        let top = soon(runtime.supervise(tree)).await.unwrap();
        let kernel: PuppetRef = runtime.kernel("k/b").unwrap();
        cast.expect(["+a", "+k/b"]).await;
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        until_child(&top, "k/b", ChildPhase::Restarting).await;
        if strategy < 2 {
            cast.tell("a", Tell::Fail);
            until_child(&top, "a", ChildPhase::Restarting).await;
        }
        let waits = kernel.try_call(Do::Double(1), NONE).unwrap();
        soon(top.terminate_child("a")).await.unwrap();
        soon(top.terminate_child("k/b")).await.unwrap();
        assert_eq!(kind(soon(waits).await), kit::DOWN_STOPPED);
        cast.expect_all(["-a", "-k/b"]).await;
        hand.advance(HOUR);
        cast.expect_nothing().await;
        let down = ChildPhase::Down;
        assert_eq!(phases(&top).await, [("a".into(), down), ("k/b".into(), down)], "strategy {strategy}");
        soon(top.restart_child("k/b")).await.unwrap();
        assert_eq!(soon(kernel.call(Do::Double(2), NONE)).await.unwrap(), 4);
        cast.expect(["+k/b"]).await;
        soon(runtime.root().terminate_child("top")).await.unwrap();
        soon(runtime.root().delete_child("top")).await.unwrap();
        cast.expect(["-k/b"]).await;
    }
}

/// What a leaked context of an earlier life says is not taken for the word of the present one.
#[tokio::test]
async fn only_the_present_life_of_a_task_can_say_that_it_is_up() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let contexts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let leaked = Arc::clone(&contexts);
    let task = rustkernel::actors::Task::new("a", move |cx| {
        leaked.lock().unwrap().push(cx.clone());
        async move {
            cx.stopped().await;
            Ok(())
        }
    });
    let tree = quick("top").supervisor(quick("mid").task(task.announces()).task(cast.task("b")));
    let other = runtime.clone();
    let starting = kit::spawn(async move { other.supervise(tree).await });
    let has = |count| {
        let contexts = Arc::clone(&contexts);
        async move {
            while contexts.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        }
    };
    soon(has(1)).await;
    contexts.lock().unwrap()[0].ready();
    let top = soon(starting).await.unwrap().unwrap();
    cast.expect(["+b"]).await;
    assert!(soon(top.kill_child("mid")).await.unwrap());
    cast.expect(["-b"]).await;
    soon(has(2)).await;
    contexts.lock().unwrap()[0].ready();
    cast.expect_nothing().await;
    contexts.lock().unwrap()[1].ready();
    cast.expect(["+b"]).await;
}

#[tokio::test]
async fn a_request_in_hand_fails_with_its_kernel_and_the_books_balance() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let tree = quick("top")
        .rest_for_one()
        .task(cast.task("a"))
        .kernel(cast.kernel("k/b").inline().shutdown(Shutdown::Brutal));
    soon(runtime.supervise(tree)).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/b").unwrap();
    cast.expect(["+a", "+k/b"]).await;
    let door = Latch::new();
    let in_hand = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    let behind = kernel.try_call(Do::Double(4), NONE).unwrap();
    door.arrived(1).await;
    cast.tell("a", Tell::Fail);
    assert_eq!(kind(soon(in_hand).await), KernelErrorKind::Crashed);
    assert_eq!(soon(behind).await.unwrap(), 8);
    cast.expect(["-a", "-k/b", "+a", "+k/b"]).await;
    assert_balanced(&kernel);
}

/// The kernel asked whether a restart was left, though its group was being restarted anyway, and ended its supervisor.
#[tokio::test]
async fn a_kernel_that_fails_with_its_group_comes_back_with_it_even_if_no_restart_is_left() {
    let (runtime, _hand) = runtime().await;
    let cast = Cast::default();
    let low = quick("low")
        .one_for_all()
        .intensity(1, HOUR)
        .task(cast.task("a"))
        .kernel(cast.kernel("k/b").inline())
        .task(cast.task("c"));
    let top = soon(runtime.supervise(quick("top").supervisor(low))).await.unwrap();
    let kernel: PuppetRef = runtime.kernel("k/b").unwrap();
    cast.expect(["+a", "+k/b", "+c"]).await;
    cast.tell("c", Tell::Linger);
    cast.tell("a", Tell::Fail);
    cast.expect(["-a"]).await;
    until_child(&runtime.supervisor("low").unwrap(), "c", ChildPhase::Stopping).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    cast.expect(["-k/b"]).await;
    cast.expect_nothing().await;
    cast.tell("c", Tell::Finish);
    cast.expect(["-c", "+a", "+k/b", "+c"]).await;
    assert_eq!(until_child(&top, "low", ChildPhase::Up).await.life, 1);
}
