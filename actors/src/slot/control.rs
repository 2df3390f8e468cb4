//! What the recovery actor does with a slot: begin an incarnation, bury it, hold, close, drain.

use std::sync::Arc;

use rustkernel_core::KernelId;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::error::{DownReason, KernelError, KernelErrorKind, Phase};
use rustkernel_core::resilience::Outcome;
use rustkernel_core::traits::Payload;

use super::ledger::{Entry, Running};
use super::{Accounts, Incarnation, Life, MutexGuard, Shared, Slot, State, wake};
use crate::cause::Cause;
use crate::contain::contain;
use crate::gate::Gate;
use crate::operator::{DEAD_LETTER_INPUT_BYTES, Fact};
use crate::recovery::RecoveryMsg;

/// A slot without its types, as the actors see it.
pub(crate) trait Supervised: Send + Sync {
    fn id(&self) -> &KernelId;
    fn gate(&self) -> &Gate;
    /// A new epoch and the incarnation that owns it. The slot accepts; nothing runs before the incarnation serves.
    fn begin(&self) -> Arc<Incarnation>;
    /// The incarnation of `epoch` is gone. Voids the epoch and resolves what it had in hand. `false` for an older epoch.
    fn bury(&self, epoch: u64, cause: &Cause) -> bool;
    /// Nobody serves before `at`.
    fn wait_until(&self, at: Timestamp);
    /// Nobody serves: answers everything that waits, and everything that comes, with `Down`.
    fn close(&self, reason: DownReason);
    /// Takes nothing new from callers; chains that are on their way still get through. Says through
    /// [`RecoveryMsg::Idle`] when nothing is left.
    fn drain(&self);
    /// Whether nothing waits and nothing runs.
    fn is_idle(&self) -> bool;
    /// The incarnation ends after its current request; what waits stays, to be answered by [`close`](Self::close).
    fn stop(&self);
    fn snapshot(&self) -> SlotSnapshot;
}

/// What a slot shows of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotSnapshot {
    pub(crate) life: Life,
    pub(crate) accounts: Accounts,
    pub(crate) waiting: usize,
    pub(crate) waiting_bytes: usize,
    pub(crate) running_since: Option<Timestamp>,
    /// Whether the watchdog ends an execution that takes too long.
    pub(crate) watched: bool,
    pub(crate) blocked_since: Option<Timestamp>,
    pub(crate) checkpoint_bytes: Option<usize>,
}

