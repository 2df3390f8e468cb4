//! What a caller of a kernel can get instead of an answer.
//!
//! One type, [`KernelError`]: a [kind](KernelErrorKind), the [phase](Phase) it happened in, the kernel and a source. From the kind follow
//! three answers that a caller needs and that no call site may guess: did the work [run](KernelError::ran), is
//! trying again any [use](KernelError::retry_advice), and to which [`ErrorKind`] of a retry policy it belongs.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::KernelId;
use crate::resilience::{Classify, ErrorKind};

/// A boxed source error, as user code hands it in.
pub type Source = Box<dyn StdError + Send + Sync>;

/// Why a kernel call has no answer. One pointer wide, so that `Result<O, KernelError>` stays small on the hot path.
pub struct KernelError(Box<Parts>);

struct Parts {
    kind: KernelErrorKind,
    phase: Phase,
    kernel: Option<KernelId>,
    source: Option<Source>,
}

/// The kinds of [`KernelError`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KernelErrorKind {
    /// A bound of the slot is reached. The request was not accepted.
    Overloaded(Limit),
    /// The deadline passed. What already ran is told by the phase.
    DeadlineExceeded,
    /// The breaker refused the request. It was not accepted.
    Rejected(Rejection),
    /// The incarnation that ran the request ended: by panic, kill or abort. Whether the work was done is unknown.
    Crashed,
    /// The execution blocked its thread past its deadline or hang limit and was fenced. It may still be running; its
    /// late answer is discarded.
    Hung,
    /// The kernel restarts and cannot be back before the request's deadline. The request was not accepted.
    Restarting {
        /// Time until the next incarnation starts.
        retry_after: Duration,
    },
    /// The kernel or its runtime takes no new work and finishes the old.
    Draining,
    /// The kernel serves nobody.
    Down(DownReason),
    /// The caller went away, or asked for the end of the work.
    Cancelled,
    /// The kernel's own error.
    Kernel(ErrorKind),
}

impl KernelErrorKind {
    /// The names of all kinds, for labels and counts: [`index`](Self::index) says which one it is.
    pub const NAMES: [&'static str; 10] = [
        "overloaded",
        "deadline_exceeded",
        "rejected",
        "crashed",
        "hung",
        "restarting",
        "draining",
        "down",
        "cancelled",
        "kernel",
    ];

    /// Its place in [`NAMES`](Self::NAMES).
    #[must_use]
    pub const fn index(&self) -> usize {
        match self {
            Self::Overloaded(_) => 0,
            Self::DeadlineExceeded => 1,
            Self::Rejected(_) => 2,
            Self::Crashed => 3,
            Self::Hung => 4,
            Self::Restarting { .. } => 5,
            Self::Draining => 6,
            Self::Down(_) => 7,
            Self::Cancelled => 8,
            Self::Kernel(_) => 9,
        }
    }
}

/// The bound that an [`KernelErrorKind::Overloaded`] refusal met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Requests waiting in the slot.
    Requests,
    /// Payload bytes waiting in the slot.
    Bytes,
    /// The expected wait is longer than the time the request has left.
    Time,
}

/// Why a kernel is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DownReason {
    /// The restart budget is used up; the kernel is isolated until an operator resumes it.
    Isolated,
    /// The kernel was stopped on purpose.
    Stopped,
    /// The recovery actor above it is gone.
    SupervisorGone,
    /// So many blocked threads were abandoned that no further one may be started.
    AbandonedThreads,
}

/// What a breaker knows about a request it refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Which breaker refused.
    pub scope: BreakerScope,
    /// Why it is open.
    pub cause: RejectionCause,
    /// The breaker's generation: it counts state changes.
    pub generation: u64,
    /// How long the breaker stays open from its opening; `None` while it is held open by hand or
    /// lets no further probe in. An upper bound of the wait: a rejection reads no clock.
    pub retry_after: Option<Duration>,
}

/// What a breaker stands in front of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerScope {
    /// One kernel.
    Kernel,
    /// What its kernels live in, and die with.
    Domain,
    /// A device, for every domain on it.
    Device,
}

/// Why a breaker refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionCause {
    /// Too many failures: the breaker is open.
    Failures,
    /// Half-open, and all probes are out.
    ProbesOut,
    /// Held open by hand or by an escalation.
    Isolated,
}

/// Where on its way a request was when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before the slot accepted it.
    Admission,
    /// Accepted, not yet taken by an incarnation.
    Queued,
    /// An incarnation had it.
    Executing,
    /// The work was done; the answer was on its way.
    Reply,
}

