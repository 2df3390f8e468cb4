//! How an incarnation's state gets out and into the next one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rustkernel_core::KernelError;
use rustkernel_core::codec;
use rustkernel_core::traits::CheckpointableKernel;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Save<K> = fn(&K) -> BoxFuture<'_, Result<Vec<u8>, KernelError>>;
type Restore<K> = for<'a> fn(&'a mut K, Arc<[u8]>) -> BoxFuture<'a, Result<(), KernelError>>;

/// The two directions, captured where the kernel's type is known to be checkpointable.
pub(crate) struct Checkpointer<K> {
    save: Save<K>,
    restore: Restore<K>,
}

impl<K: CheckpointableKernel + Send + Sync> Checkpointer<K> {
    pub(crate) fn new() -> Self {
        Self {
            save: |kernel| {
                Box::pin(async move {
                    let checkpoint = kernel.checkpoint().await?;
                    codec::encode(&checkpoint).map_err(KernelError::permanent)
                })
            },
            restore: |kernel, frame| {
                Box::pin(async move {
                    let checkpoint = codec::decode(&frame).map_err(KernelError::permanent)?;
                    kernel.restore(checkpoint).await
                })
            },
        }
    }
}

impl<K> Checkpointer<K> {
    pub(crate) async fn save(&self, kernel: &K) -> Result<Vec<u8>, KernelError> {
        (self.save)(kernel).await
    }

    pub(crate) async fn restore(&self, kernel: &mut K, frame: Arc<[u8]>) -> Result<(), KernelError> {
        (self.restore)(kernel, frame).await
    }
}

impl<K> fmt::Debug for Checkpointer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointer").finish_non_exhaustive()
    }
}
