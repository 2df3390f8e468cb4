//! How long each stage took.

use std::time::Duration;

use rustkernel_core::KernelId;
use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::error::KernelError;
use serde::Serialize;

use crate::sync::{Mutex, lock};
use crate::way::{Continuation, Flow};

/// The times of one run, by kernel, in the order in which they were first reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PipelineReport {
    /// One entry for each kernel on the way.
    pub stages: Vec<StageReport>,
}

/// What one kernel took of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageReport {
    /// Which kernel.
    pub kernel: KernelId,
    /// Requests it got: more than one in a repeated or scattered chain.
    pub calls: u64,
    /// Calls that ended in an error.
    pub failures: u64,
    /// Re-runs of those requests.
    pub reruns: u64,
    /// Time from handing over to the answer, queue and re-runs included, over all calls.
    pub total: Duration,
    /// The longest call.
    pub slowest: Duration,
}

/// Collects the times of a run.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<StageReport>>);

impl Recorder {
    fn record(&self, kernel: &KernelId, took: Duration, reruns: u32, failed: bool) {
        let mut stages = lock(&self.0);
        let at = stages.iter().position(|stage| stage.kernel == *kernel).unwrap_or_else(|| {
            stages.push(StageReport {
                kernel: kernel.clone(),
                calls: 0,
                failures: 0,
                reruns: 0,
                total: Duration::ZERO,
                slowest: Duration::ZERO,
            });
            stages.len() - 1
        });
        let stage = &mut stages[at];
        stage.calls += 1;
        stage.failures += u64::from(failed);
        stage.reruns += u64::from(reruns);
        stage.total += took;
        stage.slowest = stage.slowest.max(took);
    }

    pub(super) fn report(&self) -> PipelineReport {
        PipelineReport { stages: lock(&self.0).clone() }
    }
}

/// A continuation that notes the time on its way.
pub(super) struct Timed<O> {
    kernel: KernelId,
    clock: Clock,
    handed_over: Timestamp,
    next: Box<dyn Continuation<O>>,
}

impl<O: 'static> Timed<O> {
    /// Wraps `next` if the run wants its times.
    pub(super) fn wrap(
        kernel: &KernelId,
        flow: &Flow,
        clock: &Clock,
        next: Box<dyn Continuation<O>>,
    ) -> Box<dyn Continuation<O>> {
        if flow.chain.recorder().is_none() {
            return next;
        }
        Box::new(Self { kernel: kernel.clone(), clock: clock.clone(), handed_over: clock.now(), next })
    }
}

impl<O> Continuation<O> for Timed<O> {
    fn resume(self: Box<Self>, flow: Flow, result: Result<O, KernelError>) {
        if let Some(recorder) = flow.chain.recorder() {
            let took = self.clock.now() - self.handed_over;
            recorder.record(&self.kernel, took, flow.header.attempt.saturating_sub(1), result.is_err());
        }
        self.next.resume(flow, result);
    }
}
