//! One node of the tree, as it outlives its recovery actor: what was declared, and what is alive below it.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ractor::{ActorCell, ActorId, ActorStatus};
use rustkernel_core::DeviceId;
use rustkernel_core::error::DownReason;
use rustkernel_core::recovery::RecoveryMachine;
use rustkernel_core::supervision::{ChildKey, ChildSpec, SupervisorConfig};

use crate::cause::Cause;
use crate::contain::contain;
use crate::counted::CountedMap;
use crate::home::Home;
use crate::kernel_actor::Launch;
use crate::lane::Lane;
use crate::slot::{Incarnation, Supervised, Variant};
use crate::task::TaskPlan;

/// A supervisor.
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) config: SupervisorConfig,
    pub(crate) home: Arc<Home>,
    /// Frees the supervisor's name once it is gone.
    free_name: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
    /// Held by whoever ends what a dead life of it has left behind.
    pub(super) reaping: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The children it begins with, every time.
    children: Vec<Arc<Declared>>,
    /// Actors below it that are alive, so that whoever finds it dead can end them.
    alive: CountedMap<ActorId, Alive>,
    /// Children that came at run time or leave for good; its next life begins without them.
    guests: BTreeMap<ChildKey, Arc<Declared>>,
    /// Why its last life ended, if it ended in order.
    ended: Option<Ended>,
}

/// How a supervisor's life ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) exit: rustkernel_core::supervision::Exit,
    pub(crate) cause: Cause,
}

/// An actor below a node.
#[derive(Clone)]
pub(crate) struct Alive {
    pub(crate) child: ChildKey,
    /// The number of a kernel's life, or the machine's number of any other child's.
    pub(crate) number: u64,
    pub(crate) actor: ActorCell,
    pub(crate) lane: Option<Arc<Lane>>,
    pub(crate) body: Body,
}

#[derive(Clone)]
pub(crate) enum Body {
    Kernel(Arc<KernelPlan>, Arc<Incarnation>),
    Task,
    Supervisor(Arc<Node>),
}

/// A child as it was declared.
#[derive(Clone)]
pub(crate) struct Declared {
    pub(crate) spec: ChildSpec,
    pub(crate) body: Declaration,
}

#[derive(Clone)]
pub(crate) enum Declaration {
    Kernel(Arc<KernelPlan>),
    Task(Arc<TaskPlan>),
    Supervisor(Arc<Node>),
}

/// What it takes to supervise one kernel.
pub(crate) struct KernelPlan {
    pub(crate) kernel: Arc<dyn Supervised>,
    pub(crate) slot: u32,
    /// The kernel itself; replaced by newer versions.
    pub(crate) version: Mutex<Version>,
    pub(crate) degraded: Option<Arc<dyn Launch>>,
    /// Warm standbys to keep.
    pub(crate) replicas: usize,
    /// As it begins, for every life of its supervisor.
    pub(crate) recovery: RecoveryMachine,
    /// Whether it has moved to its backup device. A restart of its supervisor does not bring it back.
    pub(crate) has_moved: AtomicBool,
    /// How long a life whose actor was killed may take to notice.
    pub(crate) grace: Duration,
    /// How long a life may take to start.
    pub(crate) start_limit: Duration,
    /// Frees the kernel's name once it is gone.
    pub(crate) free_name: Box<dyn Fn() + Send + Sync>,
}

/// One version of a kernel: what its lives are made from, and where.
pub(crate) struct Version {
    pub(crate) main: Arc<dyn Launch>,
    pub(crate) device: DeviceId,
    pub(crate) backup: Option<(DeviceId, Arc<dyn Launch>)>,
}

impl Version {
    pub(crate) fn launcher(&self, variant: Variant) -> Arc<dyn Launch> {
        match (variant, &self.backup) {
            (Variant::Backup, Some((_, backup))) => Arc::clone(backup),
            (Variant::Main | Variant::Degraded | Variant::Backup, _) => Arc::clone(&self.main),
        }
    }
}

impl KernelPlan {
    pub(crate) fn launcher(&self, variant: Variant) -> Arc<dyn Launch> {
        match (variant, &self.degraded) {
            (Variant::Degraded, Some(degraded)) => Arc::clone(degraded),
            (Variant::Main | Variant::Degraded | Variant::Backup, _) => self.version().launcher(variant),
        }
    }

    /// The next lives are of this version.
    pub(crate) fn replace(&self, version: Version) {
        let old = mem::replace(&mut *self.version(), version);
        contain("dropping a kernel's spec", || drop(old));
    }

    pub(crate) fn device_of(&self, variant: Variant) -> DeviceId {
        let version = self.version();
        match (variant, &version.backup) {
            (Variant::Backup, Some((device, _))) => *device,
            (Variant::Main | Variant::Degraded | Variant::Backup, _) => version.device,
        }
    }

    /// What its lives are made from.
    pub(crate) fn variant(&self) -> Variant {
        if self.has_moved.load(Ordering::Acquire) { Variant::Backup } else { Variant::Main }
    }

    pub(crate) fn set_variant(&self, variant: Variant) {
        self.has_moved.store(variant == Variant::Backup, Ordering::Release);
    }

    pub(crate) fn has_backup(&self) -> bool {
        self.version().backup.is_some()
    }

