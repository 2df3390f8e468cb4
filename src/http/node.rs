//! What a node knows about its own health.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rustkernel_actors::pipeline::PipelineReport;
use rustkernel_actors::{Runtime, RuntimeState};
use rustkernel_core::KernelError;
use rustkernel_core::clock::{Timestamp, unix_millis};
use rustkernel_core::resilience::{HealthAggregation, HealthCheckResult, HealthStatus, aggregate};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::timeout;

use super::document::{Component, HEALTH_SCHEMA, HealthDocument};
use super::snapshot::{
    self, Child, DeadLetters, Failure, FailureList, Letter, MAX_REPORTS, NodeSnapshot, PipelineView,
    SNAPSHOT_SCHEMA,
};

/// A node: its runtime, how far it has started, whether it drains, and what it reports besides.
pub struct Node {
    runtime: Runtime,
    began: Timestamp,
    drains: Notify,
    started: AtomicBool,
    draining: AtomicBool,
    reported: Mutex<Vec<Component>>,
    /// Asked whenever somebody asks for the node's health.
    watched: Mutex<Vec<Watched>>,
    /// The last run of each pipeline.
    ran: Mutex<Vec<PipelineView>>,
    /// The last snapshot that was made for somebody who asked over HTTP, and is given to others who ask at about the same time.
    recent: AsyncMutex<Option<Arc<Recent>>>,
}

/// A snapshot, and when it was made.
pub(crate) struct Recent {
    made: Timestamp,
    pub(crate) snapshot: NodeSnapshot,
    text: OnceLock<Arc<str>>,
}

impl Recent {
    /// As JSON.
    pub(super) fn text(&self) -> Arc<str> {
        // No type of ours fails, so there is always a document.
        let write = || serde_json::to_string(&self.snapshot).unwrap_or_default().into();
        Arc::clone(self.text.get_or_init(write))
    }
}

