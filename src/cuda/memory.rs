//! Memory on the device.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use rustkernel_core::traits::Payload;

use super::CudaError;
use super::line::Line;
use super::table::Address;

/// So many values on a device, made by a [`Stream`](super::Stream).
///
/// It may be given to another stream of the same device: what that one does with it comes after what its own stream was told before, so
/// that kernels of a pipeline in one process hand it on without a copy. Dropped, its memory is used again by what its stream does next,
/// and not before other streams have finished with it.
pub struct Buffer<T> {
    block: Block,
    len: usize,
    values: PhantomData<fn() -> T>,
}

pub(super) struct Block {
    pub(super) address: Address,
    bytes: usize,
    home: Arc<Line>,
    /// Other streams that have used it since its own did last.
    guests: Mutex<Vec<Arc<Line>>>,
}

impl<T: Pod> Buffer<T> {
    pub(super) fn new(line: &Arc<Line>, len: usize) -> Result<Self, CudaError> {
        let most = usize::MAX / size_of::<T>().max(1);
        let too_long = CudaError::Length { wanted: len, there: most };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(too_long)?;
        let (bytes, address) = line.allocate(bytes)?;
        let block = Block { address, bytes, home: Arc::clone(line), guests: Mutex::default() };
        Ok(Self { block, len, values: PhantomData })
    }

    /// How many values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T> Buffer<T> {
    pub(super) fn block(&self) -> &Block {
        &self.block
    }
}

impl Block {
    /// `line` is about to use it: after everybody who has used it, and nobody knows whether they only read.
    pub(super) fn visit(&self, line: &Arc<Line>) -> Result<(), CudaError> {
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        guests.iter().try_for_each(|guest| line.follow(guest))?;
        if Arc::ptr_eq(line, &self.home) {
            // Whoever comes next follows its home, and so all of these.
            guests.clear();
            return Ok(());
        }
        line.follow(&self.home)?;
        if !guests.iter().any(|guest| Arc::ptr_eq(guest, line)) {
            guests.push(Arc::clone(line));
        }
        Ok(())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let guests = self.guests.get_mut().unwrap_or_else(PoisonError::into_inner);
        let all = guests.iter().try_for_each(|guest| self.home.follow(guest));
        if all.is_ok() {
            self.home.give_back(self.bytes, self.address);
        }
        // Otherwise its device is lost, and nothing there is used again.
    }
}

impl<T: Pod + Payload> Payload for Buffer<T> {
    /// What it takes on its device.
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.block.bytes
    }

    fn schema() -> String {
        format!("cuda<{}>", T::schema())
    }
}

impl<T> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}
