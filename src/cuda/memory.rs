//! Memory on the device.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
#[cfg(feature = "worker")]
use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};
use rustkernel_core::traits::Payload;
#[cfg(feature = "worker")]
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::CudaError;
use super::line::Line;
use super::table::Address;
#[cfg(feature = "worker")]
use crate::worker::border::{Border, Found, Loan, Place, Thing};

/// So many values on a device, made by a [`Stream`](super::Stream).
///
/// It may be given to another stream of the same device: what that one does with it comes after what its own stream was told before, so
/// that kernels of a pipeline hand it on without a copy: those of one process, and those of one domain, whose data stays with their worker
/// while its handle goes through the supervising process. Dropped, its memory is used again by what its stream does next, and not before
/// other streams have finished with it.
///
/// It goes with its process: once that has ended, a kernel that is given it is answered
/// [`Crashed`](rustkernel_core::error::KernelErrorKind::Crashed), and has not run with it.
pub struct Buffer<T> {
    lies: Lies,
    len: usize,
    values: PhantomData<fn() -> T>,
}

/// Where it lies.
pub(super) enum Lies {
    Here(Arc<Block>),
    /// With a worker of this process's.
    #[cfg(feature = "worker")]
    There(Arc<Loan>, Shape),
}

/// How long its memory is, and that its values are, in bytes.
#[cfg(feature = "worker")]
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Shape {
    room: u64,
    len: u64,
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
        Ok(Self { lies: Lies::Here(Arc::new(block)), len, values: PhantomData })
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
    pub(super) fn block(&self) -> Result<&Block, CudaError> {
        match &self.lies {
            Lies::Here(block) => Ok(block),
            #[cfg(feature = "worker")]
            Lies::There(..) => Err(CudaError::Elsewhere),
        }
    }
}

/// Across the border of a worker goes where it lies.
#[cfg(feature = "worker")]
impl<T> Serialize for Buffer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let refuse = |reason| Err(ser::Error::custom(reason));
        let Some(border) = Border::crossing() else { return refuse("what is on a device goes nowhere else") };
        let (thing, room) = match &self.lies {
            Lies::Here(_) if !border.is_workers() => return refuse("it is on the device of this process"),
            Lies::Here(block) => (Thing::Device(Arc::<Block>::clone(block)), block.bytes as u64),
            Lies::There(loan, shape) => (Thing::DeviceLoan(Arc::clone(loan)), shape.room),
        };
        let Some(place) = border.lend(thing) else {
            Border::fail(KernelError::new(KernelErrorKind::Crashed, Phase::Queued).with_source(GONE));
            return refuse("it lies in another process");
        };
        (place, Shape { room, len: self.len as u64 }).serialize(serializer)
    }
}

#[cfg(feature = "worker")]
const GONE: &str = "it was given data on the device of a worker process that has ended, or that is another domain's; what made it has to be \
                    run again";

#[cfg(feature = "worker")]
impl<'de, T: Pod> Deserialize<'de> for Buffer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (place, shape) = <(Place, Shape)>::deserialize(deserializer)?;
        let border = Border::crossing().ok_or_else(|| de::Error::custom("it lies in another process"))?;
        let lies = match border.find(place).map_err(de::Error::custom)? {
            Found::Device(loan) => Lies::There(Arc::new(loan), shape),
            Found::Own(Thing::Device(block)) => match block.downcast::<Block>() {
                Ok(block) => Lies::Here(block),
                Err(_) => return Err(de::Error::custom("it is none of a device")),
            },
            Found::Memory { .. } | Found::Own(Thing::Memory(_) | Thing::DeviceLoan(_)) => {
                return Err(de::Error::custom("it is not on a device"));
            }
        };
        let room = match &lies {
            Lies::Here(block) => block.bytes as u64,
            Lies::There(_, shape) => shape.room,
        };
        let fits = |len: &usize| len.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes as u64 <= room);
        let len = usize::try_from(shape.len).ok().filter(fits);
        let len = len.ok_or_else(|| de::Error::custom("it is shorter than it says"))?;
        Ok(Self { lies, len, values: PhantomData })
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
        let room = match &self.lies {
            Lies::Here(block) => block.bytes,
            #[cfg(feature = "worker")]
            Lies::There(_, shape) => usize::try_from(shape.room).unwrap_or(usize::MAX),
        };
        room.saturating_add(size_of::<Self>())
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
