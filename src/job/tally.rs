//! What supervision did during a job.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustkernel_actors::{Event, Fact};
use rustkernel_core::resilience::BreakerMode;
use serde::Serialize;

/// Counts a runtime's events. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<Counts>>);

/// What has happened so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Restarts of kernels.
    pub restarts: u64,
    /// Incarnations that went on from a checkpoint.
    pub restored: u64,
    /// Ends of incarnations, by cause.
    pub failures: BTreeMap<&'static str, u64>,
    /// Requests that were given up for good.
    pub dead_letters: u64,
    /// Threads that blocked and were left behind.
    pub abandoned_threads: u64,
    /// Breakers that opened.
    pub breakers_opened: u64,
    /// Lives that took over from a failed or an older one: standbys, recovered kernels.
    pub takeovers: u64,
    /// Times a degraded path began to answer.
    pub degraded: u64,
    /// Moves to a backup device.
    pub failovers: u64,
    /// Checkpoints that could not be taken, stored or restored.
    pub checkpoint_faults: u64,
    /// Kernels whose restart budget was used up, in that order.
    pub isolated: Vec<String>,
}

impl Tally {
    /// Counts one event; a [hook](rustkernel_actors::RuntimeBuilder::hook) for a runtime.
    pub fn count(&self, event: &Event) {
        let mut counts = self.lock();
        match &event.fact {
            Fact::Restarting { .. } => counts.restarts += 1,
            Fact::Started { restored: true, .. } => counts.restored += 1,
            Fact::Failed { cause, .. } => *counts.failures.entry(cause.label()).or_default() += 1,
            Fact::DeadLetter { .. } => counts.dead_letters += 1,
            Fact::ThreadAbandoned { .. } => counts.abandoned_threads += 1,
            Fact::Breaker(transition) if transition.to == BreakerMode::Open => counts.breakers_opened += 1,
            Fact::Isolated { .. } => counts.isolated.extend(event.kernel.as_ref().map(ToString::to_string)),
            Fact::TookOver { .. } => counts.takeovers += 1,
            Fact::Degraded => counts.degraded += 1,
            Fact::FailedOver { .. } => counts.failovers += 1,
            Fact::CheckpointFailed { .. } | Fact::CheckpointRefused { .. } => counts.checkpoint_faults += 1,
            Fact::Started { .. }
            | Fact::StandbyReady { .. }
            | Fact::StandbyFailed { .. }
            | Fact::Recovered
            | Fact::ChildAbandoned
            | Fact::Resumed
            | Fact::Stopped
            | Fact::Breaker(_)
            | Fact::Health(_)
            | Fact::GaveUp
            | _ => {}
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
