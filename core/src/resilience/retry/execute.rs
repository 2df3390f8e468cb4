//! The book's `execute`: the shell that calls, waits and calls again.

use std::future::Future;
use std::time::Duration;

use super::plan::{RetryConfig, RetryDecision, RetryPlan};
use crate::clock::{Clock, Timestamp};
use crate::resilience::{Classify, ResilienceError, ambient_deadline};

impl RetryConfig {
    /// Calls `work` until it succeeds, or until a further attempt is not allowed, not useful, or not possible before
    /// the [ambient deadline](ambient_deadline). Nobody waits for an attempt that cannot start in time.
    ///
    /// # Errors
    /// [`ResilienceError::InvalidConfig`] without a call, where the settings are invalid. The error of the first call
    /// itself, where no second one was made. Otherwise [`ResilienceError::RetriesExhausted`] with the last error as
    /// its source.
    ///
    /// # Panics
    /// A delay needs a tokio runtime with its timer enabled.
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt that runs, or the wait for the next one; none is made after that.
    pub async fn execute<F, Fut, T, E>(&self, work: F) -> Result<T, ResilienceError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<ResilienceError>,
    {
        self.execute_with(&Clock::system(), &mut fastrand::Rng::new(), work).await
    }

    /// The same with a clock and a generator of the caller's. The clock judges the deadline; the waits are tokio's.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    ///
    /// # Panics
    /// As [`execute`](Self::execute).
    ///
    /// # Cancel safety
    /// As [`execute`](Self::execute).
    pub async fn execute_with<F, Fut, T, E>(
        &self,
        clock: &Clock,
        rng: &mut fastrand::Rng,
        mut work: F,
    ) -> Result<T, ResilienceError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<ResilienceError>,
    {
        let plan = RetryPlan::try_new(self)?;
        let deadline = ambient_deadline().unwrap_or(Timestamp::NEVER);
        let started = clock.now();
        let mut attempt = 1_u32;
        loop {
            let error = match work().await {
                Ok(value) => return Ok(value),
                Err(error) => error.into(),
            };
            let now = clock.now();
            match plan.next(error.error_kind(), attempt, now, deadline, rng) {
                RetryDecision::Again { delay } => wait(delay).await,
                RetryDecision::GiveUp(_) => return Err(last(error, attempt, now - started)),
            }
            attempt = attempt.saturating_add(1);
        }
    }
}

/// The error of the last attempt; the only one stays what it is.
fn last(error: ResilienceError, attempts: u32, elapsed: Duration) -> ResilienceError {
    if attempts == 1 {
        return error;
    }
    ResilienceError::RetriesExhausted { attempts, elapsed, source: Box::new(error) }
}

#[allow(clippy::disallowed_methods, reason = "a bare retry has no runtime whose timer it could use")]
async fn wait(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}
