//! A stream, as a kernel uses it.

#![allow(unsafe_code, reason = "the driver is a C library")]

#[cfg(feature = "worker")]
use std::ffi::c_void;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytemuck::Pod;
use cudarc::driver::CudaStream;
use rustkernel_core::clock::{Clock, Timestamp};
#[cfg(feature = "worker")]
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Context;

use super::CudaError;
use super::device::Device;
use super::function::{Argument, Function, Grid};
use super::line::Line;
#[cfg(feature = "worker")]
use super::memory::Block;
use super::memory::Buffer;
use super::pinned::Pinned;
#[cfg(feature = "worker")]
use super::table::Address;
#[cfg(feature = "worker")]
use crate::worker::{Held, SharedSlice};

/// A line of work on a device: what it is told happens in that order.
///
/// It stays on its thread, so that a kernel that has one cannot run inline, where a call that blocks would hold up others.
pub struct Stream {
    line: Arc<Line>,
    thread: PhantomData<*const ()>,
}

/// A word that a kernel on the device may read, as `volatile unsigned *`: it is not 0 once nobody waits for the result any more.
///
/// A kernel that ends when it sees that keeps its process: one that goes on is ended with it.
#[derive(Debug)]
pub struct StopFlag<'a>(&'a Arc<Line>);

impl Stream {
    pub(super) fn new(device: &Device) -> Result<Self, CudaError> {
        Line::new(device).map(Self::of)
    }

    pub(super) fn of(line: Arc<Line>) -> Self {
        Self { line, thread: PhantomData }
    }

