//! Retry, as its users see it.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::cell::Cell;
use std::error::Error;
use std::time::Duration;

use rustkernel_core::KernelError;
use rustkernel_core::clock::Clock;
use rustkernel_core::error::{KernelErrorKind, Phase};
use rustkernel_core::resilience::{
    BackoffStrategy, CircuitBreaker, CircuitBreakerConfig, DeadlineContext, ErrorKind, HealthProbe,
    HealthProbeConfig, ResilienceError, RetryConfig, with_ambient_deadline,
};

fn config(max_attempts: u32) -> RetryConfig {
    RetryConfig { max_attempts, ..RetryConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_tried_again_until_it_works() {
    let calls = Cell::new(0);
    let retry = config(3);
    let answer = retry.execute(|| async {
        calls.set(calls.get() + 1);
        if calls.get() < 3 { Err(KernelError::transient("busy")) } else { Ok(calls.get()) }
    });
    assert_eq!(answer.await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_last_error_stays_the_source_with_the_number_of_attempts() {
    let calls = Cell::new(0);
    let error = config(3)
        .execute(|| async {
            calls.set(calls.get() + 1);
            Err::<(), _>(KernelError::transient(format!("failure {}", calls.get())))
        })
        .await
        .unwrap_err();
    let ResilienceError::RetriesExhausted { attempts, .. } = &error else { panic!("{error}") };
    assert_eq!((*attempts, calls.get()), (3, 3));
    assert!(error.source().unwrap().to_string().contains("failure 3"));
}

#[tokio::test]
async fn the_only_error_is_returned_itself() {
    let once = config(1).execute(|| async { Err::<(), _>(KernelError::transient("busy")) }).await;
    assert!(matches!(once, Err(ResilienceError::Kernel(_))));
    let permanent = config(9).execute(|| async { Err::<(), _>(KernelError::permanent("broken")) }).await;
    assert!(matches!(permanent, Err(ResilienceError::Kernel(_))));
}

#[tokio::test]
async fn rejections_and_cancellations_are_never_tried_again() {
    let everything = RetryConfig {
        retryable_errors: vec![ErrorKind::Rejected, ErrorKind::Cancelled],
        ..RetryConfig::default()
    };
    let calls = Cell::new(0);
    let rejected = everything.execute(|| async {
        calls.set(calls.get() + 1);
        Err::<(), _>(ResilienceError::CircuitOpen)
    });
    assert!(matches!(rejected.await, Err(ResilienceError::CircuitOpen)));
    let cancelled = everything.execute(|| async {
        calls.set(calls.get() + 1);
        Err::<(), _>(KernelError::new(KernelErrorKind::Cancelled, Phase::Executing))
    });
    assert!(cancelled.await.is_err());
    assert_eq!(calls.get(), 2);
}

#[tokio::test]
async fn zero_attempts_are_refused_without_a_call() {
    let called = Cell::new(false);
    let retry = config(0);
    let refused = retry.execute(|| async {
        called.set(true);
        Ok::<_, KernelError>(())
    });
    let Err(ResilienceError::InvalidConfig(invalid)) = refused.await else { panic!("it was not refused") };
    assert_eq!(invalid.field, "retry.max_attempts");
    assert!(!called.get());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_retry_that_cannot_start_before_the_deadline() {
    let (clock, _hand) = Clock::manual();
    let retry = RetryConfig {
        backoff: BackoffStrategy::Fixed { delay: Duration::from_secs(1) },
        ..RetryConfig::default()
    };
    let calls = Cell::new(0);
    let before = tokio::time::Instant::now();
    let deadline = clock.now() + Duration::from_secs(1);
    let mut rng = fastrand::Rng::with_seed(1);
    let attempts = retry.execute_with(&clock, &mut rng, || async {
        calls.set(calls.get() + 1);
        Err::<(), _>(KernelError::transient("busy"))
    });
    let given_up = with_ambient_deadline(deadline, attempts).await;
    assert!(matches!(given_up, Err(ResilienceError::Kernel(_))));
    assert_eq!(calls.get(), 1);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[test]
fn every_call_can_be_spawned() {
    fn spawnable<F: Future + Send>(_: F) {}

    let work = || async { Ok::<_, KernelError>(()) };
    spawnable(config(3).execute(work));
    spawnable(CircuitBreaker::new(CircuitBreakerConfig::default()).call(work));
    spawnable(DeadlineContext::new(Duration::MAX).execute(work));
    spawnable(HealthProbe::new(HealthProbeConfig::default()).check("k/a"));
}
