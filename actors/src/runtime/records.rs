//! What a runtime has written down: failures and dead letters, to be read, restored, replayed and dropped.

use std::sync::Arc;

use rustkernel_core::envelope::Deadline;

use super::Runtime;
use crate::dead_letter::DeadLetter;
use crate::history::FailureReport;
use crate::replay::ReplayError;

impl Runtime {
    /// The last 16 failures of a child, over all its incarnations, oldest first.
    #[must_use]
    pub fn history(&self, child: &str) -> Vec<FailureReport> {
        self.inner.links.operator.history(child)
    }

    /// The last failures of all children, 16 of each and 16384 in all, oldest first.
    #[must_use]
    pub fn failures(&self) -> Vec<FailureReport> {
        self.inner.links.operator.failures()
    }

    /// Puts the failures of an earlier process, oldest first, before those of this one.
    pub fn restore_failures(&self, earlier: Vec<FailureReport>) {
        self.inner.links.operator.restore_failures(earlier);
    }

    /// How many requests were given up for good, and the last 1024 of them, oldest first. At most 16 MiB of their inputs are kept; the
    /// oldest go first.
    #[must_use]
    pub fn dead_letters(&self) -> (u64, Vec<DeadLetter>) {
        self.inner.links.operator.letters().all()
    }

    /// Checkpoints that were never stored because a newer one of the same kernel came first: how far the store lags behind.
    #[must_use]
    pub fn replaced_checkpoints(&self) -> u64 {
        self.inner.links.vault.as_ref().map_or(0, |vault| vault.replaced_count())
    }

    /// Puts the dead letters of an earlier process, oldest first, before those of this one. To be called before anything is replayed.
    pub fn restore_dead_letters(&self, earlier: Vec<DeadLetter>) {
        self.inner.links.operator.letters().restore(earlier);
    }

    /// The dead letter with this number, if it is kept.
    #[must_use]
    pub fn dead_letter(&self, letter: u64) -> Option<DeadLetter> {
        self.inner.links.operator.letters().letter(letter)
    }

    /// Forgets a dead letter. `false` for one that is not kept. A replay of it that is under way goes on.
    pub fn drop_dead_letter(&self, letter: u64) -> bool {
        self.inner.links.operator.letters().drop_letter(letter)
    }

    /// Runs a dead letter again, as a fresh request that is admitted like every other, and waits for its end. When it has been answered,
    /// the letter is removed and the answer dropped; to have it, use [`KernelRef::replay`](crate::KernelRef::replay).
    ///
    /// # Errors
    /// [`ReplayError`] says what is missing, or how the request failed. The letter stays.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request and gives the letter back.
    pub async fn replay(&self, letter: u64, deadline: impl Into<Deadline>) -> Result<(), ReplayError> {
        let (letter, replay) = self.inner.links.operator.letters().begin_replay(letter)?;
        let kernel = self.inner.registry.kernel(&letter.kernel);
        let kernel = kernel.ok_or_else(|| ReplayError::UnknownKernel { kernel: letter.kernel.clone() })?;
        Arc::clone(&kernel).replay(letter, replay, deadline.into()).await
    }
}
