//! What a node counts, for the [`metrics`] facade: whoever installs a recorder has it.
//!
//! Two sources, and no cost on a request's way: [`count`] is a hook that counts what happens, and a [`Publisher`] sets what the slots' own
//! books say, when somebody looks. [`METRICS`] lists all of it; labels other than names come from closed sets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, gauge};
use rustkernel_actors::{Event, Fact, FailureClass, LATENCY_BOUNDS, Latency, Spread};
use rustkernel_core::error::KernelErrorKind;
use rustkernel_core::resilience::BreakerMode;

use tokio::sync::Mutex;

use crate::http::{Child, FRESH, KernelView, Kind, Node, NodeSnapshot, Word};

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it changes.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

/// How a metric changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many were no larger than each of several bounds. The slots fill it, and [`metrics_router`] writes it: a recorder's histogram would
    /// cost every request.
    Histogram,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(const $constant: &str = $name;)*

        /// Every metric, in the order of their names' sections.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: MetricKind::$kind,
            labels: &[$($label),*],
            help: $help,
        },)*];
    };
}

metrics! {
    UP = Gauge "rustkernel_up" [] "1 while the node answers";
    BUILD_INFO = Gauge "rustkernel_build_info" ["version", "revision"] "1, with the version, and the revision that the build was told by RUSTKERNEL_REVISION";
    READY = Gauge "rustkernel_ready" [] "Whether the node takes work";
    LIVE = Gauge "rustkernel_live" [] "Whether a restart of the process would help nothing";
    UPTIME = Gauge "rustkernel_uptime_seconds" [] "For how long the node has been there";
    CHILDREN = Gauge "rustkernel_children" ["kind", "state"] "Children of supervisors, by what they are and do";
    RESTARTS = Counter "rustkernel_restarts_total" ["child"] "Restarts of a kernel, or among a supervisor's children";
    BUDGET = Gauge "rustkernel_restart_budget_remaining_ratio" ["child"] "How much of the restart budget is left, from 0 to 1";
    FAILURES = Counter "rustkernel_failures_total" ["child", "class"] "Lives that ended without having been asked to";
    ESCALATIONS = Counter "rustkernel_escalations_total" ["child", "step"] "Restarts that were not enough: isolated, degraded, failed_over";
    ACCEPTED = Counter "rustkernel_requests_accepted_total" ["kernel"] "Requests that entered the kernel's slot";
    REQUESTS = Counter "rustkernel_requests_total" ["kernel", "outcome"] "Accepted requests by how they ended: ok, or the kind of their error";
    REFUSED = Counter "rustkernel_requests_refused_total" ["kernel", "reason"] "Requests that were not accepted, by the kind of their error";
    RERUNS = Counter "rustkernel_reruns_total" ["kernel"] "Runs again after a crash, a hang or an error that is retried";
    LATE = Counter "rustkernel_late_results_total" ["kernel"] "Results that came after their request was answered";
    PENDING = Gauge "rustkernel_pending_requests" ["kernel"] "Requests that wait";
    PENDING_BYTES = Gauge "rustkernel_pending_bytes" ["kernel"] "Bytes of all requests that are not answered";
    BREAKER = Gauge "rustkernel_breaker_state" ["kernel", "state"] "1 for the state that the kernel's breaker is in";
    TRANSITIONS = Counter "rustkernel_breaker_transitions_total" ["kernel", "to"] "Changes of the breaker's state";
    DURATION = Gauge "rustkernel_kernel_recent_duration_seconds" ["kernel", "quantile"] "How long executions of the last minute took, where that is measured";
    REQUEST_TIME = Histogram "rustkernel_request_duration_seconds" ["kernel"] "How long requests with a deadline took, from the slot to the end of their last execution";
    QUEUE_TIME = Histogram "rustkernel_queue_duration_seconds" ["kernel"] "How long requests with a deadline waited for their first execution";
    EXECUTION = Histogram "rustkernel_kernel_duration_seconds" ["kernel"] "How long executions took, where that is measured";
    CHECKPOINT_AGE = Gauge "rustkernel_checkpoint_age_seconds" ["kernel"] "How old the newest checkpoint is, where this process has taken it";
    CHECKPOINT_BYTES = Gauge "rustkernel_checkpoint_bytes" ["kernel"] "The size of the newest checkpoint";
    DEAD_LETTERS = Counter "rustkernel_dead_letters_total" [] "Requests that were given up for good";
    ABANDONED = Gauge "rustkernel_abandoned_threads" [] "Threads that were left behind and still block";
    DEVICE_STATE = Gauge "rustkernel_device_state" ["device", "gpu_uuid", "state"] "1 for the state that a device is in: healthy, degraded, unhealthy";
    DEVICE_FAULTS = Counter "rustkernel_device_faults_total" ["device", "gpu_uuid", "class", "code"] "Faults of a device, by class and code";
    DEVICE_MEMORY = Gauge "rustkernel_device_memory_bytes" ["device", "gpu_uuid", "kind"] "Memory of a device, whoever uses it: used, total";
}

