//! The log lines of a storm of restarts. One test alone in its process: what a log site thinks of its subscriber is global.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustkernel_actors::{Fact, KernelRef, KernelSpec, Runtime};
use rustkernel_core::envelope::Deadline;
use rustkernel_core::error::KernelError;
use rustkernel_core::resilience::{RecoveryPolicy, RecoveryStrategy};
use rustkernel_core::traits::{Context, Kernel};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// What the lines of one level say about one kernel.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Line {
    kernel: String,
    suppressed: u64,
}

impl Lines {
    /// The lines about `kernel`, as the numbers of lines that were left out before them.
    fn about(&self, kernel: &str) -> Vec<u64> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.kernel == kernel).map(|line| line.suppressed).collect()
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "child" {
            value.clone_into(&mut self.kernel);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "suppressed" {
            self.suppressed = value;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target().starts_with("rustkernel_actors")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().unwrap().push(line);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Dies;

impl Kernel for Dies {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, _: &u64, _: &mut Context<'_>) -> Result<u64, KernelError> {
        panic!("told to panic")
    }
}

fn dies(id: &str) -> KernelSpec<Dies> {
    let recovery = RecoveryPolicy {
        strategy: RecoveryStrategy::RestartKernel,
        max_restarts: u32::MAX,
        restart_delay: Duration::ZERO,
        escalation: Some(RecoveryStrategy::NotifyOperator),
    };
    KernelSpec::new(id, || Dies).inline().breaker(None).recovery(recovery)
}

async fn die(kernel: &KernelRef<u64, u64>, times: u32) {
    for _ in 0..times {
        kernel.call(1, Deadline::None).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_thousand_failures_write_few_lines_that_say_how_many_were_left_out() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let told = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&told);
    let hook = move |event: &rustkernel_actors::Event| {
        if matches!(event.fact, Fact::Failed { .. }) {
            count.fetch_add(1, Ordering::AcqRel);
        }
    };
    let (runtime, hand) = Runtime::builder().hook(hook).build_with_manual_clock().await.unwrap();
    let kernel = runtime.spawn(dies("a/storm")).await.unwrap();
    let other = runtime.spawn(dies("a/other")).await.unwrap();
    die(&kernel, 1000).await;
    die(&other, 1).await;
    // The answer may come before the line; the status comes after both.
    runtime.status().await;
    assert_eq!(lines.about("a/storm"), [0; 10], "time stands still: the burst and no more");
    assert_eq!(lines.about("a/other"), [0], "another kernel has its own limit");

    hand.advance(Duration::from_secs(1));
    die(&kernel, 2).await;
    hand.advance(Duration::from_secs(1));
    die(&kernel, 1).await;
    runtime.status().await;
    let storm = lines.about("a/storm");
    assert_eq!((storm.len(), storm[10], storm[11]), (12, 990, 1));
    assert_eq!(storm.len() as u64 + storm.iter().sum::<u64>(), 1003, "each failure is a line or counted");
    assert_eq!(told.load(Ordering::Acquire), 1004, "events are not limited");
}