impl<I: Payload, O: Payload> Supervised for Slot<I, O> {
    fn id(&self) -> &KernelId {
        &self.id
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn begin(&self) -> Arc<Incarnation> {
        let mut state = self.lock();
        let wakers = state.ledger.fence();
        if state.ledger.life != Life::Draining {
            state.ledger.life = Life::Starting;
        }
        state.incarnations += 1;
        let incarnation = Arc::new(Incarnation::new(state.ledger.epoch, state.incarnations));
        state.incarnation = Some(Arc::clone(&incarnation));
        drop(state);
        wake(wakers.into_iter().flatten());
        incarnation
    }

    fn bury(&self, epoch: u64, cause: &Cause) -> bool {
        let state = self.lock();
        if state.ledger.epoch != epoch {
            return false;
        }
        let suspect = unsettled(void(state));
        let kind = match cause {
            Cause::Hung => KernelErrorKind::Hung,
            Cause::Panicked(_) | Cause::Killed | Cause::StartFailed(_) => KernelErrorKind::Crashed,
        };
        if let Some(suspect) = suspect {
            self.resolve(suspect, kind, cause);
        }
        true
    }

    fn wait_until(&self, at: Timestamp) {
        let mut state = self.lock();
        if matches!(state.ledger.life, Life::Starting | Life::Serving) {
            state.ledger.life = Life::Waiting(at);
        }
    }

    fn close(&self, reason: DownReason) {
        let mut state = self.lock();
        let waiting = state.ledger.close(Life::Down(reason));
        if let Some(suspect) = unsettled(void(state)) {
            self.lock().ledger.settle(suspect.bytes, false);
            let error = KernelError::new(KernelErrorKind::Crashed, Phase::Executing)
                .with_source(Cause::Killed.to_string());
            self.conclude(suspect.header, suspect.request, Outcome::Failure, Err(error));
        }
        self.answer_all(waiting, || KernelError::new(KernelErrorKind::Down(reason), Phase::Queued));
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

    fn is_idle(&self) -> bool {
        self.lock().ledger.is_idle()
    }

    fn stop(&self) {
        let sleeper = self.lock().ledger.stop();
        wake(sleeper);
    }

    fn snapshot(&self) -> SlotSnapshot {
        let state = self.lock();
        let running = state.ledger.running.as_ref();
        SlotSnapshot {
            life: state.ledger.life,
            accounts: state.ledger.accounts,
            waiting: state.ledger.waiting(),
            waiting_bytes: state.ledger.bytes(),
            running_since: running.map(|running| running.started),
            watched: self.rules.watch.hang_limit.is_some(),
            blocked_since: state.incarnation.as_ref().and_then(|incarnation| incarnation.blocked_since()),
            checkpoint_bytes: state.checkpoint.as_ref().map(|checkpoint| checkpoint.len()),
        }
    }
}

impl<I: Payload, O: Payload> Slot<I, O> {
    /// The incarnation is made and proven: it may take requests. `false` if it has been fenced meanwhile.
    pub(crate) fn serving(&self, incarnation: &Incarnation) -> bool {
        let mut state = self.lock();
        if state.ledger.epoch != incarnation.epoch {
            return false;
        }
        if state.ledger.life == Life::Starting {
            state.ledger.life = Life::Serving;
        }
        true
    }

    /// The newest checkpoint.
    pub(crate) fn checkpoint(&self) -> Option<Arc<[u8]>> {
        self.lock().checkpoint.clone()
    }

    /// Keeps a checkpoint of the current incarnation. A failed one leaves the previous one in place.
    pub(super) fn keep(&self, checkpoint: Result<Vec<u8>, KernelError>) {
        match checkpoint {
            Ok(frame) => self.lock().checkpoint = Some(Arc::from(frame)),
            Err(error) => {
                self.links
                    .operator
                    .tell(Some(&self.id), Fact::CheckpointFailed { reason: error.to_string() });
            }
        }
    }

    /// Fences the incarnation whose execution hangs: its request is resolved, its late answer is void, and recovery is told.
    pub(super) fn fence_hung(&self, state: MutexGuard<'_, State<I, O>>) {
        let epoch = state.ledger.epoch;
        let suspect = unsettled(void(state));
        // Told before the answer: whoever has the answer and asks for the status sees the failure in it.
        self.links.to_recovery(RecoveryMsg::Hung { slot: self.index, epoch });
        if let Some(suspect) = suspect {
            self.resolve(suspect, KernelErrorKind::Hung, &Cause::Hung);
        }
    }

    /// Decides about a request whose incarnation is gone: run it again alone, or answer it.
    fn resolve(&self, mut suspect: Entry<Shared<I, O>>, kind: KernelErrorKind, cause: &Cause) {
        suspect.convictions += 1;
        let mut spent = suspect.convictions >= self.rules.conviction_limit;
        if self.rules.idempotent && !spent && !suspect.request.is_cancelled() {
            match suspect.header.rerun() {
                Some(header) => {
                    suspect.header = header;
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
            let encode = self.rules.encode.filter(|_| bytes <= DEAD_LETTER_INPUT_BYTES);
            let input = encode.and_then(|encode| contain("a codec", || encode(&request.input).ok())?);
            self.links.operator.bury(&self.id, header.id, header.attempt, &error, input);
        }
        self.conclude(header, request, Outcome::Failure, Err(error));
    }

    /// Puts a suspect back at the head of the queue, unless the slot is down or its time is over.
    fn rerun_now(&self, suspect: Entry<Shared<I, O>>) -> Option<Entry<Shared<I, O>>> {
        let expired = !suspect.header.deadline.is_never() && suspect.header.is_expired(self.clock().now());
        let mut state = self.lock();
        if expired || matches!(state.ledger.life, Life::Down(_)) {
            return Some(suspect);
        }
        let deadline = suspect.header.deadline;
        let sleeper = state.ledger.rerun(suspect, None);
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

/// Ends the current epoch: its incarnation is told, and everything it still does is void. Gives back what it had in hand.
fn void<I, O>(mut state: MutexGuard<'_, State<I, O>>) -> Option<Running<Shared<I, O>>> {
    let wakers = state.ledger.fence();
    let running = state.ledger.take_running();
    if state.ledger.life == Life::Serving {
        state.ledger.life = Life::Starting;
    }
    let incarnation = state.incarnation.take();
    drop(state);
    if let Some(incarnation) = incarnation {
        incarnation.fence.raise();
    }
    wake(wakers.into_iter().flatten());
    running
}
