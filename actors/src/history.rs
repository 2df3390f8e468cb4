//! What went wrong: the reports of the last failures, kept over incarnations and supervisors.
//!
//! The fields are those of OTP's supervisor reports (`supervisor`, `errorContext`, `reason`, `offender`), with the class of the
//! fault, what to do about it, and when it was.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rustkernel_core::clock::{Timestamp, unix_millis};
use rustkernel_core::excerpt::{MAX_REASON_BYTES, excerpt};
use serde::{Deserialize, Deserializer, Serialize};

use crate::cause::Cause;

/// Reports kept of one child.
const REPORTS_PER_CHILD: usize = 16;
/// Reports kept in all.
const REPORTS: usize = 16_384;
/// The longest name that is kept of a supervisor or a child, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// One failure below a supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureReport {
    /// The supervisor that saw it.
    pub supervisor: String,
    /// In which part of the child's life it happened.
    pub context: ReportContext,
    /// Why, for people; at most 1 KiB.
    pub reason: String,
    /// The child's name.
    pub offender: String,
    /// The class of the fault.
    pub class: FailureClass,
    /// What to do about a fault of this class, for people.
    pub advice: &'static str,
    /// The life of the child that ended, from 1.
    pub incarnation: u64,
    /// When it was, on the runtime's clock. It compares with nothing of another process.
    pub at: Timestamp,
    /// When it was, on the wall clock: milliseconds since 1970 (UTC).
    pub unix_millis: u64,
}

/// In which part of a child's life it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportContext {
    /// While it was started: it failed before it was up.
    StartError,
    /// While it ran.
    ChildTerminated,
    /// While it was stopped: its grace ran out and it was killed, or it failed over its end. One that is killed at once, because its rules
    /// say so, ends as it should.
    ShutdownError,
}

/// The classes of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// User code panicked.
    Panic,
    /// An execution blocked its thread and was fenced.
    Hang,
    /// An incarnation was killed, or its task aborted.
    Kill,
    /// It was not up yet: factory, restore or canary failed, or a task or a supervisor ended before.
    Start,
    /// A task or a supervisor ended with an error.
    Exit,
    /// Its fault domain ended: a worker process.
    Domain,
    /// A supervisor used up its restarts.
    Intensity,
}

impl FailureClass {
    /// The class as a label with few values.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Hang => "hang",
            Self::Kill => "kill",
            Self::Start => "start",
            Self::Exit => "exit",
            Self::Domain => "domain",
            Self::Intensity => "intensity",
        }
    }

    /// What to do about it, for people.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Panic => "fix the panic; if one input brings it about, look for it among the dead letters",
            Self::Hang => {
                "find what blocks: waiting belongs at an await, and long work under a longer hang limit"
            }
            Self::Kill => "find out who killed it; nothing is known to be wrong with the kernel itself",
            Self::Start => {
                "check what its start needs, or its factory, checkpoint and canary: files, memory, device"
            }
            Self::Exit => "read the error it ended with; one that should end it for good is a normal exit",
            Self::Domain => "look at what ended the process; its kernels are suspects, not culprits",
            Self::Intensity => {
                "mend the child that fails most, then resume; more restarts only delay the same end"
            }
        }
    }
}

impl From<&Cause> for FailureClass {
    fn from(cause: &Cause) -> Self {
        match cause {
            Cause::Panicked(_) => Self::Panic,
            Cause::Hung => Self::Hang,
            Cause::Killed => Self::Kill,
            Cause::StartFailed(_) => Self::Start,
            Cause::Exited(_) => Self::Exit,
            Cause::DomainLost(_) => Self::Domain,
            Cause::GaveUp(_) => Self::Intensity,
        }
    }
}

impl ReportContext {
    /// Where an incarnation was that ended without having been asked to.
    pub(crate) const fn of_failure(cause: &Cause) -> Self {
        match cause {
            Cause::StartFailed(_) => Self::StartError,
            Cause::Panicked(_)
            | Cause::Hung
            | Cause::Killed
            | Cause::Exited(_)
            | Cause::DomainLost(_)
            | Cause::GaveUp(_) => Self::ChildTerminated,
        }
    }
}

impl FailureReport {
    /// The report of an incarnation that ended at `at`.
    pub(crate) fn of(
        supervisor: &str,
        offender: &str,
        context: ReportContext,
        cause: &Cause,
        incarnation: u64,
        at: Timestamp,
    ) -> Self {
        let class = FailureClass::from(cause);
        Self {
            supervisor: excerpt(supervisor, MAX_NAME_BYTES),
            context,
            reason: excerpt(cause, MAX_REASON_BYTES),
            offender: excerpt(offender, MAX_NAME_BYTES),
            class,
            advice: class.advice(),
            incarnation,
            at,
            unix_millis: unix_millis(),
        }
    }
}

// Derived, it would ask for bytes that live for ever: the advice is a static text.
impl<'de> Deserialize<'de> for FailureReport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Stored::deserialize(deserializer).map(Self::from)
    }
}

/// A report as it is written down. The advice is read over: it follows from the class.
#[derive(Deserialize)]
struct Stored {
    supervisor: String,
    context: ReportContext,
    reason: String,
    offender: String,
    class: FailureClass,
    #[serde(rename = "advice")]
    _advice: String,
    incarnation: u64,
    at: Timestamp,
    unix_millis: u64,
}

