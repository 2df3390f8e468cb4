//! All settings of the resilience patterns in one place.

use serde::{Deserialize, Serialize};

use super::checked::checked;
use super::{
    CircuitBreakerConfig, HealthCheckConfig, InvalidConfig, RecoveryPolicy, RetryConfig, TimeoutConfig,
};

/// The settings of all resilience patterns. A section that is left out in a file takes its default.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "RawResilience")]
pub struct ResilienceConfig {
    /// When calls are refused.
    pub circuit_breaker: CircuitBreakerConfig,
    /// What is tried again.
    pub retry: RetryConfig,
    /// How long calls may take.
    pub timeout: TimeoutConfig,
    /// How health is found out.
    pub health_check: HealthCheckConfig,
    /// What happens to a kernel that failed.
    pub recovery: RecoveryPolicy,
}

impl ResilienceConfig {
    /// For serving: every section's own preset.
    #[must_use]
    pub fn production() -> Self {
        Self {
            circuit_breaker: CircuitBreakerConfig::production(),
            retry: RetryConfig::production(),
            timeout: TimeoutConfig::production(),
            health_check: HealthCheckConfig::production(),
            recovery: RecoveryPolicy::production(),
        }
    }

    /// For a developer's desk: every section's own preset.
    #[must_use]
    pub fn development() -> Self {
        Self {
            circuit_breaker: CircuitBreakerConfig::development(),
            retry: RetryConfig::development(),
            timeout: TimeoutConfig::development(),
            health_check: HealthCheckConfig::development(),
            recovery: RecoveryPolicy::development(),
        }
    }

    /// Checks every section.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.circuit_breaker.validate()?;
        self.retry.validate()?;
        self.timeout.validate()?;
        self.health_check.validate()?;
        self.recovery.validate()
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "ResilienceConfig")]
struct RawResilience {
    circuit_breaker: CircuitBreakerConfig,
    retry: RetryConfig,
    timeout: TimeoutConfig,
    health_check: HealthCheckConfig,
    recovery: RecoveryPolicy,
}

checked!(ResilienceConfig from RawResilience { circuit_breaker, retry, timeout, health_check, recovery });
