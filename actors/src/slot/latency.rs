//! How long executions take: of the last minute or two, in buckets a quarter wide.
//!
//! It is filled where the time is known anyway, because a deadline, a hang limit or a windowed breaker needs it. A kernel that has none of
//! these has no latencies, and pays for none.

use std::time::Duration;

use rustkernel_core::clock::Timestamp;
use serde::Serialize;

/// How long a kernel's executions take, from when an incarnation takes the request to its result; those that were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Executions that were measured, ever.
    pub count: u64,
    /// The time of all of these together.
    pub total: Duration,
    /// How many of them took no longer than each of [`LATENCY_BOUNDS`].
    pub within: [u64; LATENCY_BOUNDS.len()],
    /// Of the last minute or two; `None` where there were none.
    pub recent: Option<Quantiles>,
}

/// What so many executions took at most; within an eighth, from half a microsecond on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Half of them.
    pub p50: Duration,
    /// Nine in ten.
    pub p90: Duration,
    /// Ninety-nine in a hundred.
    pub p99: Duration,
}

/// From a microsecond to a minute, each four times the one before.
pub const LATENCY_BOUNDS: [Duration; 14] = {
    let mut bounds = [Duration::from_micros(1); 14];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = Duration::from_micros(1 << (2 * at));
        at += 1;
    }
    bounds
};

/// The buckets of one kernel; nothing is allocated before the first execution.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Option<Box<Windows>>);

#[derive(Debug)]
struct Windows {
    count: u64,
    nanos: u64,
    /// By the first of the bounds that holds it; what is longer is in none.
    ever: [u64; LATENCY_BOUNDS.len()],
    began: Timestamp,
    /// The present minute, and the one before it.
    minutes: [[u32; BUCKETS]; 2],
}

const WINDOW: Duration = Duration::from_secs(60);
/// Four for each doubling, from 128 ns to a little over four minutes.
const BUCKETS: usize = 128;
const LEAST_SHIFT: u32 = 7;

impl Latencies {
    pub(crate) fn record(&mut self, took: Duration, now: Timestamp) {
        let windows = self.0.get_or_insert_with(|| {
            Box::new(Windows {
                count: 0,
                nanos: 0,
                ever: [0; LATENCY_BOUNDS.len()],
                began: now,
                minutes: [[0; BUCKETS]; 2],
            })
        });
        windows.turn(now);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        windows.count += 1;
        windows.nanos = windows.nanos.saturating_add(nanos);
        if let Some(bound) = LATENCY_BOUNDS.iter().position(|bound| took <= *bound) {
            windows.ever[bound] += 1;
        }
        let bucket = &mut windows.minutes[0][bucket_of(nanos)];
        *bucket = bucket.saturating_add(1);
    }

    /// `None` while nothing was measured.
    pub(crate) fn summary(&self, now: Timestamp) -> Option<Latency> {
        let windows = self.0.as_ref()?;
        let age = now.saturating_since(windows.began);
        // What nobody has turned since may be over.
        let counts: Vec<u64> = (0..BUCKETS)
            .map(|bucket| match windows.minutes {
                [present, before] if age < WINDOW => u64::from(present[bucket]) + u64::from(before[bucket]),
                [present, _] if age < 2 * WINDOW => u64::from(present[bucket]),
                _ => 0,
            })
            .collect();
        let recent: u64 = counts.iter().sum();
        let at = |percent: u64| {
            let rank = (recent * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            found.map_or(Duration::ZERO, middle_of)
        };
        Some(Latency {
            count: windows.count,
            total: Duration::from_nanos(windows.nanos),
            within: {
                let mut sum = 0;
                windows.ever.map(|count| {
                    sum += count;
                    sum
                })
            },
            recent: (recent > 0).then(|| Quantiles { p50: at(50), p90: at(90), p99: at(99) }),
        })
    }
}

impl Windows {
    fn turn(&mut self, now: Timestamp) {
        let age = now.saturating_since(self.began);
        if age < WINDOW {
            return;
        }
        let before = if age < 2 * WINDOW { self.minutes[0] } else { [0; BUCKETS] };
        self.minutes = [[0; BUCKETS], before];
        self.began = now;
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a quarter is less than 4")]
fn bucket_of(nanos: u64) -> usize {
    let value = (nanos >> LEAST_SHIFT).max(1);
    let log = value.ilog2();
    let quarter = if log >= 2 { value >> (log - 2) & 3 } else { value << (2 - log) & 3 };
    (log as usize * 4 + quarter as usize).min(BUCKETS - 1)
}

fn middle_of(bucket: usize) -> Duration {
    let (log, quarter) = (bucket / 4, bucket as u64 % 4);
    let eighth = (1_u64 << LEAST_SHIFT << log) / 8;
    Duration::from_nanos(eighth * (8 + 2 * quarter + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn every_bucket_holds_its_own_middle_and_they_ascend() {
        for bucket in 8..BUCKETS - 1 {
            let middle = u64::try_from(middle_of(bucket).as_nanos()).unwrap();
            assert_eq!(bucket_of(middle), bucket);
            assert!(middle_of(bucket + 1) > middle_of(bucket));
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn quantiles_are_within_an_eighth() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.summary(secs(1)), None);
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros), secs(1));
        }
        let summary = latencies.summary(secs(2)).unwrap();
        assert_eq!(summary.count, 1_000);
        assert_eq!(summary.total, Duration::from_micros(500_500));
        assert_eq!(
            summary.within[..6],
            [1, 4, 16, 64, 256, 1_000],
            "no longer than 1, 4, 16, 64, 256, 1024 us"
        );
        assert_eq!((LATENCY_BOUNDS[13], summary.within[13]), (Duration::from_micros(67_108_864), 1_000));
        let recent = summary.recent.unwrap();
        for (found, expected) in [(recent.p50, 500.0), (recent.p90, 900.0), (recent.p99, 990.0)] {
            let micros = found.as_secs_f64() * 1e6;
            assert!((micros - expected).abs() <= expected / 8.0, "{micros} for {expected}");
        }
    }

    #[test]
    fn what_is_older_than_two_minutes_is_counted_and_no_longer_shown() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(1), secs(0));
        latencies.record(Duration::from_millis(1), secs(70));
        let p99 =
            |latencies: &Latencies, at| latencies.summary(secs(at)).unwrap().recent.map(|recent| recent.p99);
        assert!(p99(&latencies, 71).unwrap() > Duration::from_millis(800));
        latencies.record(Duration::from_millis(1), secs(200));
        assert!(p99(&latencies, 201).unwrap() < Duration::from_millis(2));
        assert!(p99(&latencies, 319).is_some());
        assert_eq!(p99(&latencies, 320), None, "an idle kernel shows no spike of an hour ago");
        assert_eq!(latencies.summary(secs(320)).unwrap().count, 3);
    }
}
