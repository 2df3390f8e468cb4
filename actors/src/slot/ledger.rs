//! The books of one slot: which requests wait, which one runs, and what became of all that were accepted.
//!
//! A pure machine behind the slot's lock: time comes in, decisions go out, and no user code runs in it. It is the one
//! arbiter of *who answers*: whoever takes an entry out of the ledger ([`finish`](Ledger::finish),
//! [`expire`](Ledger::expire), [`cancel`](Ledger::cancel), [`close`](Ledger::close), ...) answers it, after the lock is released. Hence the
//! law of accounting: `accepted = answered + failed + waiting + running`, at any moment.
//!
//! | event | waiting entry | running entry |
//! |---|---|---|
//! | next (incarnation) | becomes running; expired or cancelled ones are settled | - |
//! | finish (same epoch) | - | settled, or waits again for a re-run |
//! | finish (older epoch) | - | nothing: the late answer is discarded and counted |
//! | deadline | settled | settled; the execution is told to stop |
//! | fence | stays | leaves with the caller of fence, who re-queues or settles it |
//! | close | settled | stays until its incarnation is gone |

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::envelope::Header;
use rustkernel_core::error::{DownReason, Limit, Phase};
use serde::Serialize;

use super::latency::{Latencies, Times};

/// One accepted request in the books.
#[derive(Debug)]
pub(crate) struct Entry<R> {
    pub(crate) header: Header,
    pub(crate) request: R,
    pub(crate) bytes: usize,
    /// Incarnations that died or hung while they ran this request.
    pub(crate) convictions: u32,
    /// When it entered; [`Timestamp::ZERO`] when nothing needed to know.
    pub(crate) accepted: Timestamp,
    /// Under which an incarnation saw it ahead of its turn; 0 if none has.
    pub(crate) ticket: u64,
}

impl<R> Entry<R> {
    /// How far it can have come, if it has not been taken.
    pub(crate) fn phase(&self) -> Phase {
        if self.ticket == 0 && self.header.attempt == 1 { Phase::Queued } else { Phase::Executing }
    }
}

/// The entry that an incarnation runs.
#[derive(Debug)]
pub(crate) struct Running<R> {
    pub(crate) entry: Entry<R>,
    /// When it was taken; [`Timestamp::ZERO`] when nothing needed to know.
    pub(crate) started: Timestamp,
    /// When to look at it next: its deadline, its hang limit, or a later check of an overdue one.
    pub(crate) check_at: Timestamp,
    /// Wakes the execution, once it has been pending.
    pub(crate) waker: Option<Waker>,
    /// Its request has been answered by somebody else; the execution only has to end.
    pub(crate) settled: bool,
}

impl<R> Running<R> {
    /// How it looks where it ends now.
    fn times(&self, ended: Timestamp) -> Times {
        // Of a re-run nobody knows since when it waited.
        let is_first = self.entry.header.attempt == 1;
        Times { accepted: self.entry.accepted, waited: is_first, started: self.started, ended }
    }

    /// The entry, unless somebody else has answered it.
    pub(crate) fn unsettled(self) -> Option<Entry<R>> {
        (!self.settled).then_some(self.entry)
    }
}

/// What the slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// An incarnation is being made, or none has been yet.
    Starting,
    /// An incarnation takes requests.
    Serving,
    /// The next incarnation starts at this time.
    Waiting(Timestamp),
    /// Takes nothing new; finishes what it has.
    Draining,
    /// Serves nobody.
    Down(DownReason),
}

/// What the current incarnation has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orders {
    Serve,
    Stop,
}

/// Everything a slot ever accepted, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Accounts {
    /// Requests that entered the slot.
    pub accepted: u64,
    /// Answered with a value.
    pub answered: u64,
    /// Answered with a typed error.
    pub failed: u64,
    /// Re-runs after a crash, a hang or a retryable error. A request counts once for each.
    pub reruns: u64,
    /// Late results of fenced or expired executions. Nobody saw them.
    pub discarded: u64,
}

/// The bounds of a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

/// Why [`Ledger::accept`] said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Limit(Limit),
    Restarting(Duration),
    Draining,
    Down(DownReason),
}

