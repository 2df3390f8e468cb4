//! A job: a checked pipeline of built-in kernels, spawned on a runtime and run.
//!
//! [`Plan::new`] finds everything that is wrong with a job before anything runs; [`Plan::spawn`] puts its kernels under
//! supervision; [`Job::run`] sends one input through them. What supervision did meanwhile is counted by a [`Tally`].

mod plant;
mod records;
mod state;
mod tally;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustkernel_actors::pipeline::PipelineReport;
use rustkernel_actors::{Cause, Pipeline, Runtime, SpawnError};
use rustkernel_core::DeviceId;
use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::device::DeviceKind;
use rustkernel_core::envelope::Deadline;
use rustkernel_core::error::{KernelError, KernelErrorKind};
use rustkernel_core::traits::Payload;

use crate::catalog::{
    self, AnyPipeline, CatalogEntry, Domains, Made, Prepared, Sections, Settings, SettingsError, Site, Value,
    Way,
};
use crate::config::{ConfigError, ConfigFault, Document, JobConfig, Placement, StageConfig};
use crate::cursor::{Cursor, Found};
use crate::inject::Injector;
use crate::kernels::graph::{EdgeListSource, Ranking};
use crate::worker::Domain;

pub use crate::cursor::{MOST_TWICE, Resumed, Spot};
pub use state::{JobState, StateError};
pub use tally::{Counts, Tally};

/// A job whose kernels, settings and types have been checked.
pub struct Plan {
    config: JobConfig,
    stages: Vec<Prepared>,
    /// What leads into each stage.
    conversions: Vec<AnyPipeline>,
}

/// A job whose kernels are under supervision.
#[derive(Clone)]
pub struct Job {
    pipeline: Pipeline<Value, Ranking>,
    /// What an earlier process has left to be done, and what it is to be done with.
    rest: Option<Rest>,
    cursor: Option<Arc<Cursor>>,
    deadline: Deadline,
    clock: Clock,
    rounds: Arc<AtomicU32>,
    domains: Arc<Domains>,
    /// CUDA devices that this process has itself.
    inside: BTreeSet<DeviceId>,
}

/// The part of a job from a place on.
#[derive(Clone)]
struct Rest {
    pipeline: Pipeline<Value, Ranking>,
    /// Taken by the first run.
    value: Arc<Mutex<Option<Value>>>,
}

impl Plan {
    /// Checks what `config` says about kernels: that there are such, that they take their settings, and that each takes what the one
    /// before it gives. A job takes an edge list and gives a ranking.
    ///
    /// # Errors
    /// A [`ConfigError`] with the place in `document`.
    pub fn new(config: JobConfig, document: &Document) -> Result<Self, ConfigError> {
        let mut stages = Vec::new();
        let mut conversions = Vec::new();
        let (mut from, mut gives) = ("the job's input".to_owned(), EdgeListSource::schema());
        for (index, stage) in config.stages.iter().enumerate() {
            let at = |field: &str| format!("stage[{index}].{field}");
            let entry = catalog::entry(&stage.kernel).map_err(|fault| document.at(&at("kernel"), fault))?;
            let to = format!("stage {} (`{}`)", index + 1, stage.id());
            let Some(conversion) = catalog::conversion(&gives, &entry.takes()) else {
                let fault = ConfigFault::Types { from, gives, to, takes: entry.takes() };
                return Err(document.at(&at("kernel"), fault));
            };
            if stage.repeat.is_some() && !entry.converges() {
                let fault = ConfigFault::Unrepeatable { kernel: stage.kernel.clone() };
                return Err(document.at(&at("repeat"), fault));
            }
            if stage.placement == Placement::Inline && entry.blocks() {
                let fault = ConfigFault::Blocking { kernel: stage.kernel.clone() };
                return Err(document.at(&at("placement"), fault));
            }
            if let Some((field, rule)) = misplaced(stage, entry) {
                return Err(document.at(&at(field), ConfigFault::Rule { rule }));
            }
            if stage.checkpointed && !entry.keeps() {
                let fault = ConfigFault::Stateless { kernel: stage.kernel.clone() };
                return Err(document.at(&at("checkpointed"), fault));
            }
            let degraded = stage.degraded.as_ref().map(|_| Settings(document.table(&at("degraded"))));
            let sections = Sections { main: Settings(document.table(&at("settings"))), degraded };
            let prepared = entry.prepare(&sections).map_err(|(section, error)| match error {
                SettingsError::Read(error) => document.refused(&error),
                SettingsError::Value { field, source } => {
                    document.at(&at(&format!("{section}.{field}")), ConfigFault::Settings { source })
                }
            })?;
            stages.push(prepared);
            conversions.push(conversion);
            (from, gives) = (to, entry.gives());
        }
        if gives != Ranking::schema() {
            let last = format!("stage[{}].kernel", config.stages.len().saturating_sub(1));
            let to = "the job's output".to_owned();
            let fault = ConfigFault::Types { from, gives, to, takes: Ranking::schema() };
            return Err(document.at(&last, fault));
        }
        Ok(Self { config, stages, conversions })
    }