    fn version(&self) -> MutexGuard<'_, Version> {
        self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    pub(crate) fn new(
        name: Arc<str>,
        config: SupervisorConfig,
        home: Arc<Home>,
        children: Vec<Declared>,
        free_name: Box<dyn Fn() + Send + Sync>,
    ) -> Arc<Self> {
        let children = children.into_iter().map(Arc::new).collect();
        let state = Mutex::new(State { children, ..State::default() });
        Arc::new(Self { name, config, home, free_name, state, reaping: tokio::sync::Mutex::default() })
    }

    pub(crate) fn add_alive(&self, alive: Alive) {
        self.lock().alive.insert(alive.actor.get_id(), alive);
    }

    /// The actor is gone, its thread not yet.
    pub(crate) fn keep(&self, alive: Alive) {
        let mut state = self.lock();
        // Those kept earlier are gone without a word.
        state.alive.retain(|_, other| !other.is_over());
        state.alive.insert(alive.actor.get_id(), alive);
    }

    pub(crate) fn take_alive(&self, actor: ActorId) -> Option<Alive> {
        self.lock().alive.remove(&actor)
    }

    /// Everything that is alive below it.
    pub(crate) fn remains(&self) -> Vec<Alive> {
        self.lock().alive.values().cloned().collect()
    }

    /// The children it begins with.
    pub(crate) fn children(&self) -> Vec<Arc<Declared>> {
        self.lock().children.clone()
    }

    /// A child leaves for good: it does not come back with the next life.
    pub(crate) fn dismiss(&self, key: ChildKey, name: &str) {
        let mut state = self.lock();
        let found = state.children.iter().position(|child| **child.name() == *name);
        if let Some(child) = found.map(|at| state.children.remove(at)) {
            state.guests.insert(key, child);
        }
    }

    pub(crate) fn add_guest(&self, key: ChildKey, child: Arc<Declared>) {
        self.lock().guests.insert(key, child);
    }

    pub(crate) fn remove_guest(&self, key: ChildKey) -> Option<Arc<Declared>> {
        self.lock().guests.remove(&key)
    }

    pub(crate) fn take_guests(&self) -> Vec<Arc<Declared>> {
        mem::take(&mut self.lock().guests).into_values().collect()
    }

    /// A kernel that has ended and would come back with the next life does not: it leaves for good.
    pub(crate) fn strike(&self, slot: u32) {
        let mut state = self.lock();
        let is_it =
            |child: &Arc<Declared>| matches!(&child.body, Declaration::Kernel(plan) if plan.slot == slot);
        let found = state.children.iter().position(is_it).map(|at| state.children.remove(at));
        drop(state);
        if let Some(child) = found {
            child.free_names();
            contain("dropping a child's spec", || drop(child));
        }
    }

    pub(crate) fn set_ended(&self, ended: Ended) {
        self.lock().ended = Some(ended);
    }

    pub(crate) fn take_ended(&self) -> Option<Ended> {
        self.lock().ended.take()
    }

    /// All kernels in and below it, in start order.
    pub(crate) fn kernels(&self) -> Vec<Arc<KernelPlan>> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found
    }

    fn collect(&self, found: &mut Vec<Arc<KernelPlan>>) {
        for child in self.everybody() {
            child.collect(found);
        }
    }

    fn everybody(&self) -> Vec<Arc<Declared>> {
        let state = self.lock();
        state.children.iter().chain(state.guests.values()).cloned().collect()
    }

    /// Frees its own name and those of all supervisors below it.
    fn free_supervisors(&self) {
        (self.free_name)();
        for child in self.everybody() {
            if let Declaration::Supervisor(node) = &child.body {
                node.free_supervisors();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alive {
    pub(crate) fn has_thread(&self) -> bool {
        self.lane.as_ref().is_some_and(|lane| !lane.is_over())
    }

    fn is_over(&self) -> bool {
        self.actor.get_status() == ActorStatus::Stopped && self.lane.is_some() && !self.has_thread()
    }
}

impl Declared {
    /// Nobody serves its kernels: whatever waits and comes is answered.
    pub(crate) fn close(&self, reason: DownReason) {
        let mut found = Vec::new();
        self.collect(&mut found);
        for plan in found {
            plan.kernel.close(reason);
        }
    }

    /// It is gone for good: its names are free.
    pub(crate) fn free_names(&self) {
        let mut found = Vec::new();
        self.collect(&mut found);
        for plan in found {
            (plan.free_name)();
        }
        if let Declaration::Supervisor(node) = &self.body {
            node.free_supervisors();
        }
    }

    fn collect(&self, found: &mut Vec<Arc<KernelPlan>>) {
        match &self.body {
            Declaration::Kernel(plan) => found.push(Arc::clone(plan)),
            Declaration::Supervisor(node) => node.collect(found),
            Declaration::Task(_) => {}
        }
    }
}

/// A declared child on its way to its supervisor. One that does not arrive is closed, and its names are free.
pub(crate) struct Arriving(Option<Declared>);

impl Arriving {
    pub(crate) fn new(child: Declared) -> Self {
        Self(Some(child))
    }

    /// The supervisor takes it.
    pub(crate) fn arrive(mut self) -> Option<Declared> {
        self.0.take()
    }

    pub(crate) fn spec(&self) -> Option<ChildSpec> {
        self.0.as_ref().map(|child| child.spec.clone())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            // It could be found by its name already: whoever called it is answered.
            child.close(DownReason::SupervisorGone);
            child.free_names();
            contain("dropping a child's spec", || drop(child));
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Declared").field("spec", &self.spec).finish_non_exhaustive()
    }
}
