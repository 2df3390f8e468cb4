//! How an incarnation's state gets out and into the next one.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;

use rustkernel_core::KernelError;
use rustkernel_core::codec;
use rustkernel_core::traits::CheckpointableKernel;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Save<K> = fn(&K) -> BoxFuture<'_, Result<Vec<u8>, KernelError>>;
type Restore<K> = for<'a> fn(&'a mut K, &[u8]) -> BoxFuture<'a, Result<(), KernelError>>;

/// The two directions, captured where the kernel's type is known to be checkpointable.
pub(crate) struct Checkpointer<K> {
    save: Save<K>,
    restore: Restore<K>,
}

impl<K: CheckpointableKernel> Checkpointer<K> {
    pub(crate) fn new() -> Self {
        Self {
            save: |kernel| {
                let checkpoint = kernel.checkpoint();
                Box::pin(async move { codec::encode(&checkpoint.await?).map_err(KernelError::permanent) })
            },
            restore: |kernel, frame| match codec::decode(frame) {
                Ok(checkpoint) => Box::pin(kernel.restore(checkpoint)),
                Err(error) => Box::pin(ready(Err(KernelError::permanent(error)))),
            },
        }
    }
}

impl<K> Checkpointer<K> {
    /// The kernel's state as a frame. Not an `async fn`: its future must not hold a shared reference to a kernel that is only `Send`.
    pub(crate) fn save<'a>(&self, kernel: &'a K) -> BoxFuture<'a, Result<Vec<u8>, KernelError>> {
        (self.save)(kernel)
    }

    pub(crate) fn restore<'a>(
        &self,
        kernel: &'a mut K,
        frame: &[u8],
    ) -> BoxFuture<'a, Result<(), KernelError>> {
        (self.restore)(kernel, frame)
    }
}

impl<K> fmt::Debug for Checkpointer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointer").finish_non_exhaustive()
    }
}
