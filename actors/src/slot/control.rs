//! What the recovery actor does with a slot: begin an incarnation, bury it, hold, close, drain.

use std::sync::Arc;

use rustkernel_core::KernelId;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::envelope::{Deadline, Header};
use rustkernel_core::error::{BreakerScope, DownReason, KernelError, KernelErrorKind, Phase};
use rustkernel_core::resilience::Outcome;
use rustkernel_core::traits::Payload;

use super::ledger::{Entry, Running};
use super::succession::crown;
use super::{
    Accounts, ErrorCounts, Incarnation, Latency, Life, MutexGuard, Shared, Slot, Standing, State, Variant,
    wake,
};
use crate::cause::Cause;
use crate::contain::contain;
use crate::dead_letter::{DeadLetter, INPUT_BYTES, Replay};
use crate::gate::Gate;
use crate::lifeline::Suspicion;
use crate::operator::Fact;
use crate::recovery::RecoveryMsg;
use crate::replay::{Replaying, replay_in};
use crate::shared_breaker::SharedBreaker;

/// A slot without its types, as the actors see it.
pub(crate) trait Supervised: Send + Sync {
    fn id(&self) -> &KernelId;
    fn gate(&self) -> &Gate;
    /// A new epoch and the incarnation that owns it. The slot accepts; nothing runs before the incarnation serves.
    fn begin(&self, variant: Variant) -> Arc<Incarnation>;
    /// A life without an epoch, to be made ready before it takes over. `on_trial`: from one that could go on.
    fn prepare(&self, variant: Variant, on_trial: bool) -> Arc<Incarnation>;
    /// A prepared life is warm: it takes over when [`promote_standby`](Self::promote_standby) says so.
    fn add_standby(&self, standby: &Arc<Incarnation>);
    /// A prepared life is wanted no more, as a standby or as a successor.
    fn forget_prepared(&self, number: u64);
    /// A warm standby takes over now; which one, if there is any.
    fn promote_standby(&self) -> Option<u64>;
    /// A prepared life takes over as soon as the present one has nothing in hand.
    fn hand_over(&self, successor: &Arc<Incarnation>);
    /// What became of storing a checkpoint: what is wrong, or nothing.
    fn checkpoint_stored(&self, trouble: Option<String>);
    /// The schema names of input and output.
    fn schemas(&self) -> (String, String);
    /// The number of the life that serves, or is being made to.
    fn present(&self) -> Option<u64>;
    /// When the first of the requests that wait has to be answered.
    fn earliest_deadline(&self) -> Timestamp;
    /// The incarnation of `epoch` is gone. Voids the epoch and resolves what it had in hand. `false` for an older epoch.
    fn bury(&self, epoch: u64, cause: &Cause) -> bool;
    /// The present incarnation is gone, whichever it is.
    fn bury_present(&self, cause: &Cause);
    /// Nobody serves before `at`, unless somebody takes over sooner; by `ready`, somebody is likely to.
    fn wait_until(&self, at: Timestamp, ready: Timestamp);
    /// The life that is being made is likely to serve by `ready`.
    fn expect(&self, ready: Timestamp);
    /// The life that is being made to serve is to wait, when it is ready, until it is called. `false` if it serves.
    fn step_aside(&self) -> bool;
    /// Nobody serves: answers everything that waits, and everything that comes, with `Down`.
    fn close(&self, reason: DownReason);
    /// Takes nothing new from callers; chains that are on their way still get through. Says through
    /// [`RecoveryMsg::Idle`] when nothing is left.
    fn drain(&self);
    /// A new life of its supervisor has it: a drain for the sake of a stop that did not come about is over.
    fn undrain(&self);
    /// Whether nothing waits and nothing runs.
    fn is_idle(&self) -> bool;
    /// An incarnation is gone, without its actor having noticed.
    fn lose(&self, incarnation: &Incarnation, cause: Cause, suspicion: Suspicion);
    /// What it lives in is not fit for use.
    fn tell_unfit(&self, reason: String);
    /// The incarnation ends after its current request; what waits stays, to be answered by [`close`](Self::close).
    fn stop(&self);
    fn has_alternative(&self) -> bool;
    fn snapshot(&self) -> SlotSnapshot;
    fn vitals(&self) -> Vitals;
    /// Runs a dead letter of this kernel again.
    fn replay(self: Arc<Self>, letter: DeadLetter, replay: Replay, deadline: Deadline) -> Replaying;
}

