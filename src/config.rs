//! The schema of a job: a pipeline of built-in kernels, and the rules each of them lives by.
//!
//! A job is a TOML document. `rustkernel run PIPELINE.toml` reads one; the one it runs without arguments is
//! [`JobConfig::shipped`]. Everything that can be wrong with it is found before anything runs, as a [`ConfigError`] with file,
//! line, column and field: bad syntax, unknown keys (with the nearest known one), values out of range, unknown kernels, names
//! used twice. What the kernels' own settings and types have to say is checked by [`Plan::new`](crate::job::Plan::new).
//!
//! The sections `retry`, `recovery` and `breaker` are the types of [`rustkernel_core::resilience`]: one schema, not two.

mod document;
mod domain;
mod error;
mod overlay;
mod span;
mod supervisor;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use rustkernel_core::recovery::{DEFAULT_RESTART_WINDOW, RecoveryMachine, Targets};
use rustkernel_core::resilience::{
    CircuitBreakerConfig, InvalidConfig, RecoveryPolicy, RecoveryStrategy, RetryConfig,
};
use rustkernel_core::supervision::{ChildRules, Restart, Shutdown};
use rustkernel_core::{DeviceId, KernelId};

pub use document::Document;
pub(crate) use document::{list, nearest, quoted};
pub use domain::DomainSection;
pub use error::{ConfigError, ConfigFault, OverlayFault, Place};
pub use overlay::Overlay;
pub use supervisor::SupervisorSection;

/// A job: settings of the whole, and its stages in the order of the data.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JobConfig {
    /// Settings of the whole.
    #[serde(default)]
    pub job: JobSettings,
    /// The stages; at least one, at most 64: each has a thread.
    #[serde(default, rename = "stage")]
    pub stages: Vec<StageConfig>,
    /// The restart tree over the stages, by the supervisors' names. Default: every stage is restarted alone.
    #[serde(default, rename = "supervisor")]
    pub supervisors: BTreeMap<String, SupervisorSection>,
    /// How the fault domains of stages in worker processes treat those, by the domains' names. Default: as [`DomainSection`] says.
    #[serde(default, rename = "domain")]
    pub domains: BTreeMap<String, DomainSection>,
}

/// Settings of the whole job.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobSettings {
    /// What people call it. Default "job": a name is for people, and nothing depends on it.
    pub name: String,
    /// The longest that the job may take, all stages and re-runs together; above zero. Default: as long as it takes, for nobody but
    /// the user knows how long that is.
    /// `--deadline` goes first.
    #[serde(deserialize_with = "span::optional", serialize_with = "span::written_if")]
    pub deadline: Option<Duration>,
    /// Re-runs that all requests of the job may make together. Default 16: what fails more often
    /// than that is better looked at than run again. A job of many requests under many faults needs more.
    pub retry_budget: u32,
}