/// Tells the recorder what each metric is. To be called once it is installed.
pub fn describe() {
    for Metric { name, kind, help, .. } in METRICS {
        let unit = if name.ends_with("_seconds") {
            Unit::Seconds
        } else if name.ends_with("_bytes") {
            Unit::Bytes
        } else {
            Unit::Count
        };
        match kind {
            MetricKind::Counter => describe_counter!(*name, unit, *help),
            MetricKind::Gauge => describe_gauge!(*name, unit, *help),
            MetricKind::Histogram => {}
        }
    }
}

/// `GET /metrics`: has the node's books [published](Publisher), and answers with what `render` makes of the recorder, as the handle of a
/// Prometheus exporter does. 503 where the supervisors do not answer in time.
pub fn metrics_router(node: Arc<Node>, render: impl Fn() -> String + Send + Sync + 'static) -> Router {
    let exported = Exported { node, publisher: Mutex::default(), render: Box::new(render) };
    Router::new().route("/metrics", get(exported_now)).with_state(Arc::new(exported))
}

struct Exported {
    node: Arc<Node>,
    /// Held from the question to what is made of the answer: an older snapshot that came after a newer one would look like a name that is
    /// used again.
    publisher: Mutex<Publisher>,
    render: Box<dyn Fn() -> String + Send + Sync>,
}

async fn exported_now(State(exported): State<Arc<Exported>>) -> Response {
    let mut publisher = exported.publisher.lock().await;
    let recent = match exported.node.recent(FRESH).await {
        Ok(recent) => recent,
        Err(late) => return late.into_response(),
    };
    publisher.publish(&recent.snapshot);
    let histograms = histograms(&recent.snapshot, &publisher.names);
    drop(publisher);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, (exported.render)() + &histograms).into_response()
}

/// The histograms of every kernel of these names that has anything measured, in Prometheus' text format.
fn histograms(snapshot: &NodeSnapshot, names: &Names) -> String {
    let mut texts = [EXECUTION, QUEUE_TIME, REQUEST_TIME].map(|name| (name, String::new()));
    if let Some(root) = &snapshot.tree {
        root.walk(&mut |child, _| {
            let seen = child.kernel.as_ref().and_then(|kernel| kernel.latency.as_ref()?.all.as_deref());
            let seen = seen.filter(|_| names.0.contains(&child.name));
            let Some(Latency { execution, queue, request, .. }) = seen else { return };
            for ((name, text), spread) in texts.iter_mut().zip([execution, queue, request]) {
                if spread.count > 0 {
                    write_histogram(text, name, &child.name, spread);
                }
            }
        });
    }
    texts.iter().filter(|(_, text)| !text.is_empty()).fold(String::new(), |mut all, (name, text)| {
        let help = METRICS.iter().find(|metric| metric.name == *name).map_or("", |metric| metric.help);
        // Writing to a string does not fail; so below.
        let _ = write!(all, "# HELP {name} {help}\n# TYPE {name} histogram\n{text}");
        all
    })
}

fn write_histogram(text: &mut String, name: &str, kernel: &str, spread: &Spread) {
    // A kernel's name has neither quotes nor backslashes.
    for (bound, count) in LATENCY_BOUNDS.iter().zip(spread.within) {
        let bound = bound.as_secs_f64();
        let _ = writeln!(text, "{name}_bucket{{kernel=\"{kernel}\",le=\"{bound}\"}} {count}");
    }
    let (count, sum) = (spread.count, spread.total.as_secs_f64());
    let _ = writeln!(text, "{name}_bucket{{kernel=\"{kernel}\",le=\"+Inf\"}} {count}");
    let _ = writeln!(text, "{name}_sum{{kernel=\"{kernel}\"}} {sum}");
    let _ = writeln!(text, "{name}_count{{kernel=\"{kernel}\"}} {count}");
}

