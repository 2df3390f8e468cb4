//! Memory of this process that a device is shown: what that costs, and whether it outlives the process that has shown it.

#![allow(unsafe_code, reason = "memory is mapped and shown to a device")]

use std::ffi::{c_int, c_long, c_void};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::child::{End, Started, command, tell, told};
use crate::context::{Context, Raw};
use crate::figures::{Sample, pass, rounded, timed};
use crate::options::ACT;
use crate::raw::Handle;
use crate::row::{Bench, Found, Halt, Outcome, ensure};

/// The acts: fill the memory from the device and wait to be killed; show it to another device and look.
pub(crate) const WRITE: &str = "memory-write";
pub(crate) const READ: &str = "memory-read";

const MIB: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(20);
/// `CU_MEMHOSTREGISTER_PORTABLE`.
const PORTABLE: u32 = 1;
/// What the device writes there.
const BYTE: u8 = 0x5a;

unsafe extern "C" {
    fn mmap(
        place: *mut c_void,
        bytes: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        at: c_long,
    ) -> *mut c_void;
}

/// A shared mapping, until the process ends.
fn map(fd: c_int, bytes: usize) -> Result<*mut c_void, Halt> {
    const READ_WRITE: c_int = 3;
    const SHARED: c_int = 1;
    // SAFETY: the system chooses the place.
    let start = unsafe { mmap(ptr::null_mut(), bytes, READ_WRITE, SHARED, fd, 0) };
    let failed = start.addr() == usize::MAX;
    if failed { Err(std::io::Error::last_os_error().into()) } else { Ok(start) }
}

fn memory(bytes: usize) -> Result<OwnedFd, Halt> {
    let memory = memfd_create("gpu", MemfdFlags::CLOEXEC).map_err(Halt::fail)?;
    ftruncate(&memory, bytes as u64).map_err(Halt::fail)?;
    Ok(memory)
}

fn register(context: &Context<'_>, start: *mut c_void, bytes: usize) -> Result<(), Halt> {
    // SAFETY: so many bytes are mapped there until the process ends.
    unsafe { context.driver.cuMemHostRegister_v2(start, bytes, PORTABLE)? }.ok("cuMemHostRegister")
}

/// What it costs to show memory to a device, and how fast copies to it are then, beside memory that the driver gives.
pub(crate) fn cost(bench: Bench) -> Outcome {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let mut found = Found::new("memfd, mapped, written once and registered");
    let sizes: &[usize] = if bench.quick || bench.is_standin { &[1, 64] } else { &[1, 64, 512] };
    let most = sizes.iter().max().copied().unwrap_or(1) * MIB;
    let stream = context.stream()?;
    let there = context.zeros(most / 4, stream)?;
    let allocated: *mut c_void = context.pinned(most)?.cast();
    for size in sizes {
        let bytes = size * MIB;
        let fd = memory(bytes)?;
        let start = map(fd.as_raw_fd(), bytes)?;
        // SAFETY: so many bytes are mapped there; pages that nobody has touched are not there yet.
        unsafe { start.cast::<u8>().write_bytes(1, bytes) };
        let (seconds, registered) = timed(|| register(&context, start, bytes));
        registered?;
        let of = |name: &str| format!("{name}_{size}_mib");
        found = found
            .figure(&format!("{}_ms", of("register")), rounded(seconds * 1e3))
            .figure(
                &format!("{}_gb_per_s", of("to_registered")),
                speed(&context, start, there, bytes, stream)?,
            )
            .figure(
                &format!("{}_gb_per_s", of("to_allocated")),
                speed(&context, allocated, there, bytes, stream)?,
            );
    }
    Ok(found)
}

/// Copies from the device, the median of five.
fn speed(
    context: &Context<'_>,
    here: *mut c_void,
    there: u64,
    bytes: usize,
    stream: Handle,
) -> Result<f64, Halt> {
    let mut rates = Vec::new();
    for _ in 0..5 {
        let (seconds, copied) = timed(|| {
            // SAFETY: both have room for so many bytes, and it is waited for.
            unsafe { context.driver.cuMemcpyDtoHAsync_v2(here, there, bytes, stream)? }.ok("cuMemcpyDtoH")?;
            context.settle(stream)?.ok("cuStreamQuery")
        });
        copied?;
        rates.push(bytes as f64 / seconds / 1e9);
    }
    Ok(rounded(Sample::of(rates).median()))
}

/// A process fills memory that this one owns and is killed; the next one shows the same memory to the device.
pub(crate) fn survival(_: Bench) -> Outcome {
    let bytes = 64 * MIB;
    let fd = memory(bytes)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let (writer, output) = Started::start_open(&mut command(&[ACT, WRITE, &path]))?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure(told(&line) == Some(true), || "the first process has not written".to_owned())?;
    pass(Duration::from_millis(20));
    writer.kill()?;
    let end = writer.end(LIMIT)?;
    ensure(end == End::Signal(9), || format!("the first process has ended with {end:?}"))?;
    let (end, said) = Started::start(&mut command(&[ACT, READ, &path]))?.end(LIMIT)?;
    ensure(end == End::Code(0), || format!("the second process has ended with {end:?}"))?;
    let right: Option<bool> = told(&said);
    ensure(right == Some(true), || "the second process has found something else".to_owned())?;
    Ok(Found::new("the next process registers it and finds what the killed one's device wrote"))
}

/// Maps memory of another process, registered.
fn shown(context: &Context<'_>, arguments: &[String]) -> Result<(*mut c_void, usize), Halt> {
    let path = arguments.first().ok_or_else(|| Halt::Fail("no memory was named".to_owned()))?;
    let file: File = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = usize::try_from(file.metadata()?.len()).map_err(Halt::fail)?;
    let start = map(file.as_raw_fd(), bytes)?;
    register(context, start, bytes)?;
    Ok((start, bytes))
}

pub(crate) fn write(arguments: &[String]) -> Result<(), Halt> {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let (start, bytes) = shown(&context, arguments)?;
    let stream = context.stream()?;
    let there = context.zeros(bytes / 4, stream)?;
    // SAFETY: both have room for so many bytes, and it is waited for.
    unsafe {
        context.driver.cuMemsetD8Async(there, BYTE, bytes, stream)?.ok("cuMemsetD8Async")?;
        context.driver.cuMemcpyDtoHAsync_v2(start, there, bytes, stream)?.ok("cuMemcpyDtoH")?;
    }
    context.settle(stream)?.ok("cuStreamQuery")?;
    tell(&true);
    pass(LIMIT);
    Ok(())
}

pub(crate) fn read(arguments: &[String]) -> Result<(), Halt> {
    let raw = Raw::open()?;
    let context = raw.primary()?;
    let (start, bytes) = shown(&context, arguments)?;
    let stream = context.stream()?;
    let there = context.zeros(bytes / 4, stream)?;
    // SAFETY: both have room for so many bytes, and it is waited for.
    unsafe { context.driver.cuMemcpyHtoDAsync_v2(there, start, bytes, stream)? }.ok("cuMemcpyHtoD")?;
    let (code, values) = context.read(there, bytes / 4, stream)?;
    code.ok("cuMemcpyDtoH")?;
    tell(&values.iter().all(|value| *value == u32::from_ne_bytes([BYTE; 4])));
    Ok(())
}
