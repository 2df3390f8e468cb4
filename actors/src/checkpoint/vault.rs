//! The store of a runtime: what is saved there off the kernels' paths, and what a kernel finds there when it starts.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::KernelId;

use super::archive::{Archive, Recovered};
use super::writer::{SaveError, SaveJob, Writer};
use super::{CheckpointStore, Frame, StoreError};

/// A store with a thread that writes to it, so that whoever saves does not wait. Records are sealed with a checksum, their name and their
/// number; a damaged one is refused by name and the one before it is found.
///
/// A runtime has one of its own for its kernels' checkpoints
/// ([`RuntimeBuilder::checkpoint_store`](crate::RuntimeBuilder::checkpoint_store)); a program can keep other state the same way.
pub struct Vault {
    archive: Archive,
    writer: Writer,
}

impl Vault {
    /// Keeps `retention` records of each name in `store`; 0 counts as 1. `on_outcome` is told what became of each, on the writing thread.
    ///
    /// # Errors
    /// When the operating system starts no further thread.
    pub fn open(
        store: Arc<dyn CheckpointStore>,
        retention: usize,
        on_outcome: impl Fn(&KernelId, u64, Result<(), SaveError>) + Send + 'static,
    ) -> io::Result<Self> {
        let archive = Archive::new(store).with_retention(retention);
        let writer = Writer::start(archive.clone(), on_outcome)?;
        Ok(Self { archive, writer })
    }

    /// Saves what `payload` gives, soon and on the writing thread, unless a newer one of the same name comes first. An error is told by
    /// its text.
    pub fn save_with(
        &self,
        name: &KernelId,
        sequence: u64,
        payload: impl FnOnce() -> Result<Vec<u8>, String> + Send + 'static,
    ) {
        self.writer.submit(name, SaveJob { sequence, payload: Box::new(payload) });
    }

    /// Saves a checkpoint soon, unless a newer one of the same kernel comes first.
    pub(crate) fn save(&self, kernel: &KernelId, sequence: u64, frame: Arc<dyn Frame>) {
        self.save_with(kernel, sequence, move || frame.bytes().map(|bytes| bytes.to_vec()));
    }

    /// The newest valid record before number `below`, and the number that the next one gets. Blocks while it reads.
    ///
    /// # Errors
    /// The store cannot say what there is.
    pub fn load(&self, name: &KernelId, below: Option<u64>) -> Result<(Recovered, u64), StoreError> {
        Ok((self.archive.newest(name, below)?, self.archive.next_sequence(name)?))
    }

    /// Records that were never written because a newer one of the same name came first.
    #[must_use]
    pub fn replaced_count(&self) -> u64 {
        self.writer.replaced_count()
    }

    /// Waits until everything saved so far is written or has failed, for at most `limit`. Says whether it is. Blocks.
    pub fn flush(&self, limit: Duration) -> bool {
        self.writer.flush_within(limit)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("archive", &self.archive).finish_non_exhaustive()
    }
}
