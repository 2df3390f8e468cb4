//! How long each stage took.

use std::time::Duration;

use rustkernel_core::KernelId;
use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::envelope::Header;
use serde::Serialize;

use crate::sync::{Mutex, lock};

/// The times of one run, by kernel, in the order of their first answers.
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
    /// Calls that the degraded path answered.
    pub degraded: u64,
    /// Time from handing over to the answer, queue and re-runs included, over all calls.
    pub total: Duration,
    /// The longest call.
    pub slowest: Duration,
}

/// Collects the times of a run.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<StageReport>>);

impl Recorder {
    /// Notes that a stage is done with a request.
    pub(crate) fn record(&self, mark: &Mark, header: &Header, failed: bool) {
        let took = mark.clock.now() - mark.handed_over;
        let (kernel, reruns) = (&mark.kernel, header.attempt.saturating_sub(1));
        let mut stages = lock(&self.0);
        let at = stages.iter().position(|stage| stage.kernel == *kernel).unwrap_or_else(|| {
            stages.push(StageReport {
                kernel: kernel.clone(),
                calls: 0,
                failures: 0,
                reruns: 0,
                degraded: 0,
                total: Duration::ZERO,
                slowest: Duration::ZERO,
            });
            stages.len() - 1
        });
        let stage = &mut stages[at];
        stage.calls += 1;
        stage.failures += u64::from(failed);
        stage.reruns += u64::from(reruns);
        stage.degraded += u64::from(header.degraded);
        stage.total += took;
        stage.slowest = stage.slowest.max(took);
    }

    pub(super) fn report(&self) -> PipelineReport {
        PipelineReport { stages: lock(&self.0).clone() }
    }
}

/// Where and when a request was handed over.
#[derive(Debug)]
pub(crate) struct Mark {
    kernel: KernelId,
    clock: Clock,
    handed_over: Timestamp,
}

impl Mark {
    pub(super) fn new(kernel: &KernelId, clock: &Clock) -> Box<Self> {
        Box::new(Self { kernel: kernel.clone(), clock: clock.clone(), handed_over: clock.now() })
    }
}
