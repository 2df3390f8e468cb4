//! What became of the requests that got no answer, by kind.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustkernel_core::error::KernelErrorKind;
use serde::Serialize;

/// How many of each of [`KernelErrorKind::NAMES`]; a pointer, because most have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ErrorCounts(Option<Box<[u64; KernelErrorKind::NAMES.len()]>>);

impl ErrorCounts {
    /// Each kind that there was, with its number.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().flat_map(|counts| KernelErrorKind::NAMES.into_iter().zip(**counts));
        counts.filter(|(_, count)| *count > 0)
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().flat_map(|counts| counts.iter()).sum()
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
        let Some(counts) = self.0.get() else { return Default::default() };
        let read = |counts: &[AtomicU64; KernelErrorKind::NAMES.len()]| {
            ErrorCounts(Some(Box::new(std::array::from_fn(|index| counts[index].load(Ordering::Relaxed)))))
        };
        [read(&counts.refused), read(&counts.failed)]
    }
}