/// Whether a request that may enter needs somebody who answers sooner than the next incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pressed(pub(crate) bool);

/// What [`Ledger::next`] gives an incarnation.
#[derive(Debug)]
pub(crate) enum Next<R> {
    /// Run this, taken at this time ([`Timestamp::ZERO`] when nothing needed to know).
    Run(Header, R, Timestamp),
    /// Nothing to do; the waker was kept. `drained` when the slot drains and nothing is left.
    Sleep { drained: bool },
    /// End in peace.
    Stop,
    /// Another incarnation has taken over: end, and touch nothing.
    Fenced,
}

/// What the timer found due.
#[derive(Debug)]
pub(crate) struct Due<R> {
    /// Waiting requests whose deadline passed; answer them.
    pub(crate) expired: Vec<Entry<R>>,
    /// The running request whose deadline passed, if nobody had answered it; answer it.
    pub(crate) overdue: Option<(Header, R)>,
    /// The running execution is hung: fence it, under the same lock.
    pub(crate) hung: bool,
    /// Wakes the execution, which is to be dropped, or an idle incarnation that has work again.
    pub(crate) waker: Option<Waker>,
    /// When to look again.
    pub(crate) next: Timestamp,
}

/// Where [`Ledger::cancel`] found the request.
#[derive(Debug)]
pub(crate) enum Cancelled<R> {
    /// It waited. A draining incarnation that sleeps is woken: it may have been the last.
    Waiting(Entry<R>, Option<Waker>),
    /// It runs; this wakes its execution, which is to be dropped.
    Running(Option<Waker>),
    /// It was answered already.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Ledger<R> {
    pub(crate) life: Life,
    pub(crate) epoch: u64,
    pub(crate) orders: Orders,
    pub(crate) accounts: Accounts,
    pub(crate) running: Option<Running<R>>,
    /// The earliest point the slot's alarm is set to.
    pub(crate) armed: Timestamp,
    /// Every point that the timer holds for the slot, so that none is scheduled twice.
    pub(crate) scheduled: Vec<Timestamp>,
    bounds: Bounds,
    queue: VecDeque<Entry<R>>,
    /// Re-runs that wait for their backoff.
    delayed: Vec<(Timestamp, Entry<R>)>,
    bytes: usize,
    /// An answer has left the books and may still be on its way to the next stage.
    in_hand: bool,
    /// When the checkpoint that is being taken is hung, while one is.
    upkeep: Option<Timestamp>,
    /// When a sleeping incarnation wants to be woken, whether there is work or not.
    pub(crate) look_at: Timestamp,
    /// Whether somebody can answer while no incarnation is there: a standby or a degraded path.
    has_relief: bool,
    /// While nobody serves: when somebody does, as far as is known.
    pub(crate) expected: Timestamp,
    /// Refusals since the last look for dead entries.
    refusals: usize,
    sleeper: Option<Waker>,
    service: ServiceTime,
    pub(crate) latencies: Latencies,
    tickets: Tickets,
}

