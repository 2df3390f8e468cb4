//! The words of the breaker machine: states, permits, refusals, transitions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::RejectionCause;

/// The three states of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// A few calls pass as probes.
    HalfOpen,
}

/// The state with what holds it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerMode {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until the open time is over.
    Open,
    /// A few calls pass as probes.
    HalfOpen,
    /// Held open by hand until it is closed by hand.
    Isolated,
    /// Held closed by hand: calls pass, and failures open nothing.
    Disabled,
}

impl BreakerMode {
    /// The state of the book that a caller meets in this mode.
    #[must_use]
    pub const fn circuit_state(self) -> CircuitState {
        match self {
            Self::Closed | Self::Disabled => CircuitState::Closed,
            Self::Open | Self::Isolated => CircuitState::Open,
            Self::HalfOpen => CircuitState::HalfOpen,
        }
    }
}

/// The right to make one call. It goes back to the machine with the call's outcome, whatever that is.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not handed back with an outcome keeps its probe slot"]
pub struct Permit {
    /// The breaker's generation when the permit was given.
    pub generation: u64,
    /// Whether the call is a probe of a half-open breaker.
    pub probe: bool,
    /// Whether the call has already been counted as slow, while it ran.
    pub slow_counted: bool,
}

/// Why no permit was given, and when it makes sense to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What stands in the way.
    pub cause: RejectionCause,
    /// The breaker's generation.
    pub generation: u64,
    /// Time until the breaker lets a probe in; `None` where that does not depend on time alone.
    pub retry_after: Option<Duration>,
}

/// One change of state, reported once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The mode before.
    pub from: BreakerMode,
    /// The mode after. It equals `from` only where a restart begins a new half-open cycle inside the old one.
    pub to: BreakerMode,
    /// What brought it about.
    pub cause: TransitionCause,
    /// The generation that begins with this transition.
    pub generation: u64,
    /// When it happened.
    pub at: Timestamp,
}

/// What brought a [`Transition`] about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransitionCause {
    /// Consecutive failures reached their threshold.
    Failures,
    /// The share of failures in the window reached its limit.
    FailureRate,
    /// The share of slow calls in the window reached its limit.
    SlowRate,
    /// The open time is over.
    OpenElapsed,
    /// Enough probes were good.
    ProbesSucceeded,
    /// A probe failed.
    ProbeFailed,
    /// A probe was slow.
    ProbeSlow,
    /// The half-open state reached its time limit.
    ProbesOverdue,
    /// The kernel was restarted and proves itself with probes.
    Restarted,
    /// Opened from outside, whatever was counted.
    Tripped(TripCause),
    /// Held open by hand.
    Isolated,
    /// Held closed by hand.
    Disabled,
    /// Closed by hand.
    Closed,
    /// Closed by hand, and all counts forgotten.
    Reset,
}

/// Why a breaker was opened from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TripCause {
    /// Consecutive failures, counted outside the machine, reached the threshold.
    Failures,
    /// The incarnation ended.
    Crashed,
    /// The incarnation blocked and was fenced.
    Hung,
    /// The device, or the fault domain on it, is faulty.
    DeviceFault,
}

/// What the machine has counted since it was made or reset. Counts saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BreakerTotals {
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls that ended without a verdict.
    pub neutral: u64,
    /// Calls that never got through.
    pub inconclusive: u64,
    /// Calls that were slow, the failed ones among them.
    pub slow: u64,
    /// Outcomes of an older generation, which counted for nothing.
    pub stale: u64,
    /// Calls refused.
    pub rejected: u64,
    /// Permits given.
    pub permits: u64,
}
