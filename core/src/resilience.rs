//! The book's resilience patterns.

mod ambient;
mod breaker;
mod checked;
mod config;
mod deadline;
mod error;
mod health;
mod recovery;
mod retry;
mod span;
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
