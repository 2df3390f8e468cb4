//! Memory that a process holds: its own, or what the other side of a border has lent.

#![allow(unsafe_code, reason = "what is shared is not this process's alone")]

use std::ptr::{self, NonNull};
use std::sync::Arc;

use rustkernel_core::error::KernelError;

#[cfg(feature = "cuda")]
use super::border::Border;
use super::border::Loan;
#[cfg(feature = "cuda")]
use super::pool::CHUNK_BYTES;
use super::pool::{Block, Pool};

/// Memory that is held.
#[derive(Debug)]
pub(crate) struct Held {
    start: NonNull<u8>,
    bytes: usize,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    /// This process's alone: so many words.
    Heap(usize),
    /// Where the other side of a border may see it.
    Pool(Block),
    /// The other side's.
    Loan(Loan),
}

// SAFETY: it is memory without an owner but this, and no thread's in particular.
unsafe impl Send for Held {}
// SAFETY: shared, it is only read.
unsafe impl Sync for Held {}

impl Held {
    pub(super) fn heap(bytes: usize) -> Self {
        let words = vec![0_u128; bytes.div_ceil(size_of::<u128>())].into_boxed_slice();
        let count = words.len();
        Self { start: NonNull::from(Box::leak(words)).cast(), bytes, origin: Origin::Heap(count) }
    }

    pub(super) fn pooled(pool: &Arc<Pool>, bytes: usize) -> Result<Self, KernelError> {
        let block = pool.allocate(bytes).map_err(KernelError::exhausted)?;
        Ok(Self { start: block.start(), bytes, origin: Origin::Pool(block) })
    }

    pub(super) fn lent(start: NonNull<u8>, bytes: usize, loan: Loan) -> Self {
        Self { start, bytes, origin: Origin::Loan(loan) }
    }

    /// A copy in a pool.
    pub(super) fn copied(pool: &Arc<Pool>, values: &[u8]) -> Result<Self, KernelError> {
        let mut held = Self::pooled(pool, values.len())?;
        held.values_mut().copy_from_slice(values);
        Ok(held)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The chunks in which it lies, if they stay there and real for as long as this process lives, as in a worker that holds a GPU: where
    /// each begins, how long it is, and how much of this lies in it.
    #[cfg(feature = "cuda")]
    pub(crate) fn chunks(&self) -> Vec<(usize, usize, usize)> {
        let border = Border::of_worker().filter(|border| border.own().keeps_all());
        let border = border.filter(|_| self.bytes > 0);
        let memories = border.map(|border| [border.own().memory(), border.theirs()]);
        let found =
            memories.into_iter().flatten().find_map(|memory| Some((memory, memory.offset_of(self.start)?)));
        let Some((memory, offset)) = found else { return Vec::new() };
        let (first, end) = (offset / CHUNK_BYTES, offset + self.bytes);
        let chunks = (first..end.div_ceil(CHUNK_BYTES)).map(|chunk| {
            let (start, behind) = (chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);
            let part = behind.min(end) - start.max(offset);
            (memory.at(start).as_ptr().expose_provenance(), CHUNK_BYTES, part)
        });
        chunks.collect()
    }

    /// Where the byte at `offset` is, for a device that copies by itself.
    #[cfg(feature = "cuda")]
    pub(crate) fn at(&self, offset: usize) -> *mut std::ffi::c_void {
        assert!(offset < self.bytes, "it is not so long");
        // SAFETY: it is within the values.
        unsafe { self.start.add(offset) }.as_ptr().cast()
    }

    /// Where in the pool it lies, if it does.
    pub(super) fn offset_in(&self, pool: &Arc<Pool>) -> Option<usize> {
        match &self.origin {
            Origin::Pool(block) => block.is_of(pool).then_some(block.offset),
            Origin::Heap(_) | Origin::Loan(_) => None,
        }
    }

    pub(super) fn loan(&self) -> Option<&Loan> {
        match &self.origin {
            Origin::Loan(loan) => Some(loan),
            Origin::Heap(_) | Origin::Pool(_) => None,
        }
    }

    pub(super) fn values(&self) -> &[u8] {
        // SAFETY: so many bytes are there as long as this is; whoever could write them in this process has the only handle.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    pub(super) fn values_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; and this is the only handle.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Origin::Heap(words) = self.origin {
            let words = ptr::slice_from_raw_parts_mut(self.start.as_ptr().cast::<u128>(), words);
            // SAFETY: a box of so many words was leaked there, and this is its only owner.
            drop(unsafe { Box::from_raw(words) });
        }
    }
}
