//! The breaker of what several kernels share: a fault domain, or a device.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::time::Duration;

use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::error::{BreakerScope, Rejection, RejectionCause};

/// A breaker that stands before every kernel whose present life has named it by [`Lifeline::behind`](crate::Lifeline::behind).
///
/// Whoever watches over the domain or the device opens and closes it. While it is open, those kernels refuse new requests, unless a
/// degraded path or a standby is about to answer them; what they have accepted stays theirs. A closed one costs a request one load.
#[derive(Clone)]
pub struct SharedBreaker(Arc<Shared>);

struct Shared {
    scope: BreakerScope,
    /// How often it has changed; odd while it is open.
    turns: AtomicU64,
    /// Nanoseconds; [`UNKNOWN`] where nobody knows.
    retry_after: AtomicU64,
    /// When it closes by itself, in the clock's nanoseconds; [`UNKNOWN`] where somebody has to close it.
    until: AtomicU64,
    clock: Clock,
}

const UNKNOWN: u64 = u64::MAX;

impl SharedBreaker {
    /// A closed one.
    #[must_use]
    pub fn new(scope: BreakerScope) -> Self {
        Self(Arc::new(Shared {
            scope,
            turns: AtomicU64::new(0),
            retry_after: AtomicU64::new(UNKNOWN),
            until: AtomicU64::new(UNKNOWN),
            clock: Clock::system(),
        }))
    }

    /// Refuses from now on. `retry_after`: how long at most, as callers are told; `None` where nobody knows.
    pub fn open(&self, retry_after: Option<Duration>) {
        self.open_until(retry_after, UNKNOWN);
    }

    /// Refuses for so long, and lets through again by itself: whoever opened it may not be there any more.
    pub fn open_for(&self, span: Duration) {
        self.open_until(Some(span), (self.0.clock.now() + span).as_nanos());
    }

    fn open_until(&self, retry_after: Option<Duration>, until: u64) {
        let nanos = retry_after.map_or(UNKNOWN, |span| u64::try_from(span.as_nanos()).unwrap_or(UNKNOWN));
        if self.is_over() {
            // It has closed by itself; nobody has noted it yet.
            self.close();
        }
        self.0.retry_after.store(nanos, Release);
        self.0.until.store(until, Release);
        self.turn(false);
    }

    /// Whether the time is over for which it was to be open. Only an open one reads the clock. Nothing is changed: whoever asks may be later
    /// than whoever opens it anew.
    #[cold]
    fn is_over(&self) -> bool {
        let until = self.0.until.load(Acquire);
        until != UNKNOWN && self.0.clock.now() >= Timestamp::from_nanos(until)
    }

    /// Lets everything through again.
    pub fn close(&self) {
        self.turn(true);
    }

    /// Whether it refuses.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.turns.load(Acquire) % 2 == 1 && !self.is_over()
    }

    /// What it stands in front of.
    #[must_use]
    pub fn scope(&self) -> BreakerScope {
        self.0.scope
    }

    /// Why it refuses, if it is open.
    pub(crate) fn refuses(&self) -> Option<Rejection> {
        let turns = self.0.turns.load(Acquire);
        (turns % 2 == 1 && !self.is_over()).then(|| self.explain(turns))
    }

    #[cold]
    fn explain(&self, generation: u64) -> Rejection {
        let nanos = self.0.retry_after.load(Acquire);
        let retry_after = (nanos != UNKNOWN).then(|| Duration::from_nanos(nanos));
        Rejection { scope: self.0.scope, cause: RejectionCause::Failures, generation, retry_after }
    }

    /// From a state to the other one; the second of two who want the same changes nothing.
    fn turn(&self, from_open: bool) {
        let is_from = |turns: u64| (turns % 2 == 1) == from_open;
        // It fails where there is nothing to change.
        let _ = self.0.turns.fetch_update(AcqRel, Acquire, |turns| is_from(turns).then_some(turns + 1));
    }
}

impl fmt::Debug for SharedBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_open() { "open" } else { "closed" };
        f.debug_struct("SharedBreaker").field("scope", &self.0.scope).field("state", &state).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_its_turns_and_says_when_to_come_back() {
        let breaker = SharedBreaker::new(BreakerScope::Device);
        assert_eq!(breaker.refuses(), None);
        breaker.close();
        breaker.open(Some(Duration::from_secs(5)));
        breaker.open(None);
        let rejection = breaker.refuses().unwrap();
        assert_eq!((rejection.scope, rejection.generation), (BreakerScope::Device, 1));
        assert_eq!(rejection.retry_after, None);
        breaker.open(Some(Duration::from_secs(1)));
        assert_eq!(breaker.refuses().unwrap().retry_after, Some(Duration::from_secs(1)));
        breaker.close();
        assert_eq!(breaker.refuses(), None);
        breaker.open_for(Duration::from_secs(3_600));
        assert_eq!(breaker.refuses().unwrap().generation, 3);
        breaker.open_for(Duration::ZERO);
        assert!(!breaker.is_open() && breaker.refuses().is_none(), "its time is over");
        breaker.open(None);
        assert_eq!(breaker.refuses().unwrap().generation, 5, "it was closed in between");
        breaker.close();
        assert!(!breaker.is_open());
    }
}