/// Counts what happens: for [`RuntimeBuilder::hook`](rustkernel_actors::RuntimeBuilder::hook).
pub fn count(event: &Event) {
    let Some(child) = event.child.as_ref().map(|child| label(child)) else { return };
    match &event.fact {
        Fact::Failed { cause, .. } | Fact::StopFailed { cause, .. } | Fact::StandbyFailed { cause, .. } => {
            counter!(FAILURES, "child" => child, "class" => FailureClass::from(cause).label()).increment(1);
        }
        Fact::Isolated { .. } => counter!(ESCALATIONS, "child" => child, "step" => "isolated").increment(1),
        Fact::Degraded => counter!(ESCALATIONS, "child" => child, "step" => "degraded").increment(1),
        Fact::FailedOver { .. } => {
            counter!(ESCALATIONS, "child" => child, "step" => "failed_over").increment(1);
        }
        Fact::Breaker(transition) => {
            counter!(TRANSITIONS, "kernel" => child, "to" => breaker(transition.to)).increment(1);
        }
        Fact::Started { .. }
        | Fact::Restarting { .. }
        | Fact::TookOver { .. }
        | Fact::StandbyReady { .. }
        | Fact::Recovered
        | Fact::ChildAbandoned
        | Fact::Resumed
        | Fact::Stopped
        | Fact::ThreadAbandoned { .. }
        | Fact::DeadLetter { .. }
        | Fact::CheckpointFailed { .. }
        | Fact::CheckpointRefused { .. }
        | Fact::Health(_)
        | Fact::GaveUp
        | _ => {}
    }
}

/// The name of a child as a label: of the first [`MOST_CHILDREN`] that something happened to, and `other` of the rest.
fn label(child: &str) -> String {
    static NAMES: StdMutex<Names> = StdMutex::new(Names(BTreeSet::new()));
    let is_named = NAMES.lock().unwrap_or_else(PoisonError::into_inner).admit(child);
    if is_named { child.to_owned() } else { "other".to_owned() }
}

/// The first [`MOST_CHILDREN`] names: children that come and go may have a new one each time, and no recorder forgets one.
#[derive(Debug, Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// Whether it is one of them.
    fn admit(&mut self, name: &str) -> bool {
        self.0.contains(name) || self.0.len() < MOST_CHILDREN && self.0.insert(name.to_owned())
    }
}

/// Children that have metrics of their own. What happens to others is counted for `other`, and their books are not published.
pub const MOST_CHILDREN: usize = 4096;

/// A metric, and which of its lines where it has several for a child.
type Series = (&'static str, &'static str);

/// Sets what a node's books say, one snapshot after another.
#[derive(Debug, Default)]
pub struct Publisher {
    names: Names,
    /// What each counter of a child stood at last. A name that is used again begins at 0 again, and what is exported goes on.
    last: BTreeMap<(Series, String), u64>,
}

