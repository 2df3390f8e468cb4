//! The circuit breaker, as its users see it.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use rustkernel_core::KernelError;
use rustkernel_core::clock::{Clock, ManualClock};
use rustkernel_core::error::{KernelErrorKind, Limit, Phase, RejectionCause};
use rustkernel_core::resilience::{
    BreakerMode, CircuitBreaker, CircuitBreakerConfig, CircuitState, RateWindow, ResilienceError,
    TransitionCause, WindowSpan,
};
use tokio::task::JoinSet;

const TIMEOUT: Duration = Duration::from_secs(30);

fn breaker(failure_threshold: u32, success_threshold: u32) -> (CircuitBreaker, ManualClock) {
    let (clock, hand) = Clock::manual();
    let config = CircuitBreakerConfig {
        failure_threshold,
        success_threshold,
        timeout: TIMEOUT,
        ..CircuitBreakerConfig::default()
    };
    (CircuitBreaker::try_new(config).unwrap().with_clock(clock), hand)
}

async fn succeed(cb: &CircuitBreaker) -> Result<(), ResilienceError> {
    cb.call(|| async { Ok::<_, KernelError>(()) }).await
}

async fn fail(cb: &CircuitBreaker) {
    let _failed = cb.call(|| async { Err::<(), _>(KernelError::transient("broken")) }).await;
}

async fn panic(cb: &CircuitBreaker) {
    let cb = cb.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        cb.call(|| async {
            tokio::task::yield_now().await;
            if true {
                panic!("the call panics");
            }
            Ok::<(), KernelError>(())
        })
        .await
    });
    assert!(tasks.join_next().await.unwrap().unwrap_err().is_panic());
}

#[tokio::test]
async fn consecutive_failures_open_and_good_probes_close() {
    let (cb, hand) = breaker(3, 2);
    for _ in 0..3 {
        assert_eq!(cb.state(), CircuitState::Closed);
        fail(&cb).await;
    }
    assert_eq!(cb.state(), CircuitState::Open);
    assert!(matches!(succeed(&cb).await, Err(ResilienceError::CircuitOpen)));
    hand.advance(TIMEOUT);
    succeed(&cb).await.unwrap();
    assert_eq!(cb.state(), CircuitState::HalfOpen);
    succeed(&cb).await.unwrap();
    assert_eq!(cb.state(), CircuitState::Closed);
}

#[tokio::test]
async fn failures_with_successes_between_them_do_not_open() {
    let (cb, _hand) = breaker(3, 1);
    for _ in 0..2 {
        fail(&cb).await;
        succeed(&cb).await.unwrap();
    }
    fail(&cb).await;
    assert_eq!(cb.state(), CircuitState::Closed);
    assert_eq!(cb.stats().failure_count, 1);
}

#[tokio::test]
async fn asking_for_the_state_changes_nothing() {
    let (cb, hand) = breaker(1, 1);
    fail(&cb).await;
    hand.advance(TIMEOUT);
    assert_eq!(cb.state(), CircuitState::Open);
    assert_eq!(cb.stats().generation, 1);
    assert_eq!(cb.rejection(), None);
}

#[tokio::test]
async fn one_bad_probe_opens_again_for_the_whole_time() {
    let (cb, hand) = breaker(1, 2);
    fail(&cb).await;
    hand.advance(TIMEOUT);
    succeed(&cb).await.unwrap();
    fail(&cb).await;
    let rejection = cb.rejection().unwrap();
    assert_eq!(rejection.cause, RejectionCause::Failures);
    assert_eq!(rejection.retry_after, Some(TIMEOUT));
}

// A peer's breaker gave the slot back only from the code after the await, and a panic skips that.
#[tokio::test]
async fn a_panicking_probe_does_not_lock_the_breaker() {
    let (cb, hand) = breaker(1, 1);
    fail(&cb).await;
    for _ in 0..5 {
        hand.advance(TIMEOUT);
        panic(&cb).await;
        assert_eq!(cb.state(), CircuitState::Open);
    }
    hand.advance(TIMEOUT);
    succeed(&cb).await.unwrap();
    assert_eq!(cb.state(), CircuitState::Closed);
}

#[tokio::test]
async fn ten_panics_are_ten_failures() {
    let (cb, _hand) = breaker(10, 1);
    for count in 0..10 {
        assert_eq!((cb.stats().failure_count, cb.state()), (count, CircuitState::Closed));
        panic(&cb).await;
    }
    assert_eq!(cb.state(), CircuitState::Open);
    assert_eq!(cb.stats().totals.failures, 10);
}

