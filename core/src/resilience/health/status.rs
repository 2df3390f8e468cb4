//! How something is: the word, the result of one check, and the word for many.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It serves.
    Healthy,
    /// It serves, with less than it should. This is no failure.
    Degraded,
    /// It does not serve.
    Unhealthy,
    /// Nothing is known yet: alive, as far as anyone can tell, and not ready.
    Unknown,
}

impl HealthStatus {
    /// Whether it takes work: healthy or degraded.
    #[must_use]
    pub const fn is_serving(self) -> bool {
        match self {
            Self::Healthy | Self::Degraded => true,
            Self::Unhealthy | Self::Unknown => false,
        }
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        })
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheckResult {
    /// How it is.
    pub status: HealthStatus,
    /// Why, where it is not healthy; for people.
    pub reason: Option<String>,
}

impl HealthCheckResult {
    /// It serves.
    #[must_use]
    pub const fn healthy() -> Self {
        Self { status: HealthStatus::Healthy, reason: None }
    }

    /// It serves, with less than it should.
    #[must_use]
    pub fn degraded(reason: impl Into<String>) -> Self {
        Self { status: HealthStatus::Degraded, reason: Some(reason.into()) }
    }

    /// It does not serve.
    #[must_use]
    pub fn unhealthy(reason: impl Into<String>) -> Self {
        Self { status: HealthStatus::Unhealthy, reason: Some(reason.into()) }
    }

    /// The check could not tell.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { status: HealthStatus::Unknown, reason: Some(reason.into()) }
    }
}

/// How the states of many become one. Nothing, and anything unknown under [`Worst`](Self::Worst), never becomes
/// [`HealthStatus::Healthy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthAggregation {
    /// The worst one counts: unhealthy, then unknown, then degraded. For parts that are all needed.
    #[default]
    Worst,
    /// One that serves is enough, degraded unless all are healthy. For replicas.
    AnyServing,
}

/// The one state of many. Of none it is [`HealthStatus::Unknown`].
#[must_use]
pub fn aggregate(states: impl IntoIterator<Item = HealthStatus>, rule: HealthAggregation) -> HealthStatus {
    let (mut healthy, mut degraded, mut unhealthy, mut unknown) = (0_usize, 0_usize, 0_usize, 0_usize);
    for state in states {
        match state {
            HealthStatus::Healthy => healthy += 1,
            HealthStatus::Degraded => degraded += 1,
            HealthStatus::Unhealthy => unhealthy += 1,
            HealthStatus::Unknown => unknown += 1,
        }
    }
    let all_healthy = healthy > 0 && degraded + unhealthy + unknown == 0;
    match rule {
        _ if all_healthy => HealthStatus::Healthy,
        HealthAggregation::AnyServing if healthy + degraded > 0 => HealthStatus::Degraded,
        HealthAggregation::Worst | HealthAggregation::AnyServing if unhealthy > 0 && unknown == 0 => {
            HealthStatus::Unhealthy
        }
        HealthAggregation::Worst if unhealthy > 0 => HealthStatus::Unhealthy,
        HealthAggregation::Worst | HealthAggregation::AnyServing if unknown > 0 => HealthStatus::Unknown,
        HealthAggregation::Worst if degraded > 0 => HealthStatus::Degraded,
        HealthAggregation::Worst | HealthAggregation::AnyServing => HealthStatus::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HealthStatus::{Degraded, Healthy, Unhealthy, Unknown};

    #[test]
    fn nothing_and_the_unknown_never_become_healthy() {
        for rule in [HealthAggregation::Worst, HealthAggregation::AnyServing] {
            assert_eq!(aggregate([], rule), Unknown);
            assert_eq!(aggregate([Unknown], rule), Unknown);
            assert_ne!(aggregate([Healthy, Unknown], rule), Healthy);
            assert_eq!(aggregate([Healthy, Healthy], rule), Healthy);
        }
    }

    #[test]
    fn the_worst_part_counts() {
        let worst = |states: &[HealthStatus]| aggregate(states.iter().copied(), HealthAggregation::Worst);
        assert_eq!(worst(&[Healthy, Degraded]), Degraded);
        assert_eq!(worst(&[Healthy, Degraded, Unknown]), Unknown);
        assert_eq!(worst(&[Unknown, Unhealthy, Healthy]), Unhealthy);
    }

    #[test]
    fn one_serving_replica_is_enough_to_be_degraded() {
        let any = |states: &[HealthStatus]| aggregate(states.iter().copied(), HealthAggregation::AnyServing);
        assert_eq!(any(&[Unhealthy, Healthy]), Degraded);
        assert_eq!(any(&[Unhealthy, Unhealthy]), Unhealthy);
        assert_eq!(any(&[Unhealthy, Unknown]), Unknown);
    }
}
