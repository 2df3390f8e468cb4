//! The book's resilience patterns.
//!
//! Each pattern is a checked configuration, a pure machine that decides, and where the book calls for one, a thin
//! shell that reads the clock and waits. The runtime drives the machines itself; the shells are for what else a
//! program calls.
//!
//! | pattern | settings | machine | shell |
//! |---|---|---|---|
//! | circuit breaker | [`CircuitBreakerConfig`] | [`BreakerMachine`] | [`CircuitBreaker`] |
//! | retry | [`RetryConfig`] | [`RetryPlan`] | [`RetryConfig::execute`] |
//! | timeout, deadline | [`TimeoutConfig`] | [`TimeoutConfig::effective_deadline`] | [`DeadlineContext`] |
//! | health | [`HealthProbeConfig`] | [`ProbeMachine`] | [`HealthProbe`] |
//! | recovery | [`RecoveryPolicy`] | the supervisor's | the runtime's |
//!
//! Settings are plain structs. Their `validate` and their deserialisation refuse bad numbers with the field named.

mod ambient;
mod breaker;
pub(crate) mod checked;
mod config;
mod deadline;
mod error;
mod health;
mod recovery;
mod retry;
pub(crate) mod span;
mod timeout;

pub use ambient::{ambient_deadline, with_ambient_deadline};
pub use breaker::{
    BreakerMachine, BreakerMode, BreakerTotals, CircuitBreaker, CircuitBreakerConfig, CircuitState,
    CircuitStats, MAX_OPEN_TIME, MAX_WINDOW_CALLS, Outcome, Permit, RateWindow, Refusal, Transition,
    TransitionCause, TripCause, WindowSpan,
};
pub use config::ResilienceConfig;
pub use deadline::DeadlineContext;
pub use error::{Classify, ErrorKind, InvalidConfig, ResilienceError};
pub use health::{
    HealthAggregation, HealthCheckConfig, HealthCheckResult, HealthProbe, HealthProbeConfig, HealthStatus,
    HealthTarget, ProbeMachine, aggregate,
};
pub use recovery::{RecoveryPolicy, RecoveryStrategy};
pub use retry::{BackoffStrategy, GiveUp, RetryConfig, RetryDecision, RetryPlan};
pub use timeout::TimeoutConfig;