/// Whether the kernel did the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ran {
    /// It never started.
    No,
    /// It ran to its end.
    Yes,
    /// It started; how far it came is not known.
    Unknown,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAdvice {
    /// The same request would fail the same way.
    Never,
    /// It may work at any time from now on.
    Now,
    /// It makes no sense before this span is over.
    After(Duration),
}

impl KernelError {
    /// An error of `kind` in `phase`.
    #[must_use]
    pub fn new(kind: KernelErrorKind, phase: Phase) -> Self {
        Self(Box::new(Parts { kind, phase, kernel: None, source: None }))
    }

    /// The kernel's own error, worth a retry: the same input may work the next time.
    pub fn transient(source: impl Into<Source>) -> Self {
        Self::kernel(ErrorKind::Transient, source)
    }

    /// The kernel's own error: this input will never work. It does not count against the breaker.
    pub fn invalid_input(source: impl Into<Source>) -> Self {
        Self::kernel(ErrorKind::InvalidInput, source)
    }

    /// The kernel's own error: a resource, such as memory, ran out. It does not count against the breaker.
    pub fn exhausted(source: impl Into<Source>) -> Self {
        Self::kernel(ErrorKind::Exhausted, source)
    }

    /// The kernel's own error, for good.
    pub fn permanent(source: impl Into<Source>) -> Self {
        Self::kernel(ErrorKind::Permanent, source)
    }

    /// The kernel's own error of the given kind.
    pub fn kernel(kind: ErrorKind, source: impl Into<Source>) -> Self {
        Self::new(KernelErrorKind::Kernel(kind), Phase::Executing).with_source(source)
    }

    /// The same error with a source.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, met in this phase.
    #[must_use]
    pub fn in_phase(mut self, phase: Phase) -> Self {
        self.0.phase = phase;
        self
    }

