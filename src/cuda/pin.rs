//! Shared memory that the driver has pinned: a device copies from it and to it without a stop in between.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use super::CudaError;
use super::device::Device;
use crate::worker::Held;

/// What was asked for before, by where it begins, and whether it is pinned. A block keeps its place and its room, so that each is asked for
/// once in the life of a worker.
#[derive(Default)]
pub(super) struct Pins(Mutex<HashMap<usize, bool>>);

impl Pins {
    /// Whether the device may copy from and to `held` by itself. What the driver does not pin, for want of memory that may be locked for
    /// example, goes another way.
    pub(super) fn pin(&self, device: &Device, held: &Held) -> Result<bool, CudaError> {
        let Some((start, room)) = held.lasting() else { return Ok(false) };
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pinned) = pins.get(&start) {
            return Ok(*pinned);
        }
        let place: *mut c_void = ptr::with_exposed_provenance_mut(start);
        // SAFETY: it is mapped as long as the process lives, and its memory is never given back to the system.
        let registered = device.call("cuMemHostRegister_v2", |calls| unsafe {
            (calls.cuMemHostRegister_v2)(place, room, FOR_EVERY_CONTEXT)
        });
        let pinned = match registered {
            Ok(()) => true,
            Err(lost @ CudaError::Lost { .. }) => return Err(lost),
            Err(error) => {
                tracing::debug!(device = %device.id(), %error, room, "shared memory is not pinned");
                false
            }
        };
        pins.insert(start, pinned);
        Ok(pinned)
    }
}

/// `CU_MEMHOSTREGISTER_PORTABLE`
const FOR_EVERY_CONTEXT: u32 = 1;
