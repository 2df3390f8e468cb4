//! A node at one moment, as the command, the live page and anybody else may read it.
//!
//! Spans are in seconds, sizes in bytes, times on the wall clock in milliseconds since 1970 (UTC). What is `null` is not known, or is not
//! so. States and classes are words from closed sets, which the types here list.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use rustkernel_actors::pipeline::{PipelineReport, StageReport};
use rustkernel_actors::{
    Branch, Cause, ChildPhase, ChildStatus, DeadLetter, ErrorCounts, FailureClass, FailureReport,
    KernelState, KernelStatus, Latency, ReportContext, RuntimeState, Tree,
};
use rustkernel_core::clock::unix_millis;
use rustkernel_core::error::{BreakerScope, KernelError, KernelErrorKind, Phase};
use rustkernel_core::supervision::{ChildKind, Restart, Strategy};
use serde::{Deserialize, Serialize};

use super::document::HealthDocument;

/// The version of [`NodeSnapshot`]: it grows when a field changes its meaning or goes.
pub const SNAPSHOT_SCHEMA: u32 = 1;

/// A node at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeSnapshot {
    /// [`SNAPSHOT_SCHEMA`].
    pub schema: u32,
    /// The version of this library.
    pub version: String,
    /// When it was taken.
    pub unix_millis: u64,
    /// For how long the node has been there.
    pub uptime_s: f64,
    /// What its runtime is doing.
    pub state: String,
    /// How healthy it is.
    pub health: HealthDocument,
    /// The supervisor at the root; `None` when it is gone.
    pub tree: Option<Child>,
    /// The last failures, the newest first; [`MAX_REPORTS`] at most, of those that are kept.
    pub failures: Vec<Failure>,
    /// How many are kept.
    #[serde(default)]
    pub failures_kept: usize,
    /// Requests that were given up for good.
    pub dead_letters: DeadLetters,
    /// The last run of each pipeline that the node was told of.
    #[serde(default)]
    pub pipelines: Vec<PipelineView>,
    /// Threads that were left behind and still block.
    pub abandoned_threads: usize,
}

/// The last run of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineView {
    /// What people call it.
    pub name: String,
    /// When it ended.
    pub unix_millis: u64,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// The kernel that had the request when its deadline passed, if it did.
    pub deadline_lost_at: Option<String>,
    /// The kernels on its way, in the order of their first answers.
    pub stages: Vec<StageView>,
}

/// What one kernel took of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageView {
    /// Which kernel.
    pub kernel: String,
    /// Requests it got.
    pub calls: u64,
    /// Those that ended in an error.
    pub failures: u64,
    /// Runs again of those requests.
    pub reruns: u64,
    /// Those that its degraded path answered.
    pub degraded: u64,
    /// Time from handing over to the answer, queue and runs again included, over all calls.
    pub total_s: f64,
    /// The longest call.
    pub slowest_s: f64,
}

impl PipelineView {
    pub(super) fn new(name: &str, report: &PipelineReport, error: Option<&KernelError>) -> Self {
        let lost = error.filter(|error| *error.kind() == KernelErrorKind::DeadlineExceeded);
        Self {
            name: name.to_owned(),
            unix_millis: unix_millis(),
            error: error.map(ToString::to_string),
            deadline_lost_at: lost.and_then(KernelError::kernel_id).map(ToString::to_string),
            stages: report.stages.iter().map(StageView::from).collect(),
        }
    }
}

impl From<&StageReport> for StageView {
    fn from(stage: &StageReport) -> Self {
        Self {
            kernel: stage.kernel.to_string(),
            calls: stage.calls,
            failures: stage.failures,
            reruns: stage.reruns,
            degraded: stage.degraded,
            total_s: stage.total.as_secs_f64(),
            slowest_s: stage.slowest.as_secs_f64(),
        }
    }
}

/// The most failures, and the most dead letters, in a snapshot.
pub const MAX_REPORTS: usize = 200;

/// A word of a closed set: nothing is allocated to say it.
pub type Word = Cow<'static, str>;

