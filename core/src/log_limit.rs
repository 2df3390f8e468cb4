//! How many log lines one source may write: a token bucket.
//!
//! A bucket holds at most `burst` tokens and gains one each `every`; a line takes one. It is kept as a single point in time
//! (the generic cell rate algorithm of ATM traffic management): the moment at which the bucket would be full again.
//!
//! | bucket | `allow` | afterwards |
//! |---|---|---|
//! | has a token | log, with the number left out since the last line | one token less, nothing left out |
//! | is empty | suppress | one more left out |
//!
//! In any window of length t at most `burst + t / every` lines are allowed. It does NOT look at what a line says, and what it
//! suppresses is lost but for its number.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::resilience::InvalidConfig;

/// A limit on log lines; [`Default`] allows 10 at once and one more each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimit {
    every: Duration,
    /// The time it takes to gain all tokens but one.
    tolerance: Duration,
    /// When the bucket is full again.
    full_at: Timestamp,
    suppressed: u64,
}

/// Whether a line may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum LogDecision {
    /// Write it.
    Log {
        /// Lines that were left out since the last one that was written.
        suppressed: u64,
    },
    /// Leave it out.
    Suppress,
}

impl LogLimit {
    /// A full bucket of `burst` lines that gains one more each `every`.
    ///
    /// # Errors
    /// A burst of 0 lines would never log anything, and lines `every` zero would never be left out: both are refused.
    pub fn try_new(burst: u32, every: Duration) -> Result<Self, InvalidConfig> {
        if burst == 0 {
            return Err(InvalidConfig { field: "log_limit.burst", rule: "must be at least 1" });
        }
        if every.is_zero() {
            return Err(InvalidConfig { field: "log_limit.every", rule: "must be longer than zero" });
        }
        Ok(Self::full(burst, every))
    }

    /// Decides about one line at `now`. A time that goes back gains nothing.
    pub fn allow(&mut self, now: Timestamp) -> LogDecision {
        if self.full_at - now > self.tolerance {
            self.suppressed = self.suppressed.saturating_add(1);
            return LogDecision::Suppress;
        }
        self.full_at = self.full_at.max(now) + self.every;
        LogDecision::Log { suppressed: std::mem::take(&mut self.suppressed) }
    }

    const fn full(burst: u32, every: Duration) -> Self {
        let tolerance = every.saturating_mul(burst - 1);
        Self { every, tolerance, full_at: Timestamp::ZERO, suppressed: 0 }
    }
}

impl Default for LogLimit {
    /// 10 lines at once show what happens, one each second that it goes on.
    fn default() -> Self {
        Self::full(10, Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn log(suppressed: u64) -> LogDecision {
        LogDecision::Log { suppressed }
    }

    #[test]
    fn a_burst_is_allowed_then_one_line_each_second_that_says_what_was_left_out() {
        let mut limit = LogLimit::try_new(2, SECOND).unwrap();
        let mut now = Timestamp::from_nanos(5);
        let burst: Vec<_> = (0..5).map(|_| limit.allow(now)).collect();
        let suppress = LogDecision::Suppress;
        assert_eq!(burst, [log(0), log(0), suppress, suppress, suppress]);
        now = now + SECOND;
        assert_eq!([limit.allow(now), limit.allow(now)], [log(3), suppress]);
        now = now + SECOND * 100;
        assert_eq!([limit.allow(now), limit.allow(now), limit.allow(now)], [log(1), log(0), suppress]);
    }

    #[test]
    fn a_limit_that_limits_nothing_or_everything_is_refused_by_field() {
        assert_eq!(LogLimit::try_new(0, SECOND).unwrap_err().field, "log_limit.burst");
        assert_eq!(LogLimit::try_new(1, Duration::ZERO).unwrap_err().field, "log_limit.every");
    }

    #[test]
    fn the_largest_settings_and_times_overflow_nothing() {
        let mut limit = LogLimit::try_new(u32::MAX, Duration::MAX).unwrap();
        assert_eq!(limit.allow(Timestamp::NEVER), log(0));
        let _decided = limit.allow(Timestamp::ZERO);
    }

    proptest! {
        #[test]
        fn in_any_window_there_are_at_most_burst_and_one_line_a_second(
            burst in 1_u32..20,
            steps in prop::collection::vec(0_u64..700, 1..400),
        ) {
            let mut limit = LogLimit::try_new(burst, SECOND).unwrap();
            let (mut now, mut lines, mut announced, mut left_out) = (Timestamp::ZERO, Vec::new(), 0, 0);
            for millis in steps {
                now = now + Duration::from_millis(millis);
                match limit.allow(now) {
                    LogDecision::Log { suppressed } => {
                        lines.push(now);
                        announced += suppressed;
                        prop_assert_eq!(announced, left_out, "a line says all that was left out before it");
                    }
                    LogDecision::Suppress => left_out += 1,
                }
            }
            for (first, from) in lines.iter().enumerate() {
                for (last, to) in lines.iter().enumerate().skip(first) {
                    let count = u64::try_from(last - first + 1).unwrap();
                    prop_assert!(count <= u64::from(burst) + (*to - *from).as_secs());
                }
            }
        }
    }
}
