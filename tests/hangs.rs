//! Kernels that block their thread: answered on time, fenced, replaced, and their late answers discarded.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use kit::{Do, Latch, NONE, Puppet, after, at_once, kind, ms, puppet, soon, status};
use rustkernel::actors::{Cause, ClockHand, Events, Fact, KernelSpec, KernelState, Runtime};
use rustkernel::core::error::{DownReason, KernelErrorKind, Phase};
use rustkernel::core::traits::{Context, Kernel, LocalKernel, Payload};
use rustkernel::core::{KernelError, Result};

async fn runtime() -> (Runtime, ClockHand) {
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    hand.advance(ms(1));
    (runtime, hand)
}

async fn started(events: &mut Events, id: &str, number: u64) {
    let wanted = |fact: &Fact| matches!(fact, Fact::Started { incarnation, .. } if *incarnation == number);
    soon(events.find(id, wanted)).await.unwrap();
}

async fn failed(events: &mut Events, id: &str) -> Cause {
    let event = soon(events.find(id, |fact| matches!(fact, Fact::Failed { .. }))).await.unwrap();
    let Fact::Failed { cause, .. } = event.fact else { unreachable!() };
    cause
}

#[tokio::test]
async fn a_20_ms_deadline_on_a_kernel_that_blocks_900_ms_is_answered_at_its_deadline() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    let door = Latch::new();
    let late = kernel.try_call(Do::Block(Arc::clone(&door)), ms(20)).unwrap();
    door.arrived(1).await;

    hand.advance(ms(20));
    let error = soon(late).await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (&KernelErrorKind::DeadlineExceeded, Phase::Executing));
    assert_eq!(status(&runtime, "a/b").await.incarnation, 1, "merely late is not hung");

    hand.advance(ms(80));
    assert_eq!(failed(&mut events, "a/b").await, Cause::Hung);
    assert_eq!(soon(kernel.call(Do::Incarnation, ms(800))).await.unwrap(), 2);
    assert_eq!(runtime.abandoned_threads(), 1);

    hand.advance(ms(800));
    door.open();
    assert_eq!(
        soon(kernel.call(Do::Incarnation, ms(800))).await.unwrap(),
        2,
        "the late thread takes nothing"
    );
    let accounts = kernel.accounts();
    assert_eq!((accounts.accepted, accounts.answered, accounts.failed), (3, 2, 1));
}

#[tokio::test]
async fn a_late_answer_is_discarded_and_counted() {
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    let door = Latch::new();
    let late = kernel.try_call(Do::Block(Arc::clone(&door)), ms(20)).unwrap();
    door.arrived(1).await;
    hand.advance(ms(20));
    soon(late).await.unwrap_err();
    door.open();
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 1, "late, but back in time");
    assert_eq!(kernel.accounts().discarded, 1);
}

#[tokio::test]
async fn without_a_deadline_the_hang_limit_ends_an_execution_that_blocks() {
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").hang_limit(ms(500))).await.unwrap();
    let door = Latch::new();
    let hung = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    hand.advance(ms(500));
    assert_eq!(kind(soon(hung).await), KernelErrorKind::Hung);
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 2);
    door.open();
}

/// The fence woke nobody: an execution that waited at an await past its hang limit stayed parked for ever, its thread was
/// counted as abandoned for ever, and the cap filled up.
#[tokio::test]
async fn a_hung_execution_that_waits_at_an_await_gives_its_thread_back() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let kernel = runtime.spawn(puppet("a/b").hang_limit(ms(500))).await.unwrap();
    let door = Latch::new();
    let hung = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let weak = Arc::downgrade(&door);
    drop(door);
    hand.advance(ms(500));
    assert_eq!(kind(soon(hung).await), KernelErrorKind::Hung);
    started(&mut events, "a/b", 2).await;
    soon(async {
        while runtime.abandoned_threads() > 0 || weak.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A kill woke nobody either: the thread was fenced, parked, and given up only after its whole grace time.
#[tokio::test]
async fn a_killed_execution_that_waits_at_an_await_ends_at_once() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    let door = Latch::new();
    let killed = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    assert!(runtime.kill("a/b").await);
    assert_eq!(kind(soon(killed).await), KernelErrorKind::Crashed);
    started(&mut events, "a/b", 2).await;
    assert_eq!(runtime.abandoned_threads(), 0);
}

#[tokio::test]
async fn an_inline_kernel_is_killed_at_an_await() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let kernel = runtime.spawn(puppet("a/b").inline()).await.unwrap();
    let door = Latch::new();
    let killed = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    assert!(runtime.kill("a/b").await);
    assert_eq!(kind(soon(killed).await), KernelErrorKind::Crashed);
    assert_eq!(failed(&mut events, "a/b").await, Cause::Killed);
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 2);
}