impl<R: Clone> Ledger<R> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            life: Life::Starting,
            epoch: 0,
            orders: Orders::Serve,
            accounts: Accounts::default(),
            running: None,
            armed: Timestamp::NEVER,
            scheduled: Vec::new(),
            in_hand: false,
            bounds,
            queue: VecDeque::new(),
            delayed: Vec::new(),
            bytes: 0,
            upkeep: None,
            look_at: Timestamp::NEVER,
            has_relief: false,
            expected: Timestamp::ZERO,
            refusals: usize::MAX - 1,
            sleeper: None,
            service: ServiceTime::default(),
            latencies: Latencies::default(),
            tickets: Tickets::default(),
        }
    }

    /// Whether somebody can answer while no incarnation is there.
    pub(crate) fn set_relief(&mut self, has_relief: bool) {
        self.has_relief = has_relief;
    }

    /// When the first of the requests that wait, or run unanswered, has to be answered.
    pub(crate) fn earliest_deadline(&self) -> Timestamp {
        let delayed = self.delayed.iter().map(|(_, entry)| entry);
        let waiting = self.queue.iter().chain(delayed).map(|entry| entry.header.deadline);
        waiting.min().unwrap_or(Timestamp::NEVER)
    }

    /// Whether a request of `bytes` may enter, and whether it needs somebody who answers sooner than the next incarnation. One that is
    /// on its way through a chain may enter a draining slot: it is old work. `remaining` is the time it has left,
    /// [`Duration::MAX`] without a deadline; `now` is read only where a restart's end has to be compared.
    pub(crate) fn may_accept(
        &self,
        bytes: usize,
        in_chain: bool,
        remaining: Duration,
        now: Timestamp,
    ) -> Result<Pressed, Refusal> {
        let mut pressed = Pressed(false);
        match self.life {
            Life::Serving => {}
            Life::Starting | Life::Waiting(_) if self.has_relief => {
                pressed = Pressed(self.expected.saturating_since(now) >= remaining);
            }
            // How long a start takes is a guess, and nobody is refused for it.
            Life::Waiting(until) if until.saturating_since(now) >= remaining => {
                return Err(Refusal::Restarting(until.saturating_since(now)));
            }
            Life::Starting | Life::Waiting(_) => {}
            Life::Draining if in_chain => {}
            Life::Draining => return Err(Refusal::Draining),
            Life::Down(reason) => return Err(Refusal::Down(reason)),
        }
        if self.waiting() >= self.bounds.requests {
            return Err(Refusal::Limit(Limit::Requests));
        }
        if bytes > self.bounds.bytes.saturating_sub(self.bytes) {
            return Err(Refusal::Limit(Limit::Bytes));
        }
        if remaining < self.service.of(self.queue.len()) {
            return Err(Refusal::Limit(Limit::Time));
        }
        Ok(pressed)
    }

    /// Enters a request that [`may_accept`](Self::may_accept) let in under the same lock. Returns the sleeper to wake.
    pub(crate) fn accept(&mut self, entry: Entry<R>) -> Option<Waker> {
        self.bytes += entry.bytes;
        self.accounts.accepted += 1;
        self.queue.push_back(entry);
        self.sleeper.take()
    }

    /// Gives the incarnation of `epoch` its next request. Waiting entries whose time is over, as `is_over` says, go to
    /// `over`, to be answered by the caller.
    pub(crate) fn next(
        &mut self,
        epoch: u64,
        waker: &Waker,
        watch: &Watch,
        mut started: impl FnMut(&mut Entry<R>) -> Timestamp,
        mut is_over: impl FnMut(&Entry<R>, Timestamp) -> bool,
        over: &mut Vec<Entry<R>>,
    ) -> Next<R> {
        if epoch != self.epoch {
            return Next::Fenced;
        }
        if self.orders == Orders::Stop {
            return Next::Stop;
        }
        while let Some(mut entry) = self.queue.pop_front() {
            let now = started(&mut entry);
            if is_over(&entry, now) {
                self.settle(entry.bytes, false);
                over.push(entry);
                continue;
            }
            let (header, request) = (entry.header, entry.request.clone());
            let check_at = header.deadline.min(watch.limit_from(now));
            self.running = Some(Running { entry, started: now, check_at, waker: None, settled: false });
            return Next::Run(header, request, now);
        }
        match &mut self.sleeper {
            Some(sleeper) => sleeper.clone_from(waker),
            None => self.sleeper = Some(waker.clone()),
        }
        Next::Sleep { drained: self.life == Life::Draining && self.delayed.is_empty() }
    }

    /// The incarnation of `epoch` is done with its request. Gives the entry back for its answer; `None` if somebody else has answered
    /// it, or the incarnation was fenced, and the result is to be dropped.
    pub(crate) fn finish(&mut self, epoch: u64, now: Option<Timestamp>) -> Option<(Entry<R>, Timestamp)> {
        let running = if epoch == self.epoch { self.running.take() } else { None };
        let Some(running) = running else {
            self.accounts.discarded += 1;
            return None;
        };
        if running.settled {
            self.accounts.discarded += 1;
            return None;
        }
        if let Some(now) = now {
            self.service.learn(now - running.started);
            self.latencies.record(running.times(now));
        }
        self.in_hand = true;
        Some((running.entry, running.started))
    }

    /// [`finish`](Self::finish) with a good answer, booked at once.
    pub(crate) fn hand_out(&mut self, epoch: u64, now: Option<Timestamp>) -> Option<Entry<R>> {
        let (entry, _) = self.finish(epoch, now)?;
        self.settle(entry.bytes, true);
        Some(entry)
    }

    /// Takes away what runs from its incarnation, which is gone, fenced, or done with it. Its entry may have been answered
    /// already; it is dropped outside the slot's lock, because it may be the last to hold a user's value.
    pub(crate) fn take_running(&mut self) -> Option<Running<R>> {
        self.running.take()
    }

    /// Books the end of an entry that was taken out.
    pub(crate) fn settle(&mut self, bytes: usize, answered: bool) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if answered {
            self.accounts.answered += 1;
        } else {
            self.accounts.failed += 1;
        }
        debug_assert!(
            self.accounts.answered + self.accounts.failed <= self.accounts.accepted,
            "more settled than accepted"
        );
    }

    /// Puts an entry that was taken out back at the head, to be run again at `at`. Returns the sleeper to wake.
    pub(crate) fn rerun(&mut self, entry: Entry<R>, at: Option<Timestamp>) -> Option<Waker> {
        self.accounts.reruns += 1;
        match at {
            Some(at) => {
                self.delayed.push((at, entry));
                None
            }
            None => self.put_back(entry),
        }
    }

    /// Puts an entry that was taken out back at the head. Returns the sleeper to wake.
    pub(crate) fn put_back(&mut self, entry: Entry<R>) -> Option<Waker> {
        self.push_to_head(entry);
        self.sleeper.take()
    }

    /// Everything that is due at `now`. `blocked_since` is when the running execution began to block its thread, if it does.
    pub(crate) fn expire(
        &mut self,
        now: Timestamp,
        blocked_since: Option<Timestamp>,
        watch: &Watch,
    ) -> Due<R> {
        let mut expired = Vec::new();
        if self.queue.iter().any(|entry| entry.header.is_expired(now)) {
            let is_over = |entry: &Entry<R>| entry.header.is_expired(now);
            let (over, live) = std::mem::take(&mut self.queue).into_iter().partition(is_over);
            self.queue = live;
            expired = Vec::from(over);
        }
        let released = self.release_delayed(now, &mut expired);
        for entry in &expired {
            self.settle(entry.bytes, false);
        }
        let (overdue, hung) = self.inspect_running(now, blocked_since, watch);
        let hung = hung || self.upkeep.is_some_and(|limit| limit <= now);
        // A re-run that is due again and a drain whose last request just expired both concern a sleeping incarnation.
        let waker = if overdue.is_some() {
            self.running.as_mut().and_then(|running| running.waker.take())
        } else if released || !expired.is_empty() || self.look_at <= now {
            self.look_at = Timestamp::NEVER;
            self.sleeper.take()
        } else {
            None
        };
        Due { expired, overdue, hung, waker, next: self.next_deadline(hung) }
    }

    /// Moves re-runs whose backoff is over to the head of the queue, and expired ones to `expired`.
    fn release_delayed(&mut self, now: Timestamp, expired: &mut Vec<Entry<R>>) -> bool {
        let (mut index, mut released) = (0, false);
        while index < self.delayed.len() {
            let (at, entry) = &self.delayed[index];
            if entry.header.is_expired(now) {
                expired.push(self.delayed.swap_remove(index).1);
            } else if *at <= now {
                let entry = self.delayed.swap_remove(index).1;
                self.push_to_head(entry);
                released = true;
            } else {
                index += 1;
            }
        }
        released
    }

    /// What the incarnation is doing has not begun yet: its clock starts again.
    pub(crate) fn restart_clock(&mut self, now: Timestamp, watch: &Watch) {
        if self.upkeep.is_some() {
            self.upkeep = watch.hang_limit.map(|limit| now + limit);
        }
        if let Some(running) = &mut self.running {
            running.started = now;
            running.check_at = running.entry.header.deadline.min(watch.limit_from(now));
        }
    }

    /// Settles the running request if it is overdue, and says whether its execution is hung.
    fn inspect_running(
        &mut self,
        now: Timestamp,
        blocked_since: Option<Timestamp>,
        watch: &Watch,
    ) -> (Option<(Header, R)>, bool) {
        let Some(running) = self.running.as_mut().filter(|running| running.check_at <= now) else {
            return (None, false);
        };
        let overdue = running.entry.header.is_expired(now);
        let past_limit = watch.limit_from(running.started) <= now;
        let blocks_too_long = blocked_since.is_some_and(|since| now - since >= watch.hang_after);
        // One that was answered by somebody else has been woken to be dropped: only if it blocks is it hung.
        let stays = !running.settled || blocked_since.is_some();
        if (overdue && blocks_too_long) || (past_limit && stays) {
            if !running.settled {
                // It took at least that long: the slow ones are not left out.
                self.latencies.record(running.times(now));
            }
            return (None, true);
        }
        running.check_at = match blocked_since {
            _ if !overdue && !past_limit => {
                running.entry.header.deadline.min(watch.limit_from(running.started))
            }
            Some(since) => since + watch.hang_after,
            None => now + watch.hang_after.max(RECHECK_FLOOR),
        };
        if !overdue || running.settled {
            return (None, false);
        }
        running.settled = true;
        let (header, request, bytes) =
            (running.entry.header, running.entry.request.clone(), running.entry.bytes);
        self.latencies.record(running.times(now));
        self.settle(bytes, false);
        (Some((header, request)), false)
    }

    /// The earliest deadline or re-run among all entries; without the running one if it is about to be fenced.
    fn next_deadline(&self, fences: bool) -> Timestamp {
        let queued = self.queue.iter().map(|entry| entry.header.deadline);
        let delayed = self.delayed.iter().map(|(at, entry)| entry.header.deadline.min(*at));
        let running = self.running.iter().filter(|_| !fences).map(|running| running.check_at);
        let upkeep = self.upkeep.iter().filter(|_| !fences).copied();
        let look = std::iter::once(self.look_at);
        queued.chain(delayed).chain(running).chain(upkeep).chain(look).min().unwrap_or(Timestamp::NEVER)
    }

    /// The caller of request `id` went away: settles it, wherever it is.
    pub(crate) fn cancel(&mut self, id: u64) -> Cancelled<R> {
        if let Some(running) = self.running.as_mut().filter(|running| running.entry.header.id == id) {
            if running.settled {
                return Cancelled::Gone;
            }
            running.settled = true;
            let (bytes, waker) = (running.entry.bytes, running.waker.take());
            self.settle(bytes, false);
            return Cancelled::Running(waker);
        }
        let entry = if let Some(at) = self.queue.iter().position(|entry| entry.header.id == id) {
            self.queue.remove(at)
        } else {
            let at = self.delayed.iter().position(|(_, entry)| entry.header.id == id);
            at.map(|at| self.delayed.swap_remove(at).1)
        };
        let Some(entry) = entry else { return Cancelled::Gone };
        self.settle(entry.bytes, false);
        let sleeper = if self.life == Life::Draining { self.sleeper.take() } else { None };
        Cancelled::Waiting(entry, sleeper)
    }

    /// Whether a full slot should look for entries that nobody waits for: once for as many refusals as there are entries, so that a
    /// refusal stays cheap.
    pub(crate) fn may_purge(&mut self) -> bool {
        self.refusals += 1;
        let due = self.refusals >= self.queue.len();
        if due {
            self.refusals = 0;
        }
        due
    }

    /// Takes out every waiting entry that `is_dead` names, to make room.
    pub(crate) fn purge(&mut self, mut is_dead: impl FnMut(&Entry<R>) -> bool) -> Vec<Entry<R>> {
        let (dead, live): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.queue).into_iter().partition(&mut is_dead);
        self.queue = live;
        for entry in &dead {
            self.settle(entry.bytes, false);
        }
        Vec::from(dead)
    }

    /// Takes out every waiting entry, because nobody will run it, and stays in `life`. The running entry, if there is one, stays with its
    /// incarnation.
    pub(crate) fn close(&mut self, life: Life) -> Vec<Entry<R>> {
        self.life = life;
        let mut out = Vec::from(std::mem::take(&mut self.queue));
        out.extend(self.delayed.drain(..).map(|(_, entry)| entry));
        for entry in &out {
            self.settle(entry.bytes, false);
        }
        out
    }

    /// The incarnation that waits for work, to be woken.
    pub(crate) fn take_sleeper(&mut self) -> Option<Waker> {
        self.sleeper.take()
    }

    /// Tells the incarnation to end after its current request. Returns the sleeper to wake.
    pub(crate) fn stop(&mut self) -> Option<Waker> {
        self.orders = Orders::Stop;
        self.sleeper.take()
    }

    /// A new epoch: whatever an older incarnation still does is void. Returns the wakers of the old one, so that it
    /// notices.
    pub(crate) fn fence(&mut self) -> [Option<Waker>; 2] {
        self.epoch += 1;
        self.orders = Orders::Serve;
        self.in_hand = false;
        self.upkeep = None;
        self.look_at = Timestamp::NEVER;
        self.tickets.void();
        [self.sleeper.take(), self.running.as_mut().and_then(|running| running.waker.take())]
    }

    /// The incarnation of `epoch` begins to take a checkpoint, which may take as long as an execution. Returns when it is hung.
    pub(crate) fn begin_upkeep(&mut self, epoch: u64, now: Timestamp, watch: &Watch) -> Timestamp {
        if epoch == self.epoch {
            self.upkeep = watch.hang_limit.map(|limit| now + limit);
        }
        self.upkeep.unwrap_or(Timestamp::NEVER)
    }

    /// The checkpoint is taken. `false` if the incarnation has been fenced meanwhile.
    pub(crate) fn end_upkeep(&mut self, epoch: u64) -> bool {
        let current = epoch == self.epoch;
        if current {
            self.upkeep = None;
        }
        current
    }

    /// Keeps the waker of an incarnation that waits for its own checkpoint. `false` if it has been fenced.
    pub(crate) fn wait_in_upkeep(&mut self, epoch: u64, waker: &Waker) -> bool {
        let current = epoch == self.epoch;
        if current {
            self.sleeper = Some(waker.clone());
        }
        current
    }

    /// Requests that wait, those in their backoff included.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.delayed.len()
    }

    /// Bytes of all unsettled requests.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last answer has reached whom it was for.
    pub(crate) fn answer_arrived(&mut self) {
        self.in_hand = false;
    }

    /// Whether nothing waits, nothing runs, and no answer is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        !self.in_hand && self.waiting() == 0 && self.running.as_ref().is_none_or(|running| running.settled)
    }
}

