//! Who serves next: how one incarnation takes over from another.
//!
//! | when | who | what the old one had in hand |
//! |---|---|---|
//! | it failed, a standby is warm | the standby | run again or answered, as its kernel declares |
//! | a successor is ready (new version, recovered kernel, fail-back) | the successor | finished first; the rest waits |
//! | it failed while a successor was ready | the successor | as with a standby |

use std::sync::Arc;

use rustkernel_core::traits::Payload;

use super::incarnation::{Incarnation, Variant};
use super::{Life, MutexGuard, Slot, State, wake};
use crate::recovery::RecoveryMsg;

impl<I: Payload, O: Payload> Slot<I, O> {
    /// A life that is to be made and then waits: as a standby, or as a successor.
    pub(super) fn prepare_life(&self, variant: Variant) -> Arc<Incarnation> {
        let mut state = self.lock();
        state.incarnations += 1;
        Arc::new(Incarnation::new(0, state.incarnations, variant))
    }

    /// The present incarnation finishes what it has in hand and makes way. Where there is none, the successor begins at once.
    pub(super) fn succeed(&self, successor: &Arc<Incarnation>) {
        let mut state = self.lock();
        if state.incarnation.is_none() {
            self.enthrone(state, successor);
            return;
        }
        state.successor = Some(Arc::clone(successor));
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
        let Some(successor) = state.successor.take() else { return false };
        self.enthrone(state, &successor);
        true
    }

    /// A warm standby takes over now.
    pub(super) fn promote_first_standby(&self) -> Option<u64> {
        let mut state = self.lock();
        if state.standbys.is_empty() {
            return None;
        }
        let standby = state.standbys.remove(0);
        let number = standby.number;
        self.enthrone(state, &standby);
        Some(number)
    }

    /// Makes `next` the slot's incarnation, under a new epoch, and tells everybody.
    pub(super) fn enthrone(&self, mut state: MutexGuard<'_, State<I, O>>, next: &Arc<Incarnation>) {
        let wakers = state.ledger.fence();
        next.promote(state.ledger.epoch);
        let old = state.incarnation.replace(Arc::clone(next));
        match state.ledger.life {
            Life::Starting | Life::Serving | Life::Waiting(_) => state.ledger.life = Life::Serving,
            Life::Draining | Life::Down(_) => {}
        }
        drop(state);
        if let Some(old) = old {
            old.dismiss();
        }
        wake(wakers.into_iter().flatten());
        self.home.tell(RecoveryMsg::TookOver { slot: self.index, number: next.number });
    }
}
