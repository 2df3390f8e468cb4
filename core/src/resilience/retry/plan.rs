//! The settings of a retry, and the decision after each failure.
//!
//! | after a failed attempt | decision |
//! |---|---|
//! | its kind is not listed, or is `Rejected` or `Cancelled` | give up: not retryable |
//! | it was number `max_attempts` | give up: attempts used up |
//! | the delay would end at the deadline or later | give up: no time left |
//! | otherwise | again, after the delay |
//!
//! The plan does not know whether the work is safe to repeat: who launches work that is not idempotent asks that
//! first.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff::BackoffStrategy;
use crate::clock::Timestamp;
use crate::resilience::checked::{checked, rule};
use crate::resilience::{ErrorKind, InvalidConfig};

/// Which failures are tried again, how often, and how long apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawRetry")]
pub struct RetryConfig {
    /// Calls in all, the first one included; at least 1. Default 3: a second retry catches most of what a first one
    /// does not, and each further one adds load where there is trouble already.
    pub max_attempts: u32,
    /// The delay between attempts. Default: 100 ms, doubling up to 10 s, with full jitter, so that those who failed
    /// together do not come back together.
    pub backoff: BackoffStrategy,
    /// The kinds worth another attempt. `Rejected` and `Cancelled` are never retried, listed or not. Default:
    /// `Transient` and `Timeout`, because the others fail again, or add load to what has too much.
    pub retryable_errors: Vec<ErrorKind>,
}

impl RetryConfig {
    /// For serving: the defaults, and `Overloaded`, which the backoff gives time to pass.
    #[must_use]
    pub fn production() -> Self {
        let mut config = Self::default();
        config.retryable_errors.push(ErrorKind::Overloaded);
        config
    }

    /// For a developer's desk: one retry after 10 ms, so that an error shows at once.
    #[must_use]
    pub fn development() -> Self {
        let backoff = BackoffStrategy::Fixed { delay: Duration::from_millis(10) };
        Self { max_attempts: 2, backoff, ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        rule(self.max_attempts >= 1, "retry.max_attempts", "must be at least 1")?;
        self.backoff.validate()
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: BackoffStrategy::default(),
            retryable_errors: vec![ErrorKind::Transient, ErrorKind::Timeout],
        }
    }
}

/// A checked [`RetryConfig`]: it decides after each failed attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPlan {
    max_attempts: u32,
    backoff: BackoffStrategy,
    kinds: KindSet,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RetryDecision {
    /// Make the next attempt when `delay` is over.
    Again {
        /// The wait before it.
        delay: Duration,
    },
    /// Hand the error on.
    GiveUp(GiveUp),
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// Errors of this kind are not retried.
    NotRetryable,
    /// All attempts are used up.
    AttemptsUsedUp,
    /// The next attempt could not start before the deadline.
    NoTimeLeft,
}

impl RetryPlan {
    /// Checks `config` and makes it a plan.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn try_new(config: &RetryConfig) -> Result<Self, InvalidConfig> {
        config.validate()?;
        let kinds = config.retryable_errors.iter().fold(KindSet(0), |set, kind| set.with(*kind));
        Ok(Self { max_attempts: config.max_attempts, backoff: config.backoff, kinds })
    }

    /// Decides after attempt number `attempt` (from 1) has failed with an error of `kind` at `now`. Without a
    /// deadline, pass [`Timestamp::NEVER`].
    pub fn next(
        &self,
        kind: ErrorKind,
        attempt: u32,
        now: Timestamp,
        deadline: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> RetryDecision {
        if !is_ever_retried(kind) || !self.kinds.contains(kind) {
            return RetryDecision::GiveUp(GiveUp::NotRetryable);
        }
        if attempt >= self.max_attempts {
            return RetryDecision::GiveUp(GiveUp::AttemptsUsedUp);
        }
        let delay = self.backoff.delay(attempt, rng);
        if !deadline.is_never() && now + delay >= deadline {
            return RetryDecision::GiveUp(GiveUp::NoTimeLeft);
        }
        RetryDecision::Again { delay }
    }

    /// Calls in all, the first one included.
    #[must_use]
    pub const fn max_attempts(&self) -> u32 {
        self.max_attempts
    }
}

/// A breaker's refusal says itself when to come back, and nobody waits for a cancelled call.
const fn is_ever_retried(kind: ErrorKind) -> bool {
    !matches!(kind, ErrorKind::Rejected | ErrorKind::Cancelled)
}

/// A set of [`ErrorKind`]s, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KindSet(u32);

impl KindSet {
    const fn with(self, kind: ErrorKind) -> Self {
        Self(self.0 | (1 << kind as u32))
    }

    const fn contains(self, kind: ErrorKind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "RetryConfig")]
struct RawRetry {
    max_attempts: u32,
    backoff: BackoffStrategy,
    retryable_errors: Vec<ErrorKind>,
}

checked!(RetryConfig from RawRetry { max_attempts, backoff, retryable_errors });

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(max_attempts: u32, retryable_errors: Vec<ErrorKind>) -> RetryPlan {
        let backoff = BackoffStrategy::Fixed { delay: Duration::from_millis(10) };
        RetryPlan::try_new(&RetryConfig { max_attempts, backoff, retryable_errors }).unwrap()
    }

    fn next(plan: RetryPlan, kind: ErrorKind, attempt: u32, deadline: Timestamp) -> RetryDecision {
        plan.next(kind, attempt, Timestamp::ZERO, deadline, &mut fastrand::Rng::with_seed(7))
    }

    const AGAIN: RetryDecision = RetryDecision::Again { delay: Duration::from_millis(10) };

    #[test]
    fn the_first_call_counts_as_an_attempt() {
        let plan = plan(2, vec![ErrorKind::Transient]);
        assert_eq!(next(plan, ErrorKind::Transient, 1, Timestamp::NEVER), AGAIN);
        let used_up = RetryDecision::GiveUp(GiveUp::AttemptsUsedUp);
        assert_eq!(next(plan, ErrorKind::Transient, 2, Timestamp::NEVER), used_up);
        assert_eq!(next(plan, ErrorKind::Transient, u32::MAX, Timestamp::NEVER), used_up);
    }

    #[test]
    fn rejections_and_cancellations_are_not_retried_even_if_listed() {
        let plan = plan(9, vec![ErrorKind::Rejected, ErrorKind::Cancelled, ErrorKind::Timeout]);
        let never = RetryDecision::GiveUp(GiveUp::NotRetryable);
        assert_eq!(next(plan, ErrorKind::Rejected, 1, Timestamp::NEVER), never);
        assert_eq!(next(plan, ErrorKind::Cancelled, 1, Timestamp::NEVER), never);
        assert_eq!(next(plan, ErrorKind::Permanent, 1, Timestamp::NEVER), never);
        assert_eq!(next(plan, ErrorKind::Timeout, 1, Timestamp::NEVER), AGAIN);
    }

    #[test]
    fn a_retry_that_cannot_start_before_the_deadline_is_given_up() {
        let plan = plan(9, vec![ErrorKind::Transient]);
        let late = Timestamp::ZERO + Duration::from_millis(10);
        let no_time = RetryDecision::GiveUp(GiveUp::NoTimeLeft);
        assert_eq!(next(plan, ErrorKind::Transient, 1, late), no_time);
        assert_eq!(next(plan, ErrorKind::Transient, 1, late + Duration::from_nanos(1)), AGAIN);
    }
}