impl From<Stored> for FailureReport {
    fn from(stored: Stored) -> Self {
        Self {
            supervisor: excerpt(&stored.supervisor, MAX_NAME_BYTES),
            context: stored.context,
            reason: excerpt(&stored.reason, MAX_REASON_BYTES),
            offender: excerpt(&stored.offender, MAX_NAME_BYTES),
            class: stored.class,
            advice: stored.class.advice(),
            incarnation: stored.incarnation,
            at: stored.at,
            unix_millis: stored.unix_millis,
        }
    }
}

/// The last 16 reports of each child, 16384 in all; beyond that the oldest of all goes first.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// All reports, by the order in which they came.
    reports: BTreeMap<u64, FailureReport>,
    /// Each child's reports, oldest first. A child without reports is not here.
    children: HashMap<String, VecDeque<u64>>,
    next: u64,
}

impl History {
    /// Keeps a report.
    pub(crate) fn record(&mut self, report: FailureReport) {
        let own = self.children.entry(report.offender.clone()).or_default();
        own.push_back(self.next);
        let surplus = if own.len() > REPORTS_PER_CHILD { own.pop_front() } else { None };
        self.reports.insert(self.next, report);
        self.next += 1;
        if let Some(surplus) = surplus {
            self.reports.remove(&surplus);
        }
        if self.reports.len() > REPORTS {
            self.forget_oldest();
        }
        debug_assert!(self.reports.len() <= REPORTS, "the history is bounded");
    }

    /// The reports of one child, oldest first.
    pub(crate) fn of(&self, child: &str) -> Vec<FailureReport> {
        let own = self.children.get(child).into_iter().flatten();
        own.filter_map(|number| self.reports.get(number)).cloned().collect()
    }

    /// All reports, oldest first.
    pub(crate) fn all(&self) -> Vec<FailureReport> {
        self.reports.values().cloned().collect()
    }

    /// Puts reports of an earlier life, oldest first, before those of this one.
    pub(crate) fn restore(&mut self, earlier: Vec<FailureReport>) {
        let Self { reports, .. } = std::mem::take(self);
        for report in earlier.into_iter().chain(reports.into_values()) {
            self.record(report);
        }
    }

    fn forget_oldest(&mut self) {
        let Some((number, report)) = self.reports.pop_first() else { return };
        let Some(own) = self.children.get_mut(&report.offender) else { return };
        let first = own.pop_front();
        debug_assert_eq!(first, Some(number), "the oldest of all is its child's oldest");
        if own.is_empty() {
            self.children.remove(&report.offender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report_of(child: &str, cause: &Cause, incarnation: u64) -> FailureReport {
        let context = ReportContext::of_failure(cause);
        FailureReport::of("root", child, context, cause, incarnation, Timestamp::from_nanos(incarnation))
    }

    fn report(child: &str, incarnation: u64) -> FailureReport {
        report_of(child, &Cause::Killed, incarnation)
    }

    fn lives(reports: &[FailureReport]) -> Vec<u64> {
        reports.iter().map(|report| report.incarnation).collect()
    }

    #[test]
    fn the_last_16_reports_of_a_child_are_kept_oldest_first() {
        let mut history = History::default();
        history.record(report("a/other", 1));
        for incarnation in 1..=40 {
            history.record(report("a/b", incarnation));
        }
        assert_eq!(lives(&history.of("a/b")), (25..=40).collect::<Vec<_>>());
        assert_eq!(lives(&history.of("a/other")), [1]);
        assert_eq!(history.all().len(), 17);
        assert!(history.of("a/unknown").is_empty());
    }

    #[test]
    fn beyond_16384_reports_the_oldest_of_all_goes_first_and_its_child_is_forgotten() {
        let mut history = History::default();
        for child in 0..REPORTS {
            history.record(report(&format!("a/{child}"), 1));
        }
        history.record(report("a/last", 1));
        assert_eq!(history.all().len(), REPORTS);
        assert!(history.of("a/0").is_empty());
        assert_eq!(history.children.len(), REPORTS);
        assert_eq!((history.of("a/1").len(), history.of("a/last").len()), (1, 1));
    }

    #[test]
    fn restored_reports_come_before_those_of_this_life_and_keep_the_bounds() {
        let mut history = History::default();
        history.record(report("a/b", 1));
        history.restore((100..130).map(|incarnation| report("a/b", incarnation)).collect());
        let expected: Vec<u64> = (115..130).chain([1]).collect();
        assert_eq!(lives(&history.of("a/b")), expected);
    }

    #[test]
    fn a_start_that_failed_is_a_start_error_and_a_long_reason_is_cut() {
        let cause = Cause::StartFailed("x".repeat(100_000));
        let report = report_of("a/b", &cause, 7);
        assert_eq!((report.context, report.class), (ReportContext::StartError, FailureClass::Start));
        assert!(report.reason.len() <= MAX_REASON_BYTES + 3);
        assert!(report.unix_millis > 0);
        let panic = report_of("a/b", &Cause::Panicked("no".into()), 7);
        assert_eq!((panic.context, panic.class), (ReportContext::ChildTerminated, FailureClass::Panic));
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let report = report("a/b", 3);
        let frame = rustkernel_core::codec::encode(&report).unwrap();
        assert_eq!(rustkernel_core::codec::decode::<FailureReport>(&frame).unwrap(), report);
    }
}
