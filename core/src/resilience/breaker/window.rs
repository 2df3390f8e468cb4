//! A sliding share: how many of the latest observations were hits.

use std::time::Duration;

use super::config::{RateWindow, WindowSpan};
use crate::clock::Timestamp;

/// Steps of a window counted in time.
const STEPS: usize = 10;

/// The two rates of a [`RateWindow`]. A call is one observation in each, made when it is known: work that runs past
/// the slow limit is slow at that moment, and failed or not at its end.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    minimum_calls: u32,
    failure_ratio: f64,
    slow_ratio: f64,
    failed: Tally,
    slow: Tally,
}

impl Rates {
    pub(super) fn new(config: &RateWindow) -> Self {
        Self {
            minimum_calls: config.minimum_calls,
            failure_ratio: config.failure_ratio,
            slow_ratio: config.slow_ratio,
            failed: Tally::new(config.span),
            slow: Tally::new(config.span),
        }
    }

    /// Counts a finished call; true where the rate of failures is at its limit.
    pub(super) fn on_end(&mut self, failed: bool, now: Timestamp) -> bool {
        self.failed.observe(failed, now);
        self.failed.reaches(self.minimum_calls, self.failure_ratio, now)
    }

    /// Counts a call that is known to be slow or known to have been fast; true where the slow rate is at its limit.
    pub(super) fn on_speed(&mut self, slow: bool, now: Timestamp) -> bool {
        self.slow.observe(slow, now);
        self.slow.reaches(self.minimum_calls, self.slow_ratio, now)
    }

    pub(super) fn clear(&mut self) {
        self.failed.clear();
        self.slow.clear();
    }
}

/// Observations, yes or no, over the latest calls or the latest stretch of time.
#[derive(Clone, Debug)]
enum Tally {
    Calls { hits: Vec<bool>, next: usize, seen: u32, hit_count: u32 },
    Time { step_nanos: u64, steps: [Step; STEPS] },
}

#[derive(Clone, Copy, Debug, Default)]
struct Step {
    index: u64,
    seen: u32,
    hit_count: u32,
}

impl Tally {
    fn new(span: WindowSpan) -> Self {
        match span {
            WindowSpan::Calls(calls) => {
                Self::Calls { hits: vec![false; calls.max(1) as usize], next: 0, seen: 0, hit_count: 0 }
            }
            WindowSpan::Time(period) => {
                Self::Time { step_nanos: step_nanos(period), steps: [Step::default(); STEPS] }
            }
        }
    }

    fn observe(&mut self, hit: bool, now: Timestamp) {
        match self {
            Self::Calls { hits, next, seen, hit_count } => {
                let full = *seen as usize == hits.len();
                if full && hits[*next] {
                    *hit_count -= 1;
                }
                hits[*next] = hit;
                *hit_count += u32::from(hit);
                *seen += u32::from(!full);
                *next = (*next + 1) % hits.len();
            }
            Self::Time { step_nanos, steps } => {
                let index = now.as_nanos() / *step_nanos;
                let step = &mut steps[usize::try_from(index % STEPS as u64).unwrap_or(0)];
                if step.index < index {
                    *step = Step { index, ..Step::default() };
                }
                step.seen = step.seen.saturating_add(1);
                step.hit_count = step.hit_count.saturating_add(u32::from(hit));
            }
        }
    }

    fn reaches(&self, minimum: u32, ratio: f64, now: Timestamp) -> bool {
        let (seen, hit_count) = self.count(now);
        seen >= u64::from(minimum) && hit_count > 0 && share(hit_count, seen) >= ratio
    }

    /// What the window holds at `now`: observations, and how many of them were hits.
    fn count(&self, now: Timestamp) -> (u64, u64) {
        match self {
            Self::Calls { seen, hit_count, .. } => (u64::from(*seen), u64::from(*hit_count)),
            Self::Time { step_nanos, steps } => {
                let newest = now.as_nanos() / *step_nanos;
                let inside = |step: &&Step| step.index + STEPS as u64 > newest;
                steps.iter().filter(inside).fold((0, 0), |(seen, hits), step| {
                    (seen + u64::from(step.seen), hits + u64::from(step.hit_count))
                })
            }
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Calls { hits, next, seen, hit_count } => {
                hits.fill(false);
                (*next, *seen, *hit_count) = (0, 0, 0);
            }
            Self::Time { steps, .. } => *steps = [Step::default(); STEPS],
        }
    }
}

/// `part / whole`; exact far beyond any window.
#[allow(clippy::cast_precision_loss, reason = "a window holds far fewer than 2^52 calls")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

fn step_nanos(period: Duration) -> u64 {
    u64::try_from(period.as_nanos() / STEPS as u128).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_window_of_calls_slides() {
        let mut tally = Tally::new(WindowSpan::Calls(3));
        for hit in [true, true, false, false, false] {
            tally.observe(hit, Timestamp::ZERO);
        }
        assert_eq!(tally.count(Timestamp::ZERO), (3, 0));
        tally.observe(true, Timestamp::ZERO);
        assert_eq!(tally.count(Timestamp::ZERO), (3, 1));
    }

    #[test]
    fn a_window_of_time_forgets_what_is_older() {
        let mut tally = Tally::new(WindowSpan::Time(Duration::from_millis(100)));
        tally.observe(true, at(5));
        tally.observe(false, at(95));
        assert_eq!(tally.count(at(99)), (2, 1));
        assert_eq!(tally.count(at(100)), (1, 0));
        assert_eq!(tally.count(at(5_000)), (0, 0));
        tally.observe(true, at(5_000));
        assert_eq!(tally.count(at(5_000)), (1, 1));
    }

    #[test]
    fn a_rate_at_the_limit_is_over_it_and_too_few_calls_are_no_rate() {
        let config = RateWindow { minimum_calls: 4, ..RateWindow::default() };
        let mut rates = Rates::new(&config);
        assert!(!rates.on_end(true, at(0)));
        assert!(!rates.on_end(true, at(0)));
        assert!(!rates.on_end(false, at(0)));
        assert!(rates.on_end(false, at(0)));
    }
}
