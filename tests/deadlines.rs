//! Deadlines: checked everywhere, handed down, and never answered late with Ok.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::sync::{Arc, Mutex};

use kit::{Do, Latch, NONE, PuppetRef, assert_balanced, kind, ms, puppet, soon};
use rustkernel::actors::{ClockHand, KernelSpec, Runtime};
use rustkernel::core::Result;
use rustkernel::core::clock::Timestamp;
use rustkernel::core::error::{KernelErrorKind, Limit, Phase};
use rustkernel::core::resilience::{ErrorKind, TimeoutConfig, with_ambient_deadline};
use rustkernel::core::traits::{Context, Kernel};

async fn runtime() -> (Runtime, ClockHand) {
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    hand.advance(ms(1));
    (runtime, hand)
}

/// Writes down the deadline it sees, and asks another kernel.
struct Asks {
    other: Option<PuppetRef>,
    seen: Arc<Mutex<Vec<Timestamp>>>,
}

impl Kernel for Asks {
    type Input = Do;
    type Output = u64;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<u64> {
        self.seen.lock().unwrap().push(cx.header().deadline);
        match &self.other {
            Some(other) => other.call(input.clone(), NONE).await,
            None => Ok(0),
        }
    }
}

#[tokio::test]
async fn what_a_kernel_calls_ends_with_the_request_it_is_called_for() {
    for inline in [false, true] {
        let (runtime, hand) = runtime().await;
        let seen = Arc::new(Mutex::default());
        let inner = runtime.spawn(puppet("a/inner")).await.unwrap();
        let (other, log) = (inner.clone(), Arc::clone(&seen));
        let outer =
            KernelSpec::new("a/outer", move || Asks { other: Some(other.clone()), seen: Arc::clone(&log) });
        let outer = runtime.spawn(if inline { outer.inline() } else { outer }).await.unwrap();
        let door = Latch::new();
        let call = outer.try_call(Do::Wait(Arc::clone(&door)), ms(50)).unwrap();
        door.arrived(1).await;
        hand.advance(ms(50));
        assert_eq!(kind(soon(call).await), KernelErrorKind::DeadlineExceeded);
        assert_eq!(soon(inner.call(Do::Double(1), NONE)).await.unwrap(), 2, "the inner one is free again");
        assert_eq!(inner.accounts().failed, 1);
    }
}

/// A kernel's call to another kernel did not carry the deadline of the request it was made for.
#[tokio::test]
async fn a_called_kernel_sees_the_deadline_of_the_request_it_is_called_for() {
    for inline in [false, true] {
        let (runtime, hand) = runtime().await;
        let seen = Arc::new(Mutex::default());
        let spec = |id, other: Option<PuppetRef>| {
            let log = Arc::clone(&seen);
            let spec = KernelSpec::new(id, move || Asks { other: other.clone(), seen: Arc::clone(&log) });
            if inline { spec.inline() } else { spec }
        };
        let inner = runtime.spawn(spec("a/inner", None)).await.unwrap();
        let outer = runtime.spawn(spec("a/outer", Some(inner))).await.unwrap();
        let deadline = hand.clock().now() + ms(100);
        soon(outer.call(Do::Double(1), deadline)).await.unwrap();
        soon(outer.call(Do::Double(1), NONE)).await.unwrap();
        let never = Timestamp::NEVER;
        assert_eq!(*seen.lock().unwrap(), [deadline, deadline, never, never]);
    }
}

#[tokio::test]
async fn the_earlier_of_the_callers_and_the_tasks_deadline_counts() {
    let (runtime, hand) = runtime().await;
    let seen = Arc::new(Mutex::default());
    let log = Arc::clone(&seen);
    let spec = KernelSpec::new("a/b", move || Asks { other: None, seen: Arc::clone(&log) });
    let kernel = runtime.spawn(spec).await.unwrap();
    let now = hand.clock().now();
    let ambient = now + ms(50);
    with_ambient_deadline(ambient, kernel.call(Do::Double(1), ms(90))).await.unwrap();
    with_ambient_deadline(ambient, kernel.call(Do::Double(1), ms(10))).await.unwrap();
    with_ambient_deadline(ambient, kernel.call(Do::Double(1), NONE)).await.unwrap();
    kernel.call(Do::Double(1), now + ms(7)).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [ambient, now + ms(10), ambient, now + ms(7)]);
}

#[tokio::test]
async fn expired_work_is_refused_and_a_queued_request_whose_time_is_over_never_runs() {
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    let refused = kernel.try_call(Do::Double(1), ms(0)).unwrap_err();
    assert_eq!(refused.error.phase(), Phase::Admission);
    let door = Latch::new();
    let busy = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let never = Latch::new();
    let queued = kernel.try_call(Do::Wait(Arc::clone(&never)), ms(20)).unwrap();
    hand.advance(ms(20));
    let error = soon(queued).await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (&KernelErrorKind::DeadlineExceeded, Phase::Queued));
    door.open();
    soon(busy).await.unwrap();
    soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
    assert_eq!(never.arrivals(), 0);
    assert_balanced(&kernel);
}

