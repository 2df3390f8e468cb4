//! How long a call may take, when its caller does not say or asks for too much.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checked::{checked, rule};
use super::{InvalidConfig, span};
use crate::clock::Timestamp;

/// The time limits of calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawTimeout")]
pub struct TimeoutConfig {
    /// The limit of a call that neither asks for one nor has a parent's to follow; above zero, at most
    /// `max_timeout`. [`Duration::MAX`] means none. Default 30 s.
    #[serde(with = "span")]
    pub default_timeout: Duration,
    /// The longest limit a call can have, whatever it asks for; [`Duration::MAX`] means no bound. Default 300 s.
    #[serde(with = "span")]
    pub max_timeout: Duration,
    /// Whether a call made on behalf of another one ends with it. Without it the child gets the default, or what it
    /// asks for, and may outlive its parent. Default true.
    pub propagate_deadline: bool,
    /// Whether the wait in the queue counts. Without it a call's own limit starts when it leaves the queue; a
    /// parent's deadline stands either way. Default true: the caller waits through both.
    pub include_queue_time: bool,
}

impl TimeoutConfig {
    /// For serving: the defaults.
    #[must_use]
    pub fn production() -> Self {
        Self::default()
    }

    /// For a developer's desk: 5 minutes, which a debugger's breakpoint survives.
    #[must_use]
    pub fn development() -> Self {
        Self { default_timeout: Duration::from_secs(300), ..Self::default() }
    }

    /// The deadline of a call that starts its time at `now`.
    ///
    /// The call's own limit is what it asks for, or else the default, and at most `max_timeout`. Under a parent's
    /// deadline that is propagated, the earlier of the two counts; a call that asks for nothing then follows its
    /// parent, within `max_timeout`. With `include_queue_time` off, ask again with the time of the dequeue.
    #[must_use]
    pub fn effective_deadline(
        &self,
        parent: Option<Timestamp>,
        requested: Option<Duration>,
        now: Timestamp,
    ) -> Timestamp {
        match parent.filter(|_| self.propagate_deadline) {
            Some(parent) => {
                parent.min(now + requested.map_or(self.max_timeout, |asked| asked.min(self.max_timeout)))
            }
            None => now + requested.unwrap_or(self.default_timeout).min(self.max_timeout),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        rule(!self.default_timeout.is_zero(), "timeout.default_timeout", "must be above zero")?;
        rule(!self.max_timeout.is_zero(), "timeout.max_timeout", "must be above zero")?;
        let ordered = self.default_timeout <= self.max_timeout;
        rule(ordered, "timeout.max_timeout", "must be at least `default_timeout`")
    }
}

impl Default for TimeoutConfig {
    fn default() -> Self {
        Self {
            default_timeout: Duration::from_secs(30),
            max_timeout: Duration::from_secs(300),
            propagate_deadline: true,
            include_queue_time: true,
        }
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "TimeoutConfig")]
struct RawTimeout {
    #[serde(with = "span")]
    default_timeout: Duration,
    #[serde(with = "span")]
    max_timeout: Duration,
    propagate_deadline: bool,
    include_queue_time: bool,
}

checked!(TimeoutConfig from RawTimeout { default_timeout, max_timeout, propagate_deadline, include_queue_time });

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_call_gets_what_it_asks_for_within_the_maximum() {
        let config = TimeoutConfig::default();
        assert_eq!(config.effective_deadline(None, None, at(0)), at(30));
        assert_eq!(config.effective_deadline(None, Some(Duration::from_secs(60)), at(0)), at(60));
        assert_eq!(config.effective_deadline(None, Some(Duration::MAX), at(0)), at(300));
    }

    #[test]
    fn a_child_never_outlives_a_parent_whose_deadline_is_propagated() {
        let config = TimeoutConfig::default();
        assert_eq!(config.effective_deadline(Some(at(9)), None, at(0)), at(9));
        assert_eq!(config.effective_deadline(Some(at(60)), None, at(0)), at(60));
        assert_eq!(config.effective_deadline(Some(at(9)), Some(Duration::from_secs(60)), at(0)), at(9));
        assert_eq!(config.effective_deadline(Some(at(9)), Some(Duration::from_secs(2)), at(0)), at(2));
        assert_eq!(config.effective_deadline(Some(at(9_999)), None, at(0)), at(300));
    }

    #[test]
    fn without_propagation_a_child_gets_the_default() {
        let config = TimeoutConfig { propagate_deadline: false, ..TimeoutConfig::default() };
        assert_eq!(config.effective_deadline(Some(at(9)), None, at(0)), at(30));
    }

    #[test]
    fn without_any_limit_there_is_no_deadline() {
        let none = Duration::MAX;
        let config = TimeoutConfig { default_timeout: none, max_timeout: none, ..TimeoutConfig::default() };
        assert_eq!(config.effective_deadline(None, None, at(7)), Timestamp::NEVER);
    }
}
