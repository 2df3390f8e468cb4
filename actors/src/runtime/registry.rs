//! The names of one runtime. Names are never global: two runtimes in a process do not meet.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustkernel_core::KernelId;
use rustkernel_core::error::DownReason;
use rustkernel_core::traits::Payload;

use crate::home::Home;
use crate::recovery::Node;
use crate::slot::{Slot, Supervised};
use crate::spec::SpawnError;

/// The name of the supervisor that a runtime brings.
pub(crate) const ROOT: &str = "root";

/// Each under its name and a number; empty while the name is only reserved.
type Supervisors = HashMap<String, (u32, Option<Arc<Node>>)>;

#[derive(Default)]
pub(crate) struct Registry {
    names: Mutex<HashMap<KernelId, Option<Named>>>,
    supervisors: Mutex<Supervisors>,
    next: AtomicU32,
}

#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) index: u32,
    pub(crate) kernel: Arc<dyn Supervised>,
    /// The supervisor above it.
    pub(crate) home: Arc<Home>,
    slot: Arc<dyn Any + Send + Sync>,
}

impl Registry {
    /// Takes the name and a slot number.
    pub(crate) fn reserve(&self, id: &KernelId) -> Result<u32, SpawnError> {
        match self.lock().entry(id.clone()) {
            Entry::Occupied(taken) => Err(SpawnError::NameTaken(taken.key().clone())),
            Entry::Vacant(free) => {
                free.insert(None);
                Ok(self.next.fetch_add(1, Ordering::Relaxed))
            }
        }
    }

    /// Puts the slot under its reserved name.
    pub(crate) fn fill<I: Payload, O: Payload>(&self, id: &KernelId, index: u32, slot: &Arc<Slot<I, O>>) {
        let named = Named {
            index,
            kernel: Arc::clone(slot) as _,
            home: Arc::clone(&slot.home),
            slot: Arc::clone(slot) as _,
        };
        self.lock().insert(id.clone(), Some(named));
    }

    /// Frees the name, if it is still that of slot `index`.
    pub(crate) fn remove(&self, id: &KernelId, index: u32) {
        let mut names = self.lock();
        let is_own =
            names.get(id).is_some_and(|named| named.as_ref().is_none_or(|named| named.index == index));
        let removed = if is_own { names.remove(id) } else { None };
        drop(names);
        drop(removed);
    }

    pub(crate) fn slot<I, O>(&self, id: &str) -> Option<Arc<Slot<I, O>>>
    where
        I: Send + Sync + 'static,
        O: Send + Sync + 'static,
    {
        self.named(id)?.slot.downcast::<Slot<I, O>>().ok()
    }

    /// The kernel of this name.
    pub(crate) fn kernel(&self, id: &KernelId) -> Option<Arc<dyn Supervised>> {
        self.lock().get(id)?.as_ref().map(|named| Arc::clone(&named.kernel))
    }

    /// Takes a supervisor's name, and a number that tells it from other supervisors of that name.
    pub(crate) fn reserve_supervisor(&self, name: &str) -> Result<u32, SpawnError> {
        let mut supervisors = self.lock_supervisors();
        if supervisors.contains_key(name) || name == ROOT {
            return Err(SpawnError::SupervisorTaken(name.to_owned()));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        supervisors.insert(name.to_owned(), (number, None));
        Ok(number)
    }

    /// Puts the supervisor under its reserved name.
    pub(crate) fn fill_supervisor(&self, name: &str, number: u32, node: &Arc<Node>) {
        self.lock_supervisors().insert(name.to_owned(), (number, Some(Arc::clone(node))));
    }

    /// Frees a supervisor's name, if it is still that of supervisor `number`.
    pub(crate) fn remove_supervisor(&self, name: &str, number: u32) {
        let mut supervisors = self.lock_supervisors();
        let is_own = supervisors.get(name).is_some_and(|(own, _)| *own == number);
        let removed = if is_own { supervisors.remove(name) } else { None };
        drop(supervisors);
        drop(removed);
    }

    pub(crate) fn supervisor(&self, name: &str) -> Option<Arc<Node>> {
        self.lock_supervisors().get(name)?.1.clone()
    }

    /// All kernels, in start order.
    pub(crate) fn all(&self) -> Vec<Named> {
        let mut all: Vec<Named> = self.lock().values().flatten().cloned().collect();
        all.sort_by_key(|named| named.index);
        all
    }

    pub(crate) fn named(&self, id: &str) -> Option<Named> {
        let id = KernelId::new(id).ok()?;
        self.lock().get(&id).cloned().flatten()
    }

    fn lock_supervisors(&self) -> MutexGuard<'_, Supervisors> {
        self.supervisors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KernelId, Option<Named>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers whatever still waits when nobody is left to supervise. Held by the task that watches the recovery actor, so that the end of
/// the async runtime itself, which drops the task, closes the slots too.
pub(crate) struct CloseOnDrop(pub(crate) Arc<Registry>);

impl CloseOnDrop {
    pub(crate) fn close(&self) {
        for named in self.0.all() {
            named.kernel.close(DownReason::SupervisorGone);
        }
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.close();
    }
}
