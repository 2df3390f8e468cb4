//! How a supervisor treats its children.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::child::{ChildRules, Restart};
use crate::resilience::checked::{checked, rule};
use crate::resilience::{BackoffStrategy, InvalidConfig, span};

/// Who is restarted when one child fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The child alone. The default.
    #[default]
    OneForOne,
    /// All children: those still alive are stopped in reverse start order, then all are started in order.
    OneForAll,
    /// The child and those started after it.
    RestForOne,
    /// The child alone, as children that come and go at run time: none to begin with, forgotten when they end, stopped all at once.
    /// OTP's `simple_one_for_one`.
    Dynamic,
}

/// Whether the end of a significant child ends its supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoShutdown {
    /// No; then no child may be significant. The default.
    #[default]
    Never,
    /// The end of any of them does.
    AnySignificant,
    /// The end of the last of them does.
    AllSignificant,
}

/// How a supervisor treats its children. Checked when it is read and when it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawSupervisor")]
pub struct SupervisorConfig {
    /// Who is restarted when one child fails. Default one_for_one.
    pub strategy: Strategy,
    /// Restarts allowed within `period`; one more ends the supervisor, and the one above decides. 0 never restarts; `u32::MAX` is no
    /// limit, for a supervisor whose children have budgets of their own. Default 3.
    pub intensity: u32,
    /// The sliding window in which restarts are counted; above zero. Choose it so long that a burst which a restart cannot cure uses it
    /// up. Default 5 s.
    #[serde(with = "span")]
    pub period: Duration,
    /// Whether the end of a significant child ends the supervisor. Default never.
    pub auto_shutdown: AutoShutdown,
    /// Children allowed at a time; at least 1. It bounds what callers can make the supervisor hold. Default 1,000,000.
    pub max_children: u32,
    /// The wait before tasks and supervisors are started again, growing with the restarts in the period; kernels bring a delay of their
    /// own. It costs availability and saves a failing child from burning the intensity in microseconds. Default: 10 ms,
    /// doubling up to 1 s, with jitter.
    pub backoff: BackoffStrategy,
}

impl SupervisorConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        rule(!self.period.is_zero(), "supervisor.period", "must be longer than zero")?;
        rule(self.max_children > 0, "supervisor.max_children", "must be at least 1")?;
        let backoff = self.backoff.validate();
        backoff.map_err(|error| InvalidConfig { field: "supervisor.backoff", rule: error.rule })
    }

    /// Checks one child's rules under this supervisor.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn validate_child(&self, rules: &ChildRules) -> Result<(), InvalidConfig> {
        if !rules.significant {
            return Ok(());
        }
        let ends = rules.restart != Restart::Permanent;
        rule(ends, "child.significant", "cannot be a permanent child: it never ends for good")?;
        let watched = self.auto_shutdown != AutoShutdown::Never;
        rule(watched, "child.significant", "needs a supervisor whose `auto_shutdown` is not `never`")
    }
}

impl Default for SupervisorConfig {
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            intensity: 3,
            period: Duration::from_secs(5),
            auto_shutdown: AutoShutdown::Never,
            max_children: 1_000_000,
            backoff: BackoffStrategy::ExponentialWithJitter {
                initial: Duration::from_millis(10),
                max: Duration::from_secs(1),
                multiplier: 2.0,
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "SupervisorConfig")]
struct RawSupervisor {
    strategy: Strategy,
    intensity: u32,
    #[serde(with = "span")]
    period: Duration,
    auto_shutdown: AutoShutdown,
    max_children: u32,
    backoff: BackoffStrategy,
}

checked!(SupervisorConfig from RawSupervisor { strategy, intensity, period, auto_shutdown, max_children, backoff });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_numbers_are_refused_by_field() {
        let bad = [
            (SupervisorConfig { period: Duration::ZERO, ..Default::default() }, "supervisor.period"),
            (SupervisorConfig { max_children: 0, ..Default::default() }, "supervisor.max_children"),
        ];
        for (config, field) in bad {
            assert_eq!(config.validate().unwrap_err().field, field);
        }
        let backoff = BackoffStrategy::Exponential {
            initial: Duration::from_secs(2),
            max: Duration::from_secs(1),
            multiplier: 2.0,
        };
        let config = SupervisorConfig { backoff, ..Default::default() };
        assert_eq!(config.validate().unwrap_err().field, "supervisor.backoff");
    }

    #[test]
    fn a_significant_child_must_be_able_to_end_and_be_watched() {
        let watches = SupervisorConfig { auto_shutdown: AutoShutdown::AnySignificant, ..Default::default() };
        let significant = |restart| ChildRules { restart, significant: true, ..Default::default() };
        assert!(watches.validate_child(&significant(Restart::Permanent)).is_err());
        assert!(watches.validate_child(&significant(Restart::Transient)).is_ok());
        assert!(SupervisorConfig::default().validate_child(&significant(Restart::Temporary)).is_err());
    }
}
