//! The checkpoints a slot holds for its next incarnation: the newest, and the one before in case that is no good.

use std::collections::VecDeque;
use std::sync::Arc;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Payload;

use super::upkeep::Took;
use super::{Incarnation, Slot};
use crate::checkpoint::Frame;
use crate::contain::contain;
use crate::operator::Fact;

/// One checkpoint.
#[derive(Clone)]
pub(crate) struct Kept {
    /// Counts the checkpoints of a kernel, over all its lives.
    pub(crate) sequence: u64,
    pub(crate) frame: Arc<dyn Frame>,
    /// When it was taken; `None` for one that an earlier process has left.
    pub(crate) taken: Option<Timestamp>,
}

#[derive(Default)]
pub(super) struct Checkpoints {
    /// Newest first; at most [`KEPT`].
    kept: VecDeque<Kept>,
    /// The sequence of the last one ever taken.
    last: u64,
    /// What is wrong with them, until one goes well again.
    trouble: Option<String>,
    /// What is wrong with storing them, until one is stored again.
    unstored: Option<String>,
    /// The checkpoint whose restore failed last, and how often in a row.
    failed: (u64, u32),
    /// Whether the store has been asked for those of an earlier process.
    loaded: bool,
}

/// Restores of a checkpoint that fail before it gives way to the one before it: the first failure may have another cause.
const RESTORES: u32 = 2;

/// The newest, and one to fall back to.
const KEPT: usize = 2;

impl Checkpoints {
    pub(super) fn newest(&self) -> Option<&Kept> {
        self.kept.front()
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref().or(self.unstored.as_deref())
    }

    pub(super) fn note_stored(&mut self, trouble: Option<String>) {
        self.unstored = trouble.map(|reason| format!("checkpoints are not stored: {reason}"));
    }

    /// Adds one. What has to go is given back, to be dropped outside the slot's lock: its drop is user code.
    pub(super) fn push(&mut self, frame: Arc<dyn Frame>, now: Timestamp) -> (u64, Option<Kept>) {
        self.last += 1;
        self.kept.push_front(Kept { sequence: self.last, frame, taken: Some(now) });
        let oldest = if self.kept.len() > KEPT { self.kept.pop_back() } else { None };
        (self.last, oldest)
    }
}

impl<I: Payload, O: Payload> Slot<I, O> {
    /// The newest checkpoint.
    pub(crate) fn newest_checkpoint(&self) -> Option<Kept> {
        self.lock().checkpoints.newest().cloned()
    }

    /// Keeps a checkpoint of `incarnation`, unless that has been fenced: then another life's is the newest. A failed one leaves the
    /// previous one in place.
    pub(super) fn keep(&self, incarnation: &Incarnation, saved: Result<Arc<dyn Frame>, String>) -> Took {
        let frame = match saved {
            Ok(frame) => frame,
            Err(reason) => {
                self.lock().checkpoints.trouble = Some(format!("a checkpoint could not be taken: {reason}"));
                let fact = Fact::CheckpointFailed { reason: reason.clone() };
                self.links.operator.tell(Some(&self.id), fact);
                return Took::Failed(reason);
            }
        };
        let now = self.clock().now();
        let mut state = self.lock();
        if state.ledger.epoch != incarnation.epoch() {
            return Took::Fenced;
        }
        let (sequence, oldest) = state.checkpoints.push(Arc::clone(&frame), now);
        state.checkpoints.trouble = None;
        // Replicas that follow take each one.
        let followers: Vec<_> = if self.rules.replicas_follow { state.standbys.clone() } else { Vec::new() };
        drop(state);
        contain("dropping a checkpoint", || drop(oldest));
        if let Some(vault) = &self.links.vault {
            vault.save(&self.id, sequence, frame);
        }
        for standby in followers {
            standby.ring();
        }
        Took::Kept
    }

