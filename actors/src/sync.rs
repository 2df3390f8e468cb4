//! The shared-memory primitives of the gate and the slot, swapped for loom's under `--cfg rustkernel_loom`.

#[cfg(not(rustkernel_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicU64};

#[cfg(rustkernel_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::AtomicU64};

/// Locks, and goes on after a panic of another holder: no user code runs under these locks, and what they guard is
/// consistent between any two statements that can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