/// When an execution counts as hung.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// The longest one execution may take, whatever its deadline.
    pub(crate) hang_limit: Option<Duration>,
    /// Past its deadline, an execution that has blocked its thread for this long is hung.
    pub(crate) hang_after: Duration,
}

impl Watch {
    fn limit_from(&self, started: Timestamp) -> Timestamp {
        self.hang_limit.map_or(Timestamp::NEVER, |limit| started + limit)
    }
}

/// An overdue execution that is pending has been woken to be dropped; it is looked at again no sooner than this.
const RECHECK_FLOOR: Duration = Duration::from_millis(10);

/// A moving average of execution times, learnt only where they were measured anyway.
#[derive(Debug, Default)]
struct ServiceTime {
    nanos: u64,
    samples: u32,
}

impl ServiceTime {
    /// Fewer samples than this say nothing.
    const WARM: u32 = 16;

    fn learn(&mut self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos = if self.samples == 0 { took } else { self.nanos - self.nanos / 8 + took / 8 };
        self.samples = self.samples.saturating_add(1);
    }

    /// The expected wait behind `ahead` queued requests; zero while cold and with an empty queue, so that a wrong estimate
    /// can never lock a slot.
    fn of(&self, ahead: usize) -> Duration {
        if self.samples < Self::WARM {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.nanos.saturating_mul(ahead as u64))
    }
}

mod tickets;

use tickets::Tickets;

#[cfg(all(test, rustkernel_loom))]
mod loom_models;
#[cfg(test)]
mod tests;
