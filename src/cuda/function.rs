//! What is launched: a function, a shape, arguments.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::CudaError;
use super::device::{Device, Limits};
use super::memory::Buffer;
use super::stream::{StopFlag, Stream};
use super::table::{Address, Handle};

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x, y and z; none of them 0.
    pub blocks: [u32; 3],
    /// Threads of a block in x, y and z; none of them 0.
    pub threads: [u32; 3],
    /// Shared memory of a block, in bytes, beside what the function has for itself.
    pub shared_bytes: u32,
}

impl Grid {
    /// As many blocks of `threads` as `len` elements need, one thread an element, at least one block.
    ///
    /// ```
    /// use rustkernel::cuda::Grid;
    ///
    /// assert_eq!(Grid::over(1000, 256).blocks, [4, 1, 1]);
    /// ```
    #[must_use]
    pub const fn over(len: u32, threads: u32) -> Self {
        let blocks = if len == 0 || threads == 0 { 1 } else { len.div_ceil(threads) };
        Self { blocks: [blocks, 1, 1], threads: [threads, 1, 1], shared_bytes: 0 }
    }

    /// Blocks of `threads` by `threads` over a plane of `columns` by `rows`.
    #[must_use]
    pub const fn over_plane(columns: u32, rows: u32, threads: u32) -> Self {
        let [x, ..] = Self::over(columns, threads).blocks;
        let [y, ..] = Self::over(rows, threads).blocks;
        Self { blocks: [x, y, 1], threads: [threads, threads, 1], shared_bytes: 0 }
    }
}

/// A function of a [`Module`](super::Module). A clone is another handle to the same.
#[derive(Clone)]
pub struct Function {
    name: Arc<str>,
    /// Its module is never unloaded.
    handle: usize,
    block_threads: u32,
    static_shared: u32,
    /// How much shared memory a launch may add.
    allowed: Arc<AtomicU32>,
    device: Device,
}

impl Function {
    pub(super) fn new(device: &Device, name: &str, handle: Handle) -> Result<Self, CudaError> {
        let attribute = |number: c_int| {
            let mut value = 0;
            // SAFETY: there is room for a number, and the function is loaded.
            let got = device.call("cuFuncGetAttribute", |calls| unsafe {
                (calls.cuFuncGetAttribute)(&raw mut value, number, handle)
            });
            got.map(|()| value.unsigned_abs())
        };
        let static_shared = attribute(STATIC_SHARED)?;
        Ok(Self {
            name: name.into(),
            handle: handle as usize,
            block_threads: attribute(MAX_THREADS)?,
            allowed: Arc::new(AtomicU32::new(device.limits().shared[0].saturating_sub(static_shared))),
            static_shared,
            device: device.clone(),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most threads that a block of it may have.
    #[must_use]
    pub fn max_threads(&self) -> u32 {
        self.block_threads
    }

    /// Allows blocks with more shared memory than a device gives without being asked, up to what it has.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for more than it has; [`CudaError::Lost`], or the call's own fault.
    pub fn allow_shared(&self, bytes: u32) -> Result<(), CudaError> {
        let [_, most] = self.device.limits().shared;
        if u64::from(bytes) + u64::from(self.static_shared) > u64::from(most) {
            return Err(self.refuse(format!("{bytes} bytes of shared memory are more than {most}")));
        }
        let number = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        // SAFETY: the function is loaded.
        self.device.call("cuFuncSetAttribute", |calls| unsafe {
            (calls.cuFuncSetAttribute)(self.handle(), DYNAMIC_SHARED, number)
        })?;
        self.allowed.store(bytes, Ordering::Release);
        Ok(())
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle as Handle
    }

    /// What the driver would refuse, or worse.
    pub(super) fn check(&self, grid: Grid, limits: &Limits) -> Result<(), CudaError> {
        let most = self.block_threads.min(limits.block_threads);
        let threads: u64 = grid.threads.iter().map(|threads| u64::from(*threads)).product();
        if threads > u64::from(most) {
            return Err(self.refuse(format!("{threads} threads a block are more than {most}")));
        }
        let axes = [("threads", grid.threads, limits.block), ("blocks", grid.blocks, limits.grid)];
        for (what, wanted, most) in axes {
            for (axis, (wanted, most)) in ["x", "y", "z"].into_iter().zip(wanted.into_iter().zip(most)) {
                if wanted == 0 || wanted > most {
                    return Err(self.refuse(format!("{wanted} {what} in {axis} are not from 1 to {most}")));
                }
            }
        }
        let [_, most] = limits.shared;
        let shared = u64::from(grid.shared_bytes) + u64::from(self.static_shared);
        if shared > u64::from(most) {
            return Err(self.refuse(format!("{shared} bytes of shared memory are more than {most}")));
        }
        let allowed = self.allowed.load(Ordering::Acquire);
        if grid.shared_bytes > allowed {
            let rule = format!("{} bytes of shared memory need `allow_shared`", grid.shared_bytes);
            return Err(self.refuse(rule));
        }
        Ok(())
    }

    fn refuse(&self, rule: String) -> CudaError {
        CudaError::Shape { function: self.name.to_string(), rule }
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a function can be given: numbers, [`Buffer`]s and the [`StopFlag`].
pub trait Argument: sealed::Sealed {
    #[doc(hidden)]
    fn place(&self) -> *const c_void;
    #[doc(hidden)]
    fn visit(&self, _stream: &Stream) -> Result<(), CudaError> {
        Ok(())
    }
}

mod sealed {
    #[allow(unnameable_types, reason = "what a launch can be given is decided here")]
    pub trait Sealed {}
}

impl<T> sealed::Sealed for Buffer<T> {}

impl<T> Argument for Buffer<T> {
    fn place(&self) -> *const c_void {
        // One that lies elsewhere is refused when it is visited.
        self.block().map_or(ptr::null(), |block| (&raw const block.address).cast())
    }

    fn visit(&self, stream: &Stream) -> Result<(), CudaError> {
        self.block()?.visit(stream.line())
    }
}

impl sealed::Sealed for StopFlag<'_> {}

impl Argument for StopFlag<'_> {
    fn place(&self) -> *const c_void {
        let there: *const Address = self.line().stop_there();
        there.cast()
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(
            impl sealed::Sealed for $number {}

            impl Argument for $number {
                fn place(&self) -> *const c_void {
                    (&raw const *self).cast()
                }
            }
        )*
    };
}

numbers! { u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 }

/// `CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK` and the others of their kind.
const MAX_THREADS: c_int = 0;
const STATIC_SHARED: c_int = 1;
const DYNAMIC_SHARED: c_int = 8;
