//! The breaker in front of a kernel: probes, generations, commands.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::sync::Arc;

use kit::{Do, Latch, NONE, PuppetRef, assert_balanced, kind, ms, puppet, soon, status};
use rustkernel::actors::{BreakerCommand, ClockHand, Fact, Runtime};
use rustkernel::core::error::{KernelErrorKind, RejectionCause};
use rustkernel::core::resilience::{BreakerMode, CircuitBreakerConfig, ErrorKind, TransitionCause};

const FAIL: Do = Do::Fail(ErrorKind::Permanent);

async fn guarded(failures: u32, probes: u32) -> (Runtime, ClockHand, PuppetRef) {
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    hand.advance(ms(1));
    let config = CircuitBreakerConfig {
        failure_threshold: failures,
        success_threshold: probes,
        timeout: ms(1_000),
        ..CircuitBreakerConfig::default()
    };
    let kernel = runtime.spawn(puppet("a/b").breaker(config)).await.unwrap();
    (runtime, hand, kernel)
}

async fn breaker_is(runtime: &Runtime, wanted: &str) {
    soon(async {
        while status(runtime, "a/b").await.breaker != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn open(runtime: &Runtime, kernel: &PuppetRef, failures: u32) {
    for _ in 0..failures {
        soon(kernel.call(FAIL, NONE)).await.unwrap_err();
    }
    breaker_is(runtime, "open").await;
}

async fn half_open(runtime: &Runtime, hand: &ClockHand, kernel: &PuppetRef, failures: u32) {
    open(runtime, kernel, failures).await;
    hand.advance(ms(1_000));
    breaker_is(runtime, "half_open").await;
}

fn rejection(kernel: &PuppetRef) -> RejectionCause {
    let refused = kernel.try_call(Do::Double(1), NONE).unwrap_err();
    let KernelErrorKind::Rejected(rejection) = refused.error.kind() else { panic!("{}", refused.error) };
    rejection.cause
}

#[tokio::test]
async fn ten_failures_open_it_and_whoever_calls_next_is_rejected() {
    let (runtime, _hand, kernel) = guarded(10, 2).await;
    for count in 1..10 {
        soon(kernel.call(FAIL, NONE)).await.unwrap_err();
        assert_eq!(status(&runtime, "a/b").await.breaker_failures, count);
    }
    soon(kernel.call(FAIL, NONE)).await.unwrap_err();
    assert_eq!(rejection(&kernel), RejectionCause::Failures);
    assert_eq!(kernel.accounts().accepted, 10);
}

/// A restart begins a half-open cycle, so panics do not add up over incarnations: the second one opens it as a failed probe.
#[tokio::test]
async fn ten_panics_never_leave_it_closed_and_use_up_the_restarts() {
    let (runtime, _hand, kernel) = guarded(10, 2).await;
    let replies: Vec<_> = (0..10).map(|_| kernel.try_call(Do::Panic, NONE).unwrap()).collect();
    for reply in replies {
        assert_eq!(kind(soon(reply).await), KernelErrorKind::Crashed);
    }
    soon(async { while status(&runtime, "a/b").await.incarnation < 11 {} }).await;
    breaker_is(&runtime, "half_open").await;

    let few = runtime.spawn(puppet("a/few").recovery(kit::at_once(3))).await.unwrap();
    let replies: Vec<_> = (0..10).map(|_| few.try_call(Do::Panic, NONE).unwrap()).collect();
    let mut kinds = Vec::new();
    for reply in replies {
        kinds.push(kind(soon(reply).await));
    }
    assert!(kinds[..4].iter().all(|kind| *kind == KernelErrorKind::Crashed), "{kinds:?}");
    assert!(kinds[4..].iter().all(|kind| *kind == kit::DOWN_ISOLATED), "{kinds:?}");
}

#[tokio::test]
async fn success_between_failures_starts_the_count_again() {
    let (runtime, _hand, kernel) = guarded(3, 1).await;
    for _ in 0..5 {
        soon(kernel.call(FAIL, NONE)).await.unwrap_err();
        soon(kernel.call(FAIL, NONE)).await.unwrap_err();
        soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
    }
    assert_eq!(status(&runtime, "a/b").await.breaker, "closed");
    for _ in 0..5 {
        soon(kernel.call(Do::Fail(ErrorKind::InvalidInput), NONE)).await.unwrap_err();
        soon(kernel.call(Do::Fail(ErrorKind::Exhausted), NONE)).await.unwrap_err();
    }
    assert_eq!(status(&runtime, "a/b").await.breaker_failures, 0, "not the kernel's fault");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_admits_exactly_its_probes_under_concurrency() {
    for _ in 0..20 {
        let (runtime, hand, kernel) = guarded(1, 3).await;
        half_open(&runtime, &hand, &kernel, 1).await;
        let door = Latch::new();
        let callers: Vec<_> = (0..16)
            .map(|_| {
                let (kernel, door) = (kernel.clone(), Arc::clone(&door));
                kit::spawn(async move { kernel.try_call(Do::Wait(door), NONE).ok() })
            })
            .collect();
        let mut admitted = Vec::new();
        for caller in callers {
            admitted.extend(soon(caller).await.unwrap());
        }
        assert_eq!(admitted.len(), 3);
        assert_eq!(rejection(&kernel), RejectionCause::ProbesOut);
        door.open();
        for reply in admitted {
            soon(reply).await.unwrap();
        }
        breaker_is(&runtime, "closed").await;
        soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_probe_gives_its_slot_back_at_once() {
    let (runtime, hand, kernel) = guarded(1, 1).await;
    half_open(&runtime, &hand, &kernel, 1).await;
    for _ in 0..10 {
        let door = Latch::new();
        let probe = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        assert_eq!(rejection(&kernel), RejectionCause::ProbesOut);
        door.arrived(1).await;
        drop(probe);
    }
    soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
    breaker_is(&runtime, "closed").await;
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_refused_probe_gives_its_slot_back() {
    let (runtime, hand, kernel) = guarded(1, 1).await;
    half_open(&runtime, &hand, &kernel, 1).await;
    for _ in 0..5 {
        let late = kernel.try_call(Do::Double(1), ms(0)).unwrap_err();
        assert_eq!(late.error.kind(), &KernelErrorKind::DeadlineExceeded);
    }
    soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
}

#[tokio::test]
async fn a_failing_and_a_panicking_probe_open_it_again() {
    for bad in [FAIL, Do::Panic] {
        let (runtime, hand, kernel) = guarded(1, 2).await;
        let mut events = runtime.events();
        half_open(&runtime, &hand, &kernel, 1).await;
        soon(kernel.call(bad, NONE)).await.unwrap_err();
        let failed =
            |fact: &Fact| matches!(fact, Fact::Breaker(moved) if moved.cause == TransitionCause::ProbeFailed);
        soon(events.find("a/b", failed)).await.unwrap();
    }
}

/// A failure in the same instant as the half-open limit's start left the alarm set for the old generation: the breaker
/// stayed open for ever.
#[tokio::test]
async fn a_probe_that_fails_in_the_instant_it_started_does_not_hold_it_open_for_ever() {
    let (runtime, hand, kernel) = guarded(1, 1).await;
    half_open(&runtime, &hand, &kernel, 1).await;
    soon(kernel.call(FAIL, NONE)).await.unwrap_err();
    breaker_is(&runtime, "open").await;
    hand.advance(ms(1_000));
    breaker_is(&runtime, "half_open").await;
    soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
    breaker_is(&runtime, "closed").await;
}

#[tokio::test]
async fn a_probe_that_hangs_opens_it_at_the_half_open_limit_and_its_late_outcome_is_stale() {
    let (runtime, hand, kernel) = guarded(1, 1).await;
    let mut events = runtime.events();
    half_open(&runtime, &hand, &kernel, 1).await;
    let door = Latch::new();
    let hangs = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    // The breaker has heard of the probe.
    status(&runtime, "a/b").await;
    soon(async {
        loop {
            hand.advance(ms(1_000));
            if kernel.try_call(Do::Double(1), ms(1)).is_err_and(|refused| {
                matches!(refused.error.kind(),
                    KernelErrorKind::Rejected(why) if why.cause == RejectionCause::Failures)
            }) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let overdue =
        |fact: &Fact| matches!(fact, Fact::Breaker(moved) if moved.cause == TransitionCause::ProbesOverdue);
    soon(events.find("a/b", overdue)).await.unwrap();
    door.open();
    soon(hangs).await.unwrap();
    assert_eq!(status(&runtime, "a/b").await.stale_outcomes, 1);
}

#[tokio::test]
async fn a_late_failure_of_an_older_generation_changes_nothing() {
    let (runtime, hand, kernel) = guarded(2, 1).await;
    let door = Latch::new();
    let first = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    let replies: Vec<_> = (0..6).map(|_| kernel.try_call(FAIL, NONE).unwrap()).collect();
    door.open();
    soon(first).await.unwrap();
    for reply in replies {
        soon(reply).await.unwrap_err();
    }
    breaker_is(&runtime, "open").await;
    assert_eq!(status(&runtime, "a/b").await.stale_outcomes, 4);
    hand.advance(ms(1_000));
    breaker_is(&runtime, "half_open").await;
}

#[tokio::test]
async fn it_is_isolated_closed_disabled_and_reset_by_hand() {
    let (runtime, hand, kernel) = guarded(2, 1).await;
    let mut events = runtime.events();
    assert!(runtime.breaker("a/b", BreakerCommand::Isolate).await);
    assert_eq!(rejection(&kernel), RejectionCause::Isolated);
    hand.advance(ms(60_000));
    assert_eq!(rejection(&kernel), RejectionCause::Isolated);
    assert!(runtime.breaker("a/b", BreakerCommand::Close).await);
    soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
    assert!(runtime.breaker("a/b", BreakerCommand::Disable).await);
    for _ in 0..5 {
        soon(kernel.call(FAIL, NONE)).await.unwrap_err();
    }
    soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
    assert!(!runtime.breaker("a/c", BreakerCommand::Close).await);
    let to = |fact: &Fact| if let Fact::Breaker(moved) = fact { Some(moved.to) } else { None };
    for wanted in [BreakerMode::Isolated, BreakerMode::Closed, BreakerMode::Disabled] {
        let event = soon(events.find("a/b", |fact| to(fact).is_some())).await.unwrap();
        assert_eq!(to(&event.fact), Some(wanted));
    }
}

/// A reset of a closed breaker left the failures counted in the gate.
#[tokio::test]
async fn a_reset_forgets_the_counted_failures() {
    let (runtime, _hand, kernel) = guarded(2, 1).await;
    soon(kernel.call(FAIL, NONE)).await.unwrap_err();
    assert!(runtime.breaker("a/b", BreakerCommand::Reset).await);
    assert_eq!(status(&runtime, "a/b").await.breaker_failures, 0);
    soon(kernel.call(FAIL, NONE)).await.unwrap_err();
    soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
}

#[tokio::test]
async fn a_restart_proves_itself_with_probes() {
    let (runtime, _hand, kernel) = guarded(5, 2).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    breaker_is(&runtime, "half_open").await;
    soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
    assert_eq!(status(&runtime, "a/b").await.breaker, "half_open");
    soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
    assert_eq!(status(&runtime, "a/b").await.breaker, "closed");
}