    /// Asks the store, once, for what an earlier process has left.
    ///
    /// # Errors
    /// The store cannot say what there is. To begin without it could overwrite what it has.
    pub(crate) async fn load_checkpoints(&self) -> Result<(), KernelError> {
        if self.links.vault.is_none() || self.lock().checkpoints.loaded {
            return Ok(());
        }
        self.load_before(None).await?;
        self.lock().checkpoints.loaded = true;
        Ok(())
    }

    /// The newest checkpoint in the store before number `below`, as the oldest that the slot holds.
    async fn load_before(&self, below: Option<u64>) -> Result<(), KernelError> {
        let Some(vault) = self.links.vault.clone() else { return Ok(()) };
        let id = self.id.clone();
        let loaded = tokio::task::spawn_blocking(move || vault.load(&id, below)).await;
        let unreadable = |error: &dyn std::error::Error| {
            KernelError::transient(format!("the checkpoint store cannot be read: {error}"))
        };
        let (recovered, next) =
            loaded.map_err(|error| unreadable(&error))?.map_err(|error| unreadable(&error))?;
        for refused in recovered.refused {
            self.refuse_checkpoint(refused.sequence, refused.reason);
        }
        let mut state = self.lock();
        state.checkpoints.last = state.checkpoints.last.max(next - 1);
        // A life that was given up while it waited for the store comes late: it may not put an old one behind, or before, newer ones.
        let oldest = state.checkpoints.kept.back().map_or(u64::MAX, |kept| kept.sequence);
        if let Some((sequence, bytes)) = recovered.found.filter(|(sequence, _)| *sequence < oldest)
            && state.checkpoints.kept.len() < KEPT
        {
            state.checkpoints.kept.push_back(Kept { sequence, frame: Arc::new(bytes), taken: None });
        }
        Ok(())
    }

    /// [`refuse_checkpoint`](Self::refuse_checkpoint), and where that was the last one, asks the store for the one before it.
    ///
    /// # Errors
    /// The store cannot say what there is.
    pub(crate) async fn fall_back_from(&self, sequence: u64, reason: String) -> Result<(), KernelError> {
        self.refuse_checkpoint(sequence, reason);
        let none_left = self.newest_checkpoint().is_none();
        if none_left { self.load_before(Some(sequence)).await } else { Ok(()) }
    }

    /// A kernel did not take the checkpoint. It stays the newest, because the cause may be elsewhere, until that has happened twice; then the
    /// one before it is tried, if there is one: never none.
    ///
    /// # Errors
    /// The store cannot say what there is.
    pub(crate) async fn restore_failed(&self, sequence: u64, reason: String) -> Result<(), KernelError> {
        let (spent, is_last) = {
            let mut state = self.lock();
            let (before, count) = state.checkpoints.failed;
            let count = if before == sequence { count + 1 } else { 1 };
            state.checkpoints.failed = (sequence, count);
            state.checkpoints.trouble =
                Some(format!("checkpoint {sequence} could not be restored: {reason}"));
            (count >= RESTORES, state.checkpoints.kept.len() < KEPT)
        };
        if !spent {
            return Ok(());
        }
        if is_last {
            self.load_before(Some(sequence)).await?;
        }
        let has_another = self.lock().checkpoints.kept.len() > 1;
        if has_another {
            self.refuse_checkpoint(sequence, reason);
        }
        Ok(())
    }

    /// The checkpoint cannot be restored: the one before it is the newest from now on.
    pub(crate) fn refuse_checkpoint(&self, sequence: u64, reason: String) {
        let mut state = self.lock();
        let at = state.checkpoints.kept.iter().position(|kept| kept.sequence == sequence);
        let refused = at.and_then(|at| state.checkpoints.kept.remove(at));
        state.checkpoints.trouble = Some(format!("checkpoint {sequence} was refused: {reason}"));
        drop(state);
        contain("dropping a checkpoint", || drop(refused));
        self.links.operator.tell(Some(&self.id), Fact::CheckpointRefused { sequence, reason });
    }
}
