//! The names of one runtime. Names are never global: two runtimes in a process do not meet.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustkernel_core::KernelId;
use rustkernel_core::error::DownReason;
use rustkernel_core::traits::Payload;

use crate::slot::{Slot, Supervised};
use crate::spec::SpawnError;

#[derive(Default)]
pub(super) struct Registry {
    names: Mutex<HashMap<KernelId, Option<Named>>>,
    next: AtomicU32,
}

#[derive(Clone)]
pub(super) struct Named {
    pub(super) index: u32,
    pub(super) kernel: Arc<dyn Supervised>,
    slot: Arc<dyn Any + Send + Sync>,
}

impl Registry {
    /// Takes the name and a slot number.
    pub(super) fn reserve(&self, id: &KernelId) -> Result<u32, SpawnError> {
        let mut names = self.lock();
        if names.contains_key(id) {
            return Err(SpawnError::NameTaken(id.clone()));
        }
        names.insert(id.clone(), None);
        Ok(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Puts the slot under its reserved name.
    pub(super) fn fill<I: Payload, O: Payload>(&self, id: &KernelId, index: u32, slot: &Arc<Slot<I, O>>) {
        let named = Named { index, kernel: Arc::clone(slot) as _, slot: Arc::clone(slot) as _ };
        self.lock().insert(id.clone(), Some(named));
    }

    /// Frees the name, if it is still that of slot `index`.
    pub(super) fn remove(&self, id: &KernelId, index: u32) {
        let mut names = self.lock();
        let is_own =
            names.get(id).is_some_and(|named| named.as_ref().is_none_or(|named| named.index == index));
        let removed = if is_own { names.remove(id) } else { None };
        drop(names);
        drop(removed);
    }

    pub(super) fn index(&self, id: &str) -> Option<u32> {
        self.named(id).map(|named| named.index)
    }

    pub(super) fn slot<I, O>(&self, id: &str) -> Option<Arc<Slot<I, O>>>
    where
        I: Send + Sync + 'static,
        O: Send + Sync + 'static,
    {
        self.named(id)?.slot.downcast::<Slot<I, O>>().ok()
    }

    /// All kernels, in start order.
    pub(super) fn all(&self) -> Vec<Named> {
        let mut all: Vec<Named> = self.lock().values().flatten().cloned().collect();
        all.sort_by_key(|named| named.index);
        all
    }

    fn named(&self, id: &str) -> Option<Named> {
        let id = KernelId::new(id).ok()?;
        self.lock().get(&id).cloned().flatten()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KernelId, Option<Named>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers whatever still waits when nobody is left to supervise. Held by the task that watches the recovery actor, so that the end of
/// the async runtime itself, which drops the task, closes the slots too.
pub(super) struct CloseOnDrop(pub(super) Arc<Registry>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        for named in self.0.all() {
            named.kernel.close(DownReason::SupervisorGone);
        }
    }
}