    /// The job's configuration.
    #[must_use]
    pub fn config(&self) -> &JobConfig {
        &self.config
    }

    /// Spawns the job's kernels on `runtime`, in the tree that its configuration draws, with faults if there is an injector.
    ///
    /// # Errors
    /// The first kernel or supervisor that does not start; those before it stay with the runtime.
    ///
    /// # Cancel safety
    /// Kernels that were spawned before a drop stay with the runtime.
    pub async fn spawn(self, runtime: &Runtime, injector: Option<Injector>) -> Result<Job, SpawnError> {
        self.start(runtime, injector, None).await
    }

    /// [`spawn`](Self::spawn), going on from where an earlier process has left the job in `state`, and writing down there how far it comes.
    /// The first run of the job is that rest.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    ///
    /// # Cancel safety
    /// As [`spawn`](Self::spawn).
    pub async fn resume(
        self,
        runtime: &Runtime,
        injector: Option<Injector>,
        state: &JobState,
    ) -> Result<Job, SpawnError> {
        self.start(runtime, injector, Some(state)).await
    }

    async fn start(
        self,
        runtime: &Runtime,
        injector: Option<Injector>,
        state: Option<&JobState>,
    ) -> Result<Job, SpawnError> {
        let Self { config, stages, conversions } = self;
        let rounds = Arc::new(AtomicU32::new(0));
        let cursor = state.map(|state| Arc::clone(state.cursor()));
        let found = state.and_then(JobState::take_found);
        let domains = Domains::new(config.domains.clone());
        let (mut specs, mut ways) = (plant::Specs::new(), Vec::new());
        for ((index, prepared), stage) in (0..).zip(stages).zip(&config.stages) {
            let site = Site {
                stage: stage.clone(),
                index,
                injector,
                rounds: Arc::clone(&rounds),
                cursor: cursor.clone(),
                made: Arc::default(),
                domains: Arc::clone(&domains),
            };
            let Made { spec, way } = prepared(&site);
            specs.insert(stage.id().to_owned(), spec);
            ways.push(way);
        }
        plant::plant(&config, specs, runtime).await?;
        let budget = config.job.retry_budget;
        let links = ways.into_iter().zip(conversions).zip(&config.stages);
        let (pipeline, rest) = link(links, found.as_ref(), runtime)?;
        let typed = |pipeline: Pipeline<Value, Value>| pipeline.try_map(Value::take).retry_budget(budget);
        Ok(Job {
            pipeline: typed(pipeline),
            rest: rest.map(|(rest, value)| Rest {
                pipeline: typed(rest),
                value: Arc::new(Mutex::new(Some(value))),
            }),
            cursor,
            deadline: config.job.deadline.map_or(Deadline::None, Deadline::Within),
            clock: runtime.clock().clone(),
            rounds,
            domains,
            inside: config
                .stages
                .iter()
                .filter(|stage| stage.holds_device())
                .map(|stage| stage.device)
                .collect(),
        })
    }
}

