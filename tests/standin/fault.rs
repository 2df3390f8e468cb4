//! The process's sticky fault.

use std::sync::atomic::{AtomicI32, Ordering};

use crate::code::{Answer, Code};
use crate::wait;

/// Err with the sticky fault, from when there is one.
pub(crate) fn healthy() -> Answer {
    match STICKY.load(Ordering::Acquire) {
        0 => Ok(()),
        code => Err(Code(code)),
    }
}

/// The device reports a fault. The first one stays.
pub(crate) fn strike(code: Code) {
    let _ = STICKY.compare_exchange(0, code.0, Ordering::AcqRel, Ordering::Acquire);
    wait::announce();
}

static STICKY: AtomicI32 = AtomicI32::new(0);