/// Pipelines whose last run is kept; the one that has not run for longest goes.
const PIPELINES: usize = 64;

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
            began: runtime.clock().now(),
            runtime,
            drains: Notify::new(),
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            reported: Mutex::default(),
            watched: Mutex::default(),
            ran: Mutex::default(),
            recent: AsyncMutex::default(),
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

    /// A run of the pipeline that people call `name` has ended, as [`Pipeline::run_reported`](rustkernel_actors::Pipeline::run_reported) and a job tell
    /// it: it is shown until the next one.
    pub fn ran(&self, name: &str, report: &PipelineReport, error: Option<&KernelError>) {
        let mut ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        ran.retain(|run| run.name != name);
        if ran.len() >= PIPELINES {
            ran.remove(0);
        }
        ran.push(PipelineView::new(name, report, error));
    }

    /// Waits until somebody wants the node drained, by an action over HTTP. Whoever owns the node then [drains](Self::draining) it.
    ///
    /// # Cancel safety
    /// A wish that comes while nobody waits is kept.
    pub async fn drain_wanted(&self) {
        self.drains.notified().await;
    }

    /// Somebody wants it: it is not ready from now on.
    pub(super) fn drain(&self) {
        self.draining();
        self.drains.notify_one();
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Everything about it, now. Asks every supervisor, and no kernel.
    ///
    /// # Cancel safety
    /// A dropped question changes nothing.
    pub async fn snapshot(&self) -> NodeSnapshot {
        let tree = self.runtime.tree().await.map(Child::root);
        let failures = self.runtime.failures();
        let failures_kept = failures.len();
        let failures = failures.into_iter().rev().take(MAX_REPORTS);
        NodeSnapshot {
            schema: SNAPSHOT_SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unix_millis: unix_millis(),
            uptime_s: (self.runtime.clock().now() - self.began).as_secs_f64(),
            state: snapshot::state(self.runtime.state()).to_owned(),
            health: self.document(),
            tree,
            failures: failures.map(Failure::from).collect(),
            failures_kept,
            dead_letters: self.dead_letters(MAX_REPORTS),
            pipelines: self.ran.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            abandoned_threads: self.runtime.abandoned_threads(),
        }
    }

    /// Every failure that is kept, the newest first; of the child of this name, or of all.
    #[must_use]
    pub fn failures(&self, of: Option<&str>) -> FailureList {
        let failures = of.map_or_else(|| self.runtime.failures(), |child| self.runtime.history(child));
        let failures = failures.into_iter().rev().map(Failure::from).collect();
        FailureList { schema: SNAPSHOT_SCHEMA, failures }
    }

    /// How many requests were given up for good, and the last of them, the newest first; `most` at most.
    #[must_use]
    pub fn dead_letters(&self, most: usize) -> DeadLetters {
        let (total, letters) = self.runtime.dead_letters();
        DeadLetters { total, letters: letters.into_iter().rev().take(most).map(Letter::from).collect() }
    }

    /// Reports a component that is no kernel, replacing what was reported of it before. It counts in the node's status, not
    /// in its readiness, which is the kernels'.
    pub fn report(&self, name: &str, result: HealthCheckResult) {
        let HealthCheckResult { status, reason } = result;
        let component =
            Component { name: name.to_owned(), status, reason, needed: false, takes: status.is_serving() };
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

    /// Whether the node takes work, were it without these components. What the node itself is doing cannot be left out.
    pub(super) fn ready_without(&self, excluded: &[&str]) -> bool {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let lacks = watched.iter().any(|part| {
            part.is_needed
                && !excluded.contains(&part.name.as_str())
                && (part.ask)().status == HealthStatus::Unhealthy
        });
        drop(watched);
        let takes = self.started.load(Ordering::Acquire) && !self.draining.load(Ordering::Acquire);
        takes && !lacks && self.runtime.ready_without(excluded)
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
            needed: true,
            takes: kernel.takes,
        }));
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lacks = false;
        components.extend(watched.iter().map(|Watched { name, ask, is_needed }| {
            let HealthCheckResult { status, reason } = ask();
            lacks |= *is_needed && status == HealthStatus::Unhealthy;
            Component { name: name.clone(), status, reason, needed: *is_needed, takes: status.is_serving() }
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
        let takes = status.is_serving() && !draining && started;
        Component {
            name: "runtime".to_owned(),
            status,
            reason: reason.map(str::to_owned),
            needed: true,
            takes,
        }
    }
}

/// The supervisors have not answered within [`SNAPSHOT_LIMIT`]: whatever runs them is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the supervisors do not answer")]
pub(crate) struct Late;

impl Node {
    /// A snapshot that is no older than `age`, for whoever cannot wait for ever: however many ask, the supervisors are asked once.
    pub(crate) async fn recent(&self, age: Duration) -> Result<Arc<Recent>, Late> {
        let made = async {
            let mut recent = self.recent.lock().await;
            let now = self.runtime.clock().now();
            if let Some(recent) = recent.as_ref().filter(|recent| now - recent.made < age) {
                return Arc::clone(recent);
            }
            let made = Arc::new(Recent { made: now, snapshot: self.snapshot().await, text: OnceLock::new() });
            *recent = Some(Arc::clone(&made));
            made
        };
        timeout(SNAPSHOT_LIMIT, made).await.map_err(|_| Late)
    }

    /// Somebody has acted: whoever asks now sees what came of it.
    pub(super) async fn forget_recent(&self) {
        *self.recent.lock().await = None;
    }
}

/// How old a snapshot may be that is given to more than one who asks.
pub(crate) const FRESH: Duration = Duration::from_millis(100);

/// How long supervisors may take to say how their children are; a tree of 10,000 kernels takes 20 ms.
pub const SNAPSHOT_LIMIT: Duration = Duration::from_secs(5);

impl IntoResponse for Late {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{self}\n")).into_response()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("runtime", &self.runtime).finish_non_exhaustive()
    }
}
