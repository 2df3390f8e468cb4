//! How often something may happen: a token bucket.
//!
//! A bucket holds at most `burst` tokens and gains one each `every`; what happens takes one. It is kept as a single point in time
//! (the generic cell rate algorithm of ATM traffic management): the moment at which the bucket would be full again.
//!
//! | bucket | `allow` | afterwards |
//! |---|---|---|
//! | has a token | allowed, with the number refused since the last one | one token less, none refused |
//! | is empty | refused | one more refused |
//!
//! In any window of length t at most `burst + t / every` are allowed. It bounds the log times of one source and the requests of one peer.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::resilience::InvalidConfig;

/// A limit on how often something may happen; [`Default`] allows 10 at once and one more each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    every: Duration,
    /// The time it takes to gain all tokens but one.
    tolerance: Duration,
    /// When the bucket is full again.
    full_at: Timestamp,
    refused: u64,
}

/// Whether it may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RateDecision {
    /// It may.
    Allow {
        /// How many were refused since the last one that was allowed.
        refused: u64,
    },
    /// It may not.
    Refuse,
}

impl RateLimit {
    /// A full bucket of `burst` tokens that gains one more each `every`.
    ///
    /// # Errors
    /// With a burst of 0 nothing would ever be allowed, and with `every` zero nothing would be refused: neither is taken.
    pub fn try_new(burst: u32, every: Duration) -> Result<Self, InvalidConfig> {
        if burst == 0 {
            return Err(InvalidConfig { field: "rate_limit.burst", rule: "must be at least 1" });
        }
        if every.is_zero() {
            return Err(InvalidConfig { field: "rate_limit.every", rule: "must be longer than zero" });
        }
        Ok(Self::full(burst, every))
    }

    /// Decides about one more at `now`. A time that goes back gains nothing.
    pub fn allow(&mut self, now: Timestamp) -> RateDecision {
        if self.full_at - now > self.tolerance {
            self.refused = self.refused.saturating_add(1);
            return RateDecision::Refuse;
        }
        self.full_at = self.full_at.max(now) + self.every;
        RateDecision::Allow { refused: std::mem::take(&mut self.refused) }
    }

    /// Whether nothing is left of what has happened: a new limit would decide the same.
    #[must_use]
    pub fn is_full(&self, now: Timestamp) -> bool {
        self.full_at <= now
    }

    const fn full(burst: u32, every: Duration) -> Self {
        let tolerance = every.saturating_mul(burst - 1);
        Self { every, tolerance, full_at: Timestamp::ZERO, refused: 0 }
    }
}

impl Default for RateLimit {
    /// 10 log times at once show what happens, one each second that it goes on.
    fn default() -> Self {
        Self::full(10, Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn allow(refused: u64) -> RateDecision {
        RateDecision::Allow { refused }
    }

    #[test]
    fn a_burst_is_allowed_then_one_each_second_that_says_how_many_were_refused() {
        let mut limit = RateLimit::try_new(2, SECOND).unwrap();
        let mut now = Timestamp::from_nanos(5);
        let burst: Vec<_> = (0..5).map(|_| limit.allow(now)).collect();
        let refuse = RateDecision::Refuse;
        assert_eq!(burst, [allow(0), allow(0), refuse, refuse, refuse]);
        now = now + SECOND;
        assert_eq!([limit.allow(now), limit.allow(now)], [allow(3), refuse]);
        assert!(!limit.is_full(now + SECOND) && limit.is_full(now + SECOND * 2));
        now = now + SECOND * 100;
        assert_eq!([limit.allow(now), limit.allow(now), limit.allow(now)], [allow(1), allow(0), refuse]);
    }

    #[test]
    fn a_limit_that_limits_nothing_or_everything_is_refused_by_field() {
        assert_eq!(RateLimit::try_new(0, SECOND).unwrap_err().field, "rate_limit.burst");
        assert_eq!(RateLimit::try_new(1, Duration::ZERO).unwrap_err().field, "rate_limit.every");
    }

    #[test]
    fn the_largest_settings_and_times_overflow_nothing() {
        let mut limit = RateLimit::try_new(u32::MAX, Duration::MAX).unwrap();
        assert_eq!(limit.allow(Timestamp::NEVER), allow(0));
        let _decided = limit.allow(Timestamp::ZERO);
    }

    proptest! {
        #[test]
        fn in_any_window_there_are_at_most_burst_and_one_a_second(
            burst in 1_u32..20,
            steps in prop::collection::vec(0_u64..700, 1..400),
        ) {
            let mut limit = RateLimit::try_new(burst, SECOND).unwrap();
            let (mut now, mut times, mut announced, mut left_out) = (Timestamp::ZERO, Vec::new(), 0, 0);
            for millis in steps {
                now = now + Duration::from_millis(millis);
                match limit.allow(now) {
                    RateDecision::Allow { refused } => {
                        times.push(now);
                        announced += refused;
                        prop_assert_eq!(announced, left_out, "it says all that were refused before it");
                    }
                    RateDecision::Refuse => left_out += 1,
                }
            }
            for (first, from) in times.iter().enumerate() {
                for (last, to) in times.iter().enumerate().skip(first) {
                    let count = u64::try_from(last - first + 1).unwrap();
                    prop_assert!(count <= u64::from(burst) + (*to - *from).as_secs());
                }
            }
        }
    }
}
