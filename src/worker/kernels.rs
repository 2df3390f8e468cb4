//! The kernels that a worker process can make, by name.

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use rustkernel_core::codec;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::{CheckpointableKernel, Context, LocalKernel};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::border::Border;
use super::parcel::{Packed, Parcel, pack};

/// Kernels by name, with what makes them from their settings.
///
/// The same function fills it on both sides of the process border, so that a name means the same kernel there as here; see
/// [`init`](super::init).
#[derive(Clone, Default)]
pub struct Kernels {
    makers: BTreeMap<String, Arc<dyn Maker>>,
}

/// Makes a kernel from its settings, as they came over the border.
pub(super) trait Maker: Send + Sync {
    fn make(&self, settings: &[u8]) -> Result<Box<dyn Resident>, KernelError>;
}

/// A kernel in a worker, with its payloads as bytes. It never leaves its thread.
pub(super) trait Resident {
    /// Runs one request, which has come across this border. `answer` is given the output, once.
    fn run(
        &mut self,
        border: &Arc<Border>,
        input: Parcel,
        cx: &mut Context<'_>,
        answer: &mut dyn FnMut(Packed<'_>),
    ) -> Result<(), KernelError>;
    fn save(&mut self) -> Result<Vec<u8>, KernelError>;
    fn restore(&mut self, checkpoint: &[u8]) -> Result<(), KernelError>;
}

/// What a kernel's state becomes, and how it comes back.
struct State<K> {
    save: fn(&K) -> Result<Vec<u8>, KernelError>,
    restore: fn(&mut K, &[u8]) -> Result<(), KernelError>,
}

struct Made<K> {
    kernel: K,
    state: Option<State<K>>,
}

struct MakerOf<K, C, F> {
    make: F,
    state: Option<State<K>>,
    settings: PhantomData<fn(C) -> K>,
}

impl Kernels {
    /// A worker can make `name` from its settings with `make`. A name that is given twice is the later one's.
    pub fn register<K, C>(
        &mut self,
        name: impl Into<String>,
        make: impl Fn(C) -> Result<K, KernelError> + Send + Sync + 'static,
    ) where
        K: LocalKernel<Input: Serialize + DeserializeOwned, Output: Serialize + DeserializeOwned>,
        C: DeserializeOwned + 'static,
    {
        self.insert(name.into(), make, None);
    }

    /// [`register`](Self::register) for a kernel whose state may go along with its slot.
    pub fn register_checkpointed<K, C>(
        &mut self,
        name: impl Into<String>,
        make: impl Fn(C) -> Result<K, KernelError> + Send + Sync + 'static,
    ) where
        K: LocalKernel<Input: Serialize + DeserializeOwned, Output: Serialize + DeserializeOwned>
            + CheckpointableKernel,
        C: DeserializeOwned + 'static,
    {
        let state = State {
            save: |kernel: &K| {
                let state = block_on(kernel.checkpoint())?;
                codec::encode_as(type_name::<K::Checkpoint>(), &state).map_err(KernelError::permanent)
            },
            restore: |kernel: &mut K, bytes: &[u8]| {
                let state = codec::decode_as(type_name::<K::Checkpoint>(), bytes);
                block_on(kernel.restore(state.map_err(KernelError::permanent)?))
            },
        };
        self.insert(name.into(), make, Some(state));
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.makers.keys().map(String::as_str)
    }

    pub(super) fn maker(&self, name: &str) -> Option<Arc<dyn Maker>> {
        self.makers.get(name).cloned()
    }

    fn insert<K, C>(
        &mut self,
        name: String,
        make: impl Fn(C) -> Result<K, KernelError> + Send + Sync + 'static,
        state: Option<State<K>>,
    ) where
        K: LocalKernel<Input: Serialize + DeserializeOwned, Output: Serialize + DeserializeOwned>,
        C: DeserializeOwned + 'static,
    {
        self.makers.insert(name, Arc::new(MakerOf { make, state, settings: PhantomData }));
    }
}

impl<K, C, F> Maker for MakerOf<K, C, F>
where
    K: LocalKernel<Input: Serialize + DeserializeOwned, Output: Serialize + DeserializeOwned>,
    C: DeserializeOwned,
    F: Fn(C) -> Result<K, KernelError> + Send + Sync,
{
    fn make(&self, settings: &[u8]) -> Result<Box<dyn Resident>, KernelError> {
        let settings = codec::decode(settings).map_err(|error| {
            KernelError::permanent(format!("the worker does not understand the kernel's settings: {error}"))
        })?;
        Ok(Box::new(Made { kernel: (self.make)(settings)?, state: self.state }))
    }
}

impl<K> Resident for Made<K>
where
    K: LocalKernel<Input: Serialize + DeserializeOwned, Output: Serialize + DeserializeOwned>,
{
    fn run(
        &mut self,
        border: &Arc<Border>,
        input: Parcel,
        cx: &mut Context<'_>,
        answer: &mut dyn FnMut(Packed<'_>),
    ) -> Result<(), KernelError> {
        let input = input.unpack()?;
        let output = block_on(self.kernel.execute_local(&input, cx))?;
        // What it was lent goes back with the answer, not with the next one.
        drop(input);
        answer(pack(border, &output)?);
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<u8>, KernelError> {
        let state = self.state.ok_or_else(keeps_nothing)?;
        (state.save)(&self.kernel)
    }

    fn restore(&mut self, checkpoint: &[u8]) -> Result<(), KernelError> {
        let state = self.state.ok_or_else(keeps_nothing)?;
        (state.restore)(&mut self.kernel, checkpoint)
    }
}

fn keeps_nothing() -> KernelError {
    KernelError::permanent("the kernel is registered without checkpoints")
}

/// Drives `future` on this thread, which its host has put into the worker's async runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    // Most have nothing to wait for, and need nobody who wakes them.
    match future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => tokio::runtime::Handle::current().block_on(future),
    }
}

impl<K> Clone for State<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for State<K> {}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
