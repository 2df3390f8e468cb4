//! The store of a runtime: what is saved there off the kernels' paths, and what a kernel finds there when it starts.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::KernelId;

use super::archive::{Archive, Recovered};
use super::writer::{SaveError, SaveJob, Writer};
use super::{CheckpointStore, Frame, StoreError};

/// An archive, and the thread that writes to it.
pub(crate) struct Vault {
    archive: Archive,
    writer: Writer,
}

impl Vault {
    /// # Errors
    /// When the operating system starts no further thread.
    pub(crate) fn open(
        store: Arc<dyn CheckpointStore>,
        retention: usize,
        on_outcome: impl Fn(&KernelId, u64, Result<(), SaveError>) + Send + 'static,
    ) -> io::Result<Self> {
        let archive = Archive::new(store).with_retention(retention);
        let writer = Writer::start(archive.clone(), on_outcome)?;
        Ok(Self { archive, writer })
    }

    /// Saves a checkpoint soon, unless a newer one of the same kernel comes first.
    pub(crate) fn save(&self, kernel: &KernelId, sequence: u64, frame: Arc<dyn Frame>) {
        let payload = Box::new(move || frame.bytes().map(|bytes| bytes.to_vec()));
        self.writer.submit(kernel, SaveJob { sequence, payload });
    }

    /// The newest valid checkpoint before number `below`, and the number that the next one gets. Blocks while it reads.
    ///
    /// # Errors
    /// The store cannot say what there is.
    pub(crate) fn load(&self, kernel: &KernelId, below: Option<u64>) -> Result<(Recovered, u64), StoreError> {
        Ok((self.archive.newest(kernel, below)?, self.archive.next_sequence(kernel)?))
    }

    /// Checkpoints that were never written because a newer one of the same kernel came first.
    pub(crate) fn replaced_count(&self) -> u64 {
        self.writer.replaced_count()
    }

    /// Waits until everything saved so far is written or has failed, for at most `limit`. Blocks.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        self.writer.flush_within(limit)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("archive", &self.archive).finish_non_exhaustive()
    }
}