/// One stage: a built-in kernel and the rules it lives by.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// The built-in kernel, for example `graph/pagerank`.
    pub kernel: String,
    /// The name that this use of the kernel is supervised under, `family/name`. Default: the kernel's own, which will do where it is used once. No two stages
    /// may have the same.
    #[serde(default)]
    pub name: Option<String>,
    /// The kernel's own settings; see the kernel.
    #[serde(default)]
    pub settings: toml::Table,
    /// Where the kernel runs. Default: a thread of its own, which may compute without an end in sight and can be left behind.
    #[serde(default)]
    pub placement: Placement,
    /// The fault domain it lives in, if its placement is a process; stages of one domain share a process. Default: its device, because
    /// what a device loses, all who use it lose.
    #[serde(default)]
    pub domain: Option<String>,
    /// Whether a request whose attempt failed may run again. Default true: all built-in kernels are idempotent. Without it the
    /// first failure ends the job.
    #[serde(default = "default_idempotent")]
    pub idempotent: bool,
    /// Whether the kernel's state is taken down after every request and given to its next incarnation; only for a kernel that has
    /// any. Default false: it costs the time to encode the state.
    #[serde(default)]
    pub checkpointed: bool,
    /// A checkpoint after every so many requests; at least 1. Default 1: then a restart has lost nothing. More saves the time to encode.
    #[serde(default = "default_checkpoint_every")]
    pub checkpoint_every: u32,
    /// A checkpoint this long after the last one, if the kernel has served since; above zero. Default none: the count
    /// above is enough where requests come at all.
    #[serde(default, deserialize_with = "span::optional", serialize_with = "span::written_if")]
    pub checkpoint_after: Option<Duration>,
    /// Warm standbys, the target of `use_replica`; at most 16. Default 0: each costs what the kernel costs.
    #[serde(default)]
    pub replicas: usize,
    /// Settings of the kernel's degraded path, the target of `degrade`: the same kernel with these settings. Default: there is
    /// none, because only the user knows which worse answer is still one.
    #[serde(default)]
    pub degraded: Option<toml::Table>,
    /// Where the kernel runs. Default `cpu:0`, which every machine has; a CUDA device takes a kernel that has a
    /// version for it.
    #[serde(default)]
    pub device: DeviceId,
    /// The device it fails over to, the target of `failover`; another one than `device`. Default none: it has to be there.
    #[serde(default)]
    pub backup: Option<DeviceId>,
    /// What follows when `recovery.escalation` has not helped. Default: the supervisor decides, which sees the whole group.
    #[serde(default)]
    pub escalations: Vec<RecoveryStrategy>,
    /// Incarnations that one request may take down before it is given up as a dead letter; at least 1. Default 2: the first death
    /// may have been the machine's, two in a row are the request's.
    #[serde(default = "default_conviction_limit")]
    pub conviction_limit: u32,
    /// Which of the kernel's own errors are tried again, how often, and how far apart.
    #[serde(default)]
    pub retry: RetryConfig,
    /// How often the kernel is restarted, and when.
    #[serde(default)]
    pub recovery: RecoveryPolicy,
    /// The sliding window in which `recovery.max_restarts` are allowed; above zero. Default 60 s: a kernel that
    /// fails every few seconds uses its restarts up, one that fails every few minutes does not.
    #[serde(
        default = "default_restart_window",
        deserialize_with = "span::plain",
        serialize_with = "span::written"
    )]
    pub restart_window: Duration,
    /// Which of its ends make the supervisor above start it again. A `temporary` kernel stays down once it has failed; `transient` and
    /// `permanent` are the same for a kernel, which never ends by itself in peace. Default permanent: a job needs
    /// all its stages.
    #[serde(default)]
    pub restart: Restart,
    /// How the supervisor above stops it: `"brutal"`, `"infinity"` or `{ within = "5s" }`. Default: asked, and killed after 5 s,
    /// as in OTP.
    #[serde(default)]
    pub shutdown: Shutdown,
    /// Whether its own end may end the supervisor above, as that one's `auto_shutdown` says: not of a permanent kernel, and not under a
    /// supervisor that never does. Default no, as in OTP: a group outlives its members.
    #[serde(default)]
    pub significant: bool,
    /// When requests are refused.
    #[serde(default)]
    pub breaker: CircuitBreakerConfig,
    /// The longest that one request may take before its kernel counts as hung and is replaced; above zero. Default 60 s, far above
    /// what the built-in kernels take for a graph of a few million edges. Choose it
    /// well above the slowest honest request of the largest input.
    #[serde(
        default = "default_hang_limit",
        deserialize_with = "span::plain",
        serialize_with = "span::written"
    )]
    pub hang_limit: Duration,
    /// How long a request may block its thread past its deadline before its kernel counts as hung. Default 100 ms: a little late is
    /// cheaper than a new life.
    #[serde(
        default = "default_hang_after",
        deserialize_with = "span::plain",
        serialize_with = "span::written"
    )]
    pub hang_after: Duration,
    /// Bounds of what waits.
    #[serde(default)]
    pub queue: QueueConfig,
    /// Sends each answer back in until it is good enough. Default: the stage runs once, as most do.
    #[serde(default)]
    pub repeat: Option<RepeatConfig>,
}

/// Where a kernel runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// On a thread of its own, which a hang cannot take from others.
    #[default]
    Thread,
    /// On the async runtime: cheaper, and only for kernels that take microseconds.
    Inline,
    /// In a worker process, whose death it survives: payloads are copied there and back.
    Process,
}