#[test]
fn a_panic_before_the_first_await_is_a_failure_too() {
    let (cb, _hand) = breaker(1, 1);
    let mut call = Box::pin(cb.call(|| {
        if true {
            panic!("no future is made");
        }
        async { Ok::<(), KernelError>(()) }
    }));
    let polled = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let _never = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }));
    assert!(polled.is_err());
    assert_eq!(cb.state(), CircuitState::Open);
}

#[tokio::test]
async fn a_dropped_probe_frees_its_slot_at_once() {
    let (cb, hand) = breaker(1, 1);
    fail(&cb).await;
    hand.advance(TIMEOUT);
    {
        let mut probe = Box::pin(cb.call(pending::<Result<(), KernelError>>));
        assert!(probe.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(matches!(succeed(&cb).await, Err(ResilienceError::CircuitOpen)));
        assert_eq!(cb.rejection().unwrap().cause, RejectionCause::ProbesOut);
    }
    assert_eq!(cb.stats().totals.neutral, 1);
    succeed(&cb).await.unwrap();
    assert_eq!(cb.state(), CircuitState::Closed);
}

#[test]
fn no_more_probes_than_asked_for_pass_at_once() {
    const PROBES: u32 = 3;
    const THREADS: usize = 16;
    let (cb, hand) = breaker(1, PROBES);
    let mut cx = Context::from_waker(Waker::noop());
    let failing = Box::pin(fail(&cb)).as_mut().poll(&mut cx);
    assert!(failing.is_ready());
    hand.advance(TIMEOUT);
    let barrier = Barrier::new(THREADS);
    let passed = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut probe = Box::pin(cb.call(pending::<Result<(), KernelError>>));
                barrier.wait();
                let polled = probe.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                *passed.lock().unwrap() += u32::from(polled.is_pending());
                barrier.wait();
            });
        }
    });
    assert_eq!(passed.into_inner().unwrap(), PROBES);
    assert_eq!(cb.stats().totals.rejected, THREADS as u64 - u64::from(PROBES));
}

