//! The circuit breaker: it stops calls to what keeps failing, and finds out when that is over.

mod circuit;
mod config;
mod listener;
mod machine;
mod outcome;
mod state;
mod window;

pub use circuit::{CircuitBreaker, CircuitStats};
pub use config::{CircuitBreakerConfig, MAX_OPEN_TIME, MAX_WINDOW_CALLS, RateWindow, WindowSpan};
pub use machine::BreakerMachine;
pub use outcome::Outcome;
pub use state::{
    BreakerMode, BreakerTotals, CircuitState, Permit, Refusal, Transition, TransitionCause, TripCause,
};