/// The check of a request whose caller had left was set to a time already past, again and again: the timer spun, and
/// the kernel was lost.
#[tokio::test]
async fn a_kernel_that_blocks_for_a_caller_who_left_is_fenced_at_the_hang_limit() {
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").hang_limit(ms(500))).await.unwrap();
    let door = Latch::new();
    let left = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    drop(left);
    let next = kernel.try_call(Do::Incarnation, NONE).unwrap();
    let turning = std::thread::spawn(move || hand.advance(ms(1000)));
    assert_eq!(soon(next).await.unwrap(), 2);
    turning.join().unwrap();
    door.open();
}

/// The fence of a hung execution disarmed the slot's alarm: whoever waited behind it was not answered at their deadline.
#[tokio::test]
async fn callers_behind_a_hung_execution_are_answered_at_their_own_deadlines() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let spec = puppet("a/b").recovery(after(ms(10_000), 9));
    let kernel = runtime.spawn(spec).await.unwrap();
    let door = Latch::new();
    let hung = kernel.try_call(Do::Block(Arc::clone(&door)), ms(20)).unwrap();
    let behind = kernel.try_call(Do::Double(1), ms(300)).unwrap();
    door.arrived(1).await;
    hand.advance(ms(100));
    soon(hung).await.unwrap_err();
    assert_eq!(failed(&mut events, "a/b").await, Cause::Hung);
    hand.advance(ms(200));
    assert_eq!(kind(soon(behind).await), KernelErrorKind::DeadlineExceeded);
    door.open();
}

/// The time a kernel spent waiting at an await counted as time it blocked its thread.
#[tokio::test]
async fn waiting_at_an_await_is_not_blocking() {
    let (runtime, hand) = runtime().await;
    let [waits, blocks] = [Latch::new(), Latch::new()];
    let kernel = runtime.spawn(KernelSpec::new("a/b", || WaitsThenBlocks)).await.unwrap();
    let call = kernel.try_call(Both(Arc::clone(&waits), Arc::clone(&blocks)), ms(510)).unwrap();
    waits.arrived(1).await;
    soon(async { while status(&runtime, "a/b").await.blocked_for.is_some() {} }).await;
    hand.advance(ms(500));
    waits.open();
    blocks.arrived(1).await;
    hand.advance(ms(10));
    assert_eq!(kind(soon(call).await), KernelErrorKind::DeadlineExceeded);
    assert_eq!(status(&runtime, "a/b").await.state, KernelState::Serving, "it has blocked for 10 ms only");
    blocks.open();
}

#[derive(Debug)]
struct Both(Arc<Latch>, Arc<Latch>);

impl Payload for Both {
    fn size_bytes(&self) -> usize {
        16
    }

    fn schema() -> String {
        "both".into()
    }
}

struct WaitsThenBlocks;

impl Kernel for WaitsThenBlocks {
    type Input = Both;
    type Output = u64;

    async fn execute(&mut self, input: &Both, _: &mut Context<'_>) -> Result<u64> {
        input.0.pass().await;
        input.1.block();
        Ok(0)
    }
}

/// Work that is done before the future is returned was not watched.
#[tokio::test]
async fn a_kernel_that_blocks_before_it_returns_its_future_is_fenced() {
    struct Eager;
    impl Kernel for Eager {
        type Input = Do;
        type Output = u64;

        #[allow(clippy::manual_async_fn, reason = "it works before there is a future")]
        fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> impl Future<Output = Result<u64>> + Send {
            if let Do::Block(door) = input {
                door.block();
            }
            std::future::ready(Ok(cx.incarnation()))
        }
    }
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(KernelSpec::new("a/b", || Eager).recovery(at_once(9))).await.unwrap();
    let door = Latch::new();
    let hung = kernel.try_call(Do::Block(Arc::clone(&door)), ms(20)).unwrap();
    door.arrived(1).await;
    hand.advance(ms(200));
    assert_eq!(kind(soon(hung).await), KernelErrorKind::DeadlineExceeded);
    assert_eq!(soon(kernel.call(Do::Incarnation, ms(5000))).await.unwrap(), 2);
    door.open();
}

/// A future that blocks in its `Drop` was not watched: its kernel was lost, and everything behind it.
#[tokio::test]
async fn a_kernel_whose_future_blocks_in_its_drop_is_fenced() {
    struct BlocksInDrop(Arc<Latch>);
    impl Drop for BlocksInDrop {
        fn drop(&mut self) {
            self.0.block();
        }
    }
    impl Future for BlocksInDrop {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<()> {
            Poll::Pending
        }
    }
    struct Sticky;
    impl Kernel for Sticky {
        type Input = Do;
        type Output = u64;

        async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<u64> {
            if let Do::Wait(door) = input {
                BlocksInDrop(Arc::clone(door)).await;
            }
            Ok(cx.incarnation())
        }
    }
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(KernelSpec::new("a/b", || Sticky).recovery(at_once(9))).await.unwrap();
    let door = Latch::new();
    let hung = kernel.try_call(Do::Wait(Arc::clone(&door)), ms(20)).unwrap();
    soon(async { while status(&runtime, "a/b").await.waiting > 0 {} }).await;
    hand.advance(ms(20));
    assert_eq!(kind(soon(hung).await), KernelErrorKind::DeadlineExceeded);
    door.arrived(1).await;
    hand.advance(ms(1000));
    assert_eq!(soon(kernel.call(Do::Incarnation, ms(5000))).await.unwrap(), 2);
    door.open();
}

