//! What a node knows about its own health.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustkernel_actors::{Runtime, RuntimeState};
use rustkernel_core::resilience::{HealthAggregation, HealthCheckResult, HealthStatus, aggregate};

use super::document::{Component, HEALTH_SCHEMA, HealthDocument};

/// A node: its runtime, how far it has started, whether it drains, and what it reports besides.
pub struct Node {
    runtime: Runtime,
    started: AtomicBool,
    draining: AtomicBool,
    reported: Mutex<Vec<Component>>,
    /// Asked whenever somebody asks for the node's health.
    watched: Mutex<Vec<Watched>>,
}

struct Watched {
    name: String,
    ask: Ask,
    /// Whether the node is ready only while it is not unhealthy.
    is_needed: bool,
}

type Ask = Box<dyn Fn() -> HealthCheckResult + Send + Sync>;

impl Node {
    /// A node that has not [started](Self::started) yet, and so is not ready.
    #[must_use]
    pub fn new(runtime: Runtime) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            reported: Mutex::default(),
            watched: Mutex::default(),
        })
    }

    /// Says that all kernels have been spawned.
    pub fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Says that the node is about to shut down: it is not ready from now on, so that load balancers look elsewhere while what it has
    /// is finished.
    pub fn draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Reports a component that is no kernel, replacing what was reported of it before. It counts in the node's status, not
    /// in its readiness, which is the kernels'.
    pub fn report(&self, name: &str, result: HealthCheckResult) {
        let HealthCheckResult { status, reason } = result;
        let component = Component { name: name.to_owned(), status, reason };
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        match reported.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = component,
            None => reported.push(component),
        }
    }

    /// Watches a component that is no kernel: `ask` says how it is whenever somebody asks for the node's health, and has to do so at once.
    /// It counts as what is [reported](Self::report) does.
    pub fn watch(
        &self,
        name: impl Into<String>,
        ask: impl Fn() -> HealthCheckResult + Send + Sync + 'static,
    ) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.push(Watched { name: name.into(), ask: Box::new(ask), is_needed: false });
    }

    /// [Watches](Self::watch) a component without which the node is of no use: while it is unhealthy, the node is not ready.
    pub fn need(&self, name: impl Into<String>, ask: impl Fn() -> HealthCheckResult + Send + Sync + 'static) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.push(Watched { name: name.into(), ask: Box::new(ask), is_needed: true });
    }

    /// How the node is now.
    #[must_use]
    pub fn document(&self) -> HealthDocument {
        let health = self.runtime.health();
        let started = self.started.load(Ordering::Acquire);
        let draining = self.draining.load(Ordering::Acquire);
        let mut components = vec![self.runtime_component(started, draining)];
        components.extend(health.kernels.into_iter().map(|kernel| Component {
            name: kernel.id.to_string(),
            status: kernel.status,
            reason: kernel.reason,
        }));
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lacks = false;
        components.extend(watched.iter().map(|Watched { name, ask, is_needed }| {
            let HealthCheckResult { status, reason } = ask();
            lacks |= *is_needed && status == HealthStatus::Unhealthy;
            Component { name: name.clone(), status, reason }
        }));
        drop(watched);
        components.extend(self.reported.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        HealthDocument {
            schema: HEALTH_SCHEMA,
            status: aggregate(components.iter().map(|part| part.status), HealthAggregation::Worst),
            live: health.live,
            ready: health.ready && started && !draining && !lacks,
            started,
            components,
        }
    }

    fn runtime_component(&self, started: bool, draining: bool) -> Component {
        let (status, reason) = match self.runtime.state() {
            RuntimeState::Running if draining => (HealthStatus::Degraded, Some("draining")),
            RuntimeState::Running if !started => (HealthStatus::Unknown, Some("starting")),
            RuntimeState::Running => (HealthStatus::Healthy, None),
            RuntimeState::Draining => (HealthStatus::Degraded, Some("draining")),
            RuntimeState::Stopped => (HealthStatus::Unhealthy, Some("stopped")),
            RuntimeState::GaveUp => (HealthStatus::Unhealthy, Some("gave up: every kernel is down")),
        };
        Component { name: "runtime".to_owned(), status, reason: reason.map(str::to_owned) }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("runtime", &self.runtime).finish_non_exhaustive()
    }
}
