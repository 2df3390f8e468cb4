//! One incarnation's work: take a request, run it, finish it, until told to stop.
//!
//! The same loop runs inside the kernel actor (inline kernels) and on a thread of its own. It never holds the slot's lock
//! while user code runs, and it learns only from the ledger whether its result still counts.

use std::future::Future;
use std::mem::needs_drop;
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::envelope::Header;
use rustkernel_core::error::{KernelError, Phase};
use rustkernel_core::resilience::{Classify, Outcome, RetryDecision, with_ambient_deadline};
use rustkernel_core::traits::{Context, LocalKernel, Payload};

use super::ahead::Ahead;
use super::incarnation::{Incarnation, Variant};
use super::ledger::{Entry, Next, Running};
use super::upkeep::{Took, Upkeep};
use super::{Life, Shared, Slot, arm, wake};
use crate::cancel::{cancelled, deadline_exceeded};
use crate::checkpoint::Checkpointer;
use crate::contain::contain;
use crate::gate::Report;
use crate::spans::{self, Traced};

/// Why [`serve`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Told to stop, drained, or handed over to a successor.
    Stopped,
    /// Another incarnation has taken over.
    Fenced,
}

/// A finished execution whose good answer only has to be handed out.
struct Done<O> {
    answer: O,
    now: Option<Timestamp>,
}

/// Serves the slot with `kernel` until told to stop.
///
/// # Cancel safety
/// Dropping the future at any await loses no request: the one in hand stays in the slot's books, where the recovery
/// actor finds it.
pub(crate) async fn serve<K: LocalKernel>(
    slot: &Slot<K::Input, K::Output>,
    incarnation: &Incarnation,
    kernel: &mut K,
    checkpointer: Option<&Checkpointer<K>>,
) -> Ending {
    let mut done = None;
    let mut upkeep = Upkeep::new(slot, checkpointer);
    let mut turns = TURNS;
    let mut ahead = Ahead::of(slot.rules.idempotent && checkpointer.is_none(), kernel);
    loop {
        let due = upkeep.due();
        if let Some(ahead) = &mut ahead {
            ahead.look(kernel);
        }
        let take =
            Take { slot, incarnation, done: &mut done, turns: &mut turns, due, ahead: ahead.as_deref_mut() };
        let taken = take.await;
        if let Some(ahead) = &mut ahead
            && ahead.holds
            && taken.settles()
        {
            match Box::pin(ahead.settle(slot, incarnation, kernel)).await {
                Some(()) => continue,
                None => return Ending::Fenced,
            }
        }
        let (header, request, since) = match taken {
            Taken::Run(header, request, since) => (header, request, since),
            Taken::Nothing => continue,
            Taken::Checkpoint => {
                if Box::pin(upkeep.take(incarnation, kernel, false)).await == Took::Fenced {
                    return Ending::Fenced;
                }
                continue;
            }
            // Boxed, as everything rare: an idle kernel would carry the room for it.
            Taken::HandOver => match Box::pin(hand_over(slot, incarnation, kernel, &mut upkeep)).await {
                Some(ending) => return ending,
                None => continue,
            },
            Taken::End(ending) => {
                if ending == Ending::Stopped && upkeep.is_dirty() {
                    Box::pin(upkeep.take(incarnation, kernel, false)).await;
                }
                return ending;
            }
        };
        let ticket = ahead.as_mut().and_then(|ahead| ahead.show(slot, incarnation, kernel, since));
        let told = Told { header, since, ticket };
        let result = execute(slot, incarnation, kernel, &request, told).await;
        incarnation.leave();
        match result {
            Some(result) => {
                if let Some(settling) = slot.finish(incarnation, header, &request, result, &mut done) {
                    settling.decide().await;
                }
            }
            None => slot.abandon(incarnation),
        }
        if upkeep.served() && !incarnation.fence.is_raised() {
            slot.hand_out(incarnation, &mut done);
            upkeep.take(incarnation, kernel, false).await;
        }
    }
}

/// What the kernel is told of a request that was taken.
struct Told {
    header: Header,
    /// When it was taken.
    since: Timestamp,
    ticket: Option<u64>,
}

