//! How an incarnation's state gets out and into the next one.
//!
//! The bytes are named after the state's schema: another version of the kernel, in this process or in the next, does not read a state of
//! another type as its own.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use rustkernel_core::KernelError;
use rustkernel_core::codec;
use rustkernel_core::traits::CheckpointableKernel;
use serde::Serialize;

use super::archive::with_causes;
use crate::contain::contain;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Save<K> = for<'a> fn(&'a K, &'static str) -> BoxFuture<'a, Result<Arc<dyn Frame>, KernelError>>;
type Restore<K> =
    for<'a> fn(&'a mut K, &'static str, &[u8]) -> Result<BoxFuture<'a, Result<(), KernelError>>, String>;

/// The two directions, captured where the kernel's type is known to be checkpointable.
pub(crate) struct Checkpointer<K> {
    /// The name of the state's schema.
    schema: &'static str,
    save: Save<K>,
    restore: Restore<K>,
}

impl<K> Clone for Checkpointer<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Checkpointer<K> {}

/// A state that has left its kernel and becomes bytes when somebody needs them: a restart, or a store. Most never do, and their
/// encoding costs the kernel nothing.
pub(crate) trait Frame: Send + Sync {
    /// The state as a codec frame that is named after its schema; the error of its encoding otherwise.
    fn bytes(&self) -> Result<Arc<[u8]>, String>;
    /// How long it is, if it has been encoded.
    fn known_len(&self) -> Option<usize>;
}

struct Lazy<C> {
    schema: &'static str,
    state: Mutex<State<C>>,
}

enum State<C> {
    Typed(C),
    Bytes(Arc<[u8]>),
    Bad(String),
}

impl<K: CheckpointableKernel> Checkpointer<K> {
    /// The schema's name is that of the checkpoint's type, unless another one is [given](Self::with_schema).
    pub(crate) fn new() -> Self {
        Self {
            schema: type_name::<K::Checkpoint>(),
            save: |kernel, schema| {
                let checkpoint = kernel.checkpoint();
                Box::pin(async move {
                    let state = Mutex::new(State::Typed(checkpoint.await?));
                    Ok(Arc::new(Lazy { schema, state }) as Arc<dyn Frame>)
                })
            },
            restore: |kernel, schema, frame| match codec::decode_as(schema, frame) {
                Ok(checkpoint) => Ok(Box::pin(kernel.restore(checkpoint))),
                Err(error) => Err(with_causes(&error)),
            },
        }
    }
}

impl<K> Checkpointer<K> {
    pub(crate) fn with_schema(self, schema: &'static str) -> Self {
        Self { schema, ..self }
    }

    /// Takes the kernel's state. Not an `async fn`: its future must not hold a shared reference to a kernel that is only `Send`.
    pub(crate) fn save<'a>(&self, kernel: &'a K) -> BoxFuture<'a, Result<Arc<dyn Frame>, KernelError>> {
        (self.save)(kernel, self.schema)
    }

    /// Gives a state to a fresh kernel. The outer error means that the bytes are no such state, and that the kernel was not touched.
    pub(crate) fn restore<'a>(
        &self,
        kernel: &'a mut K,
        frame: &[u8],
    ) -> Result<BoxFuture<'a, Result<(), KernelError>>, String> {
        (self.restore)(kernel, self.schema, frame)
    }
}

impl<C: Serialize + Send> Frame for Lazy<C> {
    fn bytes(&self) -> Result<Arc<[u8]>, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Typed(_) = &*state {
            let typed = mem::replace(&mut *state, State::Bad("its encoding panicked".to_owned()));
            let State::Typed(typed) = typed else { return Err(String::new()) };
            if let Some(encoded) = contain("encoding a checkpoint", || codec::encode_as(self.schema, &typed))
            {
                *state = match encoded {
                    Ok(bytes) => State::Bytes(bytes.into()),
                    Err(error) => State::Bad(with_causes(&error)),
                };
            }
            contain("dropping a checkpoint", || drop(typed));
        }
        match &*state {
            State::Bytes(bytes) => Ok(Arc::clone(bytes)),
            State::Bad(reason) => Err(reason.clone()),
            State::Typed(_) => Err("not encoded".to_owned()),
        }
    }

    fn known_len(&self) -> Option<usize> {
        // Whoever is encoding it may take a while, and this is asked under the slot's lock.
        match &*self.state.try_lock().ok()? {
            State::Bytes(bytes) => Some(bytes.len()),
            State::Typed(_) | State::Bad(_) => None,
        }
    }
}

/// A state that came from a store.
impl Frame for Vec<u8> {
    fn bytes(&self) -> Result<Arc<[u8]>, String> {
        Ok(self.as_slice().into())
    }

    fn known_len(&self) -> Option<usize> {
        Some(self.len())
    }
}

impl<K> fmt::Debug for Checkpointer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointer").finish_non_exhaustive()
    }
}