    /// Its device.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.line.device()
    }

    /// The stream, for libraries that take one of cudarc; see [`Device::context`].
    #[must_use]
    pub fn cudarc(&self) -> &Arc<CudaStream> {
        self.line.stream()
    }

    /// Room for `len` values; what is in it is not said.
    ///
    /// # Errors
    /// [`CudaError::Call`] of class resource where the device has not so much; [`CudaError::Lost`].
    pub fn alloc<T: Pod>(&self, len: usize) -> Result<Buffer<T>, CudaError> {
        Buffer::new(&self.line, len)
    }

    /// `len` values of zero.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn zeros<T: Pod>(&self, len: usize) -> Result<Buffer<T>, CudaError> {
        let buffer = self.alloc::<T>(len)?;
        let (address, bytes) = (buffer.block()?.address, buffer.bytes());
        self.line.admit()?;
        // SAFETY: so many bytes are there; the stream is alive.
        self.device().call("cuMemsetD8Async", |calls| unsafe {
            (calls.cuMemsetD8Async)(address, 0, bytes, self.line.handle())
        })?;
        Ok(buffer)
    }

    /// The values, on the device. They are taken from `values` before this returns.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<Buffer<T>, CudaError> {
        let mut buffer = self.alloc::<T>(values.len())?;
        self.write(&mut buffer, values)?;
        Ok(buffer)
    }

    /// Puts the values into a buffer that is there, from its beginning.
    ///
    /// # Errors
    /// [`CudaError::Length`] where it is shorter; [`CudaError::Lost`], or the call's own fault.
    pub fn write<T: Pod>(&self, buffer: &mut Buffer<T>, values: &[T]) -> Result<(), CudaError> {
        if values.len() > buffer.len() {
            return Err(CudaError::Length { wanted: values.len(), there: buffer.len() });
        }
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let block = buffer.block()?;
        block.visit(&self.line)?;
        let mut pinned = self.line.pinned(bytes.len())?;
        pinned.put(bytes);
        self.line.admit()?;
        let address = block.address;
        // SAFETY: both have room for so many bytes, and live until the copy is over: what is given back is used again only behind it.
        let copied = self.device().call("cuMemcpyHtoDAsync_v2", |calls| unsafe {
            (calls.cuMemcpyHtoDAsync_v2)(address, pinned.start(), bytes.len(), self.line.handle())
        });
        self.line.give_back_pinned(pinned);
        copied
    }

    /// Has the device run `function` over `grid`, after everything before. Returns before it has run, as a rule; where 256 launches
    /// and copies are under way it waits for some of them to end.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for what the function or the device cannot do, before anything is launched; [`CudaError::Lost`], or
    /// the call's own fault.
    ///
    /// # Safety
    /// `arguments` have to be what the function takes, in number, order and type, and it may touch no memory but that of the buffers
    /// among them. No compiler has seen both sides.
    pub unsafe fn launch(
        &self,
        function: &Function,
        grid: Grid,
        arguments: &[&dyn Argument],
    ) -> Result<(), CudaError> {
        function.check(grid, self.device().limits())?;
        self.line.resume()?;
        for argument in arguments {
            argument.visit(self)?;
        }
        self.line.admit()?;
        let places: Vec<_> = arguments.iter().map(|argument| argument.place()).collect();
        // SAFETY: the caller says that the arguments are the function's; they are read before the call returns.
        self.device().call("cuLaunchKernel", |calls| unsafe {
            let ([x, y, z], [bx, by, bz]) = (grid.blocks, grid.threads);
            let (shared, stream) = (grid.shared_bytes, self.line.handle());
            let none = std::ptr::null();
            (calls.cuLaunchKernel)(
                function.handle(),
                x,
                y,
                z,
                bx,
                by,
                bz,
                shared,
                stream,
                places.as_ptr(),
                none,
            )
        })
    }

    /// The flag for kernels that can stop.
    #[must_use]
    pub fn stop_flag(&self) -> StopFlag<'_> {
        StopFlag(&self.line)
    }

    /// Waits until the device has done everything that it was told here.
    ///
    /// # Errors
    /// [`CudaError::Lost`] where a fault ended it.
    ///
    /// # Cancel safety
    /// Dropped, it raises the [`StopFlag`]; what the device was told goes on. Where `cx` is cancelled it raises the flag, too, and goes on
    /// waiting: the device is busy until it says otherwise.
    pub async fn done(&self, cx: &Context<'_>) -> Result<(), CudaError> {
        let mark = self.line.mark()?;
        Done { line: &self.line, mark, cx, sleeps: false, is_over: false }.await
    }

    /// The values of a buffer, once everything before has been done.
    ///
    /// # Errors
    /// As [`done`](Self::done).
    ///
    /// # Cancel safety
    /// As [`done`](Self::done).
    pub async fn download<T: Pod>(&self, buffer: &Buffer<T>, cx: &Context<'_>) -> Result<Vec<T>, CudaError> {
        let bytes = buffer.bytes();
        let block = buffer.block()?;
        block.visit(&self.line)?;
        self.line.admit()?;
        let landing = Landing { line: &self.line, pinned: Some(self.line.pinned(bytes)?) };
        let address = block.address;
        // SAFETY: both have room for so many bytes, and live until the copy is over.
        self.device().call("cuMemcpyDtoHAsync_v2", |calls| unsafe {
            (calls.cuMemcpyDtoHAsync_v2)(landing.start(), address, bytes, self.line.handle())
        })?;
        self.done(cx).await?;
        let mut values = vec![T::zeroed(); buffer.len()];
        landing.take(bytemuck::cast_slice_mut(&mut values));
        Ok(values)
    }

    /// [`upload`](Self::upload) of values in shared memory. In a worker of a domain that holds the device they are not copied on the way: the
    /// device takes them from where they lie, which stays as it is until then.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    #[cfg(feature = "worker")]
    pub fn upload_shared<T: Pod>(&self, values: &SharedSlice<T>) -> Result<Buffer<T>, CudaError> {
        let parts = self.device().pins().parts(self.device(), values.held())?;
        if parts.is_empty() {
            return self.upload(values);
        }
        let buffer = self.alloc::<T>(values.len())?;
        self.copy_parts(buffer.block()?, values.held(), parts, |there, here, bytes| {
            // SAFETY: both have room for so many bytes, and are kept until the copy is over.
            self.device().call("cuMemcpyHtoDAsync_v2", |calls| unsafe {
                (calls.cuMemcpyHtoDAsync_v2)(there, here, bytes, self.line.handle())
            })
        })?;
        Ok(buffer)
    }

    /// [`download`](Self::download) into shared memory: an answer that its caller reads where the device has put it.
    ///
    /// # Errors
    /// As [`done`](Self::done); [exhausted](rustkernel_core::resilience::ErrorKind::Exhausted) where there is not so much shared memory.
    ///
    /// # Cancel safety
    /// As [`done`](Self::done).
    #[cfg(feature = "worker")]
    pub async fn download_shared<T: Pod>(
        &self,
        buffer: &Buffer<T>,
        cx: &Context<'_>,
    ) -> Result<SharedSlice<T>, KernelError> {
        let mut values = SharedSlice::alloc(buffer.len())?;
        let parts = self.device().pins().parts(self.device(), values.held())?;
        if parts.is_empty() {
            values.fresh().copy_from_slice(&self.download(buffer, cx).await?);
            return Ok(values);
        }
        self.copy_parts(buffer.block()?, values.held(), parts, |there, here, bytes| {
            // SAFETY: both have room for so many bytes, and are kept until the copy is over; nobody reads them before.
            self.device().call("cuMemcpyDtoHAsync_v2", |calls| unsafe {
                (calls.cuMemcpyDtoHAsync_v2)(here, there, bytes, self.line.handle())
            })
        })?;
        self.done(cx).await?;
        Ok(values)
    }

    /// Has the device copy between a block of its own and shared memory, part by part. The shared memory is kept until that is over.
    #[cfg(feature = "worker")]
    fn copy_parts(
        &self,
        block: &Block,
        held: &Arc<Held>,
        parts: Vec<usize>,
        copy: impl Fn(Address, *mut c_void, usize) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        block.visit(&self.line)?;
        let mut at = 0;
        let told = parts.into_iter().try_for_each(|bytes| {
            self.line.admit()?;
            copy(block.address + at as Address, held.at(at), bytes)?;
            at += bytes;
            Ok(())
        });
        // Behind the last copy, and also where not all of them could be told.
        self.line.keep(held);
        told
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }
}

