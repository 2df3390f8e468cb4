//! Who serves next: how one incarnation takes over from another.
//!
//! | when | who | what the old one had in hand |
//! |---|---|---|
//! | it failed, a standby is warm | the standby | run again or answered, as its kernel declares |
//! | a successor is ready (new version, recovered kernel, fail-back) | the successor | finished first; the rest waits |
//! | it failed while a successor was ready | the successor | as with a standby |

use std::mem;
use std::sync::Arc;
use std::task::Waker;

use rustkernel_core::traits::Payload;

use super::incarnation::{Incarnation, Variant};
use super::{Life, MutexGuard, Slot, State, wake};
use crate::recovery::RecoveryMsg;

impl<I: Payload, O: Payload> Slot<I, O> {
    /// A life that is to be made and then waits: as a standby, or as a successor.
    pub(super) fn prepare_life(&self, variant: Variant, on_trial: bool) -> Arc<Incarnation> {
        let mut state = self.lock();
        state.incarnations += 1;
        let incarnation = Arc::new(Incarnation::new(0, state.incarnations, variant, on_trial));
        state.prepared.push(Arc::clone(&incarnation));
        incarnation
    }

    /// The life that is being made to serve becomes one that waits to be called: somebody else is to answer sooner. `false` if it serves
    /// already, or the slot takes nothing new.
    pub(super) fn wait_for_call(&self) -> bool {
        let mut state = self.lock();
        if state.ledger.life != Life::Starting {
            return false;
        }
        let Some(incarnation) = state.incarnation.take() else { return false };
        incarnation.demote();
        state.prepared.push(incarnation);
        true
    }

    /// Lives that their supervisor has left behind: nobody else knows that they wait.
    pub(super) fn dismiss_prepared(&self) {
        let prepared = {
            let mut state = self.lock();
            state.successors.clear();
            state.standbys.clear();
            mem::take(&mut state.prepared)
        };
        for incarnation in prepared {
            incarnation.dismiss();
        }
    }

    /// The present incarnation finishes what it has in hand and makes way. Where there is none, the successor begins at once.
    pub(super) fn succeed(&self, successor: &Arc<Incarnation>) {
        let mut state = self.lock();
        state.standbys.retain(|standby| standby.number != successor.number);
        if state.incarnation.is_none() {
            self.enthrone(state, successor);
            return;
        }
        state.successors.push_back(Arc::clone(successor));
        let sleeper = state.ledger.take_sleeper();
        drop(state);
        wake(sleeper);
    }

    /// The incarnation has nothing in hand any more: its successor takes over. `false` if there is none.
    pub(super) fn hand_over_now(&self, incarnation: &Incarnation) -> bool {
        let mut state = self.lock();
        if state.ledger.epoch != incarnation.epoch() {
            return true;
        }
        let Some(successor) = state.successors.pop_front() else { return false };
        self.enthrone(state, &successor);
        true
    }

    /// What the incarnation holds cannot be handed over: it goes on, and its successor is wanted no more.
    pub(super) fn turn_successor_away(&self, reason: String) {
        let successor = self.lock().successors.pop_front();
        if let Some(successor) = successor {
            let (slot, number) = (self.index, successor.number);
            self.home.tell(RecoveryMsg::TurnedAway { slot, number, reason });
        }
    }

    /// A warm standby takes over now. Nobody may have anything in hand.
    pub(super) fn promote_first_standby(&self) -> Option<u64> {
        let mut state = self.lock();
        // One that was lost is on its way out, and its supervisor has still to hear of it.
        let at = state.standbys.iter().position(|standby| standby.lost().is_none())?;
        let standby = state.standbys.remove(at);
        let number = standby.number;
        self.enthrone(state, &standby);
        Some(number)
    }

    /// Makes `next` the slot's incarnation, under a new epoch, and tells everybody.
    pub(super) fn enthrone(&self, mut state: MutexGuard<'_, State<I, O>>, next: &Arc<Incarnation>) {
        let (old, wakers) = crown(&mut state, next);
        drop(state);
        if let Some(old) = old {
            old.dismiss();
        }
        wake(wakers.into_iter().flatten());
        self.tell_took_over();
    }

    pub(super) fn tell_took_over(&self) {
        self.home.tell(RecoveryMsg::TookOver { slot: self.index });
    }
}

/// The slot is `next`'s, under a new epoch. Gives back whose it was, and who is to be woken once the lock is released.
pub(super) fn crown<I, O>(state: &mut State<I, O>, next: &Arc<Incarnation>) -> Crowned {
    debug_assert!(state.ledger.running.is_none(), "who is replaced has nothing in hand");
    let wakers = state.ledger.fence();
    state.prepared.retain(|prepared| prepared.number != next.number);
    if next.variant != Variant::Degraded {
        // Who was to bring the kernel back comes too late. Another version follows in its turn.
        state.successors.retain(|successor| successor.on_trial);
    }
    next.promote(state.ledger.epoch);
    state.shared = next.shared();
    match state.ledger.life {
        Life::Starting | Life::Serving | Life::Waiting(_) => state.ledger.life = Life::Serving,
        Life::Draining | Life::Down(_) => {}
    }
    (state.incarnation.replace(Arc::clone(next)), wakers)
}

type Crowned = (Option<Arc<Incarnation>>, [Option<Waker>; 2]);