/// A child of a supervisor, with everything below it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What it is doing: a kernel's own state, a child's place in its supervisor otherwise.
    pub state: Word,
    /// For how long it has been doing that.
    pub since_s: Option<f64>,
    /// Whether somebody should look at it: it does not serve and has not come to its end in peace, it refuses requests, or its progress
    /// cannot be saved.
    pub troubled: bool,
    /// Which of its ends make its supervisor start it again; `None` at the root.
    pub restart: Option<Word>,
    /// Its current or last life, from 1; 0 before the first.
    pub life: u64,
    /// Restarts: of a kernel, or among a supervisor's children.
    pub restarts: u64,
    /// Those that count against the budget now.
    pub restarts_in_window: Option<u32>,
    /// The budget; `None` for no limit.
    pub max_restarts: Option<u32>,
    /// Why its last life ended.
    pub last_failure: Option<LastFailure>,
    /// More about a supervisor.
    pub supervisor: Option<SupervisorView>,
    /// More about a kernel.
    pub kernel: Option<KernelView>,
    /// What is below it, in start order.
    pub children: Vec<Self>,
}

/// What a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A kernel behind its slot.
    Kernel,
    /// A plain async task.
    Task,
    /// A supervisor.
    Supervisor,
}

/// Why a life ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LastFailure {
    /// The class of the fault.
    pub class: Word,
    /// What happened, for people.
    pub message: String,
    /// What to do about faults of this class.
    pub advice: Word,
}

/// The rules of a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SupervisorView {
    /// Who is restarted when one child fails.
    pub strategy: Strategy,
    /// The window of its budget.
    pub period_s: f64,
}

/// A kernel and its slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelView {
    /// Where its present life runs.
    pub device: String,
    /// The number of that life.
    pub incarnation: u64,
    /// Standbys that are warm.
    pub standbys: usize,
    /// The state of its breaker.
    pub breaker: Word,
    /// Consecutive failures that its closed breaker has counted.
    pub breaker_failures: u32,
    /// What it lives in whose breaker is open: `domain` or `device`.
    pub refused_by: Option<BreakerScope>,
    /// Requests that its breaker has refused, or that of what it lives in.
    pub rejected: u64,
    /// Requests that entered the slot.
    pub accepted: u64,
    /// Answered with a value.
    pub answered: u64,
    /// Answered with an error.
    pub failed: u64,
    /// Those by why, where there are any.
    pub failed_kinds: BTreeMap<Word, u64>,
    /// Requests that were not accepted, by why.
    pub refused_kinds: BTreeMap<Word, u64>,
    /// Runs again after a crash, a hang or an error that is retried.
    pub reruns: u64,
    /// Late results that nobody saw.
    pub discarded: u64,
    /// Requests that wait.
    pub waiting: usize,
    /// Bytes of all requests that are not answered.
    pub waiting_bytes: usize,
    /// For how long the present execution has been running.
    pub running_s: Option<f64>,
    /// For how long it has been blocking its thread.
    pub blocked_s: Option<f64>,
    /// The newest checkpoint; they are counted from 1.
    pub checkpoint: Option<u64>,
    /// Its size.
    pub checkpoint_bytes: Option<usize>,
    /// How old it is; `None` for one that an earlier process has left.
    #[serde(default)]
    pub checkpoint_age_s: Option<f64>,
    /// What is wrong with its checkpoints.
    pub checkpoint_trouble: Option<String>,
    /// How long its executions take, where a deadline, a hang limit or a windowed breaker has them measured.
    pub latency: Option<LatencyView>,
}

/// How long executions take.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyView {
    /// Executions that were measured, ever.
    pub count: u64,
    /// The time of all of these together.
    pub total_s: f64,
    /// All that is known, for metrics; not sent.
    #[serde(skip)]
    pub all: Option<Box<Latency>>,
    /// Half of those of the last minute or two took no longer than this, within an eighth; `None` where there were none.
    pub p50_s: Option<f64>,
    /// Nine in ten.
    pub p90_s: Option<f64>,
    /// Ninety-nine in a hundred.
    pub p99_s: Option<f64>,
}

/// One failure below a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The supervisor that saw it.
    pub supervisor: String,
    /// In which part of the child's life it happened.
    pub context: ReportContext,
    /// Why.
    pub reason: String,
    /// The child.
    pub offender: String,
    /// The class of the fault.
    pub class: FailureClass,
    /// What to do about a fault of this class.
    pub advice: String,
    /// The life that ended.
    pub incarnation: u64,
    /// When.
    pub unix_millis: u64,
}

/// All failures that are kept, of one child or of all: `GET /v1/failures?of=NAME`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailureList {
    /// [`SNAPSHOT_SCHEMA`].
    pub schema: u32,
    /// The newest first.
    pub failures: Vec<Failure>,
}

/// All dead letters that are kept: `GET /v1/dead-letters`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LetterList {
    /// [`SNAPSHOT_SCHEMA`].
    pub schema: u32,
    /// When they were asked for.
    pub unix_millis: u64,
    /// The newest first.
    pub dead_letters: DeadLetters,
}