#[tokio::test]
async fn too_many_abandoned_threads_take_a_kernel_down_and_an_operator_brings_it_back() {
    let (runtime, hand) =
        Runtime::builder().abandoned_thread_limit(2).build_with_manual_clock().await.unwrap();
    hand.advance(ms(1));
    let mut events = runtime.events();
    let kernel = runtime.spawn(puppet("a/b").hang_limit(ms(100))).await.unwrap();
    let mut doors = Vec::new();
    for number in 1..=2 {
        let door = Latch::new();
        let hung = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
        door.arrived(1).await;
        doors.push(door);
        let waits = (number == 2).then(|| kernel.try_call(Do::Double(1), NONE).unwrap());
        hand.advance(ms(100));
        assert_eq!(kind(soon(hung).await), KernelErrorKind::Hung);
        if let Some(waits) = waits {
            assert_eq!(kind(soon(waits).await), KernelErrorKind::Down(DownReason::AbandonedThreads));
        } else {
            started(&mut events, "a/b", 2).await;
        }
    }
    assert_eq!(status(&runtime, "a/b").await.state, KernelState::OutOfThreads);
    for door in &doors {
        door.open();
    }
    soon(async {
        while runtime.abandoned_threads() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(runtime.resume("a/b").await);
    assert_eq!(soon(kernel.call(Do::Double(4), NONE)).await.unwrap(), 8);
}

/// An actor that was killed before it had started its thread counted as an abandoned thread for ever.
#[tokio::test]
async fn a_kill_before_the_thread_has_started_abandons_nothing() {
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    for _ in 0..50 {
        // Both orders reach the recovery actor in a row: the second meets an incarnation that is only being made.
        let panics = kernel.try_call(Do::Panic, NONE).unwrap();
        soon(panics).await.unwrap_err();
        let (first, second) = tokio::join!(runtime.kill("a/b"), runtime.kill("a/b"));
        let _ = (first, second);
        hand.advance(ms(6_000));
    }
    soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
    soon(async {
        while runtime.abandoned_threads() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_kernel_that_is_not_send_lives_on_its_own_thread() {
    struct NotSend(std::rc::Rc<std::cell::Cell<u64>>);
    impl LocalKernel for NotSend {
        type Input = Do;
        type Output = u64;

        async fn execute_local(&mut self, input: &Do, _: &mut Context<'_>) -> Result<u64> {
            assert!(!matches!(input, Do::Panic), "told to panic");
            self.0.set(self.0.get() + 1);
            Ok(self.0.get())
        }
    }
    let (runtime, _hand) = runtime().await;
    let spec = KernelSpec::new("a/b", || NotSend(std::rc::Rc::default())).recovery(at_once(3)).breaker(None);
    let kernel = runtime.spawn(spec).await.unwrap();
    assert_eq!(soon(kernel.call(Do::Double(0), NONE)).await.unwrap(), 1);
    assert_eq!(soon(kernel.call(Do::Double(0), NONE)).await.unwrap(), 2);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(soon(kernel.call(Do::Double(0), NONE)).await.unwrap(), 1);
}

#[tokio::test]
async fn timers_deadlines_and_other_kernels_go_on_while_every_kernel_blocks_its_thread() {
    let (runtime, hand) = runtime().await;
    let door = Latch::new();
    let mut blocked = Vec::new();
    let mut kernels = Vec::new();
    for index in 0..8 {
        let kernel = runtime.spawn(puppet(&format!("a/k{index}"))).await.unwrap();
        blocked.push(kernel.try_call(Do::Block(Arc::clone(&door)), ms(10 * (index + 1))).unwrap());
        kernels.push(kernel);
    }
    door.arrived(8).await;
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    for (index, call) in blocked.into_iter().enumerate() {
        let send = send.clone();
        hand.advance(ms(10));
        send.send((index, kind(soon(call).await))).unwrap();
    }
    for index in 0..8 {
        assert_eq!(receive.recv().await.unwrap(), (index, KernelErrorKind::DeadlineExceeded));
    }
    let other = runtime.spawn(KernelSpec::new("a/other", || Puppet)).await.unwrap();
    assert_eq!(soon(other.call(Do::Double(1), ms(50))).await.unwrap(), 2);
    door.open();
    drop((kernels, KernelError::permanent("unused")));
}
