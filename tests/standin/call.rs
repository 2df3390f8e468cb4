//! What is the same in every call: the script is asked first, then whether the caller may call at all.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::code::{Answer, Code};
use crate::context;
use crate::device::Device;
use crate::{fault, script};

/// Where a caller wants an answer. Callers from C make these, nobody else.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(crate) fn set(&self, value: T) -> Answer {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: by the driver's documentation there is room for the answer, which is only plain data.
        unsafe { self.0.write(value) };
        Ok(())
    }
}

/// A call that needs nothing.
pub(crate) fn bare(function: &'static str, body: impl FnOnce() -> Answer) -> c_int {
    let answer = script::answer(function).map_or_else(body, Err);
    answer.map_or_else(|code| code.0, |()| 0)
}

/// A call that comes after `cuInit`.
pub(crate) fn initialized(function: &'static str, body: impl FnOnce() -> Answer) -> c_int {
    bare(function, || if INITIALIZED.load(Ordering::Acquire) { body() } else { Err(Code::NOT_INITIALIZED) })
}

/// A call that a fault has put an end to.
pub(crate) fn healthy(function: &'static str, body: impl FnOnce() -> Answer) -> c_int {
    initialized(function, || fault::healthy().and_then(|()| body()))
}

/// A call that needs the thread's current context. It is told the context's device.
pub(crate) fn in_context(function: &'static str, body: impl FnOnce(Device) -> Answer) -> c_int {
    healthy(function, || context::current().and_then(body))
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: u32) -> c_int {
    bare("cuInit", || {
        INITIALIZED.store(true, Ordering::Release);
        Ok(())
    })
}

static INITIALIZED: AtomicBool = AtomicBool::new(false);
