//! Plain values in memory that a process shares with its workers.

#![allow(unsafe_code, reason = "what is shared is not this process's alone")]

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use bytemuck::Pod;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Payload;
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use super::border::{Border, Found, Loan, Place, Thing};
#[cfg(feature = "cuda")]
use super::pool::CHUNK_BYTES;
use super::pool::{Block, Pool};

/// Values in memory that is shared with worker processes: they go to a kernel in a worker, and come back, without being copied.
///
/// [`Domain::alloc`](super::Domain::alloc) makes some where a domain's workers read it; a kernel in a worker makes its answer with
/// [`alloc`](Self::alloc), where its supervising process reads it. Made anywhere else, or for another domain, it is copied each time it is sent. A
/// clone is another handle to the same values, and only who has the only one may [write](Self::get_mut) them; those that are on their
/// way to another process, or have come from there, nobody may.
///
/// The process that made them could write there all the same, if it does not keep to the rules. No bit pattern of such values is invalid;
/// but what is checked, and has to stay as it is, is copied first.
pub struct SharedSlice<T> {
    held: Arc<Held>,
    values: PhantomData<fn() -> T>,
}

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
    fn heap(bytes: usize) -> Self {
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

    fn values_mut(&mut self) -> &mut [u8] {
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

impl<T: Pod> SharedSlice<T> {
    /// Room for `len` values; what is in it is not said. In a worker it is where the supervising process reads it, elsewhere it is this
    /// process's own.
    ///
    /// # Errors
    /// [Exhausted](rustkernel_core::resilience::ErrorKind::Exhausted) where there is not so much memory.
    pub fn alloc(len: usize) -> Result<Self, KernelError> {
        Self::alloc_in(Border::of_worker().map(|border| border.own()), len)
    }

    /// A copy of `values`; see [`alloc`](Self::alloc).
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn copy_of(values: &[T]) -> Result<Self, KernelError> {
        let mut copy = Self::alloc(values.len())?;
        copy.fresh().copy_from_slice(values);
        Ok(copy)
    }

    pub(super) fn alloc_in(pool: Option<&Arc<Pool>>, len: usize) -> Result<Self, KernelError> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
        let bytes = bytes.ok_or_else(|| KernelError::exhausted(format!("{len} values are too many")))?;
        let held = match pool {
            Some(pool) => Held::pooled(pool, bytes)?,
            None => Held::heap(bytes),
        };
        Ok(Self::of(Arc::new(held)))
    }

    fn of(held: Arc<Held>) -> Self {
        const { assert!(align_of::<T>() <= align_of::<u128>() && size_of::<T>() > 0, "such values lie nowhere") };
        Self { held, values: PhantomData }
    }

    fn try_of(held: Arc<Held>) -> Result<Self, &'static str> {
        let is_whole = held.bytes.is_multiple_of(size_of::<T>());
        is_whole.then(|| Self::of(held)).ok_or("its bytes are no whole number of values")
    }

    /// The values, to be written; `None` while there are other handles, or another process has one, and for what has come from another
    /// process.
    pub fn get_mut(&mut self) -> Option<&mut [T]> {
        let held = Arc::get_mut(&mut self.held).filter(|held| held.loan().is_none())?;
        Some(bytemuck::cast_slice_mut(held.values_mut()))
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// The values of one that was made just now.
    pub(crate) fn fresh(&mut self) -> &mut [T] {
        self.get_mut().unwrap_or_default()
    }
}

impl<T: Pod> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(self.held.values())
    }
}

impl<T> Clone for SharedSlice<T> {
    fn clone(&self) -> Self {
        Self { held: Arc::clone(&self.held), values: PhantomData }
    }
}

impl<T: Pod + Payload> Payload for SharedSlice<T> {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.held.bytes
    }

    fn schema() -> String {
        format!("shared<{}>", T::schema())
    }
}

/// How one is written where no person reads it.
#[derive(Serialize, Deserialize)]
enum Written {
    Lies(Place),
    Here(Vec<u8>),
}

impl<T: Pod + Serialize> Serialize for SharedSlice<T> {
    /// Across a border as where it lies; elsewhere as its values.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_seq(self.iter());
        }
        let Some(border) = Border::crossing() else {
            return Written::Here(self.held.values().to_vec()).serialize(serializer);
        };
        let place = match border.lend(Thing::Memory(Arc::clone(&self.held))) {
            Some(place) => place,
            None => {
                let copy = Held::copied(border.own(), self.held.values()).map_err(|error| {
                    let text = ser::Error::custom(&error);
                    Border::fail(error);
                    text
                })?;
                let place = border.lend(Thing::Memory(Arc::new(copy)));
                place.ok_or_else(|| ser::Error::custom("it lies on no side of the border"))?
            }
        };
        Written::Lies(place).serialize(serializer)
    }
}

impl<'de, T: Pod + DeserializeOwned> Deserialize<'de> for SharedSlice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let values = Vec::<T>::deserialize(deserializer)?;
            return Self::copy_of(&values).map_err(de::Error::custom);
        }
        match Written::deserialize(deserializer)? {
            Written::Here(bytes) => {
                let mut held = Held::heap(bytes.len());
                held.values_mut().copy_from_slice(&bytes);
                Self::try_of(Arc::new(held))
            }
            Written::Lies(place) => {
                let border =
                    Border::crossing().ok_or_else(|| de::Error::custom("it lies in another process"))?;
                match border.find(place).map_err(de::Error::custom)? {
                    Found::Memory { start, bytes, loan } => {
                        Self::try_of(Arc::new(Held::lent(start, bytes, loan)))
                    }
                    Found::Own(Thing::Memory(held)) => Self::try_of(held),
                    Found::Own(Thing::Device(_) | Thing::DeviceLoan(_)) | Found::Device(_) => {
                        Err("it is on a device")
                    }
                }
            }
        }
        .map_err(de::Error::custom)
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
