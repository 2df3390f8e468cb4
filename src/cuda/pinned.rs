//! Pinned memory of a stream's own: words that the device writes, and copies on their way.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::ffi::c_void;
use std::ptr;

use super::CudaError;
use super::device::Device;

/// Memory of this process that the device reaches.
pub(super) struct Pinned {
    pub(super) start: *mut u8,
    pub(super) bytes: usize,
}

// SAFETY: it is memory without an owner but this, and no thread's in particular.
unsafe impl Send for Pinned {}
// SAFETY: shared, it is only read by methods that say how they share it with the device.
unsafe impl Sync for Pinned {}

impl Pinned {
    pub(super) fn new(device: &Device, bytes: usize) -> Result<Self, CudaError> {
        let mut start: *mut c_void = ptr::null_mut();
        device.call("cuMemAllocHost_v2", |calls| {
            // SAFETY: there is room for an address.
            unsafe { (calls.cuMemAllocHost_v2)(&raw mut start, bytes) }
        })?;
        // What nobody has written may not be read.
        // SAFETY: so many bytes were allocated.
        unsafe { ptr::write_bytes(start.cast::<u8>(), 0, bytes) };
        Ok(Self { start: start.cast(), bytes })
    }

    /// Leaves nothing behind that is anybody's.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self { start: ptr::null_mut(), bytes: 0 })
    }

    pub(super) fn start(&self) -> *mut c_void {
        self.start.cast()
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.bytes, "it was asked for with this length");
        // SAFETY: there is room, and the device does not use it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, bytes.len()) };
    }

    /// Its first bytes, which the device has written.
    pub(super) fn read(&self, place: &mut [u8]) {
        assert!(place.len() <= self.bytes, "it was asked for with this length");
        // SAFETY: so many bytes are there, and the device has finished with them.
        unsafe { ptr::copy_nonoverlapping(self.start, place.as_mut_ptr(), place.len()) };
    }

    pub(super) fn free(&self, device: &Device) {
        // One that the driver refuses stays until the process ends.
        // SAFETY: it was allocated there, and nobody uses it.
        let _ = device.call("cuMemFreeHost", |calls| unsafe { (calls.cuMemFreeHost)(self.start.cast()) });
    }
}
