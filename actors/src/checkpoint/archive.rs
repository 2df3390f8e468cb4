//! The checkpoints of all kernels, sealed, in a store: how many are kept, and which one is the newest that can be trusted.
//!
//! A record that is damaged, foreign or under another number than its own is refused by name and skipped; an older one is better
//! than none. A store's panic is one of its errors.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustkernel_core::KernelId;
use rustkernel_core::checkpoint::{open, seal};

use super::{CheckpointStore, StoreError};
use crate::contain::contain;

/// Checkpoints kept of each kernel unless said otherwise: one may be damaged, and the one before it may share its cause.
pub(crate) const RETENTION: usize = 3;

/// Records looked at beyond those that are retained, left over where pruning failed, before a recovery gives up.
const EXTRA_LOOKS: usize = 8;

/// A store, and what is kept in it. A clone shares the store.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    store: Arc<dyn CheckpointStore>,
    retention: usize,
}

/// A checkpoint was saved.
#[derive(Debug)]
#[must_use]
pub(crate) struct Saved {
    /// Why an older one is still there that should not be.
    pub(crate) unpruned: Option<StoreError>,
}

/// What there is to restore from.
#[derive(Debug)]
pub struct Recovered {
    /// The newest valid checkpoint's sequence number and payload.
    pub found: Option<(u64, Vec<u8>)>,
    /// Newer ones that are not valid, the newest first; all that were looked at, if none is.
    pub refused: Vec<RefusedCheckpoint>,
}

/// A stored checkpoint that was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCheckpoint {
    /// Its number.
    pub sequence: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl Archive {
    /// The checkpoints in `store`, of which the three newest are kept of every kernel.
    pub(crate) fn new(store: Arc<dyn CheckpointStore>) -> Self {
        Self { store, retention: RETENTION }
    }

    /// Keeps `retention` checkpoints of every kernel; 0 counts as 1. The store needs room for one more, because the oldest goes only once
    /// the newest is there.
    pub(crate) fn with_retention(self, retention: usize) -> Self {
        Self { retention: retention.max(1), ..self }
    }

    /// Saves `payload`, then gives up the oldest. The one just saved stays, whatever its number.
    ///
    /// # Errors
    /// [`StoreError`] if it is not saved; nothing is pruned then. A failed pruning is no error: it is in [`Saved`].
    pub(crate) fn save(&self, kernel: &KernelId, sequence: u64, payload: &[u8]) -> Result<Saved, StoreError> {
        let record = seal(kernel, sequence, payload);
        ask("put a checkpoint", || self.store.put(kernel, sequence, &record))?;
        Ok(Saved { unpruned: self.prune(kernel, sequence).err() })
    }

    /// The newest checkpoint of `kernel` that is valid, of those before number `below` if that is given.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot say what there is, or if none was found and one of those it has could not be read: then it is
    /// not known that there is none.
    pub(crate) fn newest(&self, kernel: &KernelId, below: Option<u64>) -> Result<Recovered, StoreError> {
        let mut refused = Vec::new();
        let mut unread = None;
        let older = self
            .sequences(kernel)?
            .into_iter()
            .filter(|sequence| below.is_none_or(|below| *sequence < below));
        for sequence in older.take(self.retention + EXTRA_LOOKS) {
            let reason = match ask("get a checkpoint", || self.store.get(kernel, sequence)) {
                Ok(Some(record)) => match payload(kernel, sequence, &record) {
                    Ok(payload) => return Ok(Recovered { found: Some((sequence, payload)), refused }),
                    Err(reason) => reason,
                },
                // Pruned since; a newer one came in its place.
                Ok(None) => continue,
                Err(error) => {
                    let reason = with_causes(&error);
                    unread.get_or_insert(error);
                    reason
                }
            };
            refused.push(RefusedCheckpoint { sequence, reason });
        }
        unread.map_or(Ok(Recovered { found: None, refused }), Err)
    }

    /// The number of the next checkpoint of `kernel`: one more than any that is present, valid or not.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot say what there is.
    pub(crate) fn next_sequence(&self, kernel: &KernelId) -> Result<u64, StoreError> {
        Ok(self.sequences(kernel)?.first().map_or(1, |newest| newest.saturating_add(1)))
    }

    /// Removes all but the newest; goes on after an error, and returns the first.
    fn prune(&self, kernel: &KernelId, saved: u64) -> Result<(), StoreError> {
        let mut result = Ok(());
        for sequence in self.sequences(kernel)?.into_iter().skip(self.retention) {
            if sequence != saved {
                let removed = ask("remove a checkpoint", || self.store.remove(kernel, sequence));
                result = result.and(removed);
            }
        }
        result
    }

    /// Sorted again: a store that breaks its promise must not get its newest checkpoint pruned.
    fn sequences(&self, kernel: &KernelId) -> Result<Vec<u64>, StoreError> {
        let mut sequences = ask("list the checkpoints", || self.store.sequences(kernel))?;
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        sequences.dedup();
        Ok(sequences)
    }
}

fn payload(kernel: &KernelId, sequence: u64, record: &[u8]) -> Result<Vec<u8>, String> {
    let opened = open(kernel, record).map_err(|error| error.to_string())?;
    if opened.sequence != sequence {
        return Err(format!("the checkpoint is number {}", opened.sequence));
    }
    Ok(opened.payload.to_vec())
}

/// Calls the store, which may be a user's.
fn ask<T>(what: &'static str, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let panicked = || Err(StoreError::reading(what, io::Error::other("the store panicked")));
    contain(what, call).unwrap_or_else(panicked)
}

/// The error's text with those of its causes: an operator reads nothing else of it.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
