//! Who runs in a fault domain: a suspect alone, the others together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

#[derive(Debug, Default)]
pub(super) struct Alone {
    lock: Arc<RwLock<()>>,
    /// Suspects that wait for their turn, or have it.
    suspects: AtomicUsize,
}

/// A suspect runs.
pub(super) struct Suspect<'a> {
    _waits: Waits<'a>,
    _guard: OwnedRwLockWriteGuard<()>,
}

struct Waits<'a>(&'a AtomicUsize);

impl Alone {
    /// Waits until nothing else runs.
    pub(super) async fn take(&self) -> Suspect<'_> {
        self.suspects.fetch_add(1, Ordering::AcqRel);
        let waits = Waits(&self.suspects);
        Suspect { _guard: Arc::clone(&self.lock).write_owned().await, _waits: waits }
    }

    /// Whether somebody waits to be alone, or is: others are to hold nothing for longer than they must.
    pub(super) fn is_wanted(&self) -> bool {
        self.suspects.load(Ordering::Acquire) > 0
    }

    /// Waits until no suspect runs.
    pub(super) async fn share(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.lock).read_owned().await
    }

    pub(super) fn try_share(&self) -> Option<OwnedRwLockReadGuard<()>> {
        Arc::clone(&self.lock).try_read_owned().ok()
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
