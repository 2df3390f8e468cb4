//! How many restarts are too many.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;

/// A sliding window of restarts: `limit` within `period` are allowed, one more is too many.
///
/// A restart of age >= `period` no longer counts. With `u32::MAX` there is no limit, and only the last 64 are remembered, for
/// the backoff.
#[derive(Clone, Debug)]
pub(super) struct Intensity {
    limit: u32,
    period: Duration,
    /// Oldest first; at most `limit`, or [`REMEMBERED`] without one.
    recent: VecDeque<Timestamp>,
}

impl Intensity {
    pub(super) fn new(limit: u32, period: Duration) -> Self {
        Self { limit, period, recent: VecDeque::new() }
    }

    /// Whether one more restart is allowed at `now`.
    pub(super) fn allows(&mut self, now: Timestamp) -> bool {
        while self.recent.front().is_some_and(|at| now - *at >= self.period) {
            self.recent.pop_front();
        }
        self.limit == u32::MAX || self.recent.len() < self.limit as usize
    }

    /// Counts a restart, if one more is allowed.
    pub(super) fn spend(&mut self, now: Timestamp) -> bool {
        let allowed = self.allows(now);
        if allowed {
            if self.limit == u32::MAX && self.recent.len() >= REMEMBERED {
                self.recent.pop_front();
            }
            self.recent.push_back(now);
        }
        allowed
    }

    /// Restarts that count at `now`.
    pub(super) fn spent(&self, now: Timestamp) -> u32 {
        let live = self.recent.iter().filter(|at| now - **at < self.period).count();
        u32::try_from(live).unwrap_or(u32::MAX)
    }
}

/// Restarts remembered where there is no limit: more than a backoff has steps.
const REMEMBERED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn intensity_restarts_within_the_period_are_allowed_and_one_more_is_not() {
        let mut intensity = Intensity::new(2, Duration::from_millis(100));
        assert!(intensity.spend(at(0)));
        assert!(intensity.spend(at(99)));
        assert!(!intensity.spend(at(99)));
        assert_eq!(intensity.spent(at(99)), 2);
    }

    #[test]
    fn a_restart_of_age_period_no_longer_counts() {
        let mut intensity = Intensity::new(1, Duration::from_millis(100));
        assert!(intensity.spend(at(0)));
        assert!(!intensity.spend(at(99)));
        assert!(intensity.spend(at(100)));
    }

    #[test]
    fn an_intensity_of_zero_never_restarts() {
        assert!(!Intensity::new(0, Duration::from_secs(1)).spend(at(5)));
    }

    #[test]
    fn without_a_limit_only_what_a_backoff_needs_is_remembered() {
        let mut intensity = Intensity::new(u32::MAX, Duration::from_secs(1));
        assert!((0..10_000).all(|n| intensity.spend(at(n))));
        assert_eq!(intensity.spent(at(9_999)), 64);
    }
}