/// What a slot shows of itself.
#[derive(Clone, Debug)]
pub(crate) struct SlotSnapshot {
    pub(crate) vitals: Vitals,
    pub(crate) accounts: Accounts,
    pub(crate) waiting: usize,
    pub(crate) waiting_bytes: usize,
    pub(crate) running_since: Option<Timestamp>,
    pub(crate) checkpoint: Option<u64>,
    pub(crate) checkpoint_bytes: Option<usize>,
    pub(crate) checkpoint_taken: Option<Timestamp>,
    pub(crate) standbys: usize,
    /// The number of the last life that began.
    pub(crate) incarnation: u64,
    pub(crate) refused_by_shared: u64,
    pub(crate) latency: Option<Box<Latency>>,
    pub(crate) refused: ErrorCounts,
    pub(crate) failed: ErrorCounts,
}

/// What of it says how healthy its kernel is.
#[derive(Clone, Debug)]
pub(crate) struct Vitals {
    pub(crate) life: Life,
    /// Whether the watchdog ends an execution that takes too long.
    pub(crate) watched: bool,
    pub(crate) blocked_since: Option<Timestamp>,
    /// Whether the degraded path serves.
    pub(crate) degraded: bool,
    /// What is wrong with the checkpoints.
    pub(crate) checkpoint_trouble: Option<String>,
    /// What its kernel lives in whose breaker is open.
    pub(crate) refused_by: Option<BreakerScope>,
}

