//! Where checkpoints are kept.
//!
//! A store moves bytes and decides nothing: it does not look into a record, and neither prunes nor chooses. Its calls block, so the runtime
//! makes them off its async workers. [`conformance`](super::conformance()) tests every rule below.

use std::fmt;
use std::io;

use rustkernel_core::KernelId;

/// Records by kernel and sequence number.
///
/// Kernels do not meet: two ids that differ in any way, be it in the case of a letter, have nothing in common. Every number, up to
/// [`u64::MAX`], and every record, the empty one included, can be kept. All methods may be called from several threads at once.
///
/// A call that panics is taken for a failed one.
pub trait CheckpointStore: Send + Sync + fmt::Debug + 'static {
    /// Keeps `record` under `sequence`, in the place of one that is there.
    ///
    /// Atomic: whoever reads at the same time, or after the process was killed half-way, gets the old record or the new one. Durable, as
    /// far as the store outlives anything: after `Ok` the record is not lost with the process.
    ///
    /// # Errors
    /// [`StoreError`]. The record may then be there or not, but whole; all others are as they were.
    fn put(&self, kernel: &KernelId, sequence: u64, record: &[u8]) -> Result<(), StoreError>;

    /// The numbers of what is kept of `kernel`, the greatest first. Empty for a kernel that was never seen.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be told.
    fn sequences(&self, kernel: &KernelId) -> Result<Vec<u64>, StoreError>;

    /// The record under `sequence`; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`] if there is one, or may be, that cannot be read.
    fn get(&self, kernel: &KernelId, sequence: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// Gives the record up. There being none is no error. A removal need not be durable.
    ///
    /// # Errors
    /// [`StoreError`] if the record is still there, or may be.
    fn remove(&self, kernel: &KernelId, sequence: u64) -> Result<(), StoreError>;
}

/// Why a store did not do as it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no room for the record.
    #[error("the checkpoint store is full")]
    Full,
    /// The store may not be written to.
    #[error("the checkpoint store cannot be written to")]
    ReadOnly,
    /// Anything else.
    #[error("cannot {what}")]
    Io {
        /// What was attempted, in the words after "cannot".
        what: String,
        /// What came of it.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// The error of an attempt to `what`, a text that reads well after "cannot". No room and a used-up quota become [`Self::Full`], a
    /// lack of permission to write [`Self::ReadOnly`].
    pub fn writing(what: impl Into<String>, source: io::Error) -> Self {
        let kind = source.kind();
        if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::Full
        } else if matches!(kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) {
            Self::ReadOnly
        } else {
            Self::reading(what, source)
        }
    }

    /// The error of an attempt to read, which no lack of room or of permission to write explains: [`Self::Io`].
    pub fn reading(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn no_room_and_no_permission_have_names_of_their_own() {
        let writing = |kind| StoreError::writing("write a file", io::Error::from(kind));
        assert!(matches!(writing(io::ErrorKind::StorageFull), StoreError::Full));
        assert!(matches!(writing(io::ErrorKind::QuotaExceeded), StoreError::Full));
        assert!(matches!(writing(io::ErrorKind::ReadOnlyFilesystem), StoreError::ReadOnly));
        assert!(matches!(writing(io::ErrorKind::PermissionDenied), StoreError::ReadOnly));
        let other = writing(io::ErrorKind::NotADirectory);
        assert_eq!(other.to_string(), "cannot write a file");
        assert!(other.source().is_some());
    }

    #[test]
    fn a_file_that_may_not_be_read_is_not_a_store_that_may_not_be_written() {
        let error = StoreError::reading("read a file", io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(matches!(error, StoreError::Io { .. }));
    }
}