/// Bounds of what waits for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// Requests that wait; at least 1. Default 1024: enough for a burst, and few enough to be told early that it is too much.
    pub requests: usize,
    /// Payload bytes of all unanswered requests; at least 1. Default 64 GiB: a job has one request at a time, and its graph has to
    /// fit whatever its size.
    pub bytes: usize,
}

/// When a repeated stage is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RepeatConfig {
    /// What it is repeated until.
    pub until: Until,
    /// Rounds after which a stage that is not done fails the job; at least 1.
    pub limit: u32,
}

/// What a stage is repeated until.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The kernel's answer has converged, by the kernel's own settings.
    Converged,
}

/// The text of a file of at most 1 MiB.
fn text_of(path: &Path) -> Result<String, ConfigError> {
    let fail = |fault| ConfigError { place: Place::file(&path.display().to_string()), fault };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    let read = opened.and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|source| fail(ConfigFault::Read { source }))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(fail(ConfigFault::TooLong { limit_bytes: MAX_FILE_BYTES }));
    }
    String::from_utf8(bytes)
        .map_err(|error| fail(ConfigFault::NotText { offset: error.utf8_error().valid_up_to() }))
}

impl JobConfig {
    /// The name that errors about the shipped job carry.
    pub const SHIPPED_NAME: &str = "the shipped pipeline";

    /// The job that is run when none is named: PageRank of Debian's dependency graph.
    ///
    /// # Errors
    /// None that a released build shows: a test reads it.
    pub fn shipped() -> Result<(Self, Document), ConfigError> {
        Self::parse(Self::SHIPPED_NAME, SHIPPED)
    }

    /// Reads a job from a file of at most 1 MiB, or takes the shipped one, with what `overlay` sets.
    ///
    /// # Errors
    /// A [`ConfigError`] whose place is the file or the variable, and line and field where there are any.
    pub fn load(path: Option<&Path>, overlay: &Overlay) -> Result<(Self, Document), ConfigError> {
        match path {
            Some(path) => Self::parse_with(&path.display().to_string(), &text_of(path)?, overlay),
            None => Self::parse_with(Self::SHIPPED_NAME, SHIPPED, overlay),
        }
    }

    /// Reads a job from a file of at most 1 MiB.
    ///
    /// # Errors
    /// A [`ConfigError`] whose place is the file, and line and field where there are any.
    pub fn read(path: &Path) -> Result<(Self, Document), ConfigError> {
        Self::load(Some(path), &Overlay::default())
    }

    /// Reads a job from `text`; errors call it `name`. The [`Document`] tells where in it each field is.
    ///
    /// # Errors
    /// A [`ConfigError`] with the line and the field.
    pub fn parse(name: &str, text: &str) -> Result<(Self, Document), ConfigError> {
        Self::parse_with(name, text, &Overlay::default())
    }

    /// Reads a job from `text` with what `overlay` sets; errors call it `name`.
    ///
    /// # Errors
    /// A [`ConfigError`] with the line and the field, or with the variable.
    pub fn parse_with(name: &str, text: &str, overlay: &Overlay) -> Result<(Self, Document), ConfigError> {
        let (set, overrides) = overlay.apply(text).map_err(|(variable, fault)| ConfigError {
            place: Place::file(&variable),
            fault: ConfigFault::Overlay(fault),
        })?;
        let document = Document::new(name, text.to_owned(), set, overrides);
        let config: Self = toml::from_str(document.text()).map_err(|error| document.refused(&error))?;
        config.validate(&document)?;
        Ok((config, document))
    }

    /// Puts every stage there.
    pub fn place(&mut self, placement: Placement) {
        for stage in &mut self.stages {
            stage.placement = placement;
            if placement != Placement::Process {
                stage.domain = None;
            }
        }
    }

