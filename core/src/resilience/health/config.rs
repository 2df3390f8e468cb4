//! The settings of health checks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::status::HealthAggregation;
use crate::resilience::checked::{checked, rule};
use crate::resilience::{InvalidConfig, span};

/// How one target is probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawProbe")]
pub struct HealthProbeConfig {
    /// The time from one check to the next, where someone checks on a schedule; above zero. Default 10 s, as
    /// Kubernetes.
    #[serde(with = "span")]
    pub interval: Duration,
    /// How long a check may take; above zero. One that takes longer finds the target unhealthy. Default 5 s.
    #[serde(with = "span")]
    pub timeout: Duration,
    /// Consecutive failed checks that make the target unhealthy; at least 1. Default 3, as Kubernetes.
    pub failure_threshold: u32,
    /// Consecutive good checks that make it healthy; at least 1. Default 1, as Kubernetes.
    pub success_threshold: u32,
}

impl HealthProbeConfig {
    /// For serving: the defaults.
    #[must_use]
    pub fn production() -> Self {
        Self::default()
    }

    /// For a developer's desk: every second, and one failed check shows.
    #[must_use]
    pub fn development() -> Self {
        let second = Duration::from_secs(1);
        Self { interval: second, timeout: second, failure_threshold: 1, success_threshold: 1 }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        rule(!self.interval.is_zero(), "health_check.probe.interval", "must be above zero")?;
        rule(!self.timeout.is_zero(), "health_check.probe.timeout", "must be above zero")?;
        rule(self.failure_threshold >= 1, "health_check.probe.failure_threshold", "must be at least 1")?;
        rule(self.success_threshold >= 1, "health_check.probe.success_threshold", "must be at least 1")
    }
}

impl Default for HealthProbeConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            failure_threshold: 3,
            success_threshold: 1,
        }
    }
}

/// The runtime's health loop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawCheck")]
pub struct HealthCheckConfig {
    /// How kernels are probed that do not say otherwise.
    pub probe: HealthProbeConfig,
    /// How long an incarnation may stay without a good check after its start; above zero. Until then failed checks
    /// do not count. Default 60 s: a large checkpoint takes its time.
    #[serde(with = "span")]
    pub startup_limit: Duration,
    /// How the kernels' states become the node's. Default: the worst counts.
    pub aggregation: HealthAggregation,
}

impl HealthCheckConfig {
    /// For serving: the defaults.
    #[must_use]
    pub fn production() -> Self {
        Self::default()
    }

    /// For a developer's desk: probes every second, and 10 s to start.
    #[must_use]
    pub fn development() -> Self {
        Self {
            probe: HealthProbeConfig::development(),
            startup_limit: Duration::from_secs(10),
            ..Self::default()
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.probe.validate()?;
        rule(!self.startup_limit.is_zero(), "health_check.startup_limit", "must be above zero")
    }
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        Self {
            probe: HealthProbeConfig::default(),
            startup_limit: Duration::from_secs(60),
            aggregation: HealthAggregation::Worst,
        }
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "HealthProbeConfig")]
struct RawProbe {
    #[serde(with = "span")]
    interval: Duration,
    #[serde(with = "span")]
    timeout: Duration,
    failure_threshold: u32,
    success_threshold: u32,
}

checked!(HealthProbeConfig from RawProbe { interval, timeout, failure_threshold, success_threshold });

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "HealthCheckConfig")]
struct RawCheck {
    probe: HealthProbeConfig,
    #[serde(with = "span")]
    startup_limit: Duration,
    aggregation: HealthAggregation,
}

checked!(HealthCheckConfig from RawCheck { probe, startup_limit, aggregation });
