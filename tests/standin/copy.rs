//! Copies, fills and value writes, in streams.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::call;
use crate::code::{Answer, Code};
use crate::device::Device;
use crate::memory::Range;
use crate::stream::Stream;
use crate::wait;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: usize,
    from: *const c_void,
    bytes: usize,
    stream: usize,
) -> c_int {
    call::in_context("cuMemcpyHtoDAsync_v2", |device| {
        let to = touched(to, bytes)?;
        let stream = Stream::find(stream, device)?;
        if let Some(from) = pinned(from.expose_provenance(), bytes)? {
            stream.submit(move || copy(&from, &to));
            return Ok(());
        }
        // SAFETY: the caller's bytes are there until this call returns, and are read before.
        let staged = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) }.to_vec();
        // SAFETY: there are as many bytes at `to`, which holds its block.
        stream.submit(move || unsafe { to.pointer::<u8>().copy_from(staged.as_ptr(), staged.len()) });
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: usize,
    bytes: usize,
    stream: usize,
) -> c_int {
    call::in_context("cuMemcpyDtoHAsync_v2", |device| {
        let from = touched(from, bytes)?;
        let stream = Stream::find(stream, device)?;
        if let Some(to) = pinned(to.expose_provenance(), bytes)? {
            stream.submit(move || copy(&from, &to));
            return Ok(());
        }
        let staged = Arc::new(OnceLock::<Vec<u8>>::new());
        let own = Arc::clone(&staged);
        stream.submit(move || {
            // SAFETY: `from` holds its block.
            let bytes = unsafe { std::slice::from_raw_parts(from.pointer::<u8>(), from.bytes) };
            let _ = own.set(bytes.to_vec());
        });
        wait::until(|| staged.get().is_some())?;
        let staged = staged.get().map_or(&[][..], Vec::as_slice);
        // SAFETY: there is room for the bytes until this call returns. The stream never writes there.
        unsafe { to.cast::<u8>().copy_from(staged.as_ptr(), staged.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: usize, from: usize, bytes: usize, stream: usize) -> c_int {
    call::in_context("cuMemcpyDtoDAsync_v2", |device| {
        let (to, from) = (touched(to, bytes)?, touched(from, bytes)?);
        submit(stream, device, move || copy(&from, &to))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: usize, value: u8, bytes: usize, stream: usize) -> c_int {
    call::in_context("cuMemsetD8Async", |device| {
        let to = touched(to, bytes)?;
        // SAFETY: `to` holds its block.
        submit(stream, device, move || unsafe { to.pointer::<u8>().write_bytes(value, to.bytes) })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWriteValue32_v2(stream: usize, to: usize, value: u32, _flags: c_uint) -> c_int {
    call::in_context("cuStreamWriteValue32_v2", |device| {
        if !to.is_multiple_of(align_of::<u32>()) {
            return Err(Code::INVALID_VALUE);
        }
        let to = touched(to, size_of::<u32>())?;
        submit(stream, device, move || {
            // SAFETY: it is aligned, and `to` holds its block.
            let word = unsafe { AtomicU32::from_ptr(to.pointer()) };
            // Whoever sees the value sees what came before it in the stream.
            word.store(value, Ordering::Release);
        })
    })
}

fn submit(stream: usize, device: Device, operation: impl FnOnce() + Send + 'static) -> Answer {
    Stream::find(stream, device)?.submit(operation);
    Ok(())
}

/// What a device touches.
fn touched(address: usize, bytes: usize) -> Answer<Range> {
    Range::find(address, bytes).ok_or(Code::INVALID_VALUE)
}

/// The host's side of a copy, if a device can touch it. Device memory is refused: elsewhere it is not the
/// host's.
fn pinned(address: usize, bytes: usize) -> Answer<Option<Range>> {
    let range = Range::find(address, bytes);
    if range.as_ref().is_some_and(Range::is_of_a_device) { Err(Code::INVALID_VALUE) } else { Ok(range) }
}

fn copy(from: &Range, to: &Range) {
    // SAFETY: both hold their blocks, and both are of the same length. They may overlap.
    unsafe { to.pointer::<u8>().copy_from(from.pointer(), to.bytes) };
}