impl StopFlag<'_> {
    pub(super) fn line(&self) -> &Arc<Line> {
        self.0
    }
}

/// Pinned memory on which a copy lands, given back to its line behind that copy.
struct Landing<'a> {
    line: &'a Line,
    pinned: Option<Pinned>,
}

impl Landing<'_> {
    fn start(&self) -> *mut std::ffi::c_void {
        self.pinned.as_ref().map_or(std::ptr::null_mut(), Pinned::start)
    }

    fn take(&self, place: &mut [u8]) {
        if let Some(pinned) = &self.pinned {
            pinned.read(place);
        }
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if let Some(pinned) = self.pinned.take() {
            self.line.give_back_pinned(pinned);
        }
    }
}

/// How long a thread looks for itself before it asks to be woken: most kernels are shorter than a wake-up.
const LOOK_FOR: Duration = Duration::from_micros(20);

/// Ready when the device has got to a mark.
struct Done<'a, 'c> {
    line: &'a Arc<Line>,
    mark: u32,
    cx: &'a Context<'c>,
    /// It has asked to be woken before: it takes its time.
    sleeps: bool,
    is_over: bool,
}

impl Future for Done<'_, '_> {
    type Output = Result<(), CudaError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let clock = Clock::system();
        let until = if self.sleeps { Timestamp::ZERO } else { clock.now() + LOOK_FOR };
        loop {
            match self.line.has_reached(self.mark) {
                Ok(false) => {}
                Ok(true) => {
                    self.is_over = true;
                    self.line.let_go();
                    return Poll::Ready(Ok(()));
                }
                Err(error) => {
                    self.is_over = true;
                    return Poll::Ready(Err(error));
                }
            }
            if clock.now() >= until {
                break;
            }
            std::hint::spin_loop();
        }
        if self.cx.is_cancelled() {
            self.line.stop();
        }
        self.line.device().poller().wake(self.line, self.mark, task.waker(), !self.sleeps);
        self.sleeps = true;
        Poll::Pending
    }
}

impl Drop for Done<'_, '_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.line.stop();
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("device", self.device()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("device", self.device()).finish_non_exhaustive()
    }
}
