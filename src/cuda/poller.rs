//! The thread that watches streams for whoever sleeps until their work is done.
//!
//! It looks at the streams' words, which is no call. A fault never shows there, so it also asks the driver about each stream that somebody
//! waits for, once in a tick; whoever sleeps is woken then, too, and looks whether its request is still wanted.

#[cfg(all(feature = "worker", target_os = "linux"))]
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use rustkernel_core::clock::{Clock, Timestamp};

use super::line::Line;

/// How often the driver is asked about a stream.
const TICK: Duration = Duration::from_millis(1);
/// For how long after somebody began to wait it does not sleep, but lets others run: a sleep would take as long as most kernels.
const ALERT: Duration = Duration::from_micros(200);
/// Then it sleeps between two looks at the words for this part of the time since: it is late by a little of what the work takes.
const PART: u32 = 32;
const LEAST_REST: Duration = Duration::from_micros(20);
const MOST_REST: Duration = Duration::from_micros(500);

pub(super) struct Poller {
    state: Mutex<State>,
    bell: Condvar,
    question: Question,
}

/// Since when the driver has not answered, in clock nanoseconds; 0 while nothing is asked.
#[derive(Default)]
struct Question(AtomicU64);

impl Question {
    fn begins(&self, now: Timestamp) {
        self.0.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    fn ends(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn is_open_for(&self, span: Duration, now: Timestamp) -> bool {
        let since = self.0.load(Ordering::Relaxed);
        since != 0 && now - Timestamp::from_nanos(since) >= span
    }
}

#[derive(Default)]
struct State {
    sleepers: Vec<Sleeper>,
    is_running: bool,
    /// Somebody has begun to wait since the last look.
    is_alarmed: bool,
}

struct Sleeper {
    line: Arc<Line>,
    mark: u32,
    waker: Waker,
}

impl Poller {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), bell: Condvar::new(), question: Question::default() })
    }

    /// Wakes `waker` once `line` has got to `mark`, and at the next tick. `begins`: it is likely to be soon.
    pub(super) fn wake(self: &Arc<Self>, line: &Arc<Line>, mark: u32, waker: &Waker, begins: bool) {
        let mut state = self.state();
        let known = state
            .sleepers
            .iter_mut()
            .find(|sleeper| sleeper.mark == mark && Arc::ptr_eq(&sleeper.line, line));
        match known {
            Some(sleeper) => sleeper.waker.clone_from(waker),
            None => state.sleepers.push(Sleeper { line: Arc::clone(line), mark, waker: waker.clone() }),
        }
        state.is_alarmed |= begins;
        if !state.is_running {
            state.is_running = true;
            let poller = Arc::downgrade(self);
            let started = thread::Builder::new().name("cuda-poller".into()).spawn(move || Self::run(&poller));
            if started.is_err() {
                // Nobody else would wake them: they look for themselves, again and again.
                state.is_running = false;
                let sleepers = std::mem::take(&mut state.sleepers);
                drop(state);
                sleepers.into_iter().for_each(|sleeper| sleeper.waker.wake());
                return;
            }
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Whether it has been waiting for the driver's answer for `span`.
    pub(super) fn is_stuck(&self, span: Duration) -> bool {
        self.question.is_open_for(span, Clock::system().now())
    }

    /// Has it look now: the device may be lost.
    pub(super) fn look(&self) {
        self.bell.notify_one();
    }

    fn run(poller: &Weak<Self>) {
        let clock = Clock::system();
        let (mut tick, mut begun) = (Timestamp::ZERO, Timestamp::ZERO);
        sleep_exactly();
        while let Some(poller) = poller.upgrade() {
            let now = clock.now();
            let asks = now >= tick;
            if asks {
                tick = now + TICK;
            }
            // The driver may block: not under the lock.
            let sleepers = poller.take_awake(asks);
            sleepers.into_iter().for_each(|sleeper| {
                if asks {
                    poller.question.begins(clock.now());
                    // What it finds is latched, and told to who wakes up.
                    let _ = sleeper.line.is_empty();
                    poller.question.ends();
                }
                sleeper.waker.wake();
            });
            let mut state = poller.state();
            if std::mem::take(&mut state.is_alarmed) {
                begun = now;
            }
            let idle = state.sleepers.is_empty();
            let since = now.saturating_since(begun);
            if !idle && since < ALERT {
                drop(state);
                thread::yield_now();
                continue;
            }
            let rest = if idle { IDLE } else { (since / PART).clamp(LEAST_REST, MOST_REST) };
            // Woken early or late, it looks again.
            drop(poller.bell.wait_timeout(state, rest));
        }
    }

    /// Those whose work is done; all of them, at a tick.
    fn take_awake(&self, all: bool) -> Vec<Sleeper> {
        let mut state = self.state();
        if all {
            return std::mem::take(&mut state.sleepers);
        }
        let done =
            |sleeper: &mut Sleeper| !matches!(sleeper.line.has_reached_quietly(sleeper.mark), Some(false));
        state.sleepers.extract_if(.., done).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody waits; a ring comes when somebody does.
const IDLE: Duration = Duration::from_secs(3600);

/// Without it the system adds 50 us to each sleep.
#[cfg(all(feature = "worker", target_os = "linux"))]
fn sleep_exactly() {
    // Where it cannot be had, whoever waits hears of it a little later.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

#[cfg(not(all(feature = "worker", target_os = "linux")))]
fn sleep_exactly() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_does_not_answer_is_known_after_a_while_and_one_that_does_is_not() {
        let question = Question::default();
        let (span, begun) = (Duration::from_secs(5), Timestamp::ZERO);
        assert!(!question.is_open_for(span, begun + 2 * span), "nothing was asked");
        question.begins(begun);
        assert!(!question.is_open_for(span, begun + (span - Duration::from_nanos(2))));
        assert!(question.is_open_for(span, begun + (span + Duration::from_nanos(2))));
        question.ends();
        assert!(!question.is_open_for(span, begun + 2 * span));
    }
}