/// Requests that were given up for good.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetters {
    /// How many there have been.
    pub total: u64,
    /// Those that are kept, the newest first; in a snapshot [`MAX_REPORTS`] at most.
    pub letters: Vec<Letter>,
}

/// One of them, without its input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Letter {
    /// Its number.
    pub letter: u64,
    /// The request.
    pub id: u64,
    /// The kernel.
    pub kernel: String,
    /// The attempt that was the last.
    pub attempts: u32,
    /// Where on its way the request was.
    pub phase: Phase,
    /// The last error.
    pub error: String,
    /// When it was first given up.
    pub unix_millis: u64,
    /// The size of its input, where that is kept and it can be tried again.
    pub input_bytes: Option<usize>,
}

impl Child {
    pub(super) fn root(tree: Tree) -> Self {
        Self {
            kind: Kind::Supervisor,
            state: "up".into(),
            since_s: None,
            troubled: false,
            restart: None,
            life: 1,
            last_failure: None,
            kernel: None,
            ..Self::supervisor(tree)
        }
    }

    /// Everything below it, itself first.
    pub fn walk(&self, visit: &mut impl FnMut(&Self, usize)) {
        self.walk_from(0, visit);
    }

    fn walk_from(&self, depth: usize, visit: &mut impl FnMut(&Self, usize)) {
        visit(self, depth);
        self.children.iter().for_each(|child| child.walk_from(depth + 1, visit));
    }

    fn supervisor(tree: Tree) -> Self {
        Self {
            name: tree.name,
            kind: Kind::Supervisor,
            state: "".into(),
            since_s: None,
            troubled: false,
            restart: None,
            life: 0,
            restarts: tree.restarts,
            restarts_in_window: tree.restarts_in_period,
            max_restarts: tree.intensity,
            last_failure: None,
            supervisor: Some(SupervisorView { strategy: tree.strategy, period_s: tree.period.as_secs_f64() }),
            kernel: None,
            children: tree.children.into_iter().map(Self::from).collect(),
        }
    }
}

impl From<Branch> for Child {
    fn from(Branch { child, supervisor }: Branch) -> Self {
        let ChildStatus { name, kind, restart, state, life, last_failure, kernel, .. } = child;
        let own = Self {
            kind: kind.into(),
            state: phase(state).into(),
            restart: Some(rule(restart).into()),
            life,
            last_failure: last_failure.as_ref().map(LastFailure::from),
            ..Self::bare(name)
        };
        let whole = match (supervisor, kernel) {
            (Some(tree), _) => {
                let Self { restarts, restarts_in_window, max_restarts, supervisor, children, .. } =
                    Self::supervisor(tree);
                Self { restarts, restarts_in_window, max_restarts, supervisor, children, ..own }
            }
            (None, Some(kernel)) => own.with_kernel(kernel),
            (None, None) => own,
        };
        Self { troubled: whole.is_troubled(), ..whole }
    }
}

impl Child {
    fn bare(name: String) -> Self {
        Self {
            name,
            kind: Kind::Task,
            state: "".into(),
            since_s: None,
            troubled: false,
            restart: None,
            life: 0,
            restarts: 0,
            restarts_in_window: None,
            max_restarts: None,
            last_failure: None,
            supervisor: None,
            kernel: None,
            children: Vec::new(),
        }
    }

    fn is_troubled(&self) -> bool {
        let serves = matches!(&*self.state, "serving" | "up");
        let is_over = matches!(&*self.state, "down" | "stopped") && self.last_failure.is_none();
        let refuses = |kernel: &KernelView| {
            kernel.refused_by.is_some() || !matches!(&*kernel.breaker, "closed" | "disabled")
        };
        let is_sick = |kernel: &KernelView| refuses(kernel) || kernel.checkpoint_trouble.is_some();
        !is_over && (!serves || self.kernel.as_ref().is_some_and(is_sick))
    }

    fn with_kernel(self, kernel: KernelStatus) -> Self {
        Self {
            state: word(kernel.state).into(),
            since_s: Some(kernel.since.as_secs_f64()),
            restarts: kernel.restarts,
            restarts_in_window: Some(kernel.restarts_in_window),
            max_restarts: Some(kernel.max_restarts),
            last_failure: kernel.last_failure.as_ref().map(LastFailure::from).or(self.last_failure),
            kernel: Some(KernelView::from(kernel)),
            ..self
        }
    }
}

