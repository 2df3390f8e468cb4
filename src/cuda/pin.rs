//! Shared memory that the driver has pinned: a device copies from it and to it without a stop in between.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use super::CudaError;
use super::device::Device;
use crate::worker::Held;

/// What was asked for before, by where it begins, and whether it is pinned: chunks of shared memory, each asked for once in the life of a
/// worker.
#[derive(Default)]
pub(super) struct Pins(Mutex<HashMap<usize, bool>>);

impl Pins {
    /// The parts of `held` that the device may copy from and to by itself, one behind the other, in bytes; each lies in one chunk. None
    /// where not all of it is pinned, for want of memory that may be locked for example: then it goes another way.
    pub(super) fn parts(&self, device: &Device, held: &Held) -> Result<Vec<usize>, CudaError> {
        let chunks = held.chunks();
        for (chunk, bytes, _) in &chunks {
            if !self.pin(device, *chunk, *bytes)? {
                return Ok(Vec::new());
            }
        }
        Ok(chunks.into_iter().map(|(_, _, part)| part).collect())
    }

    fn pin(&self, device: &Device, start: usize, bytes: usize) -> Result<bool, CudaError> {
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pinned) = pins.get(&start) {
            return Ok(*pinned);
        }
        let place: *mut c_void = ptr::with_exposed_provenance_mut(start);
        // SAFETY: it is mapped as long as the process lives, and its memory is never given back to the system.
        let registered = device.call("cuMemHostRegister_v2", |calls| unsafe {
            (calls.cuMemHostRegister_v2)(place, bytes, FOR_EVERY_CONTEXT)
        });
        let pinned = match registered {
            Ok(()) => true,
            Err(lost @ CudaError::Lost { .. }) => return Err(lost),
            Err(error) => {
                tracing::debug!(device = %device.id(), %error, bytes, "shared memory is not pinned");
                false
            }
        };
        pins.insert(start, pinned);
        Ok(pinned)
    }
}

/// `CU_MEMHOSTREGISTER_PORTABLE`
const FOR_EVERY_CONTEXT: u32 = 1;
