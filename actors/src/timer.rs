//! One timer for all deadlines, restart delays and breaker times of a runtime.
//!
//! It runs on an OS thread of its own, because a blocked tokio worker stalls every tokio timer of its runtime
//! (tokio#4730): the thread that must notice a hang may not be the one that hangs.
//!
//! An entry stands for a *slot*, not for a call: each slot keeps one alarm at the earliest point it cares about and finds out
//! by itself what is due. A call with a deadline that is answered in time never touches the timer, and the heap
//! holds at most a few entries for every kernel.
//!
//! With a manual clock there is no thread: the hand that turns the clock rings the alarms it passes, in order, in the
//! turning thread.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustkernel_core::clock::{Clock, ManualClock, Timestamp};

use crate::contain::contain;

/// Something that wants to be told when a point in time is reached.
pub(crate) trait Alarm: Send + Sync {
    /// Called at or after the scheduled point, outside the timer's lock. `token` is what was scheduled: a
    /// receiver that has changed its mind since compares it and ignores a stale ring.
    fn ring(&self, now: Timestamp, token: u64);
}

/// A handle to the timer; clones share it. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Timer {
    shared: Arc<Shared>,
    /// Dropped with the last handle; the thread holds only `shared`.
    _owner: Arc<Owner>,
}

struct Shared {
    clock: Clock,
    heap: Mutex<Heap>,
    changed: Condvar,
}

struct Heap {
    entries: BinaryHeap<Entry>,
    sequence: u64,
    closed: bool,
}

struct Entry {
    at: Timestamp,
    sequence: u64,
    token: u64,
    alarm: Weak<dyn Alarm>,
}

struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Timer {
    /// A timer on the system clock, with its thread.
    ///
    /// # Errors
    /// When the operating system starts no further thread.
    pub(crate) fn system() -> std::io::Result<Self> {
        let timer = Self::on(Clock::system());
        let shared = Arc::clone(&timer.shared);
        thread::Builder::new().name("rustkernel-timer".into()).spawn(move || shared.run())?;
        Ok(timer)
    }

    /// A timer on a manual clock, and the hand that turns both.
    pub(crate) fn manual() -> (Self, ClockHand) {
        let (clock, hand) = Clock::manual();
        let timer = Self::on(clock);
        (timer.clone(), ClockHand { timer, hand })
    }

    fn on(clock: Clock) -> Self {
        let heap = Mutex::new(Heap { entries: BinaryHeap::new(), sequence: 0, closed: false });
        let shared = Arc::new(Shared { clock, heap, changed: Condvar::new() });
        Self { _owner: Arc::new(Owner(Arc::clone(&shared))), shared }
    }

    /// The clock the timer keeps.
    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Rings `alarm` once, at or after `at`. [`Timestamp::NEVER`] is never rung and takes no room.
    pub(crate) fn schedule(&self, at: Timestamp, alarm: Weak<dyn Alarm>, token: u64) {
        if at.is_never() {
            return;
        }
        let mut heap = self.shared.lock();
        let earliest = heap.entries.peek().is_none_or(|first| at < first.at);
        let sequence = heap.sequence;
        heap.sequence += 1;
        heap.entries.push(Entry { at, sequence, token, alarm });
        drop(heap);
        if earliest {
            self.shared.changed.notify_one();
        }
    }

    /// Entries waiting, for tests of its bound.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shared.lock().entries.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next entry that is due at `now`.
    fn pop_due(&self, now: Timestamp) -> Option<Entry> {
        let mut heap = self.lock();
        if heap.entries.peek()?.at > now {
            return None;
        }
        heap.entries.pop()
    }

    fn run(&self) {
        loop {
            while let Some(entry) = self.pop_due(self.clock.now()) {
                entry.ring(self.clock.now());
            }
            let heap = self.lock();
            if heap.closed {
                return;
            }
            let wait = heap.entries.peek().map(|first| first.at - self.clock.now());
            match wait {
                Some(Duration::ZERO) => {}
                Some(span) => {
                    drop(self.changed.wait_timeout(heap, span).unwrap_or_else(PoisonError::into_inner))
                }
                None => drop(self.changed.wait(heap).unwrap_or_else(PoisonError::into_inner)),
            }
        }
    }
}

impl Entry {
    /// An alarm may drop a user's payload, whose `Drop` may panic; that must not end the timer.
    fn ring(&self, now: Timestamp) {
        let Some(alarm) = self.alarm.upgrade() else { return };
        contain("an alarm", || alarm.ring(now, self.token));
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest entry is the greatest; among equals, the one scheduled first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("clock", &self.shared.clock).finish_non_exhaustive()
    }
}

/// The hand that turns a runtime's manual clock and rings what falls due on the way.
#[derive(Clone, Debug)]
pub struct ClockHand {
    timer: Timer,
    hand: ManualClock,
}

impl ClockHand {
    /// Turns the clock on by `span`. Every alarm on the way is rung at its own time, in order, before this returns.
    pub fn advance(&self, span: Duration) {
        let target = self.timer.clock().now() + span;
        while let Some(entry) = self.timer.shared.pop_due(target) {
            let now = self.hand.advance_to(entry.at);
            entry.ring(now);
        }
        self.hand.advance_to(target);
    }

    /// The clock that this hand turns.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.timer.clock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<(u64, u64)>>);

    impl Alarm for Log {
        fn ring(&self, now: Timestamp, token: u64) {
            self.0.lock().unwrap().push((now.as_nanos(), token));
            assert!(token != 13, "an alarm that panics");
        }
    }

    #[test]
    fn alarms_ring_in_the_order_of_their_times_at_their_times() {
        let (timer, hand) = Timer::manual();
        let log = Arc::new(Log::default());
        let alarm: Weak<dyn Alarm> = Arc::downgrade(&(Arc::clone(&log) as Arc<dyn Alarm>));
        for (at, token) in [(30, 3), (10, 1), (20, 2), (20, 22), (99, 9)] {
            timer.schedule(Timestamp::from_nanos(at), Weak::clone(&alarm), token);
        }
        hand.advance(Duration::from_nanos(50));
        assert_eq!(*log.0.lock().unwrap(), [(10, 1), (20, 2), (20, 22), (30, 3)]);
        assert_eq!(timer.len(), 1);
    }

    #[test]
    fn the_thread_outlives_a_panicking_alarm_and_rings_the_next() {
        struct Tell(std::sync::mpsc::Sender<u64>);
        impl Alarm for Tell {
            fn ring(&self, _: Timestamp, token: u64) {
                self.0.send(token).unwrap();
                assert!(token != 13, "an alarm that panics");
            }
        }
        let timer = Timer::system().unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        let tell: Arc<dyn Alarm> = Arc::new(Tell(send));
        timer.schedule(timer.clock().now(), Arc::downgrade(&tell), 13);
        timer.schedule(timer.clock().now() + Duration::from_micros(10), Arc::downgrade(&tell), 14);
        assert_eq!(receive.recv().unwrap(), 13);
        assert_eq!(receive.recv().unwrap(), 14);
    }

    #[test]
    fn never_is_not_kept() {
        let (timer, _hand) = Timer::manual();
        let alarm: Arc<dyn Alarm> = Arc::new(Log::default());
        timer.schedule(Timestamp::NEVER, Arc::downgrade(&alarm), 0);
        assert_eq!(timer.len(), 0);
    }
}
