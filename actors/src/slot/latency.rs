//! How long executions take: of the last minute or two, in buckets a quarter wide.
//!
//! It is filled where the time is known anyway, because a deadline, a hang limit or a windowed breaker needs it. A kernel that has none of
//! these has no latencies, and pays for none.

use std::time::Duration;

use rustkernel_core::clock::Timestamp;
use serde::Serialize;

/// How long a kernel's requests take; those that were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// From when an incarnation takes a request to its result.
    pub execution: Spread,
    /// From when a request enters to when an incarnation takes it for the first time. Measured where it has a deadline.
    pub queue: Spread,
    /// From when a request enters to the end of its last execution. Measured where it has a deadline.
    pub request: Spread,
    /// Executions of the last minute or two; `None` where there were none.
    pub recent: Option<Quantiles>,
}

/// How long something took, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// How often it was measured.
    pub count: u64,
    /// The time of all of these together.
    pub total: Duration,
    /// How many of them took no longer than each of [`LATENCY_BOUNDS`].
    pub within: [u64; LATENCY_BOUNDS.len()],
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
    execution: Histogram,
    queue: Histogram,
    request: Histogram,
    began: Timestamp,
    /// Executions of the present minute, and of the one before it.
    minutes: [[u32; BUCKETS]; 2],
}

#[derive(Debug, Default)]
struct Histogram {
    count: u64,
    nanos: u64,
    /// By the first of the bounds that holds it; what is longer is in none.
    ever: [u64; LATENCY_BOUNDS.len()],
}

/// The points of one execution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// When its request entered; [`Timestamp::ZERO`] where that is not known.
    pub(crate) accepted: Timestamp,
    /// Whether it waited from then to when it was taken.
    pub(crate) waited: bool,
    pub(crate) started: Timestamp,
    pub(crate) ended: Timestamp,
}

const WINDOW: Duration = Duration::from_secs(60);
/// Four for each doubling, from 128 ns to a little over four minutes.
const BUCKETS: usize = 128;
const LEAST_SHIFT: u32 = 7;

impl Latencies {
    pub(crate) fn record(&mut self, times: Times) {
        let Times { accepted, waited, started, ended } = times;
        let windows = self.0.get_or_insert_with(|| {
            Box::new(Windows {
                execution: Histogram::default(),
                queue: Histogram::default(),
                request: Histogram::default(),
                began: ended,
                minutes: [[0; BUCKETS]; 2],
            })
        });
        windows.turn(ended);
        let nanos = windows.execution.record(ended - started);
        let bucket = &mut windows.minutes[0][bucket_of(nanos)];
        *bucket = bucket.saturating_add(1);
        if !accepted.is_zero() {
            windows.request.record(ended - accepted);
            if waited {
                windows.queue.record(started - accepted);
            }
        }
    }

    /// `None` while nothing was measured.
    pub(crate) fn summary(&self, now: Timestamp) -> Option<Box<Latency>> {
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
        Some(Box::new(Latency {
            execution: windows.execution.spread(),
            queue: windows.queue.spread(),
            request: windows.request.spread(),
            recent: (recent > 0).then(|| Quantiles { p50: at(50), p90: at(90), p99: at(99) }),
        }))
    }
}

impl Histogram {
    fn record(&mut self, took: Duration) -> u64 {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.count += 1;
        self.nanos = self.nanos.saturating_add(nanos);
        if let Some(count) = self.ever.get_mut(bound_of(nanos)) {
            *count += 1;
        }
        nanos
    }

    fn spread(&self) -> Spread {
        let mut sum = 0;
        let within = self.ever.map(|count| {
            sum += count;
            sum
        });
        Spread { count: self.count, total: Duration::from_nanos(self.nanos), within }
    }
}

/// The first of the bounds that holds it, or one past the last.
fn bound_of(nanos: u64) -> usize {
    // The bounds are the powers of four, in microseconds.
    match nanos.div_ceil(1_000) {
        0 | 1 => 0,
        micros => ((micros - 1).ilog2() as usize + 2) / 2,
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

    impl Latencies {
        fn took(&mut self, took: Duration, ended: Timestamp) {
            self.record(Times {
                accepted: Timestamp::ZERO,
                waited: true,
                started: Timestamp::from_nanos(ended.as_nanos() - u64::try_from(took.as_nanos()).unwrap()),
                ended,
            });
        }
    }

    #[test]
    fn every_time_is_within_the_first_bound_that_holds_it() {
        for nanos in (0..200_000).chain([1 << 26, (1 << 26) + 1].map(|micros: u64| micros * 1_000)) {
            let first = LATENCY_BOUNDS.iter().position(|bound| Duration::from_nanos(nanos) <= *bound);
            assert_eq!(bound_of(nanos), first.unwrap_or(LATENCY_BOUNDS.len()), "{nanos} ns");
        }
        assert!(bound_of(u64::MAX) >= LATENCY_BOUNDS.len());
    }

    #[test]
    fn the_wait_of_a_first_execution_and_the_whole_of_a_request_are_known_where_it_was_seen_to_enter() {
        let mut latencies = Latencies::default();
        let [accepted, started, ended] = [1, 3, 10].map(secs);
        latencies.record(Times { accepted, waited: true, started, ended });
        latencies.record(Times { accepted, waited: false, started, ended });
        latencies.record(Times { accepted: Timestamp::ZERO, waited: true, started, ended });
        let found = latencies.summary(ended).unwrap();
        let seconds = [found.execution, found.queue, found.request]
            .map(|spread| (spread.count, spread.total.as_secs()));
        assert_eq!(seconds, [(3, 21), (1, 2), (2, 18)]);
    }

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
            latencies.took(Duration::from_micros(micros), secs(1));
        }
        let summary = latencies.summary(secs(2)).unwrap();
        assert_eq!(summary.execution.count, 1_000);
        assert_eq!(summary.execution.total, Duration::from_micros(500_500));
        assert_eq!(
            summary.execution.within[..6],
            [1, 4, 16, 64, 256, 1_000],
            "no longer than 1, 4, 16, 64, 256, 1024 us"
        );
        assert_eq!(
            (LATENCY_BOUNDS[13], summary.execution.within[13]),
            (Duration::from_micros(67_108_864), 1_000)
        );
        let recent = summary.recent.unwrap();
        for (found, expected) in [(recent.p50, 500.0), (recent.p90, 900.0), (recent.p99, 990.0)] {
            let micros = found.as_secs_f64() * 1e6;
            assert!((micros - expected).abs() <= expected / 8.0, "{micros} for {expected}");
        }
    }

    #[test]
    fn what_is_older_than_two_minutes_is_counted_and_no_longer_shown() {
        let mut latencies = Latencies::default();
        latencies.took(Duration::from_secs(1), secs(1));
        latencies.took(Duration::from_millis(1), secs(70));
        let p99 =
            |latencies: &Latencies, at| latencies.summary(secs(at)).unwrap().recent.map(|recent| recent.p99);
        assert!(p99(&latencies, 71).unwrap() > Duration::from_millis(800));
        latencies.took(Duration::from_millis(1), secs(200));
        assert!(p99(&latencies, 201).unwrap() < Duration::from_millis(2));
        assert!(p99(&latencies, 319).is_some());
        assert_eq!(p99(&latencies, 320), None, "an idle kernel shows no spike of an hour ago");
        assert_eq!(latencies.summary(secs(320)).unwrap().execution.count, 3);
    }
}
