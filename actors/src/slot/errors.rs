//! What became of the requests that got no answer, by kind.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustkernel_core::error::KernelErrorKind;
use serde::Serialize;

/// How many of each of [`KernelErrorKind::NAMES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ErrorCounts(pub [u64; KernelErrorKind::NAMES.len()]);

impl ErrorCounts {
    /// Each kind with its number.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KernelErrorKind::NAMES.into_iter().zip(self.0)
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// The counts of one slot; nothing is allocated before the first error.
#[derive(Debug, Default)]
pub(crate) struct Errors(OnceLock<Box<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    refused: [AtomicU64; KernelErrorKind::NAMES.len()],
    failed: [AtomicU64; KernelErrorKind::NAMES.len()],
}

impl Errors {
    /// A request was not accepted.
    pub(crate) fn refuse(&self, kind: &KernelErrorKind) {
        self.0.get_or_init(Box::default).refused[kind.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// An accepted request ends without an answer.
    pub(crate) fn fail(&self, kind: &KernelErrorKind) {
        self.0.get_or_init(Box::default).failed[kind.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Those that were refused, and those that failed.
    pub(crate) fn counts(&self) -> [ErrorCounts; 2] {
        let Some(counts) = self.0.get() else { return [ErrorCounts::default(); 2] };
        let read = |counts: &[AtomicU64; KernelErrorKind::NAMES.len()]| {
            ErrorCounts(std::array::from_fn(|index| counts[index].load(Ordering::Relaxed)))
        };
        [read(&counts.refused), read(&counts.failed)]
    }
}