impl<I: Payload, O: Payload> Supervised for Slot<I, O> {
    fn id(&self) -> &KernelId {
        &self.id
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn begin(&self, variant: Variant) -> Arc<Incarnation> {
        let mut state = self.lock();
        debug_assert!(state.ledger.running.is_none(), "who is replaced has nothing in hand");
        let wakers = state.ledger.fence();
        let left = state.ledger.take_running();
        if state.ledger.life != Life::Draining {
            state.ledger.life = Life::Starting;
        }
        state.ledger.expected = Timestamp::ZERO;
        state.incarnations += 1;
        let incarnation = Arc::new(Incarnation::new(state.ledger.epoch, state.incarnations, variant, false));
        state.incarnation = Some(Arc::clone(&incarnation));
        drop(state);
        wake(wakers.into_iter().flatten());
        if let Some(suspect) = unsettled(left) {
            self.resolve(suspect, KernelErrorKind::Crashed, &Cause::Killed, true);
        }
        incarnation
    }

    fn prepare(&self, variant: Variant, on_trial: bool) -> Arc<Incarnation> {
        self.prepare_life(variant, on_trial)
    }

    fn add_standby(&self, standby: &Arc<Incarnation>) {
        self.lock().standbys.push(Arc::clone(standby));
    }

    fn forget_prepared(&self, number: u64) {
        let mut state = self.lock();
        state.standbys.retain(|standby| standby.number != number);
        state.prepared.retain(|prepared| prepared.number != number);
        state.successors.retain(|successor| successor.number != number);
    }

    fn promote_standby(&self) -> Option<u64> {
        self.promote_first_standby()
    }

    fn hand_over(&self, successor: &Arc<Incarnation>) {
        self.succeed(successor);
    }

    fn checkpoint_stored(&self, trouble: Option<String>) {
        self.lock().checkpoints.note_stored(trouble);
    }

    fn schemas(&self) -> (String, String) {
        (I::schema(), O::schema())
    }

    fn present(&self) -> Option<u64> {
        self.lock().incarnation.as_ref().map(|incarnation| incarnation.number)
    }

    fn earliest_deadline(&self) -> Timestamp {
        self.lock().ledger.earliest_deadline()
    }

    fn bury(&self, epoch: u64, cause: &Cause) -> bool {
        let state = self.lock();
        if state.ledger.epoch != epoch {
            return false;
        }
        let (running, succeeded) = void(state);
        if succeeded {
            self.tell_took_over();
        }
        let suspect = unsettled(running);
        let kind = match cause {
            Cause::Hung => KernelErrorKind::Hung,
            Cause::Panicked(_)
            | Cause::Killed
            | Cause::StartFailed(_)
            | Cause::Exited(_)
            | Cause::DomainLost(_)
            | Cause::GaveUp(_) => KernelErrorKind::Crashed,
        };
        if let Some(suspect) = suspect {
            // Its domain was lost before it had this in hand.
            let convicts = !cause.is_paid();
            self.resolve(suspect, kind, cause, convicts);
        }
        true
    }

    fn bury_present(&self, cause: &Cause) {
        self.dismiss_prepared();
        let epoch = self.lock().ledger.epoch;
        self.bury(epoch, cause);
    }

    fn wait_until(&self, at: Timestamp, ready: Timestamp) {
        let mut state = self.lock();
        if matches!(state.ledger.life, Life::Starting | Life::Serving) {
            state.ledger.life = Life::Waiting(at);
            state.ledger.expected = ready;
        }
    }

    fn expect(&self, ready: Timestamp) {
        self.lock().ledger.expected = ready;
    }

    fn step_aside(&self) -> bool {
        self.wait_for_call()
    }

    fn close(&self, reason: DownReason) {
        let mut state = self.lock();
        let waiting = state.ledger.close(Life::Down(reason));
        state.successors.clear();
        let (running, _) = void(state);
        if let Some(suspect) = unsettled(running) {
            self.lock().ledger.settle(suspect.bytes, false);
            let error = KernelError::new(KernelErrorKind::Crashed, Phase::Executing)
                .with_source(Cause::Killed.to_string());
            self.conclude(suspect.header, suspect.request, Outcome::Failure, error);
        }
        self.answer_all(waiting, |entry| KernelError::new(KernelErrorKind::Down(reason), entry.phase()));
    }

    fn drain(&self) {
        let mut state = self.lock();
        if matches!(state.ledger.life, Life::Down(_)) {
            return;
        }
        state.ledger.life = Life::Draining;
        let sleeper = state.ledger.take_sleeper();
        drop(state);
        wake(sleeper);
    }

    fn undrain(&self) {
        let mut state = self.lock();
        if state.ledger.life == Life::Draining {
            state.ledger.life = Life::Starting;
        }
    }

    fn is_idle(&self) -> bool {
        self.lock().ledger.is_idle()
    }

    fn tell_unfit(&self, reason: String) {
        self.links.operator.tell(Some(&self.id), Fact::PlaceUnfit { reason });
    }

    fn lose(&self, incarnation: &Incarnation, cause: Cause, suspicion: Suspicion) {
        incarnation.set_lost(&cause);
        let (slot, number) = (self.index, incarnation.number);
        let mut state = self.lock();
        // Under the lock: it may be called to serve at any moment before.
        let epoch = incarnation.epoch();
        if epoch == 0 || state.ledger.epoch != epoch {
            // It stands by, or has been fenced before.
            drop(state);
            self.home.tell(RecoveryMsg::Lost { slot, number, cause });
            return;
        }
        let in_domain = matches!(cause, Cause::DomainLost(_));
        if suspicion == Suspicion::Suspect || (in_domain && suspicion == Suspicion::None) {
            // Whatever it says about the request in hand, those that were seen may have been in execution.
            state.ledger.suspect_seen();
        }
        let (running, succeeded) = void(state);
        // Told before the answer, as a hang is.
        self.home.tell(RecoveryMsg::Lost { slot, number, cause: cause.clone() });
        if succeeded {
            self.tell_took_over();
        }
        let Some(entry) = unsettled(running) else { return };
        if suspicion != Suspicion::None {
            let convicts = suspicion == Suspicion::Alone;
            return self.resolve(entry, KernelErrorKind::Crashed, &cause, convicts);
        }
        if let Some(entry) = self.put_back(entry) {
            // It has not run, and will not.
            let down = match self.lock().ledger.life {
                Life::Down(reason) => KernelErrorKind::Down(reason),
                Life::Starting | Life::Serving | Life::Waiting(_) | Life::Draining => {
                    KernelErrorKind::DeadlineExceeded
                }
            };
            self.lock().ledger.settle(entry.bytes, false);
            self.answer_all(vec![entry], |entry| KernelError::new(down.clone(), entry.phase()));
        }
    }

    fn stop(&self) {
        let sleeper = self.lock().ledger.stop();
        wake(sleeper);
    }

    fn has_alternative(&self) -> bool {
        self.rules.has_alternative
    }

    fn snapshot(&self) -> SlotSnapshot {
        let [refused, failed] = self.errors.counts();
        let state = self.lock();
        let running = state.ledger.running.as_ref();
        SlotSnapshot {
            vitals: self.vitals_of(&state),
            accounts: state.ledger.accounts,
            waiting: state.ledger.waiting(),
            waiting_bytes: state.ledger.bytes(),
            running_since: running.map(|running| running.started),
            checkpoint: state.checkpoints.newest().map(|kept| kept.sequence),
            checkpoint_bytes: state.checkpoints.newest().and_then(|kept| kept.frame.known_len()),
            checkpoint_taken: state.checkpoints.newest().and_then(|kept| kept.taken),
            standbys: state.standbys.len(),
            incarnation: state.incarnations,
            refused_by_shared: state.refused_by_shared,
            latency: state.ledger.latencies.summary(self.clock().now()),
            refused,
            failed,
        }
    }

    fn vitals(&self) -> Vitals {
        self.vitals_of(&self.lock())
    }

    fn replay(self: Arc<Self>, letter: DeadLetter, replay: Replay, deadline: Deadline) -> Replaying {
        replay_in(self, letter, replay, deadline)
    }
}

impl<I: Payload, O: Payload> Slot<I, O> {
    fn vitals_of(&self, state: &State<I, O>) -> Vitals {
        let present = state.incarnation.as_ref();
        Vitals {
            life: state.ledger.life,
            watched: self.rules.watch.hang_limit.is_some(),
            blocked_since: present.and_then(|incarnation| incarnation.blocked_since()),
            degraded: present.is_some_and(|incarnation| incarnation.variant == Variant::Degraded),
            checkpoint_trouble: state.checkpoints.trouble().map(str::to_owned),
            refused_by: self.refused_by(state),
        }
    }

