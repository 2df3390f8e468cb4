//! State that outlives an incarnation.

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::KernelError;

/// A kernel whose progress can be taken down and given to its next incarnation.
///
/// A checkpoint is taken between requests, never during one, and leaves the incarnation as bytes (see
/// [`codec`](crate::codec)): what a panic unwinds cannot reach it.
pub trait CheckpointableKernel {
    /// The state to keep.
    type Checkpoint: Serialize + DeserializeOwned + Send + 'static;

    /// Takes the state down.
    ///
    /// # Errors
    /// A failed checkpoint keeps the previous one; the kernel goes on serving.
    fn checkpoint(&self) -> impl Future<Output = Result<Self::Checkpoint, KernelError>> + Send;

    /// Continues from `checkpoint`, on a fresh instance from the factory.
    ///
    /// # Errors
    /// A failed restore is a failed start: it costs the restart budget.
    fn restore(
        &mut self,
        checkpoint: Self::Checkpoint,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
}
