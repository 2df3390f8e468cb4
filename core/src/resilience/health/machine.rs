//! From the results of checks to a state, as a pure machine.
//!
//! It follows the Kubernetes probes: consecutive results flip the state, and a start-up limit holds failures back
//! until the first good result.
//!
//! | state | input | next |
//! |---|---|---|
//! | unknown, unhealthy | `success_threshold` good results in a row | healthy or degraded, as the last one says |
//! | unknown, healthy, degraded | `failure_threshold` bad results in a row | unhealthy |
//! | unknown, within the start-up limit | bad results | unknown |
//! | unknown | the start-up limit passes | unhealthy |
//! | healthy, degraded | a good result | healthy or degraded, as it says |
//! | any | [`on_overdue`](ProbeMachine::on_overdue) | unhealthy |
//!
//! Healthy and degraded are good results, unhealthy is a bad one, and unknown is none. The machine runs no check.

use crate::clock::Timestamp;
use crate::resilience::InvalidConfig;

use super::config::HealthProbeConfig;
use super::status::HealthStatus;

/// The state of one target: see the table in the module's docs.
#[derive(Clone, Debug)]
pub struct ProbeMachine {
    failure_threshold: u32,
    success_threshold: u32,
    status: HealthStatus,
    failures: u32,
    successes: u32,
    starting_until: Option<Timestamp>,
}

impl ProbeMachine {
    /// A target that nothing is known of.
    ///
    /// Until `starting_until`, where given, bad results do not count as long as there was no good one.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn try_new(
        config: &HealthProbeConfig,
        starting_until: Option<Timestamp>,
    ) -> Result<Self, InvalidConfig> {
        config.validate()?;
        Ok(Self {
            failure_threshold: config.failure_threshold,
            success_threshold: config.success_threshold,
            status: HealthStatus::Unknown,
            failures: 0,
            successes: 0,
            starting_until,
        })
    }

    /// Takes the result of a check that ended at `now`, and returns the state.
    pub fn on_result(&mut self, result: HealthStatus, now: Timestamp) -> HealthStatus {
        self.on_timer(now);
        match result {
            HealthStatus::Unknown => {}
            HealthStatus::Healthy | HealthStatus::Degraded => self.on_good(result),
            HealthStatus::Unhealthy => self.on_bad(),
        }
        self.status
    }

    /// A check gave no answer in time, or could not be started because the one before it still runs: unhealthy at
    /// once, without the threshold. Returns the state.
    pub const fn on_overdue(&mut self) -> HealthStatus {
        self.failures = self.failure_threshold;
        self.successes = 0;
        self.status = HealthStatus::Unhealthy;
        self.status
    }

    /// Ends the start-up at its limit. Returns the state.
    pub fn on_timer(&mut self, now: Timestamp) -> HealthStatus {
        if self.next_deadline().is_some_and(|limit| now >= limit) {
            self.starting_until = None;
            self.status = HealthStatus::Unhealthy;
        }
        self.status
    }

    /// When [`on_timer`](Self::on_timer) has something to do: at the start-up limit of a target still unknown.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Timestamp> {
        match self.status {
            HealthStatus::Unknown => self.starting_until,
            HealthStatus::Healthy | HealthStatus::Degraded | HealthStatus::Unhealthy => None,
        }
    }

    /// The state after all results so far.
    #[must_use]
    pub const fn status(&self) -> HealthStatus {
        self.status
    }

    fn on_good(&mut self, result: HealthStatus) {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        if self.status.is_serving() || self.successes >= self.success_threshold {
            self.status = result;
            self.starting_until = None;
        }
    }

    const fn on_bad(&mut self) {
        self.successes = 0;
        if self.next_deadline().is_some() {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.failure_threshold {
            self.status = HealthStatus::Unhealthy;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use HealthStatus::{Degraded, Healthy, Unhealthy, Unknown};
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;

    fn machine(failure_threshold: u32, success_threshold: u32) -> ProbeMachine {
        let config =
            HealthProbeConfig { failure_threshold, success_threshold, ..HealthProbeConfig::default() };
        ProbeMachine::try_new(&config, None).unwrap()
    }

    #[test]
    fn only_consecutive_results_flip_the_state() {
        let mut machine = machine(3, 2);
        let results = [Healthy, Healthy, Unhealthy, Unhealthy, Healthy, Unhealthy, Unhealthy, Unhealthy];
        let states = results.map(|result| machine.on_result(result, NOW));
        assert_eq!(states, [Unknown, Healthy, Healthy, Healthy, Healthy, Healthy, Healthy, Unhealthy]);
    }

    #[test]
    fn degraded_is_no_failure_and_unknown_is_no_result() {
        let mut machine = machine(2, 1);
        assert_eq!(machine.on_result(Degraded, NOW), Degraded);
        for _ in 0..9 {
            assert_eq!(machine.on_result(Degraded, NOW), Degraded);
        }
        assert_eq!(machine.on_result(Unhealthy, NOW), Degraded);
        assert_eq!(machine.on_result(Unknown, NOW), Degraded);
        assert_eq!(machine.on_result(Unhealthy, NOW), Unhealthy);
    }

    #[test]
    fn during_its_start_a_target_fails_only_by_the_limit() {
        let limit = NOW + Duration::from_secs(60);
        let config = HealthProbeConfig { failure_threshold: 1, ..HealthProbeConfig::default() };
        let mut machine = ProbeMachine::try_new(&config, Some(limit)).unwrap();
        assert_eq!(machine.on_result(Unhealthy, NOW), Unknown);
        assert_eq!(machine.next_deadline(), Some(limit));
        assert_eq!(machine.on_timer(limit), Unhealthy);
        assert_eq!(machine.next_deadline(), None);
        assert_eq!(machine.on_result(Healthy, limit), Healthy);
    }

    #[test]
    fn an_overdue_check_is_unhealthy_at_once() {
        let mut machine = machine(3, 1);
        assert_eq!(machine.on_result(Healthy, NOW), Healthy);
        assert_eq!(machine.on_overdue(), Unhealthy);
    }

    proptest! {
        #[test]
        fn no_state_says_more_than_its_last_results(
            failures in 1_u32..5,
            successes in 1_u32..5,
            results in prop::collection::vec(prop::sample::select(vec![Healthy, Degraded, Unhealthy]), 0..60),
        ) {
            let mut machine = machine(failures, successes);
            for (index, result) in results.iter().enumerate() {
                let before = machine.status();
                let after = machine.on_result(*result, NOW);
                let run = results[..=index].iter().rev();
                let good = run.clone().take_while(|r| r.is_serving()).count();
                let bad = run.take_while(|r| !r.is_serving()).count();
                if after.is_serving() && !before.is_serving() {
                    prop_assert!(good >= successes as usize);
                }
                if after == Unhealthy && before != Unhealthy {
                    prop_assert!(bad >= failures as usize);
                }
                prop_assert!(after != Unknown || before == Unknown);
            }
        }
    }
}