/// Runs one request. `None`: the execution was given up.
async fn execute<K: LocalKernel>(
    slot: &Slot<K::Input, K::Output>,
    incarnation: &Incarnation,
    kernel: &mut K,
    request: &Shared<K::Input, K::Output>,
    Told { header, since, ticket }: Told,
) -> Option<Result<K::Output, KernelError>> {
    let stops = [request.way.signal(), &incarnation.fence];
    // The books keep this stage's own.
    let told = Header { degraded: header.degraded || request.way.is_degraded_before(), ..header };
    let traced = request.way.tracing().map(|request| slot.traced(incarnation, request, &header));
    let traced = traced.as_deref();
    let mut cx = Context::new(told, incarnation.number, slot.clock(), stops).with_ticket(ticket);
    if let Some(traced) = traced {
        cx = cx.in_trace(Some(traced.trace()));
    }
    // A kernel may work before it returns its future, and when the future is dropped: both may block.
    incarnation.enter(since);
    let work = {
        let _entered = traced.map(Traced::enter);
        kernel.execute_local(&request.input, &mut cx)
    };
    let future = pin!(with_ambient_deadline(header.deadline, work));
    Execution { slot, incarnation, request, since, waited: false, traced, future }.await
}

/// Takes the last checkpoint and makes way. `None` if the incarnation goes on: its successor is gone again, or its state cannot be
/// handed over.
async fn hand_over<K: LocalKernel>(
    slot: &Slot<K::Input, K::Output>,
    incarnation: &Incarnation,
    kernel: &mut K,
    upkeep: &mut Upkeep<'_, K>,
) -> Option<Ending> {
    if upkeep.is_dirty() {
        match upkeep.take(incarnation, kernel, true).await {
            Took::Kept => {}
            Took::Failed(reason) => {
                slot.turn_successor_away(reason);
                return None;
            }
            Took::Fenced => return Some(Ending::Fenced),
        }
    }
    slot.hand_over_now(incarnation).then_some(Ending::Stopped)
}

/// Hands out the last answer and takes the next request, under one lock.
struct Take<'a, I, O> {
    slot: &'a Slot<I, O>,
    incarnation: &'a Incarnation,
    done: &'a mut Option<Done<O>>,
    turns: &'a mut u32,
    /// When the next checkpoint is due, if the kernel has changed since the last one.
    due: Option<Timestamp>,
    ahead: Option<&'a mut Ahead<I, O>>,
}

enum Taken<I, O> {
    Run(Header, Shared<I, O>, Timestamp),
    /// It is time for a checkpoint.
    Checkpoint,
    /// There is nothing to run, and the kernel holds something of what it saw ahead of its turn.
    Nothing,
    /// A successor is waiting to take over, and nothing is in hand.
    HandOver,
    End(Ending),
}

impl<I, O> Taken<I, O> {
    /// Whether nothing that the kernel has seen is executed after this.
    fn settles(&self) -> bool {
        match self {
            Self::Nothing | Self::HandOver | Self::End(Ending::Stopped) => true,
            Self::Run(..) | Self::Checkpoint | Self::End(Ending::Fenced) => false,
        }
    }
}