/// The field of a stage that a CUDA device is named in and cannot be, and why.
fn misplaced(stage: &StageConfig, entry: &CatalogEntry) -> Option<(&'static str, &'static str)> {
    let is_cuda = |device: DeviceId| device.kind() == DeviceKind::Cuda;
    let on_backup = stage.backup.is_some_and(is_cuda);
    let field = if is_cuda(stage.device) {
        "device"
    } else if on_backup {
        "backup"
    } else {
        return None;
    };
    if !entry.on_cuda() {
        Some((field, "takes processors: this kernel has no version for CUDA devices"))
    } else if stage.placement == Placement::Inline {
        Some((field, "on a CUDA device takes a placement of \"process\" or \"thread\": its calls block"))
    } else if stage.placement == Placement::Thread && on_backup {
        Some(("backup", "on a CUDA device takes a placement of \"process\": a thread cannot move there"))
    } else {
        None
    }
}

/// The job's chain, and the rest of one that was left with what it had come to.
type Chain = (AnyPipeline, Option<(AnyPipeline, Value)>);

fn link<'a>(
    links: impl Iterator<Item = ((Way, AnyPipeline), &'a StageConfig)>,
    found: Option<&Found>,
    runtime: &Runtime,
) -> Result<Chain, SpawnError> {
    let mut pipeline = Pipeline::start();
    let mut rest: Option<(AnyPipeline, Value)> = None;
    for (index, ((Way { connect, decode }, conversion), stage)) in (0..).zip(links) {
        let gone = |cause: String| SpawnError::Child {
            child: stage.id().to_owned(),
            cause: Cause::StartFailed(cause),
        };
        let way = |rounds_before| {
            connect(runtime, rounds_before).ok_or_else(|| gone("it is gone again".to_owned()))
        };
        let whole = way(0)?;
        rest = match (rest, found) {
            (Some((rest, value)), _) => Some((rest.then(conversion.clone()).then(whole.clone()), value)),
            (None, Some(found)) if found.resumed.from.stage == index => {
                let value = decode(&found.value).map_err(|error| gone(error.to_string()))?;
                Some((way(found.resumed.from.round)?, value))
            }
            (None, _) => None,
        };
        pipeline = pipeline.then(conversion).then(whole);
    }
    Ok((pipeline, rest))
}

impl Job {
    /// The worker processes that its kernels live in.
    #[must_use]
    pub fn domains(&self) -> Vec<Domain> {
        self.domains.started()
    }

    /// The CUDA devices that its kernels have opened in this process: one that is lost stays so until the process ends.
    #[must_use]
    pub fn devices(&self) -> Vec<crate::cuda::Device> {
        self.inside.iter().filter_map(|device| crate::cuda::Device::open(device.number()).ok()).collect()
    }

    /// Sends `input` through the job, until `deadline` if there is one and the job's own otherwise. The first run of a resumed job goes
    /// on with what an earlier process had come to.
    ///
    /// # Errors
    /// The error of the stage that failed for good. One whose kernel is fenced because the deadline has passed is a passed deadline:
    /// the kernel's end is its source.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the job's requests; its kernels stay.
    pub async fn run(
        &self,
        input: EdgeListSource,
        deadline: Option<Deadline>,
    ) -> (Result<Ranking, KernelError>, PipelineReport) {
        let until = match deadline.unwrap_or(self.deadline) {
            Deadline::None => Timestamp::NEVER,
            Deadline::Within(span) => self.clock.now() + span,
            Deadline::At(at) => at,
        };
        let request =
            self.cursor.as_ref().map_or_else(Pipeline::<(), ()>::next_request_id, |cursor| cursor.request());
        let rest = self.rest.as_ref().and_then(|rest| {
            let value = rest.value.lock().unwrap_or_else(PoisonError::into_inner).take();
            value.map(|value| (&rest.pipeline, value))
        });
        let (pipeline, value) = rest.unwrap_or_else(|| (&self.pipeline, Value::new(input)));
        let (result, report) = pipeline.run_reported_as(request, value, until).await;
        (result.map_err(|error| self.late(error, until)), report)
    }

    fn late(&self, error: KernelError, until: Timestamp) -> KernelError {
        let fenced = matches!(error.kind(), KernelErrorKind::Hung | KernelErrorKind::Crashed);
        if !fenced || self.clock.now() < until {
            return error;
        }
        let (phase, kernel) = (error.phase(), error.kernel_id().cloned());
        let late = KernelError::new(KernelErrorKind::DeadlineExceeded, phase);
        match kernel {
            Some(kernel) => late.in_kernel(&kernel),
            None => late,
        }
        .with_source(error)
    }

    /// Rounds that the repeated stages have made so far.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.rounds.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
