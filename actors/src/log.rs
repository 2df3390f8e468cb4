//! Supervision's log lines: one for each fact, but no more than a reader can read.
//!
//! Each kernel has a [`RateLimit`] for each level, so that a storm of restarts leaves room for the other kernels' lines, and its many small
//! lines for the grave one at its end. Events and hooks are not limited.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::excerpt::{MAX_REASON_BYTES, excerpt};
use rustkernel_core::rate_limit::{RateDecision, RateLimit};
use rustkernel_core::resilience::Transition;

use crate::history::FailureClass;
use crate::operator::Fact;

/// Kernels with limits of their own; the others share theirs.
const LIMITED_KERNELS: usize = 4096;

/// Where supervision's log lines come from.
#[derive(Debug, Default)]
pub(crate) struct SupervisionLog(Mutex<Limits>);

#[derive(Debug, Default)]
struct Limits {
    /// Of what concerns no kernel.
    runtime: Levels,
    kernels: HashMap<String, Levels>,
    /// Of the kernels beyond those that have limits of their own.
    others: Levels,
}

/// One limit for each level.
#[derive(Debug, Default)]
struct Levels {
    error: RateLimit,
    warn: RateLimit,
    debug: RateLimit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Error,
    Warn,
    Debug,
}

/// Writes the line at a level that the compiler has to know.
macro_rules! line {
    ($log:expr, $level:ident, $kernel:expr, $fact:expr, $clock:expr, $severity:expr) => {
        if tracing::enabled!(tracing::Level::$level) {
            if let RateDecision::Allow { refused: suppressed } = $log.allow($kernel, $severity, $clock.now())
            {
                let (child, fact, cause) = ($kernel, $fact, $fact.cause());
                let class = cause.map(|cause| FailureClass::from(cause).label());
                let reason = cause.map(|cause| excerpt(cause, MAX_REASON_BYTES));
                let suppressed = (suppressed > 0).then_some(suppressed);
                tracing::event!(
                    tracing::Level::$level,
                    event = fact.name(),
                    child,
                    incarnation = fact.incarnation(),
                    class,
                    reason,
                    suppressed,
                    "{}",
                    detail(fact)
                );
            }
        }
    };
}

impl SupervisionLog {
    /// Writes a line about `fact`, unless there have been too many.
    pub(crate) fn write(&self, kernel: Option<&str>, fact: &Fact, clock: &Clock) {
        match severity(fact) {
            Severity::Error => line!(self, ERROR, kernel, fact, clock, Severity::Error),
            Severity::Warn => line!(self, WARN, kernel, fact, clock, Severity::Warn),
            Severity::Debug => line!(self, DEBUG, kernel, fact, clock, Severity::Debug),
        }
    }

    fn allow(&self, kernel: Option<&str>, severity: Severity, now: Timestamp) -> RateDecision {
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        limits.of(kernel).at(severity).allow(now)
    }
}

impl Limits {
    fn of(&mut self, kernel: Option<&str>) -> &mut Levels {
        let Some(kernel) = kernel else { return &mut self.runtime };
        if self.kernels.len() >= LIMITED_KERNELS && !self.kernels.contains_key(kernel) {
            return &mut self.others;
        }
        self.kernels.entry(kernel.to_owned()).or_default()
    }
}

impl Levels {
    fn at(&mut self, severity: Severity) -> &mut RateLimit {
        match severity {
            Severity::Error => &mut self.error,
            Severity::Warn => &mut self.warn,
            Severity::Debug => &mut self.debug,
        }
    }
}

/// What the fields do not say.
fn detail(fact: &Fact) -> String {
    match fact {
        Fact::Started { restored: true, .. } => "supervision: started from a checkpoint".to_owned(),
        Fact::Restarting { delay, in_window } => {
            format!("supervision: restarting after {delay:?}, number {in_window} in its window")
        }
        Fact::TookOver { variant, .. } => format!("supervision: took over ({variant:?})"),
        Fact::FailedOver { to } => format!("supervision: failed over to {to}"),
        Fact::Breaker(Transition { from, to, cause, generation, .. }) => {
            format!("supervision: breaker {from:?} to {to:?}, generation {generation}, because of {cause:?}")
        }
        Fact::ThreadAbandoned { alive } => {
            format!("supervision: a thread was left behind, {alive} still run")
        }
        Fact::DeadLetter { letter, id } => format!("supervision: request {id} is dead letter {letter}"),
        Fact::CheckpointFailed { reason } => format!("supervision: no checkpoint: {reason}"),
        Fact::CheckpointRefused { sequence, reason } => {
            format!("supervision: checkpoint {sequence} refused: {reason}")
        }
        Fact::PlaceUnfit { reason } => format!("supervision: what it lives in is not fit for use: {reason}"),
        Fact::Health(status) => format!("supervision: {status}"),
        Fact::Started { restored: false, .. }
        | Fact::Failed { .. }
        | Fact::StopFailed { .. }
        | Fact::StandbyReady { .. }
        | Fact::StandbyFailed { .. }
        | Fact::Degraded
        | Fact::Recovered
        | Fact::ChildAbandoned
        | Fact::Isolated { .. }
        | Fact::Resumed
        | Fact::Stopped
        | Fact::GaveUp => format!("supervision: {}", fact.name().replace('_', " ")),
    }
}

fn severity(fact: &Fact) -> Severity {
    match fact {
        Fact::Isolated { .. }
        | Fact::GaveUp
        | Fact::ThreadAbandoned { .. }
        | Fact::ChildAbandoned
        | Fact::PlaceUnfit { .. } => Severity::Error,
        Fact::Failed { .. }
        | Fact::StopFailed { .. }
        | Fact::DeadLetter { .. }
        | Fact::CheckpointFailed { .. }
        | Fact::CheckpointRefused { .. }
        | Fact::StandbyFailed { .. }
        | Fact::Degraded
        | Fact::FailedOver { .. } => Severity::Warn,
        Fact::Started { .. }
        | Fact::Restarting { .. }
        | Fact::TookOver { .. }
        | Fact::StandbyReady { .. }
        | Fact::Recovered
        | Fact::Resumed
        | Fact::Stopped
        | Fact::Breaker(_)
        | Fact::Health(_) => Severity::Debug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_beyond_4096_share_one_limit_and_the_first_keep_theirs() {
        let log = SupervisionLog::default();
        let name = |number: usize| format!("a/{number}");
        let mut allowed = 0;
        for number in 0..LIMITED_KERNELS + 100 {
            let decision = log.allow(Some(&name(number)), Severity::Warn, Timestamp::ZERO);
            allowed += usize::from(decision != RateDecision::Refuse);
        }
        assert_eq!(allowed, LIMITED_KERNELS + 10);
        let first = log.allow(Some(&name(0)), Severity::Warn, Timestamp::ZERO);
        assert_eq!(first, RateDecision::Allow { refused: 0 });
    }

    #[test]
    fn many_small_lines_leave_room_for_the_grave_one_and_for_the_runtimes_own() {
        let log = SupervisionLog::default();
        let id = "a/b";
        for _ in 0..100 {
            let _decided = log.allow(Some(id), Severity::Warn, Timestamp::ZERO);
        }
        assert_eq!(log.allow(Some(id), Severity::Warn, Timestamp::ZERO), RateDecision::Refuse);
        let fresh = RateDecision::Allow { refused: 0 };
        assert_eq!(log.allow(Some(id), Severity::Error, Timestamp::ZERO), fresh);
        assert_eq!(log.allow(None, Severity::Warn, Timestamp::ZERO), fresh);
    }
}
