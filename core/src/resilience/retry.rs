//! Retry with backoff: another attempt where one can help, in time, and not all callers at once.

mod backoff;
mod execute;
mod plan;

pub use backoff::BackoffStrategy;
pub use plan::{GiveUp, RetryConfig, RetryDecision, RetryPlan};
