//! Deadlines, as their users see them.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::cell::Cell;
use std::future::pending;
use std::time::Duration;

use proptest::prelude::*;
use rustkernel_core::KernelError;
use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::resilience::{DeadlineContext, ResilienceError, ambient_deadline};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn expired_work_is_never_polled() {
    let called = Cell::new(false);
    let result = DeadlineContext::new(Duration::ZERO)
        .execute(|| {
            called.set(true);
            async { Ok::<_, KernelError>(()) }
        })
        .await;
    assert!(matches!(result, Err(ResilienceError::DeadlineExceeded)));
    assert!(!called.get());
}

#[tokio::test]
async fn a_late_result_is_never_ok() {
    let (clock, hand) = Clock::manual();
    let deadline = DeadlineContext::with_clock(SECOND, clock);
    let late = deadline.execute(|| async {
        hand.advance(SECOND);
        Ok::<_, KernelError>("late")
    });
    assert!(matches!(late.await, Err(ResilienceError::DeadlineExceeded)));
    assert!(deadline.is_expired());
}

#[tokio::test]
async fn work_that_expires_while_it_waits_is_not_polled_again() {
    let (clock, hand) = Clock::manual();
    let polled_late = Cell::new(false);
    let result = DeadlineContext::with_clock(SECOND, clock)
        .execute(|| async {
            hand.advance(SECOND);
            tokio::task::yield_now().await;
            polled_late.set(true);
            Ok::<_, KernelError>(())
        })
        .await;
    assert!(matches!(result, Err(ResilienceError::DeadlineExceeded)));
    assert!(!polled_late.get());
}

#[tokio::test(start_paused = true)]
async fn work_that_waits_is_dropped_at_the_deadline() {
    let (clock, _hand) = Clock::manual();
    let before = tokio::time::Instant::now();
    let deadline = DeadlineContext::with_clock(SECOND, clock);
    let result = deadline.execute(pending::<Result<(), KernelError>>);
    assert!(matches!(result.await, Err(ResilienceError::DeadlineExceeded)));
    assert!(before.elapsed() >= SECOND);
}

#[tokio::test]
async fn an_error_of_the_work_in_time_stays_what_it_is() {
    let result = DeadlineContext::new(Duration::MAX)
        .execute(|| async { Err::<(), _>(KernelError::permanent("broken")) })
        .await;
    assert!(matches!(result, Err(ResilienceError::Kernel(_))));
}

#[test]
fn the_longest_timeout_is_no_deadline() {
    let none = DeadlineContext::new(Duration::MAX);
    assert_eq!(none.deadline(), Timestamp::NEVER);
    assert_eq!(none.remaining(), Duration::MAX);
    assert!(!none.is_expired());
}

#[tokio::test]
async fn the_deadline_is_known_to_the_work_and_to_nobody_after_it() {
    let outer = DeadlineContext::new(SECOND * 10);
    let inner = DeadlineContext::new(SECOND * 60);
    let seen = outer
        .execute(|| async { inner.execute(|| async { Ok::<_, KernelError>(ambient_deadline()) }).await })
        .await
        .unwrap();
    assert_eq!(seen, Some(outer.deadline()), "the earlier one counts");
    assert_eq!(ambient_deadline(), None);
}

#[test]
fn a_deadline_in_time_needs_no_runtime() {
    let deadline = DeadlineContext::new(SECOND * 60);
    let mut work = Box::pin(deadline.execute(|| async { Ok::<_, KernelError>(7) }));
    let polled = work.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(matches!(polled, std::task::Poll::Ready(Ok(7))));
}

proptest! {
    #[test]
    fn no_descendant_outlives_its_ancestors(steps in prop::collection::vec((0_u64..u64::MAX, 0_u64..1_000_000), 1..50)) {
        let (clock, hand) = Clock::manual();
        let mut parent = DeadlineContext::with_clock(Duration::from_nanos(steps[0].0), clock);
        for (timeout, passed) in steps {
            hand.advance(Duration::from_nanos(passed));
            let child = parent.child_with_timeout(Duration::from_nanos(timeout));
            prop_assert!(child.deadline() <= parent.deadline());
            parent = child;
        }
        prop_assert!(parent.child_with_timeout(Duration::MAX).deadline() == parent.deadline());
    }
}
