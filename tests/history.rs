//! The failures that are written down.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::sync::Arc;

use kit::{Do, Latch, NONE, at_once, ms, puppet, soon, status};
use rustkernel::actors::{
    ChildPhase, ClockHand, Events, Fact, FailureClass, FailureReport, KernelSpec, ReportContext, Runtime,
    SpawnError, Supervisor, SupervisorRef, Task,
};
use rustkernel::core::supervision::{Restart, Shutdown};
use rustkernel::core::traits::{Context, Kernel};
use rustkernel::core::{KernelError, Result};

fn classes(reports: &[FailureReport]) -> Vec<FailureClass> {
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
    // It is answered when it is over and written down.
    assert!(soon(runtime.kill("a/b")).await);

    let reports = runtime.history("a/b");
    assert_eq!(classes(&reports), [FailureClass::Panic, FailureClass::Hang, FailureClass::Kill]);
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
    assert_eq!(classes(&reports), [FailureClass::Start]);
    assert_eq!(reports[0].context, ReportContext::StartError);
    assert!(reports[0].reason.contains("no device"));
}

/// Of all that was written down about a child.
fn contexts(runtime: &Runtime, child: &str) -> Vec<(ReportContext, FailureClass)> {
    runtime.history(child).iter().map(|report| (report.context, report.class)).collect()
}

const SHUTDOWN: ReportContext = ReportContext::ShutdownError;
const START: ReportContext = ReportContext::StartError;
const RUN: ReportContext = ReportContext::ChildTerminated;

async fn manual() -> (Runtime, ClockHand) {
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    hand.advance(ms(1));
    (runtime, hand)
}

/// Tells the child to end, and turns the hand when it has been told. `in_time` lets it end by itself.
async fn stop(top: &SupervisorRef, child: &'static str, hand: &ClockHand, in_time: impl FnOnce()) {
    let other = top.clone();
    let stopping = kit::spawn(async move { other.terminate_child(child).await });
    soon(async {
        let stops = |children: Vec<rustkernel::actors::ChildStatus>| {
            children.iter().any(|other| other.name == child && other.state != ChildPhase::Up)
        };
        while !stops(top.which_children().await.unwrap()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    in_time();
    hand.advance(ms(100));
    soon(stopping).await.unwrap().unwrap();
}

/// A kill at the end of a grace was no event and in no history.
#[tokio::test]
async fn a_child_that_is_killed_because_its_grace_is_over_leaves_a_shutdown_error_behind() {
    for shutdown in [Shutdown::Within(ms(100)), Shutdown::Brutal] {
        let (runtime, hand) = manual().await;
        let mut events = runtime.events();
        let lingers = |name| Task::new(name, |_| std::future::pending()).shutdown(shutdown);
        let low = Supervisor::new("low").task(lingers("below").shutdown(Shutdown::Infinity));
        let tree = Supervisor::new("top")
            .task(lingers("task"))
            .supervisor(low.shutdown(shutdown))
            .kernel(puppet("a/inline").inline().shutdown(shutdown))
            .kernel(puppet("a/thread").hang_limit(None).shutdown(shutdown));
        let top = soon(runtime.supervise(tree)).await.unwrap();
        let (inline, thread) = (Latch::new(), Latch::new());
        let doors =
            [("a/inline", Do::Wait(Arc::clone(&inline))), ("a/thread", Do::Block(Arc::clone(&thread)))];
        let mut in_hand = Vec::new();
        for (id, input) in doors {
            in_hand.push(runtime.kernel::<Do, u64>(id).unwrap().try_call(input, NONE).unwrap());
        }
        inline.arrived(1).await;
        thread.arrived(1).await;
        for child in ["task", "low", "a/inline", "a/thread"] {
            stop(&top, child, &hand, || {}).await;
            let killed = vec![(SHUTDOWN, FailureClass::Kill)];
            let expected = if shutdown == Shutdown::Brutal { Vec::new() } else { killed };
            assert_eq!(contexts(&runtime, child), expected, "{child}, {shutdown:?}");
            if shutdown != Shutdown::Brutal {
                assert_eq!(runtime.history(child)[0].incarnation, 1);
                failed_stop(&mut events, child).await;
            }
        }
        thread.open();
        for reply in in_hand {
            soon(reply).await.unwrap_err();
        }
    }
}

async fn failed_stop(events: &mut Events, child: &str) {
    let fact = soon(events.find(child, |fact| !matches!(fact, Fact::Started { .. }))).await.unwrap().fact;
    assert!(matches!(fact, Fact::StopFailed { incarnation: 1, .. }), "{fact:?}");
}

/// Panics behind the door.
struct Falls;

impl Kernel for Falls {
    type Input = Do;
    type Output = u64;

    async fn execute(&mut self, input: &Do, _: &mut Context<'_>) -> Result<u64> {
        let Do::Wait(door) = input else { return Ok(0) };
        door.pass().await;
        panic!("told to panic");
    }
}

#[tokio::test]
async fn a_child_that_fails_over_its_end_leaves_a_shutdown_error_behind() {
    let (runtime, hand) = manual().await;
    let fails = |name, panics: bool| {
        Task::new(name, move |cx| async move {
            cx.stopped().await;
            assert!(!panics, "told to panic");
            Err("told to fail".into())
        })
    };
    let tree = Supervisor::new("top")
        .task(fails("fails", false))
        .task(fails("panics", true))
        .kernel(KernelSpec::new("a/b", || Falls))
        .kernel(KernelSpec::new("a/inline", || Falls).inline());
    let top = soon(runtime.supervise(tree)).await.unwrap();
    stop(&top, "fails", &hand, || {}).await;
    assert_eq!(contexts(&runtime, "fails"), [(SHUTDOWN, FailureClass::Exit)]);
    stop(&top, "panics", &hand, || {}).await;
    assert_eq!(contexts(&runtime, "panics"), [(SHUTDOWN, FailureClass::Panic)]);
    for id in ["a/b", "a/inline"] {
        let kernel = runtime.kernel::<Do, u64>(id).unwrap();
        let door = Latch::new();
        let fatal = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        door.arrived(1).await;
        stop(&top, id, &hand, || door.open()).await;
        soon(fatal).await.unwrap_err();
        assert_eq!(contexts(&runtime, id), [(SHUTDOWN, FailureClass::Panic)]);
        assert!(runtime.history(id)[0].reason.contains("told to panic"));
    }
}

/// It was taken for one that had been up.
#[tokio::test]
async fn a_task_that_fails_before_it_is_up_leaves_a_start_error_behind() {
    let (runtime, _hand) = manual().await;
    let fails = |name, ready: bool, panics: bool| {
        let task = Task::new(name, move |cx| async move {
            if ready {
                cx.ready();
            }
            assert!(!panics, "told to panic");
            Err("told to fail".into())
        });
        task.announces().restart(Restart::Temporary)
    };
    for (name, panics) in [("fails", false), ("panics", true)] {
        let error = soon(runtime.root().start_task(fails(name, false, panics))).await.unwrap_err();
        assert!(matches!(error, SpawnError::Child { .. }), "{error}");
        assert_eq!(contexts(&runtime, name), [(START, FailureClass::Start)]);
        assert!(runtime.history(name)[0].reason.contains("told to"), "{error}");
    }
    // Its end overtakes what it said.
    soon(runtime.root().start_task(fails("was-up", true, false))).await.unwrap();
    assert_eq!(contexts(&runtime, "was-up"), [(RUN, FailureClass::Exit)]);
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
