//! The errors of the resilience machines, and the kinds a retry policy chooses from.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{KernelError, KernelErrorKind, Ran};

/// What sort of failure an error is: the alphabet of [`RetryConfig::retryable_errors`](super::RetryConfig).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The same request may work the next time.
    Transient,
    /// It took too long.
    Timeout,
    /// A bound was reached before the work began.
    Overloaded,
    /// A resource, such as device memory, ran out during the work.
    Exhausted,
    /// The executing incarnation died; the outcome is unknown.
    Crashed,
    /// The execution blocked and was fenced; the outcome is unknown.
    Hung,
    /// A breaker refused. Never retried, whatever a policy lists: the breaker says when to come back.
    Rejected,
    /// The caller went away. Never retried.
    Cancelled,
    /// The input is at fault.
    InvalidInput,
    /// It will not work, for another reason than the input.
    Permanent,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transient => "transient",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::Exhausted => "exhausted",
            Self::Crashed => "crashed",
            Self::Hung => "hung",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::InvalidInput => "invalid input",
            Self::Permanent => "permanent",
        })
    }
}

/// Errors that know their [`ErrorKind`].
pub trait Classify {
    /// What sort of failure this is.
    fn error_kind(&self) -> ErrorKind;
}

/// What the book's resilience calls fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResilienceError {
    /// The breaker is open, or half-open with all its probes out. The call was not made.
    #[error("the circuit breaker is open")]
    CircuitOpen,
    /// The deadline passed. A call that had not started was not made; one that had was dropped.
    #[error("deadline exceeded")]
    DeadlineExceeded,
    /// The configuration behind the call is invalid. The call was not made.
    #[error(transparent)]
    InvalidConfig(#[from] InvalidConfig),
    /// All attempts failed, or a further one made no sense; the last error is the source.
    #[error("gave up after {attempts} attempts in {elapsed:?}: {source}")]
    RetriesExhausted {
        /// Calls made, the first one included.
        attempts: u32,
        /// Time from the first call to giving up.
        elapsed: Duration,
        /// The last call's error.
        #[source]
        source: Box<Self>,
    },
    /// The kernel call failed.
    #[error(transparent)]
    Kernel(KernelError),
    /// An error of user code that is no kernel's.
    #[error(transparent)]
    Other(crate::error::Source),
}

impl From<KernelError> for ResilienceError {
    /// A breaker's rejection and a passed deadline keep their meaning; the rest is wrapped. So is the passed deadline
    /// of a request that never started: it says nothing against the kernel, and the phase tells a breaker so.
    fn from(error: KernelError) -> Self {
        match error.kind() {
            KernelErrorKind::DeadlineExceeded if error.ran() == Ran::No => Self::Kernel(error),
            KernelErrorKind::Rejected(_) => Self::CircuitOpen,
            KernelErrorKind::DeadlineExceeded => Self::DeadlineExceeded,
            KernelErrorKind::Overloaded(_)
            | KernelErrorKind::Crashed
            | KernelErrorKind::Hung
            | KernelErrorKind::Restarting { .. }
            | KernelErrorKind::Draining
            | KernelErrorKind::Down(_)
            | KernelErrorKind::Cancelled
            | KernelErrorKind::Kernel(_) => Self::Kernel(error),
        }
    }
}

impl Classify for ResilienceError {
    fn error_kind(&self) -> ErrorKind {
        match self {
            Self::CircuitOpen => ErrorKind::Rejected,
            Self::DeadlineExceeded => ErrorKind::Timeout,
            Self::InvalidConfig(_) => ErrorKind::InvalidInput,
            Self::RetriesExhausted { source, .. } => source.error_kind(),
            Self::Kernel(error) => error.error_kind(),
            Self::Other(_) => ErrorKind::Permanent,
        }
    }
}

/// A setting that cannot be: which one, and the rule it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid configuration: `{field}` {rule}")]
pub struct InvalidConfig {
    /// The field, for example `circuit_breaker.failure_threshold`.
    pub field: &'static str,
    /// The rule, to be read after the field's name: "must be at least 1".
    pub rule: &'static str,
}