impl From<KernelStatus> for KernelView {
    fn from(kernel: KernelStatus) -> Self {
        Self {
            device: kernel.device.to_string(),
            incarnation: kernel.incarnation,
            standbys: kernel.standbys,
            breaker: kernel.breaker.into(),
            breaker_failures: kernel.breaker_failures,
            refused_by: kernel.refused_by,
            rejected: kernel.rejected,
            accepted: kernel.accounts.accepted,
            answered: kernel.accounts.answered,
            failed: kernel.accounts.failed,
            failed_kinds: by_kind(&kernel.failed),
            refused_kinds: by_kind(&kernel.refused),
            reruns: kernel.accounts.reruns,
            discarded: kernel.accounts.discarded,
            waiting: kernel.waiting,
            waiting_bytes: kernel.waiting_bytes,
            running_s: kernel.running_for.as_ref().map(Duration::as_secs_f64),
            blocked_s: kernel.blocked_for.as_ref().map(Duration::as_secs_f64),
            checkpoint: kernel.checkpoint,
            checkpoint_bytes: kernel.checkpoint_bytes,
            checkpoint_age_s: kernel.checkpoint_age.as_ref().map(Duration::as_secs_f64),
            checkpoint_trouble: kernel.checkpoint_trouble,
            latency: kernel.latency.map(LatencyView::from),
        }
    }
}

fn by_kind(counts: &ErrorCounts) -> BTreeMap<Word, u64> {
    counts.iter().map(|(kind, count)| (kind.into(), count)).collect()
}

impl From<Box<Latency>> for LatencyView {
    fn from(latency: Box<Latency>) -> Self {
        Self {
            count: latency.execution.count,
            total_s: latency.execution.total.as_secs_f64(),
            p50_s: latency.recent.map(|recent| recent.p50.as_secs_f64()),
            p90_s: latency.recent.map(|recent| recent.p90.as_secs_f64()),
            p99_s: latency.recent.map(|recent| recent.p99.as_secs_f64()),
            all: Some(latency),
        }
    }
}

impl From<ChildKind> for Kind {
    fn from(kind: ChildKind) -> Self {
        match kind {
            ChildKind::Kernel => Self::Kernel,
            ChildKind::Task => Self::Task,
            ChildKind::Supervisor => Self::Supervisor,
        }
    }
}

impl From<&Cause> for LastFailure {
    fn from(cause: &Cause) -> Self {
        let class = FailureClass::from(cause);
        Self { class: class.label().into(), message: cause.to_string(), advice: class.advice().into() }
    }
}

impl From<FailureReport> for Failure {
    fn from(report: FailureReport) -> Self {
        Self {
            supervisor: report.supervisor,
            context: report.context,
            reason: report.reason,
            offender: report.offender,
            class: report.class,
            advice: report.advice.to_owned(),
            incarnation: report.incarnation,
            unix_millis: report.unix_millis,
        }
    }
}

impl From<DeadLetter> for Letter {
    fn from(letter: DeadLetter) -> Self {
        Self {
            letter: letter.letter,
            id: letter.id,
            kernel: letter.kernel.to_string(),
            attempts: letter.attempts,
            phase: letter.phase,
            error: letter.error,
            unix_millis: letter.unix_millis,
            input_bytes: letter.input.map(|input| input.len()),
        }
    }
}

const fn phase(state: ChildPhase) -> &'static str {
    match state {
        ChildPhase::Down => "down",
        ChildPhase::Restarting => "restarting",
        ChildPhase::Starting => "starting",
        ChildPhase::Up => "up",
        ChildPhase::Stopping => "stopping",
        ChildPhase::Held => "held",
    }
}

const fn rule(restart: Restart) -> &'static str {
    match restart {
        Restart::Permanent => "permanent",
        Restart::Transient => "transient",
        Restart::Temporary => "temporary",
    }
}

pub(super) const fn state(state: RuntimeState) -> &'static str {
    match state {
        RuntimeState::Running => "running",
        RuntimeState::Draining => "draining",
        RuntimeState::Stopped => "stopped",
        RuntimeState::GaveUp => "gave_up",
    }
}

const fn word(state: KernelState) -> &'static str {
    match state {
        KernelState::Starting => "starting",
        KernelState::Serving => "serving",
        KernelState::Degraded => "degraded",
        KernelState::Restarting => "restarting",
        KernelState::Draining => "draining",
        KernelState::Isolated => "isolated",
        KernelState::OutOfThreads => "out_of_threads",
        KernelState::Stopping => "stopping",
        KernelState::Stopped => "stopped",
    }
}
