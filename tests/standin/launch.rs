//! Launches: checked, queued, and run.

use std::ffi::{c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::sync::atomic::AtomicU32;
use std::thread;

use crate::call;
use crate::code::{Answer, Code};
use crate::device::{MAX_BLOCK, MAX_GRID, MAX_SHARED_BYTES, MAX_THREADS_PER_BLOCK};
use crate::fault;
use crate::kernels::Parameter;
use crate::memory::Range;
use crate::module::FUNCTIONS;
use crate::script::{self, Fate};
use crate::stream::Stream;

/// What a kernel is told: the arguments as they were at the launch, and how many blocks there are.
pub(crate) struct Launch {
    pub(crate) blocks: usize,
    arguments: Vec<[u8; 8]>,
}

impl Launch {
    pub(crate) fn u32(&self, parameter: usize) -> u32 {
        u32::from_ne_bytes(self.half(parameter))
    }

    /// A `u32` that counts something.
    pub(crate) fn count(&self, parameter: usize) -> usize {
        self.u32(parameter) as usize
    }

    pub(crate) fn f32(&self, parameter: usize) -> f32 {
        f32::from_ne_bytes(self.half(parameter))
    }

    pub(crate) fn u64(&self, parameter: usize) -> u64 {
        u64::from_ne_bytes(self.arguments[parameter])
    }

    pub(crate) fn f64(&self, parameter: usize) -> f64 {
        f64::from_ne_bytes(self.arguments[parameter])
    }

    /// The array at an address, if a device may touch all of it.
    pub(crate) fn array<T: Copy>(&self, parameter: usize, len: usize) -> Answer<Array<T>> {
        let address = usize::from_ne_bytes(self.arguments[parameter]);
        if len > 0 && !address.is_multiple_of(align_of::<T>()) {
            return Err(Code::MISALIGNED_ADDRESS);
        }
        let range = len.checked_mul(size_of::<T>()).and_then(|bytes| Range::find(address, bytes));
        Ok(Array { range: range.ok_or(Code::ILLEGAL_ADDRESS)?, len, item: PhantomData })
    }

    fn half(&self, parameter: usize) -> [u8; 4] {
        let [a, b, c, d, ..] = self.arguments[parameter];
        [a, b, c, d]
    }
}

/// An array in memory that a device may touch. Others may touch it too, so that no entry is ever borrowed.
pub(crate) struct Array<T> {
    range: Range,
    len: usize,
    item: PhantomData<T>,
}

impl<T: Copy> Array<T> {
    pub(crate) fn get(&self, index: usize) -> T {
        // SAFETY: the place is inside the range, which holds its block, and it is aligned.
        unsafe { self.place(index).read() }
    }

    pub(crate) fn set(&self, index: usize, value: T) {
        // SAFETY: as in `get`.
        unsafe { self.place(index).write(value) };
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn place(&self, index: usize) -> *mut T {
        assert!(index < self.len, "the kernel has checked another length");
        self.range.pointer::<T>().wrapping_add(index)
    }
}

impl Array<u32> {
    pub(crate) fn atomic(&self, index: usize) -> &AtomicU32 {
        // SAFETY: as in `get`; the range holds its block for as long as the reference lives.
        unsafe { AtomicU32::from_ptr(self.place(index)) }
    }
}

#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "it is the driver's signature")]
unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: usize,
    arguments: *const *const c_void,
    extra: *const *mut c_void,
) -> c_int {
    call::in_context("cuLaunchKernel", |device| {
        let kernel = FUNCTIONS.find(function)?.kernel;
        let stream = Stream::find(stream, device)?;
        let blocks = check([grid_x, grid_y, grid_z], [block_x, block_y, block_z], shared_bytes)?;
        if !extra.is_null() {
            return Err(Code::NOT_SUPPORTED);
        }
        // SAFETY: the caller points to an argument for each parameter of the kernel.
        let arguments = unsafe { copied(kernel.parameters, arguments) }?;
        let launch = Launch { blocks, arguments };
        stream.make_room()?;
        stream.submit(move || run(kernel.run, &launch));
        Ok(())
    })
}

/// How many blocks there are, if a device can run them.
fn check(grid: [u32; 3], block: [u32; 3], shared_bytes: u32) -> Answer<usize> {
    let fits = |sizes: [u32; 3], limits: [u32; 3]| {
        sizes.iter().zip(limits).all(|(size, limit)| (1..=limit).contains(size))
    };
    let threads = block.iter().map(|size| u64::from(*size)).product::<u64>();
    let right = fits(grid, MAX_GRID)
        && fits(block, MAX_BLOCK)
        && threads <= u64::from(MAX_THREADS_PER_BLOCK)
        && shared_bytes <= MAX_SHARED_BYTES;
    if right { Ok(grid.iter().map(|size| *size as usize).product()) } else { Err(Code::INVALID_VALUE) }
}

/// # Safety
/// There is a pointer to an argument, or null, for each parameter.
unsafe fn copied(parameters: &[Parameter], arguments: *const *const c_void) -> Answer<Vec<[u8; 8]>> {
    if arguments.is_null() && !parameters.is_empty() {
        return Err(Code::INVALID_VALUE);
    }
    let copied = parameters.iter().enumerate().map(|(at, parameter)| {
        // SAFETY: there is one for each.
        let argument = unsafe { *arguments.add(at) };
        if argument.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        let mut bytes = [0; 8];
        // SAFETY: an argument has the size of its parameter, which is 8 bytes at most.
        unsafe { bytes.as_mut_ptr().copy_from(argument.cast(), parameter.bytes()) };
        Ok(bytes)
    });
    copied.collect()
}

fn run(kernel: fn(&Launch) -> Answer, launch: &Launch) {
    let ended = match script::fate() {
        Fate::Runs => kernel(launch),
        Fate::Faults(code) => Err(code),
        Fate::Hangs => loop {
            thread::park();
        },
    };
    if let Err(code) = ended {
        fault::strike(code);
    }
}
