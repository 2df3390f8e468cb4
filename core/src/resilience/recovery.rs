//! What to do with a kernel that failed.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::checked::rule;
use super::{InvalidConfig, span};

/// What happens when a kernel's incarnation ends, and what when that has not helped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawRecovery")]
pub struct RecoveryPolicy {
    /// The first answer to a failure. Default [`RecoveryStrategy::RestartKernel`]: it needs nothing beside the
    /// kernel.
    pub strategy: RecoveryStrategy,
    /// Restarts allowed within the kernel's restart window; one more escalates. 0 escalates at the first failure.
    /// Default 3: what three new lives have not cured, a fourth seldom does.
    pub max_restarts: u32,
    /// The wait before a restart; at most an hour. It costs availability and saves a failing device from a storm.
    /// Default 100 ms: a blink for whoever waits; the production preset waits 1 s.
    #[serde(with = "span")]
    pub restart_delay: Duration,
    /// The answer when the restarts are used up; another one than `strategy`. `None` hands the failure to the
    /// supervisor, and is the only one after NotifyOperator. Default [`RecoveryStrategy::NotifyOperator`]:
    /// everything else has to be prepared.
    pub escalation: Option<RecoveryStrategy>,
}

/// The answers to a kernel's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryStrategy {
    /// Start a new incarnation from the factory, from the newest valid checkpoint.
    RestartKernel,
    /// Move the traffic to a replica that was started beforehand.
    UseReplica,
    /// Answer through the declared degraded path, and say so in each answer.
    Degrade,
    /// Move queue and checkpoint to the backup device.
    Failover,
    /// Isolate the kernel until an operator resumes it.
    NotifyOperator,
}

/// The longest [`RecoveryPolicy::restart_delay`].
const MAX_RESTART_DELAY: Duration = Duration::from_secs(3600);

impl RecoveryPolicy {
    /// For serving: waits 1 s before a restart.
    #[must_use]
    pub fn production() -> Self {
        Self { restart_delay: Duration::from_secs(1), ..Self::default() }
    }

    /// For a developer's desk: one restart, at once, and then the operator: you.
    #[must_use]
    pub fn development() -> Self {
        Self { max_restarts: 1, restart_delay: Duration::ZERO, ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        rule(self.restart_delay <= MAX_RESTART_DELAY, "recovery.restart_delay", "must be at most 1 hour")?;
        let answers_always = self.strategy == RecoveryStrategy::NotifyOperator;
        rule(
            !answers_always || self.escalation.is_none(),
            "recovery.escalation",
            "must be none after NotifyOperator, which always answers",
        )?;
        let moves_on = self.escalation != Some(self.strategy);
        rule(moves_on, "recovery.escalation", "must be another strategy than `strategy`")
    }
}

impl Default for RecoveryPolicy {
    fn default() -> Self {
        Self {
            strategy: RecoveryStrategy::RestartKernel,
            max_restarts: 3,
            restart_delay: Duration::from_millis(100),
            escalation: Some(RecoveryStrategy::NotifyOperator),
        }
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "RecoveryPolicy")]
struct RawRecovery {
    strategy: RecoveryStrategy,
    max_restarts: u32,
    #[serde(with = "span")]
    restart_delay: Duration,
    /// `None` where it was left out: a format without a null could not say none after NotifyOperator.
    #[serde(deserialize_with = "given")]
    escalation: Option<Option<RecoveryStrategy>>,
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<RecoveryStrategy>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Default for RawRecovery {
    fn default() -> Self {
        let RecoveryPolicy { strategy, max_restarts, restart_delay, escalation: _ } =
            RecoveryPolicy::default();
        Self { strategy, max_restarts, restart_delay, escalation: None }
    }
}

impl TryFrom<RawRecovery> for RecoveryPolicy {
    type Error = InvalidConfig;

    fn try_from(raw: RawRecovery) -> Result<Self, InvalidConfig> {
        let RawRecovery { strategy, max_restarts, restart_delay, escalation } = raw;
        let default = Self::default().escalation.filter(|_| strategy != RecoveryStrategy::NotifyOperator);
        let policy =
            Self { strategy, max_restarts, restart_delay, escalation: escalation.unwrap_or(default) };
        policy.validate()?;
        Ok(policy)
    }
}
