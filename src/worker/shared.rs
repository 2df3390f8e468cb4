//! Plain values in memory that a process shares with its workers.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use bytemuck::Pod;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Payload;
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use super::border::{Border, Found, Place, Thing};
use super::held::Held;
use super::pool::Pool;

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
        let is_whole = held.bytes().is_multiple_of(size_of::<T>());
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
        size_of::<Self>() + self.held.bytes()
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
