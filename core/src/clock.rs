//! Monotonic time that can be injected.
//!
//! Every timestamp of the runtime comes from one [`Clock`]. The system clock reads the processor's time stamp
//! counter through `quanta` (about 10 ns a read where `Instant::now` costs 24 ns) and all system clocks of a process share one origin, so
//! their timestamps compare. A manual clock stands still until a test turns it.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point on a [`Clock`]: nanoseconds since the clock's origin.
///
/// Arithmetic saturates: adding [`Duration::MAX`] gives [`Timestamp::NEVER`], and an earlier point minus a later
/// one is zero. Serialised it is the bare number of nanoseconds, which means nothing to another process's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);
    /// Later than every point a clock reaches: the deadline of work that has none.
    pub const NEVER: Self = Self(u64::MAX);

    /// The point `nanos` nanoseconds after the clock's origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whether this is [`Timestamp::ZERO`].
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether this is [`Timestamp::NEVER`].
    #[must_use]
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }

    /// The span from `earlier` to this point; zero if `earlier` is the later one, [`Duration::MAX`] if this is
    /// [`Timestamp::NEVER`].
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        if self.is_never() {
            return Duration::MAX;
        }
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_never() { f.write_str("never") } else { write!(f, "{:?}", Duration::from_nanos(self.0)) }
    }
}

/// A source of monotonic time: the system's, or one that a test turns by hand. Clones read the same time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System(&'static SystemSource),
    Manual(Arc<AtomicU64>),
}

struct SystemSource {
    tsc: quanta::Clock,
    origin: u64,
}

impl Clock {
    /// The process's monotonic clock.
    #[must_use]
    pub fn system() -> Self {
        static SYSTEM: OnceLock<SystemSource> = OnceLock::new();
        Self(Source::System(SYSTEM.get_or_init(|| {
            let tsc = quanta::Clock::new();
            let origin = tsc.raw();
            SystemSource { tsc, origin }
        })))
    }

    /// A clock that starts at [`Timestamp::ZERO`] and moves only when its handle turns it.
    #[must_use]
    pub fn manual() -> (Self, ManualClock) {
        let nanos = Arc::new(AtomicU64::new(0));
        (Self(Source::Manual(Arc::clone(&nanos))), ManualClock(nanos))
    }

    /// The current time.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System(source) => Timestamp(source.tsc.delta_as_nanos(source.origin, source.tsc.raw())),
            Source::Manual(nanos) => Timestamp(nanos.load(Ordering::Acquire)),
        }
    }

    /// Whether a test turns this clock by hand.
    #[must_use]
    pub const fn is_manual(&self) -> bool {
        matches!(self.0, Source::Manual(_))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_manual() { "Manual" } else { "System" };
        f.debug_struct("Clock").field("kind", &kind).field("now", &self.now()).finish()
    }
}

/// The handle that turns a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Moves the clock on by `span`, saturating, and returns the new time.
    ///
    /// This moves the time only. Timers that hang on the clock are rung by their owner: in the runtime, turn the
    /// clock through its timer, which rings what falls due on the way.
    pub fn advance(&self, span: Duration) -> Timestamp {
        let target = Timestamp(self.0.load(Ordering::Acquire)) + span;
        self.advance_to(target)
    }

    /// Moves the clock on to `target`; a target in the past leaves it where it is. Returns the time reached.
    pub fn advance_to(&self, target: Timestamp) -> Timestamp {
        let before = self.0.fetch_max(target.0, Ordering::AcqRel);
        Timestamp(before.max(target.0))
    }
}

/// The wall clock, in milliseconds since 1970 (UTC), for records that outlive the process. It jumps, so nothing is decided by it.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock, for records only")]
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::ZERO + Duration::MAX, Timestamp::NEVER);
        assert_eq!(Timestamp::from_nanos(5) - Timestamp::from_nanos(9), Duration::ZERO);
        assert_eq!(Timestamp::NEVER - Timestamp::from_nanos(9), Duration::MAX);
    }

    #[test]
    fn manual_clock_moves_only_by_hand_and_never_back() {
        let (clock, hand) = Clock::manual();
        assert_eq!(clock.now(), Timestamp::ZERO);
        hand.advance(Duration::from_millis(5));
        hand.advance_to(Timestamp::from_nanos(1));
        assert_eq!(clock.now() - Timestamp::ZERO, Duration::from_millis(5));
    }

    #[test]
    fn system_clocks_share_one_origin() {
        let first = Clock::system().now();
        let second = Clock::system().now();
        assert!(first <= second);
    }
}