impl Publisher {
    /// Sets what `snapshot` says. Each is of the same node, and newer than the one before.
    pub fn publish(&mut self, snapshot: &NodeSnapshot) {
        let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
        gauge!(UP).set(1.0);
        let revision = option_env!("RUSTKERNEL_REVISION").unwrap_or("unknown");
        gauge!(BUILD_INFO, "version" => snapshot.version.clone(), "revision" => revision).set(1.0);
        gauge!(READY).set(truth(snapshot.health.ready));
        gauge!(LIVE).set(truth(snapshot.health.live));
        gauge!(UPTIME).set(snapshot.uptime_s);
        counter!(DEAD_LETTERS).absolute(snapshot.dead_letters.total);
        gauge!(ABANDONED).set(float(snapshot.abandoned_threads as u64));
        let mut states = BTreeMap::<(&'static str, Word), u64>::new();
        if let Some(root) = &snapshot.tree {
            root.walk(&mut |child, _| {
                *states.entry((kind(child.kind), child.state.clone())).or_default() += 1;
                if self.names.admit(&child.name) {
                    self.publish_child(child);
                }
            });
        }
        for kind in KINDS {
            for state in STATES {
                // What is nobody's state any more is 0, and not what it was.
                let count = states.get(&(kind, Word::Borrowed(state))).copied().unwrap_or(0);
                gauge!(CHILDREN, "kind" => kind, "state" => state).set(float(count));
            }
        }
        publish_devices();
    }

    fn publish_child(&mut self, child: &Child) {
        let name = || child.name.clone();
        if child.kind != Kind::Task {
            // Of a task nobody counts them.
            self.advance(&counter!(RESTARTS, "child" => name()), (RESTARTS, ""), child, child.restarts);
        }
        if let (Some(used), Some(most)) = (child.restarts_in_window, child.max_restarts) {
            let left = if most == 0 { 0.0 } else { 1.0 - (f64::from(used) / f64::from(most)).min(1.0) };
            gauge!(BUDGET, "child" => name()).set(left);
        }
        let Some(kernel) = &child.kernel else { return };
        self.advance(&counter!(ACCEPTED, "kernel" => name()), (ACCEPTED, ""), child, kernel.accepted);
        let answered = counter!(REQUESTS, "kernel" => name(), "outcome" => "ok");
        self.advance(&answered, (REQUESTS, "ok"), child, kernel.answered);
        for kind in KernelErrorKind::NAMES {
            // One that has not happened has no line.
            if let Some(count) = kernel.failed_kinds.get(kind) {
                let failed = counter!(REQUESTS, "kernel" => name(), "outcome" => kind);
                self.advance(&failed, (REQUESTS, kind), child, *count);
            }
            if let Some(count) = kernel.refused_kinds.get(kind) {
                let refused = counter!(REFUSED, "kernel" => name(), "reason" => kind);
                self.advance(&refused, (REFUSED, kind), child, *count);
            }
        }
        self.advance(&counter!(RERUNS, "kernel" => name()), (RERUNS, ""), child, kernel.reruns);
        self.advance(&counter!(LATE, "kernel" => name()), (LATE, ""), child, kernel.discarded);
        publish_gauges(&child.name, kernel);
    }

    /// Takes a counter along to where the books stand.
    fn advance(&mut self, counter: &Counter, series: Series, child: &Child, value: u64) {
        let before = self.last.insert((series, child.name.clone()), value).unwrap_or(0);
        counter.increment(if value >= before { value - before } else { value });
    }
}

fn publish_gauges(name: &str, kernel: &KernelView) {
    let name = || name.to_owned();
    gauge!(PENDING, "kernel" => name()).set(float(kernel.waiting as u64));
    gauge!(PENDING_BYTES, "kernel" => name()).set(float(kernel.waiting_bytes as u64));
    for state in BREAKER_STATES {
        let is_it = if kernel.breaker == state { 1.0 } else { 0.0 };
        gauge!(BREAKER, "kernel" => name(), "state" => state).set(is_it);
    }
    if let Some(age) = kernel.checkpoint_age_s {
        gauge!(CHECKPOINT_AGE, "kernel" => name()).set(age);
    }
    if let Some(bytes) = kernel.checkpoint_bytes {
        gauge!(CHECKPOINT_BYTES, "kernel" => name()).set(float(bytes as u64));
    }
    if let Some(latency) = &kernel.latency {
        for (quantile, seconds) in [("0.5", latency.p50_s), ("0.9", latency.p90_s), ("0.99", latency.p99_s)] {
            // Prometheus' word for what is not known.
            gauge!(DURATION, "kernel" => name(), "quantile" => quantile).set(seconds.unwrap_or(f64::NAN));
        }
    }
}

#[cfg(feature = "cuda")]
fn publish_devices() {
    use rustkernel_core::fault::DeviceState;

    for watch in crate::cuda::DeviceWatch::all() {
        // Until NVML has been asked, or is known not to be there: a name that changes would be two devices.
        let Some(uuid) = watch.uuid() else { continue };
        let device = watch.id().to_string();
        let state = match watch.state() {
            DeviceState::Healthy if watch.unfit().is_none() => "healthy",
            DeviceState::Degraded(_) if watch.unfit().is_none() => "degraded",
            DeviceState::Healthy | DeviceState::Degraded(_) | DeviceState::Unhealthy(_) => "unhealthy",
        };
        for other in ["healthy", "degraded", "unhealthy"] {
            let is_it = if state == other { 1.0 } else { 0.0 };
            gauge!(DEVICE_STATE, "device" => device.clone(), "gpu_uuid" => uuid.clone(), "state" => other)
                .set(is_it);
        }
        for (fault, count) in watch.faults() {
            let (class, code) = (fault.class.to_string(), fault.code.to_string());
            let labels =
                [("device", device.clone()), ("gpu_uuid", uuid.clone()), ("class", class), ("code", code)];
            counter!(DEVICE_FAULTS, &labels).absolute(count);
        }
        if let Some(memory) = watch.memory() {
            for (kind, bytes) in [("used", memory.used), ("total", memory.total)] {
                gauge!(DEVICE_MEMORY, "device" => device.clone(), "gpu_uuid" => uuid.clone(), "kind" => kind)
                    .set(float(bytes));
            }
        }
    }
}

/// There are none.
#[cfg(not(feature = "cuda"))]
fn publish_devices() {
    let _ = [DEVICE_STATE, DEVICE_FAULTS, DEVICE_MEMORY];
}

const KINDS: [&str; 3] = ["kernel", "task", "supervisor"];
const STATES: [&str; 12] = [
    "starting",
    "serving",
    "degraded",
    "restarting",
    "draining",
    "isolated",
    "out_of_threads",
    "stopping",
    "stopped",
    "down",
    "up",
    "held",
];
const BREAKER_STATES: [&str; 5] = ["closed", "half_open", "open", "isolated", "disabled"];

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Kernel => "kernel",
        Kind::Task => "task",
        Kind::Supervisor => "supervisor",
    }
}

const fn breaker(state: BreakerMode) -> &'static str {
    match state {
        BreakerMode::Closed => "closed",
        BreakerMode::HalfOpen => "half_open",
        BreakerMode::Open => "open",
        BreakerMode::Isolated => "isolated",
        BreakerMode::Disabled => "disabled",
    }
}

#[allow(clippy::cast_precision_loss, reason = "a gauge is a float; counts this large are approximate")]
fn float(count: u64) -> f64 {
    count as f64
}
