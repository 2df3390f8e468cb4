//! Drain, stop, shutdown, and runtimes that vanish.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::sync::{Arc, Mutex};

use kit::{DOWN_ISOLATED, DOWN_STOPPED, Do, Latch, NONE, Puppet, assert_balanced, at_once, block_on};
use kit::{kind, ms, puppet, soon, status};
use rustkernel::actors::{ClockHand, Fact, KernelSpec, KernelState, Runtime, RuntimeState, SpawnError};
use rustkernel::core::Result;
use rustkernel::core::error::{DownReason, KernelErrorKind};
use rustkernel::core::traits::{Context, Kernel};

async fn runtime() -> (Runtime, ClockHand) {
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    hand.advance(ms(1));
    (runtime, hand)
}

#[tokio::test]
async fn a_drain_finishes_what_waits_and_refuses_the_new() {
    let (runtime, _hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    let door = Latch::new();
    let mut replies = vec![kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap()];
    replies.extend((0..5).map(|value| kernel.try_call(Do::Double(value), NONE).unwrap()));
    door.arrived(1).await;
    let other = runtime.clone();
    let stopping = kit::spawn(async move { other.stop("a/b", true).await });
    soon(async { while status(&runtime, "a/b").await.state != KernelState::Draining {} }).await;
    assert_eq!(kind(kernel.call(Do::Double(1), NONE).await), KernelErrorKind::Draining);
    door.open();
    for reply in replies {
        soon(reply).await.unwrap();
    }
    assert!(soon(stopping).await.unwrap());
    assert_eq!(kind(kernel.call(Do::Double(1), NONE).await), DOWN_STOPPED);
    assert!(!runtime.stop("a/b", true).await, "it is unknown by now");
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_stop_finishes_the_running_request_and_answers_the_waiting_ones() {
    let (runtime, _hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    let door = Latch::new();
    let running = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    let waiting = kernel.try_call(Do::Double(1), NONE).unwrap();
    door.arrived(1).await;
    let other = runtime.clone();
    let stopping = kit::spawn(async move { other.stop("a/b", false).await });
    soon(async { while status(&runtime, "a/b").await.state != KernelState::Stopping {} }).await;
    door.open();
    soon(running).await.unwrap();
    assert_eq!(kind(soon(waiting).await), DOWN_STOPPED);
    assert!(soon(stopping).await.unwrap());
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_stop_kills_what_does_not_end_within_its_grace() {
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").shutdown(ms(100))).await.unwrap();
    let door = Latch::new();
    let running = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let other = runtime.clone();
    let stopping = kit::spawn(async move { other.stop("a/b", true).await });
    soon(async { while status(&runtime, "a/b").await.state != KernelState::Draining {} }).await;
    hand.advance(ms(100));
    soon(async { while status(&runtime, "a/b").await.state != KernelState::Stopping {} }).await;
    hand.advance(ms(100));
    assert!(soon(stopping).await.unwrap());
    assert_eq!(kind(soon(running).await), KernelErrorKind::Crashed);
    assert_eq!(runtime.abandoned_threads(), 1);
    door.open();
}

/// A kernel that was isolated while it drained told nobody that it was empty: the stop waited for ever.
#[tokio::test]
async fn a_drain_ends_when_its_kernel_is_isolated_on_the_way() {
    let (runtime, _hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").recovery(at_once(0))).await.unwrap();
    let door = Latch::new();
    let first = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    let poison = kernel.try_call(Do::Panic, NONE).unwrap();
    let behind = kernel.try_call(Do::Double(1), NONE).unwrap();
    door.arrived(1).await;
    let other = runtime.clone();
    let stopping = kit::spawn(async move { other.stop("a/b", true).await });
    soon(async { while status(&runtime, "a/b").await.state != KernelState::Draining {} }).await;
    door.open();
    soon(first).await.unwrap();
    assert_eq!(kind(soon(poison).await), KernelErrorKind::Crashed);
    assert_eq!(kind(soon(behind).await), DOWN_ISOLATED);
    assert!(soon(stopping).await.unwrap());
    assert!(soon(runtime.status()).await.is_empty());
}

#[tokio::test]
async fn a_shutdown_ends_when_a_kernel_is_isolated_on_the_way() {
    let (runtime, _hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").recovery(at_once(0))).await.unwrap();
    let door = Latch::new();
    let first = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    let poison = kernel.try_call(Do::Panic, NONE).unwrap();
    door.arrived(1).await;
    let other = runtime.clone();
    let ending = kit::spawn(async move { other.shutdown(ms(60_000)).await });
    soon(async {
        while runtime.state() != RuntimeState::Draining {
            tokio::task::yield_now().await
        }
    })
    .await;
    door.open();
    soon(first).await.unwrap();
    soon(poison).await.unwrap_err();
    assert!(soon(ending).await.unwrap().is_some());
}

/// The last request of a draining kernel waited for its backoff, and its caller left: nobody noticed that it was empty.
#[tokio::test]
async fn a_drain_ends_when_the_last_waiting_caller_leaves() {
    let (runtime, _hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").idempotent()).await.unwrap();
    let waits = kernel.try_call(Do::FailUntil(1), NONE).unwrap();
    soon(async {
        loop {
            let now = status(&runtime, "a/b").await;
            if now.waiting == 1 && now.accounts.reruns == 1 {
                break;
            }
        }
    })
    .await;
    let other = runtime.clone();
    let stopping = kit::spawn(async move { other.stop("a/b", true).await });
    soon(async { while status(&runtime, "a/b").await.state != KernelState::Draining {} }).await;
    drop(waits);
    assert!(soon(stopping).await.unwrap());
}

#[tokio::test]
async fn a_shutdown_drains_stops_in_reverse_order_and_says_so() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&order);
    let builder = Runtime::builder().hook(move |event| {
        if event.fact == Fact::Stopped {
            log.lock().unwrap().push(event.kernel.as_ref().unwrap().to_string());
        }
    });
    let (runtime, _hand) = builder.build_with_manual_clock().await.unwrap();
    let first = runtime.spawn(puppet("a/first")).await.unwrap();
    let second = runtime.spawn(puppet("a/second")).await.unwrap();
    let third = runtime.spawn(puppet("a/third").inline()).await.unwrap();
    assert!(runtime.health().ready);
    let door = Latch::new();
    let busy = second.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    let behind = second.try_call(Do::Double(1), NONE).unwrap();
    door.arrived(1).await;
    let other = runtime.clone();
    let ending = kit::spawn(async move { other.shutdown(ms(10_000)).await });
    soon(async {
        while runtime.state() != RuntimeState::Draining {
            tokio::task::yield_now().await
        }
    })
    .await;
    let health = runtime.health();
    assert!(health.live && !health.ready, "live until the drain ends, ready no more");
    assert!(matches!(soon(runtime.spawn(puppet("a/late"))).await.unwrap_err(), SpawnError::RuntimeGone));
    assert_eq!(kind(first.call(Do::Double(1), NONE).await), KernelErrorKind::Draining);
    door.open();
    soon(busy).await.unwrap();
    soon(behind).await.unwrap();
    let report = soon(ending).await.unwrap().unwrap();
    assert_eq!((report.stopped, report.killed, report.abandoned_threads), (3, 0, 0));
    assert_eq!(*order.lock().unwrap(), ["a/third", "a/second", "a/first"]);
    assert_eq!(runtime.state(), RuntimeState::Stopped);
    assert_eq!(soon(runtime.ended()).await, RuntimeState::Stopped);
    assert_eq!(kind(third.call(Do::Double(1), NONE).await), DOWN_STOPPED);
    assert_eq!(runtime.shutdown(ms(1)).await, None);
}

#[tokio::test]
async fn a_shutdown_whose_grace_is_over_answers_what_still_waits() {
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").shutdown(ms(50))).await.unwrap();
    let door = Latch::new();
    let busy = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    let behind = kernel.try_call(Do::Double(1), NONE).unwrap();
    door.arrived(1).await;
    let other = runtime.clone();
    let ending = kit::spawn(async move { other.shutdown(ms(100)).await });
    soon(async {
        while runtime.state() != RuntimeState::Draining {
            tokio::task::yield_now().await
        }
    })
    .await;
    // Whoever asks after the shutdown is answered after it has begun.
    status(&runtime, "a/b").await;
    hand.advance(ms(100));
    soon(async { while status(&runtime, "a/b").await.state != KernelState::Stopping {} }).await;
    hand.advance(ms(50));
    let report = soon(ending).await.unwrap().unwrap();
    assert_eq!((report.stopped, report.killed, report.abandoned_threads), (0, 1, 1));
    assert_eq!(kind(soon(busy).await), KernelErrorKind::Crashed);
    assert_eq!(kind(soon(behind).await), DOWN_STOPPED);
    door.open();
}

#[tokio::test]
async fn a_runtime_dropped_without_shutdown_answers_everything() {
    for inline in [false, true] {
        let (runtime, _hand) = runtime().await;
        let spec = puppet("a/b");
        let kernel = runtime.spawn(if inline { spec.inline() } else { spec }).await.unwrap();
        let door = Latch::new();
        let running = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        let waiting = kernel.try_call(Do::Double(1), NONE).unwrap();
        door.arrived(1).await;
        drop(runtime);
        let gone = KernelErrorKind::Down(DownReason::SupervisorGone);
        assert_eq!(kind(soon(running).await), KernelErrorKind::Crashed);
        assert_eq!(kind(soon(waiting).await), gone);
        assert_eq!(kind(kernel.call(Do::Double(1), NONE).await), gone);
        assert_balanced(&kernel);
    }
}

#[test]
fn a_tokio_runtime_dropped_under_its_kernels_answers_callers_on_other_runtimes() {
    for inline in [false, true] {
        let under =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (runtime, kernel) = under.block_on(async {
            let (runtime, _hand) = runtime().await;
            let spec = puppet("a/b");
            let kernel = runtime.spawn(if inline { spec.inline() } else { spec }).await.unwrap();
            (runtime, kernel)
        });
        let door = Latch::new();
        let running = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        let waiting: Vec<_> = (0..9).map(|value| kernel.try_call(Do::Double(value), NONE).unwrap()).collect();
        under.block_on(door.arrived(1));
        let caller = std::thread::spawn(move || {
            let mut kinds = vec![kind(block_on(running))];
            kinds.extend(waiting.into_iter().map(|reply| kind(block_on(reply))));
            kinds
        });
        under.shutdown_background();
        let kinds = caller.join().unwrap();
        let gone = KernelErrorKind::Down(DownReason::SupervisorGone);
        assert_eq!(kinds[0], KernelErrorKind::Crashed);
        assert!(kinds[1..].iter().all(|kind| *kind == gone), "{kinds:?}");
        assert_eq!(kind(block_on(kernel.call(Do::Double(1), NONE))), gone);
        assert_balanced(&kernel);
        drop(runtime);
    }
}

/// A panic in user code that the runtime drops or wakes in passing reached the recovery actor or cut a list of answers short.
#[tokio::test]
async fn a_waker_that_panics_costs_nobody_else_an_answer() {
    struct Bomb;
    impl std::task::Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    let door = Latch::new();
    let busy = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let mut bombs: Vec<_> =
        (0..3).map(|_| Box::pin(kernel.try_call(Do::Double(1), ms(20)).unwrap())).collect();
    let bomb = std::task::Waker::from(Arc::new(Bomb));
    for reply in &mut bombs {
        assert!(reply.as_mut().poll(&mut std::task::Context::from_waker(&bomb)).is_pending());
    }
    let victim = kernel.try_call(Do::Double(1), ms(20)).unwrap();
    hand.advance(ms(20));
    assert_eq!(kind(soon(victim).await), KernelErrorKind::DeadlineExceeded);
    for reply in bombs {
        assert_eq!(kind(soon(reply).await), KernelErrorKind::DeadlineExceeded);
    }

    let mut bomb_reply = Box::pin(kernel.try_call(Do::Double(1), NONE).unwrap());
    assert!(bomb_reply.as_mut().poll(&mut std::task::Context::from_waker(&bomb)).is_pending());
    let behind = kernel.try_call(Do::Incarnation, NONE).unwrap();
    door.open();
    soon(busy).await.unwrap();
    assert_eq!(soon(behind).await.unwrap(), 1, "the kernel is not to blame");
    assert_eq!(soon(bomb_reply).await.unwrap(), 2);
}

#[tokio::test]
async fn a_payload_whose_drop_panics_takes_neither_the_timer_nor_the_recovery_actor_along() {
    #[derive(Debug)]
    struct Fuse(Arc<Latch>, bool);
    impl Drop for Fuse {
        fn drop(&mut self) {
            if self.1 && !std::thread::panicking() {
                panic!("a drop that panics");
            }
        }
    }
    impl rustkernel::core::traits::Payload for Fuse {
        fn size_bytes(&self) -> usize {
            0
        }
        fn schema() -> String {
            "fuse".into()
        }
    }
    /// Panics when it is dropped while it waits.
    struct Tripwire(bool);
    impl Drop for Tripwire {
        fn drop(&mut self) {
            if self.0 && !std::thread::panicking() {
                panic!("a future that panics in its drop");
            }
        }
    }
    struct Wires;
    impl Kernel for Wires {
        type Input = Fuse;
        type Output = u64;

        async fn execute(&mut self, input: &Fuse, cx: &mut Context<'_>) -> Result<u64> {
            let wire = Tripwire(input.1);
            input.0.pass().await;
            std::mem::forget(wire);
            Ok(cx.incarnation())
        }
    }
    let open = Latch::new();
    open.open();
    for inline in [false, true] {
        let (runtime, _hand) = runtime().await;
        let spec = KernelSpec::new("a/b", || Wires).breaker(None).recovery(at_once(9));
        let kernel = runtime.spawn(if inline { spec.inline() } else { spec }).await.unwrap();
        let other = runtime.spawn(KernelSpec::new("a/other", || Puppet)).await.unwrap();
        let door = Latch::new();
        let reply = kernel.try_call(Fuse(Arc::clone(&door), true), NONE).unwrap();
        door.arrived(1).await;
        // The execution is dropped for a caller who left, and the slot is the last to hold the input.
        drop(reply);
        assert_eq!(soon(kernel.call(Fuse(Arc::clone(&open), false), NONE)).await.unwrap(), 2);
        assert_eq!(soon(other.call(Do::Double(1), NONE)).await.unwrap(), 2);
        assert_eq!(runtime.state(), RuntimeState::Running);
        let accounts = kernel.accounts();
        assert_eq!((accounts.accepted, accounts.answered, accounts.failed), (2, 1, 1));
    }
}