    /// The same error, naming the kernel it came from. A name that is already there stays: the innermost stage wins.
    #[must_use]
    pub fn in_kernel(mut self, kernel: &KernelId) -> Self {
        self.0.kernel.get_or_insert_with(|| kernel.clone());
        self
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> &KernelErrorKind {
        &self.0.kind
    }

    /// Where on its way the request was.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// Whether the kernel itself could not even begin, because what it needs was lost with somebody else: it says nothing about the kernel,
    /// and is the same at every attempt. Not for an error that the kernel has got from another one.
    #[must_use]
    pub fn lacks_input(&self) -> bool {
        self.0.kind == KernelErrorKind::Crashed && self.0.phase == Phase::Queued && self.0.kernel.is_none()
    }

    /// The kernel the error came from, where one is known.
    #[must_use]
    pub fn kernel_id(&self) -> Option<&KernelId> {
        self.0.kernel.as_ref()
    }

    /// Whether the kernel did the work.
    #[must_use]
    pub fn ran(&self) -> Ran {
        match (&self.0.kind, self.0.phase) {
            (_, Phase::Admission | Phase::Queued) => Ran::No,
            (_, Phase::Reply) | (KernelErrorKind::Kernel(_), Phase::Executing) => Ran::Yes,
            (_, Phase::Executing) => Ran::Unknown,
        }
    }

    /// Whether, and when, trying again can help. It says nothing about safety: combine it with
    /// [`ran`](Self::ran) unless the kernel is idempotent.
    #[must_use]
    pub fn retry_advice(&self) -> RetryAdvice {
        match &self.0.kind {
            KernelErrorKind::Overloaded(_) | KernelErrorKind::Crashed | KernelErrorKind::Hung => {
                RetryAdvice::Now
            }
            KernelErrorKind::Rejected(rejection) => {
                let held = rejection.cause == RejectionCause::Isolated;
                let otherwise = if held { RetryAdvice::Never } else { RetryAdvice::Now };
                rejection.retry_after.map_or(otherwise, RetryAdvice::After)
            }
            KernelErrorKind::Restarting { retry_after } => RetryAdvice::After(*retry_after),
            KernelErrorKind::DeadlineExceeded => RetryAdvice::Now,
            KernelErrorKind::Draining | KernelErrorKind::Down(_) | KernelErrorKind::Cancelled => {
                RetryAdvice::Never
            }
            KernelErrorKind::Kernel(kind) => match kind {
                ErrorKind::Transient | ErrorKind::Timeout | ErrorKind::Overloaded | ErrorKind::Exhausted => {
                    RetryAdvice::Now
                }
                ErrorKind::Crashed | ErrorKind::Hung => RetryAdvice::Now,
                ErrorKind::Rejected
                | ErrorKind::Cancelled
                | ErrorKind::InvalidInput
                | ErrorKind::Permanent => RetryAdvice::Never,
            },
        }
    }
}

impl Classify for KernelError {
    fn error_kind(&self) -> ErrorKind {
        match &self.0.kind {
            KernelErrorKind::Overloaded(_) => ErrorKind::Overloaded,
            KernelErrorKind::DeadlineExceeded => ErrorKind::Timeout,
            KernelErrorKind::Rejected(_) => ErrorKind::Rejected,
            KernelErrorKind::Crashed => ErrorKind::Crashed,
            KernelErrorKind::Hung => ErrorKind::Hung,
            KernelErrorKind::Restarting { .. } => ErrorKind::Transient,
            KernelErrorKind::Draining | KernelErrorKind::Down(_) => ErrorKind::Permanent,
            KernelErrorKind::Cancelled => ErrorKind::Cancelled,
            KernelErrorKind::Kernel(kind) => *kind,
        }
    }
}

impl fmt::Display for KernelErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overloaded(Limit::Requests) => f.write_str("overloaded: the request limit is reached"),
            Self::Overloaded(Limit::Bytes) => f.write_str("overloaded: the byte limit is reached"),
            Self::Overloaded(Limit::Time) => {
                f.write_str("overloaded: the queue is longer than the time left")
            }
            Self::DeadlineExceeded => f.write_str("deadline exceeded"),
            Self::Rejected(rejection) => {
                let whose = match rejection.scope {
                    BreakerScope::Kernel => "",
                    BreakerScope::Domain => " of the fault domain",
                    BreakerScope::Device => " of the device",
                };
                let how = match rejection.cause {
                    RejectionCause::Failures => "open",
                    RejectionCause::ProbesOut => "half-open and its probes are out",
                    RejectionCause::Isolated => "held open",
                };
                write!(f, "rejected: the breaker{whose} is {how}")
            }
            Self::Crashed => f.write_str("the kernel crashed while it had the request"),
            Self::Hung => f.write_str("the kernel hung and was fenced"),
            Self::Restarting { retry_after } => {
                write!(f, "the kernel restarts in {retry_after:?}, after the deadline")
            }
            Self::Draining => f.write_str("draining: no new work is taken"),
            Self::Down(DownReason::Isolated) => f.write_str("down: isolated until an operator resumes it"),
            Self::Down(DownReason::Stopped) => f.write_str("down: stopped"),
            Self::Down(DownReason::SupervisorGone) => f.write_str("down: its supervisor is gone"),
            Self::Down(DownReason::AbandonedThreads) => f.write_str("down: too many abandoned threads"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Kernel(kind) => write!(f, "the kernel failed ({kind})"),
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kernel) = &self.0.kernel {
            write!(f, "{kernel}: ")?;
        }
        write!(f, "{}", self.0.kind)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelError")
            .field("kind", &self.0.kind)
            .field("phase", &self.0.phase)
            .field("kernel", &self.0.kernel)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for KernelError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<std::io::Error> for KernelError {
    fn from(error: std::io::Error) -> Self {
        Self::transient(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<KernelError>(), size_of::<usize>());
        assert_eq!(size_of::<Result<(), KernelError>>(), size_of::<usize>());
    }

    #[test]
    fn whether_the_work_ran_follows_from_kind_and_phase() {
        let at = |kind, phase| KernelError::new(kind, phase).ran();
        assert_eq!(at(KernelErrorKind::DeadlineExceeded, Phase::Queued), Ran::No);
        assert_eq!(at(KernelErrorKind::DeadlineExceeded, Phase::Executing), Ran::Unknown);
        assert_eq!(at(KernelErrorKind::DeadlineExceeded, Phase::Reply), Ran::Yes);
        assert_eq!(at(KernelErrorKind::Crashed, Phase::Executing), Ran::Unknown);
        assert_eq!(KernelError::transient("busy").ran(), Ran::Yes);
    }

    #[test]
    fn the_innermost_kernel_names_the_error() {
        let inner = KernelId::new("a/inner").unwrap();
        let outer = KernelId::new("a/outer").unwrap();
        let error = KernelError::permanent("broken").in_kernel(&inner).in_kernel(&outer);
        assert_eq!(error.to_string(), "a/inner: the kernel failed (permanent): broken");
    }
}