    /// Checks what the types cannot.
    fn validate(&self, document: &Document) -> Result<(), ConfigError> {
        let check = |holds: bool, field: &str, rule| {
            if holds { Ok(()) } else { Err(document.at(field, ConfigFault::Rule { rule })) }
        };
        let deadline = self.job.deadline;
        check(deadline.is_none_or(|deadline| !deadline.is_zero()), "job.deadline", ABOVE_ZERO)?;
        check(!self.stages.is_empty(), "stage", "a job needs at least one [[stage]]")?;
        check(self.stages.len() <= MAX_STAGES, "stage", "a job has at most 64 stages")?;
        let mut names = BTreeSet::new();
        for (index, stage) in self.stages.iter().enumerate() {
            let at = |field: &str| format!("stage[{index}].{field}");
            let name_field = at(if stage.name.is_some() { "name" } else { "kernel" });
            if let Err(source) = KernelId::new(stage.id()) {
                return Err(document.at(&name_field, ConfigFault::Name { source }));
            }
            if !names.insert(stage.id()) {
                let fault = ConfigFault::NameTaken { name: stage.id().to_owned() };
                return Err(document.at(&name_field, fault));
            }
            check(stage.conviction_limit > 0, &at("conviction_limit"), AT_LEAST_ONE)?;
            check(!stage.hang_limit.is_zero(), &at("hang_limit"), ABOVE_ZERO)?;
            check(!stage.restart_window.is_zero(), &at("restart_window"), ABOVE_ZERO)?;
            check(stage.queue.requests > 0, &at("queue.requests"), AT_LEAST_ONE)?;
            check(stage.queue.bytes > 0, &at("queue.bytes"), AT_LEAST_ONE)?;
            check(stage.repeat.is_none_or(|repeat| repeat.limit > 0), &at("repeat.limit"), AT_LEAST_ONE)?;
            check(stage.checkpoint_every > 0, &at("checkpoint_every"), AT_LEAST_ONE)?;
            let after = stage.checkpoint_after;
            check(after.is_none_or(|after| !after.is_zero()), &at("checkpoint_after"), ABOVE_ZERO)?;
            check(stage.replicas <= MAX_REPLICAS, &at("replicas"), "must be at most 16")?;
            let moves = stage.backup != Some(stage.device);
            check(moves, &at("backup"), "must be another device than `device`")?;
            stage.check_recovery().map_err(|invalid| {
                document.at(&at(invalid.field), ConfigFault::Rule { rule: invalid.rule })
            })?;
        }
        supervisor::check(self, document)?;
        domain::check(self, document)
    }
}

impl StageConfig {
    /// The name that the stage's kernel is supervised under.
    #[must_use]
    pub fn id(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.kernel)
    }

    /// What its kernel is to the supervisor above.
    #[must_use]
    pub fn rules(&self) -> ChildRules {
        ChildRules { restart: self.restart, shutdown: self.shutdown, significant: self.significant }
    }

    /// The machine knows which strategies have a target here.
    fn check_recovery(&self) -> Result<(), InvalidConfig> {
        let targets = Targets {
            replica: self.replicas > 0,
            degraded: self.degraded.is_some(),
            backup: self.backup.is_some(),
        };
        let recovery = self.recovery.clone();
        RecoveryMachine::try_new(recovery, &self.escalations, targets, self.restart_window).map(drop)
    }
}

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            name: "job".to_owned(),
            deadline: None,
            retry_budget: rustkernel_core::envelope::DEFAULT_RETRY_BUDGET,
        }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { requests: 1024, bytes: 64_usize.saturating_mul(1 << 30) }
    }
}

fn default_idempotent() -> bool {
    true
}

fn default_checkpoint_every() -> u32 {
    1
}

fn default_conviction_limit() -> u32 {
    2
}

fn default_restart_window() -> Duration {
    DEFAULT_RESTART_WINDOW
}

fn default_hang_limit() -> Duration {
    Duration::from_secs(60)
}

fn default_hang_after() -> Duration {
    Duration::from_millis(100)
}

const MAX_STAGES: usize = 64;
const MAX_REPLICAS: usize = 16;
const MAX_FILE_BYTES: u64 = 1 << 20;
const ABOVE_ZERO: &str = "must be longer than zero";
const AT_LEAST_ONE: &str = "must be at least 1";
const SHIPPED: &str = include_str!("../data/pagerank.toml");