    /// Whether a standby or the degraded path may be called to serve until its kernel does again.
    pub(super) fn has_relief(&self, state: &State<I, O>) -> bool {
        let is_coming = matches!(state.ledger.life, Life::Waiting(_) | Life::Starting);
        // Without a supervisor nobody calls them.
        is_coming && (self.rules.has_degraded || !state.standbys.is_empty()) && self.home.is_occupied()
    }

    /// What its kernel lives in that refuses its requests, and nobody else is about to answer them.
    fn refused_by(&self, state: &State<I, O>) -> Option<BreakerScope> {
        if self.has_relief(state) {
            return None;
        }
        state.shared.iter().find(|shared| shared.is_open()).map(SharedBreaker::scope)
    }

    /// The incarnation is made and proven: what it is to do.
    pub(crate) fn made(&self, incarnation: &Incarnation) -> Standing {
        let mut state = self.lock();
        if incarnation.epoch() == 0 {
            return Standing::StandsBy;
        }
        if state.ledger.epoch != incarnation.epoch() {
            return Standing::Fenced;
        }
        if state.ledger.life == Life::Starting {
            state.ledger.life = Life::Serving;
        }
        state.shared = incarnation.shared();
        Standing::Serves
    }

    /// Fences the incarnation whose execution hangs: its request is resolved, its late answer is void, and recovery is told.
    pub(super) fn fence_hung(&self, state: MutexGuard<'_, State<I, O>>) {
        let number = state.incarnation.as_ref().map_or(0, |incarnation| incarnation.number);
        let (running, succeeded) = void(state);
        // Told before the answer: whoever has the answer and asks for the status sees the failure in it.
        self.home.tell(RecoveryMsg::Hung { slot: self.index, number });
        if succeeded {
            self.tell_took_over();
        }
        if let Some(suspect) = unsettled(running) {
            self.resolve(suspect, KernelErrorKind::Hung, &Cause::Hung, true);
        }
    }