impl<I: Payload, O: Payload> Future for Take<'_, I, O> {
    type Output = Taken<I, O>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let Self { slot, incarnation, done, turns, due, ahead } = self.get_mut();
        if **turns == 0 {
            // Others on this worker want to run too; the answer may not wait for them.
            slot.hand_out(incarnation, done);
            **turns = TURNS;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        **turns -= 1;
        let mut over = Vec::new();
        let mut state = slot.lock();
        state.ledger.answer_arrived();
        let epoch = incarnation.epoch();
        let given = done.take().map(|done| (state.ledger.hand_out(epoch, done.now), done));
        let is_succeeded = !state.successors.is_empty() && state.ledger.epoch == epoch;
        // What the kernel may have begun with is its own to end.
        let hands_over = is_succeeded && !state.ledger.is_next_seen();
        let is_due = due.is_some_and(|due| due <= slot.clock().now());
        let give = |given: Option<(Option<Entry<_>>, Done<O>)>| {
            if let Some((Some(entry), done)) = given {
                slot.give(entry, done.now.unwrap_or_default(), Ok(done.answer));
            }
        };
        if hands_over || is_due {
            drop(state);
            give(given);
            return Poll::Ready(if hands_over { Taken::HandOver } else { Taken::Checkpoint });
        }
        let next = state.ledger.next(
            epoch,
            cx.waker(),
            &slot.rules.watch,
            |entry| slot.start(entry, incarnation),
            |entry, now| entry.header.is_expired(now) || entry.request.is_cancelled(),
            &mut over,
        );
        if let (Next::Run(..), Some(ahead)) = (&next, ahead.as_mut()) {
            ahead.collect(&mut state.ledger, incarnation.variant, is_succeeded);
        }
        let check_at = match &state.ledger.running {
            Some(running) => running.check_at,
            None => {
                state.ledger.look_at = due.unwrap_or(Timestamp::NEVER);
                state.ledger.look_at
            }
        };
        let arm = arm(&mut state.ledger, check_at);
        drop(state);
        slot.schedule(arm);
        give(given);
        if !over.is_empty() {
            slot.answer_over(over);
        }
        after(slot, next, is_succeeded, ahead.as_ref().is_some_and(|ahead| ahead.holds))
    }
}

/// What follows from what the books say.
fn after<I: Payload, O: Payload>(
    slot: &Slot<I, O>,
    next: Next<Shared<I, O>>,
    is_succeeded: bool,
    holds: bool,
) -> Poll<Taken<I, O>> {
    match next {
        Next::Run(header, request, since) => Poll::Ready(Taken::Run(header, request, since)),
        Next::Sleep { drained } => {
            if drained {
                slot.lock().ledger.answer_arrived();
                slot.tell_idle();
            }
            match (is_succeeded, holds) {
                // What it was to execute before is over.
                (true, _) => Poll::Ready(Taken::HandOver),
                (false, true) => Poll::Ready(Taken::Nothing),
                (false, false) => Poll::Pending,
            }
        }
        Next::Stop => {
            slot.lock().ledger.answer_arrived();
            Poll::Ready(Taken::End(Ending::Stopped))
        }
        Next::Fenced => Poll::Ready(Taken::End(Ending::Fenced)),
    }
}

/// The user's future, polled so that the watchdog knows whether it blocks, and dropped as soon as nobody wants its result.
struct Execution<'a, I, O, F> {
    slot: &'a Slot<I, O>,
    incarnation: &'a Incarnation,
    request: &'a Shared<I, O>,
    /// When the present stretch without an await began.
    since: Timestamp,
    waited: bool,
    traced: Option<&'a Traced>,
    future: Pin<&'a mut F>,
}

impl<I, O, F> Future for Execution<'_, I, O, F>
where
    I: Payload,
    O: Payload,
    F: Future<Output = Result<O, KernelError>>,
{
    /// `None`: the execution was given up.
    type Output = Option<Result<O, KernelError>>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.waited && !this.since.is_zero() {
            this.since = this.slot.clock().now();
        }
        // It is left again where the future waits, or by `serve` when it has been dropped.
        this.incarnation.enter(this.since);
        // Before its first poll it has just been taken, and was not cancelled then.
        if this.incarnation.fence.is_raised() || (this.waited && this.request.is_cancelled()) {
            return Poll::Ready(None);
        }
        let polled = {
            let _entered = this.traced.map(Traced::enter);
            this.future.as_mut().poll(cx)
        };
        if let Poll::Ready(result) = polled {
            return Poll::Ready(Some(result));
        }
        if !this.slot.keep_waiting(this.incarnation, cx.waker())
            || this.request.way.poll_cancelled(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        this.waited = true;
        this.incarnation.leave();
        Poll::Pending
    }
}

impl<I: Payload, O: Payload> Slot<I, O> {
    /// Whether anybody needs to know when an execution starts and ends.
    fn is_timed(&self, header: &Header) -> bool {
        !header.deadline.is_never() || self.rules.watch.hang_limit.is_some() || self.gate.samples()
    }