#[tokio::test]
async fn the_outcome_of_an_older_generation_changes_nothing() {
    let (cb, hand) = breaker(1, 1);
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let mut old = Box::pin(cb.call(|| async {
        let _ended = finished.await;
        Ok::<_, KernelError>(())
    }));
    assert!(old.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    fail(&cb).await;
    hand.advance(TIMEOUT);
    let mut probe = Box::pin(cb.call(pending::<Result<(), KernelError>>));
    assert!(probe.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    finish.send(()).unwrap();
    old.await.unwrap();
    assert_eq!(cb.state(), CircuitState::HalfOpen);
    assert_eq!(cb.stats().totals.stale, 1);
    assert_eq!(cb.rejection().unwrap().cause, RejectionCause::ProbesOut);
}

#[tokio::test]
async fn a_late_failure_does_not_extend_the_open_time() {
    let (cb, hand) = breaker(1, 1);
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let mut late = Box::pin(cb.call(|| async {
        let _ended = finished.await;
        Err::<(), _>(KernelError::transient("late"))
    }));
    assert!(late.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    fail(&cb).await;
    hand.advance(TIMEOUT / 2);
    finish.send(()).unwrap();
    late.await.unwrap_err();
    assert_eq!(cb.rejection().unwrap().retry_after, Some(TIMEOUT / 2));
    hand.advance(TIMEOUT / 2);
    succeed(&cb).await.unwrap();
    assert_eq!(cb.state(), CircuitState::Closed);
}

#[tokio::test]
async fn what_never_started_and_what_the_caller_did_wrong_are_no_failures() {
    let (cb, _hand) = breaker(1, 1);
    let refuse = |kind, phase| KernelError::new(kind, phase);
    let errors = [
        refuse(KernelErrorKind::Overloaded(Limit::Requests), Phase::Admission),
        refuse(KernelErrorKind::Draining, Phase::Admission),
        refuse(KernelErrorKind::Restarting { retry_after: TIMEOUT }, Phase::Queued),
        refuse(KernelErrorKind::Cancelled, Phase::Executing),
        refuse(KernelErrorKind::DeadlineExceeded, Phase::Admission),
        refuse(KernelErrorKind::DeadlineExceeded, Phase::Queued),
        KernelError::invalid_input("negative"),
        KernelError::exhausted("out of memory"),
    ];
    for error in errors {
        cb.call(|| async { Err::<(), _>(error) }).await.unwrap_err();
        assert_eq!(cb.state(), CircuitState::Closed);
    }
    let totals = cb.stats().totals;
    assert_eq!((totals.inconclusive, totals.neutral, totals.failures), (6, 2, 0));
    let late = refuse(KernelErrorKind::DeadlineExceeded, Phase::Executing);
    cb.call(|| async { Err::<(), _>(late) }).await.unwrap_err();
    assert_eq!(cb.state(), CircuitState::Open);
}

#[tokio::test]
async fn invalid_settings_make_every_call_return_the_field() {
    let cb = CircuitBreaker::new(CircuitBreakerConfig { success_threshold: 0, ..Default::default() });
    let refused = succeed(&cb).await;
    let Err(ResilienceError::InvalidConfig(invalid)) = refused else { panic!("{refused:?}") };
    assert_eq!(invalid.field, "circuit_breaker.success_threshold");
    assert_eq!(cb.isolate().unwrap_err(), invalid);
    assert_eq!(cb.state(), CircuitState::Closed);
}

#[tokio::test]
async fn a_breaker_without_calls_has_full_success() {
    let (cb, _hand) = breaker(5, 1);
    assert!((cb.stats().success_rate - 1.0).abs() < f64::EPSILON);
    fail(&cb).await;
    succeed(&cb).await.unwrap();
    assert!((cb.stats().success_rate - 0.5).abs() < f64::EPSILON);
}

#[tokio::test]
async fn slow_calls_open_where_every_call_is_slow() {
    let (clock, hand) = Clock::manual();
    let window = RateWindow {
        span: WindowSpan::Calls(4),
        minimum_calls: 4,
        slow_call: Some(Duration::from_millis(10)),
        ..RateWindow::default()
    };
    let config = CircuitBreakerConfig { window: Some(window), ..CircuitBreakerConfig::default() };
    let cb = CircuitBreaker::try_new(config).unwrap().with_clock(clock);
    let taking = async |millis| {
        cb.call(|| async {
            hand.advance(Duration::from_millis(millis));
            Ok::<_, KernelError>(())
        })
        .await
    };
    for millis in [10, 11, 11, 11] {
        taking(millis).await.unwrap();
        assert_eq!(cb.state(), CircuitState::Closed, "a call at the limit is not slow");
    }
    taking(11).await.unwrap();
    assert_eq!(cb.state(), CircuitState::Open);
}

#[tokio::test]
async fn a_held_breaker_stays_until_it_is_closed_by_hand() {
    let (cb, hand) = breaker(1, 1);
    cb.isolate().unwrap();
    hand.advance(TIMEOUT * 10);
    assert!(matches!(succeed(&cb).await, Err(ResilienceError::CircuitOpen)));
    assert_eq!(cb.rejection().unwrap().cause, RejectionCause::Isolated);
    cb.close().unwrap();
    succeed(&cb).await.unwrap();
    cb.disable().unwrap();
    for _ in 0..9 {
        fail(&cb).await;
    }
    assert_eq!(cb.stats().mode, BreakerMode::Disabled);
    cb.reset().unwrap();
    assert_eq!((cb.stats().mode, cb.stats().totals.failures), (BreakerMode::Closed, 0));
}

// A peer held its lock during the callback, and a callback that used the breaker stood still for ever.
#[tokio::test]
async fn a_listener_sees_the_new_state_in_order_and_may_use_the_breaker() {
    let (cb, _hand) = breaker(1, 1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (heard, other) = (Arc::clone(&seen), cb.clone());
    cb.on_transition(move |transition| {
        heard.lock().unwrap().push((transition.generation, transition.cause, other.stats().mode));
        if transition.generation == 1 {
            other.isolate().unwrap();
            assert_eq!(heard.lock().unwrap().len(), 1, "it is not called from within itself");
        }
    });
    fail(&cb).await;
    let seen = seen.lock().unwrap();
    let expected = [
        (1, TransitionCause::Failures, BreakerMode::Open),
        (2, TransitionCause::Isolated, BreakerMode::Isolated),
    ];
    assert_eq!(*seen, expected);
}

#[tokio::test]
async fn a_panicking_listener_harms_nobody() {
    let (cb, _hand) = breaker(1, 1);
    cb.on_transition(|_| panic!("the listener panics"));
    panic(&cb).await;
    assert_eq!(cb.state(), CircuitState::Open);
}