    /// Decides about a request whose incarnation is gone: run it again alone, or answer it. `convicts`: nothing else could have been the
    /// culprit.
    fn resolve(
        &self,
        mut suspect: Entry<Shared<I, O>>,
        kind: KernelErrorKind,
        cause: &Cause,
        convicts: bool,
    ) {
        suspect.convictions += u32::from(convicts);
        let mut spent = suspect.convictions >= self.rules.conviction_limit;
        if self.rules.idempotent && !spent && !suspect.request.is_cancelled() {
            match suspect.header.rerun() {
                Some(header) => {
                    suspect.header = Header { suspect: true, ..header };
                    let Some(refused) = self.rerun_now(suspect) else { return };
                    suspect = refused;
                }
                None => spent = true,
            }
        }
        self.lock().ledger.settle(suspect.bytes, false);
        let Entry { header, request, bytes, .. } = suspect;
        let error =
            KernelError::new(kind, Phase::Executing).with_source(cause.to_string()).in_kernel(&self.id);
        if self.rules.idempotent && spent {
            // This may be the timer's thread: what would not be kept is not encoded either.
            let codec = self.rules.codec.filter(|_| bytes <= INPUT_BYTES);
            let input = codec.and_then(|codec| contain("a codec", || (codec.encode)(&request.input).ok())?);
            self.links.operator.bury(&self.id, &header, &error, input);
        }
        self.conclude(header, request, Outcome::Failure, error);
    }

    /// Puts a suspect back at the head of the queue, unless the slot is down or its time is over.
    fn rerun_now(&self, suspect: Entry<Shared<I, O>>) -> Option<Entry<Shared<I, O>>> {
        let refused = self.put_back(suspect);
        if refused.is_none() {
            self.lock().ledger.accounts.reruns += 1;
        }
        refused
    }

    /// Puts an entry back at the head of the queue as if it had not been taken, unless the slot is down or its time is over.
    fn put_back(&self, suspect: Entry<Shared<I, O>>) -> Option<Entry<Shared<I, O>>> {
        let expired = !suspect.header.deadline.is_never() && suspect.header.is_expired(self.clock().now());
        let mut state = self.lock();
        if expired || matches!(state.ledger.life, Life::Down(_)) {
            return Some(suspect);
        }
        let deadline = suspect.header.deadline;
        let sleeper = state.ledger.put_back(suspect);
        let arm = super::arm(&mut state.ledger, deadline);
        drop(state);
        self.schedule(arm);
        wake(sleeper);
        None
    }
}

/// What has to be answered still. The rest is dropped, and may be the last to hold a user's value.
fn unsettled<R>(running: Option<Running<R>>) -> Option<Entry<R>> {
    contain("dropping a request", || running.and_then(Running::unsettled)).flatten()
}

/// Ends the current epoch: its incarnation is told, and everything it still does is void. A successor that waits has the slot within the
/// same lock: in between, somebody could begin another life. Gives back what the old one had in hand, and whether there is a successor.
fn void<I, O>(mut state: MutexGuard<'_, State<I, O>>) -> Voided<I, O> {
    let wakers = state.ledger.fence();
    let running = state.ledger.take_running();
    if state.ledger.life == Life::Serving {
        state.ledger.life = Life::Starting;
    }
    let incarnation = state.incarnation.take();
    let at = state.successors.iter().position(|successor| successor.lost().is_none());
    let successor = at.and_then(|at| state.successors.remove(at));
    if let Some(successor) = &successor {
        // The wakers of the old epoch are in hand already.
        let _ = crown(&mut state, successor);
    }
    drop(state);
    if let Some(incarnation) = incarnation {
        incarnation.dismiss();
    }
    wake(wakers.into_iter().flatten());
    (running, successor.is_some())
}

type Voided<I, O> = (Option<Running<Shared<I, O>>>, bool);