    /// What an execution is a part of, where its request belongs to a trace.
    #[cold]
    fn traced(&self, incarnation: &Incarnation, request: &spans::Request, header: &Header) -> Box<Traced> {
        Box::new(Traced::new(request, incarnation.span(), &self.id, incarnation.number, header))
    }

    /// Starts an entry's clocks. Reads the time only if somebody needs it.
    fn start(&self, entry: &mut Entry<Shared<I, O>>, incarnation: &Incarnation) -> Timestamp {
        entry.header.degraded = incarnation.variant == Variant::Degraded;
        let budget = entry.request.budget;
        let has_budget = budget != Duration::MAX;
        if !has_budget && !self.is_timed(&entry.header) {
            return Timestamp::ZERO;
        }
        let now = self.clock().now();
        if has_budget {
            // A re-run finds the deadline of the first start here, which is the earlier one.
            entry.header.deadline = entry.header.deadline.min(now + budget);
        }
        now
    }

    /// The incarnation has a result. A good one under a quiet gate goes to `done`, to be handed out together with taking the next
    /// request; everything else is settled here. What comes back has to be decided by the breaker actor before it is answered.
    fn finish(
        &self,
        incarnation: &Incarnation,
        header: Header,
        request: &Shared<I, O>,
        result: Result<O, KernelError>,
        done: &mut Option<Done<O>>,
    ) -> Option<Settling<'_, I, O>> {
        let timed = self.is_timed(&header);
        let now = timed.then(|| self.clock().now());
        let late = now.is_some_and(|now| header.is_expired(now));
        let result = match result {
            Ok(_) if late => Err(deadline_exceeded(Phase::Reply)),
            Ok(answer) if self.gate.is_quiet(request.permit) => {
                *done = Some(Done { answer, now });
                return None;
            }
            result => result,
        };
        let (entry, started) = self.lock().ledger.finish(incarnation.epoch(), now)?;
        let took = now.map_or(Duration::ZERO, |now| now - started);
        match result {
            Err(error) => {
                let entry = self.rerun_after(entry, &error)?;
                let outcome = Outcome::of(&error);
                // What it lacks now may have been there at an earlier attempt.
                let may_have_run = error.lacks_input() && entry.header.attempt > 1;
                let error = if may_have_run { error.in_phase(Phase::Executing) } else { error };
                Some(Settling { slot: self, outcome, took, settled: Some((entry, Err(error))) })
            }
            result @ Ok(_) => {
                Some(Settling { slot: self, outcome: Outcome::Success, took, settled: Some((entry, result)) })
            }
        }
    }

    /// Puts the entry back if its kernel, its attempts, its budget and its deadline allow; otherwise gives it back, to be
    /// answered.
    fn rerun_after(
        &self,
        mut entry: Entry<Shared<I, O>>,
        error: &KernelError,
    ) -> Option<Entry<Shared<I, O>>> {
        if !self.rules.idempotent || error.lacks_input() {
            return Some(entry);
        }
        let Some(header) = entry.header.rerun() else { return Some(entry) };
        let now = self.clock().now();
        let mut rng = fastrand::Rng::with_seed(
            self.links.seed ^ entry.header.id ^ u64::from(entry.header.attempt) << 56,
        );
        let delay = match self.rules.retry.next(
            error.error_kind(),
            entry.header.attempt,
            now,
            header.deadline,
            &mut rng,
        ) {
            RetryDecision::Again { delay } => delay,
            RetryDecision::GiveUp(_) => return Some(entry),
        };
        entry.header = header;
        let at = (!delay.is_zero()).then(|| now + delay);
        let mut state = self.lock();
        if matches!(state.ledger.life, Life::Down(_)) {
            return Some(entry);
        }
        let sleeper = state.ledger.rerun(entry, at);
        // The alarm may have rung while the entry was out of the books.
        let arm = arm(&mut state.ledger, at.unwrap_or(header.deadline).min(header.deadline));
        drop(state);
        self.schedule(arm);
        wake(sleeper);
        None
    }

    /// Gives out an answer that waits in `done`.
    fn hand_out(&self, incarnation: &Incarnation, done: &mut Option<Done<O>>) {
        let Some(done) = done.take() else { return };
        let entry = self.lock().ledger.hand_out(incarnation.epoch(), done.now);
        if let Some(entry) = entry {
            self.give(entry, done.now.unwrap_or_default(), Ok(done.answer));
        }
    }

    /// Whether a pending execution is still wanted; if so its waker is kept.
    fn keep_waiting(&self, incarnation: &Incarnation, waker: &Waker) -> bool {
        let mut state = self.lock();
        if state.ledger.epoch != incarnation.epoch() {
            return false;
        }
        let Some(running) = state.ledger.running.as_mut().filter(|running| !running.settled) else {
            return false;
        };
        match &mut running.waker {
            Some(known) => known.clone_from(waker),
            unknown => *unknown = Some(waker.clone()),
        }
        true
    }

    /// The execution was dropped: its request has been answered, or is now as cancelled.
    fn abandon(&self, incarnation: &Incarnation) {
        let mut state = self.lock();
        if state.ledger.epoch != incarnation.epoch() {
            return;
        }
        let running = state.ledger.take_running();
        drop(state);
        let Some(entry) = running.and_then(Running::unsettled) else { return };
        self.lock().ledger.settle(entry.bytes, false);
        self.conclude(entry.header, entry.request, Outcome::Neutral, cancelled(Phase::Executing));
    }

    /// Gives out an answer that is booked. What the answer sets off, and the drop of the input, is user code in part: its panic is
    /// not this incarnation's.
    fn give(&self, entry: Entry<Shared<I, O>>, now: Timestamp, result: Result<O, KernelError>) {
        let plain = !needs_drop::<I>() && !needs_drop::<O>();
        if plain && entry.request.way.cell().is_some() {
            // Nothing of the user's runs: there is nothing to drop, and waking a caller is contained where it happens.
            entry.request.way.give(entry.header, now, result);
            return;
        }
        contain("giving an answer", move || {
            entry.request.way.give(entry.header, now, result);
            drop(entry);
        });
    }

    fn answer_over(&self, over: Vec<Entry<Shared<I, O>>>) {
        for entry in over {
            let error = if entry.request.is_cancelled() {
                cancelled(entry.phase())
            } else {
                deadline_exceeded(entry.phase())
            };
            self.conclude(entry.header, entry.request, Outcome::Inconclusive, error);
        }
    }
}

