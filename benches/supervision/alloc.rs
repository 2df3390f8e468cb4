//! A global allocator that counts while it is asked to.
//!
//! Off, it costs one relaxed load an allocation, on both sides of every timed row.

#![allow(unsafe_code, reason = "a global allocator can only be written with unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

pub(crate) struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

/// What was allocated while something ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    /// Allocations, reallocations included.
    pub(crate) allocations: u64,
    /// Bytes allocated and not freed.
    pub(crate) live: i64,
    /// The most bytes live at any one time.
    pub(crate) peak: i64,
}

/// Counts what all threads allocate while `work` runs. Not to be nested.
pub(crate) fn count<T>(work: impl FnOnce() -> T) -> (T, Counted) {
    ALLOCATIONS.store(0, Relaxed);
    LIVE.store(0, Relaxed);
    PEAK.store(0, Relaxed);
    COUNTING.store(true, Relaxed);
    let output = work();
    COUNTING.store(false, Relaxed);
    let counted = Counted {
        allocations: ALLOCATIONS.load(Relaxed),
        live: LIVE.load(Relaxed),
        peak: PEAK.load(Relaxed),
    };
    (output, counted)
}

fn grow(bytes: usize) {
    if COUNTING.load(Relaxed) {
        ALLOCATIONS.fetch_add(1, Relaxed);
        change(bytes, 0);
    }
}

fn change(more: usize, less: usize) {
    let change = i64::try_from(more).unwrap_or(i64::MAX) - i64::try_from(less).unwrap_or(i64::MAX);
    let live = LIVE.fetch_add(change, Relaxed) + change;
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: every method hands its arguments unchanged to the system allocator and returns what that returned; the counters
// are atomics, allocate nothing and cannot unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promise about `layout` is the one that System asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if COUNTING.load(Relaxed) {
            change(0, layout.size());
        }
        // SAFETY: `pointer` came from System through this allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if COUNTING.load(Relaxed) {
            ALLOCATIONS.fetch_add(1, Relaxed);
            change(size, layout.size());
        }
        // SAFETY: as in `dealloc`, and the caller vouches for `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
