//! How long to wait before the next attempt.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::resilience::checked::rule;
use crate::resilience::{InvalidConfig, span};

/// How the delay between attempts grows. Every kind but [`Fixed`](Self::Fixed) ends at its `max`, which no delay
/// exceeds, jitter included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BackoffStrategy {
    /// The same delay every time. Callers that failed together come back together.
    Fixed {
        /// The delay; zero tries again at once.
        #[serde(with = "span")]
        delay: Duration,
    },
    /// `initial`, then `increment` more each time.
    Linear {
        /// The first delay; at most `max`.
        #[serde(with = "span")]
        initial: Duration,
        /// What each further attempt adds.
        #[serde(with = "span")]
        increment: Duration,
        /// The longest delay; above zero.
        #[serde(with = "span")]
        max: Duration,
    },
    /// `initial`, then `multiplier` times as long each time.
    Exponential {
        /// The first delay; above zero, at most `max`.
        #[serde(with = "span")]
        initial: Duration,
        /// The longest delay.
        #[serde(with = "span")]
        max: Duration,
        /// Growth per attempt; finite, at least 1.
        multiplier: f64,
    },
    /// A random delay between zero and what [`Exponential`](Self::Exponential) would wait ("full jitter"): callers
    /// that failed together spread out, at the ceiling too. Recommended.
    ExponentialWithJitter {
        /// The first delay's bound; above zero, at most `max`.
        #[serde(with = "span")]
        initial: Duration,
        /// The longest delay.
        #[serde(with = "span")]
        max: Duration,
        /// Growth per attempt; finite, at least 1.
        multiplier: f64,
    },
}

impl BackoffStrategy {
    /// The delay after attempt number `attempt` (from 1) has failed. Any attempt number and any setting, valid or
    /// not, gives a delay within the bounds.
    #[must_use]
    pub fn delay(&self, attempt: u32, rng: &mut fastrand::Rng) -> Duration {
        let grown = attempt.saturating_sub(1);
        match *self {
            Self::Fixed { delay } => delay,
            Self::Linear { initial, increment, max } => {
                initial.saturating_add(increment.saturating_mul(grown)).min(max)
            }
            Self::Exponential { initial, max, multiplier } => exponential(initial, multiplier, grown, max),
            Self::ExponentialWithJitter { initial, max, multiplier } => {
                exponential(initial, multiplier, grown, max).mul_f64(rng.f64()).min(max)
            }
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        match *self {
            Self::Fixed { .. } => Ok(()),
            Self::Linear { initial, max, .. } => {
                rule(!max.is_zero(), "retry.backoff.max", "must be above zero")?;
                rule(initial <= max, "retry.backoff.max", "must be at least `initial`")
            }
            Self::Exponential { initial, max, multiplier }
            | Self::ExponentialWithJitter { initial, max, multiplier } => {
                rule(!initial.is_zero(), "retry.backoff.initial", "must be above zero")?;
                rule(initial <= max, "retry.backoff.max", "must be at least `initial`")?;
                let grows = multiplier.is_finite() && multiplier >= 1.0;
                rule(grows, "retry.backoff.multiplier", "must be finite and at least 1")
            }
        }
    }
}

impl Default for BackoffStrategy {
    /// The book's: 100 ms, doubling up to 10 s, with jitter.
    fn default() -> Self {
        Self::ExponentialWithJitter {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(10),
            multiplier: 2.0,
        }
    }
}

/// `initial * multiplier^grown`, or `max` where that is larger, overflows or is no number.
fn exponential(initial: Duration, multiplier: f64, grown: u32, max: Duration) -> Duration {
    let seconds = initial.as_secs_f64() * multiplier.powf(f64::from(grown));
    Duration::try_from_secs_f64(seconds).map_or(max, |delay| delay.min(max))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: Duration = Duration::from_secs(10);

    fn kinds(multiplier: f64) -> [BackoffStrategy; 3] {
        let initial = Duration::from_millis(100);
        [
            BackoffStrategy::Linear { initial, increment: initial, max: MAX },
            BackoffStrategy::Exponential { initial, max: MAX, multiplier },
            BackoffStrategy::ExponentialWithJitter { initial, max: MAX, multiplier },
        ]
    }

    #[test]
    fn delays_grow_as_their_kind_says() {
        let mut rng = fastrand::Rng::with_seed(1);
        let [linear, exponential, _] = kinds(2.0);
        let millis = |strategy: BackoffStrategy, rng: &mut fastrand::Rng| {
            [1, 2, 3, 4].map(|attempt| strategy.delay(attempt, rng).as_millis())
        };
        assert_eq!(millis(linear, &mut rng), [100, 200, 300, 400]);
        assert_eq!(millis(exponential, &mut rng), [100, 200, 400, 800]);
    }

    #[test]
    fn the_last_possible_attempt_waits_the_longest_delay_and_does_not_panic() {
        let mut rng = fastrand::Rng::with_seed(2);
        let [linear, exponential, jittered] = kinds(2.0);
        assert_eq!(linear.delay(u32::MAX, &mut rng), MAX);
        assert_eq!(exponential.delay(u32::MAX, &mut rng), MAX);
        assert!(jittered.delay(u32::MAX, &mut rng) <= MAX);
        let endless = BackoffStrategy::ExponentialWithJitter {
            initial: Duration::MAX,
            max: Duration::MAX,
            multiplier: f64::MAX,
        };
        for _ in 0..1_000 {
            let _within = endless.delay(u32::MAX, &mut rng);
        }
    }

    #[test]
    fn jitter_still_spreads_at_the_ceiling() {
        let mut rng = fastrand::Rng::with_seed(3);
        let [.., jittered] = kinds(2.0);
        let delays: Vec<_> = (0..100).map(|_| jittered.delay(1_000, &mut rng)).collect();
        assert!(delays.iter().any(|delay| *delay < MAX / 2));
        assert!(delays.iter().any(|delay| *delay > MAX / 2));
    }

    proptest! {
        #[test]
        fn no_delay_exceeds_the_maximum(attempt: u32, multiplier: f64, seed: u64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            for strategy in kinds(multiplier) {
                prop_assert!(strategy.delay(attempt, &mut rng) <= MAX);
            }
        }
    }
}