type Settled<I, O> = (Entry<Shared<I, O>>, Result<O, KernelError>);

/// A finished request on its way to its answer. Answered when dropped, so that a kill between the two cannot lose it.
struct Settling<'a, I: Payload, O: Payload> {
    slot: &'a Slot<I, O>,
    outcome: Outcome,
    took: Duration,
    settled: Option<Settled<I, O>>,
}

impl<I: Payload, O: Payload> Settling<'_, I, O> {
    /// Lets the breaker actor decide what the outcome means before anybody sees the answer: whoever calls next meets the new state.
    async fn decide(self) {
        let Some((entry, _)) = &self.settled else { return };
        let report: Option<Report> = self.slot.gate.observe(entry.request.permit, self.outcome, self.took);
        if let Some(report) = report {
            self.slot.links.breaker_decide(self.slot.index, report).await;
        }
    }
}

impl<I: Payload, O: Payload> Drop for Settling<'_, I, O> {
    fn drop(&mut self) {
        let Some((entry, mut result)) = self.settled.take() else { return };
        // The decision may have taken its time.
        let timed = result.is_ok() && !entry.header.deadline.is_never();
        if timed && entry.header.is_expired(self.slot.clock().now()) {
            result = Err(deadline_exceeded(Phase::Reply));
        }
        self.slot.lock().ledger.settle(entry.bytes, result.is_ok());
        let result = result.map_err(|error| {
            self.slot.errors.fail(error.kind());
            error.in_kernel(&self.slot.id)
        });
        self.slot.give(entry, Timestamp::ZERO, result);
        let mut state = self.slot.lock();
        state.ledger.answer_arrived();
        let drained = state.ledger.life == Life::Draining && state.ledger.is_idle();
        drop(state);
        if drained {
            self.slot.tell_idle();
        }
    }
}

/// Requests an incarnation serves in a row before it lets others on its worker run.
const TURNS: u32 = 64;