#[tokio::test]
async fn deadlines_are_answered_in_their_order_and_not_in_that_of_arrival() {
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    let door = Latch::new();
    let busy = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let mut queued: Vec<_> = [30, 10, 20]
        .map(|after| (after, kernel.try_call(Do::Double(1), ms(after)).unwrap()))
        .into_iter()
        .collect();
    queued.sort_by_key(|(after, _)| *after);
    for (index, (_, reply)) in queued.into_iter().enumerate() {
        hand.advance(ms(10));
        assert_eq!(kind(soon(reply).await), KernelErrorKind::DeadlineExceeded);
        assert_eq!(kernel.accounts().failed, index as u64 + 1);
    }
    door.open();
    soon(busy).await.unwrap();
}

#[tokio::test]
async fn without_queue_time_the_budget_starts_when_the_request_is_taken() {
    let (runtime, hand) = runtime().await;
    let timeout = TimeoutConfig {
        default_timeout: ms(100),
        max_timeout: ms(1_000),
        include_queue_time: false,
        ..TimeoutConfig::default()
    };
    let kernel = runtime.spawn(puppet("a/b").timeout(timeout)).await.unwrap();
    let [first, second] = [Latch::new(), Latch::new()];
    let busy = kernel.try_call(Do::Wait(Arc::clone(&first)), NONE).unwrap();
    first.arrived(1).await;
    let (other, door) = (kernel.clone(), Arc::clone(&second));
    let waits = kit::spawn(async move { other.execute(Do::Wait(door)).await });
    soon(async { while kit::status(&runtime, "a/b").await.waiting == 0 {} }).await;
    hand.advance(ms(5_000));
    first.open();
    soon(busy).await.unwrap();
    second.arrived(1).await;
    hand.advance(ms(99));
    assert!(!waits.is_finished());
    hand.advance(ms(1));
    assert_eq!(kind(soon(waits).await.unwrap()), KernelErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn a_request_that_cannot_be_reached_in_its_time_is_refused_at_the_door() {
    let (runtime, hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    for _ in 0..32 {
        let door = Latch::new();
        let reply = kernel.try_call(Do::Wait(Arc::clone(&door)), ms(1_000)).unwrap();
        door.arrived(1).await;
        hand.advance(ms(100));
        door.open();
        soon(reply).await.unwrap();
    }
    let door = Latch::new();
    let queue: Vec<_> =
        (0..10).map(|_| kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap()).collect();
    door.arrived(1).await;
    let refused = kernel.try_call(Do::Double(1), ms(500)).unwrap_err();
    assert_eq!(refused.error.kind(), &KernelErrorKind::Overloaded(Limit::Time));
    let fits = kernel.try_call(Do::Double(1), ms(60_000)).unwrap();
    door.open();
    for reply in queue {
        soon(reply).await.unwrap();
    }
    soon(fits).await.unwrap();
}

#[tokio::test]
async fn a_kernels_error_at_its_deadline_stays_its_error_and_an_answer_does_not() {
    let (runtime, hand) = runtime().await;
    struct Turns(ClockHand);
    impl Kernel for Turns {
        type Input = Do;
        type Output = u64;

        async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<u64> {
            // Turned from a thread of its own: the hand rings alarms, and may not ring them in here.
            let (hand, span) = (self.0.clone(), cx.remaining());
            let (clock, deadline) = (hand.clock().clone(), cx.header().deadline);
            std::thread::spawn(move || hand.advance(span));
            while clock.now() < deadline {
                std::thread::yield_now();
            }
            match input {
                Do::Fail(kind) => Err(rustkernel::core::KernelError::kernel(*kind, "told to fail")),
                _ => Ok(1),
            }
        }
    }
    let turning = hand.clone();
    let kernel =
        runtime.spawn(KernelSpec::new("a/b", move || Turns(turning.clone())).breaker(None)).await.unwrap();
    for _ in 0..50 {
        let late = soon(kernel.call(Do::Double(1), ms(10))).await;
        assert_eq!(kind(late), KernelErrorKind::DeadlineExceeded, "a late result is never Ok");
        let failed = kind(soon(kernel.call(Do::Fail(ErrorKind::InvalidInput), ms(10))).await);
        let own = KernelErrorKind::Kernel(ErrorKind::InvalidInput);
        assert!([own, KernelErrorKind::DeadlineExceeded].contains(&failed), "{failed}");
    }
}
