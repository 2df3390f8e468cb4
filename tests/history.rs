//! The failures that are written down.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::sync::Arc;

use kit::{Do, Latch, NONE, at_once, ms, puppet, soon, status};
use rustkernel::actors::{FailureReport, FaultClass, KernelSpec, ReportContext, Runtime};
use rustkernel::core::KernelError;

fn classes(reports: &[FailureReport]) -> Vec<FaultClass> {
    reports.iter().map(|report| report.class).collect()
}

#[tokio::test]
async fn every_failure_of_a_kernel_is_written_down_with_its_class_and_advice() {
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    hand.advance(ms(1));
    let kernel = runtime.spawn(puppet("a/b").hang_limit(ms(10))).await.unwrap();
    let other = runtime.spawn(puppet("a/other")).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    soon(other.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 2);
    let door = Latch::new();
    let blocked = kernel.try_call(Do::Block(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    hand.advance(ms(20));
    soon(blocked).await.unwrap_err();
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 3);
    let mut events = runtime.events();
    assert!(runtime.kill("a/b").await);
    soon(events.find("a/b", |fact| matches!(fact, rustkernel::actors::Fact::Failed { .. }))).await.unwrap();

    let reports = runtime.history("a/b");
    assert_eq!(classes(&reports), [FaultClass::Panic, FaultClass::Hang, FaultClass::Kill]);
    for (report, incarnation) in reports.iter().zip(1..) {
        assert_eq!((report.supervisor.as_str(), report.offender.as_str()), ("root", "a/b"));
        assert_eq!((report.context, report.incarnation), (ReportContext::ChildTerminated, incarnation));
        assert_eq!(report.advice, report.class.advice());
    }
    assert!(reports[0].reason.contains("told to panic"), "{}", reports[0].reason);
    assert!(reports[0].at < reports[1].at);
    assert_eq!(runtime.failures().len(), 4);
    assert!(runtime.history("a/unknown").is_empty());
    door.open();
}

#[tokio::test]
async fn a_kernel_that_does_not_start_leaves_a_start_error_behind() {
    let (runtime, _hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    let spec = KernelSpec::fallible("a/b", || Err::<kit::Puppet, _>(KernelError::permanent("no device")));
    runtime.spawn(spec.recovery(at_once(9))).await.unwrap_err();
    let reports = runtime.history("a/b");
    assert_eq!(classes(&reports), [FaultClass::Start]);
    assert_eq!(reports[0].context, ReportContext::StartError);
    assert!(reports[0].reason.contains("no device"));
}

#[tokio::test]
async fn failures_of_an_earlier_process_are_restored_before_those_of_this_one() {
    let (runtime, _hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    // The answer may come before the report; the status comes after both.
    status(&runtime, "a/b").await;
    let text = serde_json::to_string(&runtime.failures()).unwrap();
    assert!(
        text.contains(r#""context":"child_terminated""#) && text.contains(r#""class":"panic""#),
        "{text}"
    );
    let earlier: Vec<FailureReport> = serde_json::from_str(&text).unwrap();
    runtime.restore_failures(earlier.clone());
    assert_eq!(runtime.history("a/b"), [earlier.clone(), earlier].concat());
}
