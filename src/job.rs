//! A job: a checked pipeline of built-in kernels, spawned on a runtime and run.
//!
//! [`Plan::new`] finds everything that is wrong with a job before anything runs; [`Plan::spawn`] puts its kernels under
//! supervision; [`Job::run`] sends one input through them. What supervision did meanwhile is counted by a [`Tally`].

mod tally;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustkernel_actors::pipeline::PipelineReport;
use rustkernel_actors::{Pipeline, Runtime, SpawnError};
use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::envelope::Deadline;
use rustkernel_core::error::{KernelError, KernelErrorKind};
use rustkernel_core::traits::Payload;

use crate::catalog::{self, AnyPipeline, Prepared, Settings, SettingsError, Site, Value};
use crate::config::{ConfigError, ConfigFault, Document, JobConfig, Placement};
use crate::inject::Injector;
use crate::kernels::graph::{EdgeListSource, Ranking};

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
    pipeline: Pipeline<EdgeListSource, Ranking>,
    deadline: Deadline,
    clock: Clock,
    rounds: Arc<AtomicU32>,
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
            let settings = Settings(document.table(&at("settings")));
            let prepared = entry.prepare(&settings).map_err(|error| match error {
                SettingsError::Read(error) => document.refused(&error),
                SettingsError::Value { field, source } => {
                    document.at(&at(&format!("settings.{field}")), ConfigFault::Settings { source })
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

    /// Spawns the job's kernels on `runtime`, with faults if there is an injector.
    ///
    /// # Errors
    /// The first kernel that does not start; those before it stay with the runtime.
    ///
    /// # Cancel safety
    /// Kernels that were spawned before a drop stay with the runtime.
    pub async fn spawn(self, runtime: &Runtime, injector: Option<Injector>) -> Result<Job, SpawnError> {
        let Self { config, stages, conversions } = self;
        let rounds = Arc::new(AtomicU32::new(0));
        let mut pipeline = Pipeline::start().map(Value::new::<EdgeListSource>);
        for ((prepared, conversion), stage) in stages.into_iter().zip(conversions).zip(config.stages) {
            let site = Site { runtime: runtime.clone(), stage, injector, rounds: Arc::clone(&rounds) };
            pipeline = pipeline.then(conversion).then(prepared(site).await?);
        }
        let pipeline = pipeline.try_map(Value::take).retry_budget(config.job.retry_budget);
        let deadline = config.job.deadline.map_or(Deadline::None, Deadline::Within);
        Ok(Job { pipeline, deadline, clock: runtime.clock().clone(), rounds })
    }
}

impl Job {
    /// Sends `input` through the job, until `deadline` if there is one and the job's own otherwise.
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
        let (result, report) = self.pipeline.run_reported(input, until).await;
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
