//! The fault domains of a job: which stages live in one worker process.
//!
//! ```toml
//! [[stage]]
//! kernel = "graph/pagerank"
//! placement = "process"
//! domain = "ranks"
//!
//! [domain.ranks]
//! max_deaths = 5
//! period = "60s"
//! ```
//!
//! A stage with `placement = "process"` that names no domain lives in that of its device, as `cpu:0`. One that moves to its backup device
//! moves to the domain of that device. A domain needs no section of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use rustkernel_core::DeviceId;
use rustkernel_core::device::DeviceKind;
use serde::{Deserialize, Serialize};

use super::document::quoted;
use super::{ConfigError, ConfigFault, Document, JobConfig, Placement, StageConfig, span};
use crate::worker::DomainConfig;

/// One fault domain of a job. Its settings are those of [`DomainConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DomainSection {
    /// Whether a second process stands by. Default true: it costs memory, and saves the time of a start when one dies.
    pub spare: bool,
    /// How long a request that nobody waits for any more may go on before the process is killed; above zero. Default 100 ms:
    /// as long as a thread may block past its deadline.
    #[serde(deserialize_with = "span::plain", serialize_with = "span::written")]
    pub kill_after: Duration,
    /// How often the process is asked whether it is there; above zero. Default 1 s: two short
    /// messages, and nobody waits for them.
    #[serde(deserialize_with = "span::plain", serialize_with = "span::written")]
    pub heartbeat: Duration,
    /// How long it may leave that unanswered before it is killed; not shorter than `heartbeat`. Default 10 s:
    /// longer than a machine under load stands still, since a request that hangs is noticed by its own limits.
    #[serde(deserialize_with = "span::plain", serialize_with = "span::written")]
    pub silence: Duration,
    /// How long a process may take until it is up; above zero. Default 10 s, a hundred times what one takes here, and for one with a
    /// CUDA device 60 s: a context takes a second or two, and code that has to be compiled as long again.
    #[serde(deserialize_with = "span::optional", serialize_with = "span::written_if")]
    pub start_limit: Option<Duration>,
    /// Deaths allowed within `period`; one more, and no kernel starts there until one of them is so old. Default 5: what dies
    /// more often has a cause that a new process has, too.
    pub max_deaths: u32,
    /// The sliding window in which deaths are counted; above zero. Default 60 s: as for a kernel's restarts.
    #[serde(deserialize_with = "span::plain", serialize_with = "span::written")]
    pub period: Duration,
}

impl DomainSection {
    /// How the domain treats its processes, which have this device.
    #[must_use]
    pub fn config(&self, device: DeviceId) -> DomainConfig {
        let plain = match device.kind() {
            DeviceKind::Cpu => DomainConfig::default(),
            DeviceKind::Cuda => DomainConfig::cuda(device.number()),
        };
        let Self { spare, kill_after, heartbeat, silence, start_limit, max_deaths, period } = self.clone();
        let start_limit = start_limit.unwrap_or(plain.start_limit);
        DomainConfig { spare, kill_after, heartbeat, silence, start_limit, max_deaths, period, ..plain }
    }
}

impl Default for DomainSection {
    fn default() -> Self {
        let DomainConfig {
            worker: _,
            device: _,
            spare,
            kill_after,
            heartbeat,
            silence,
            start_limit: _,
            max_deaths,
            period,
        } = DomainConfig::default();
        Self { spare, kill_after, heartbeat, silence, start_limit: None, max_deaths, period }
    }
}

impl StageConfig {
    /// Whether its kernel has a CUDA device in this process.
    #[must_use]
    pub fn holds_device(&self) -> bool {
        self.placement == Placement::Thread && self.device.kind() == DeviceKind::Cuda
    }

    /// The fault domain that it lives in, if its placement is a process.
    #[must_use]
    pub fn domain(&self) -> String {
        self.domain.clone().unwrap_or_else(|| self.device.to_string())
    }
}

/// Checks the domains of a job.
pub(super) fn check(job: &JobConfig, document: &Document) -> Result<(), ConfigError> {
    for (index, stage) in job.stages.iter().enumerate() {
        if stage.domain.is_some() && stage.placement != Placement::Process {
            let rule = "is for stages whose placement is \"process\"";
            return Err(document.at(&format!("stage[{index}].domain"), ConfigFault::Rule { rule }));
        }
    }
    let process = |stage: &&StageConfig| stage.placement == Placement::Process;
    let mut devices = BTreeMap::new();
    for stage in job.stages.iter().filter(process) {
        // The domain of a backup device is that device's own.
        for (name, device) in
            [Some((stage.domain(), stage.device)), stage.backup.map(|backup| (backup.to_string(), backup))]
                .into_iter()
                .flatten()
        {
            if *devices.entry(name.clone()).or_insert(device) != device {
                let index = job.stages.iter().position(|other| other.id() == stage.id()).unwrap_or(0);
                let field = if stage.domain.is_some() { "domain" } else { "device" };
                let rule = "holds stages of another device";
                return Err(document.at(&format!("stage[{index}].{field}"), ConfigFault::Rule { rule }));
            }
        }
    }
    for (name, section) in &job.domains {
        let device = devices.get(name).copied().unwrap_or_default();
        let at = |field: &str| format!("domain.{}{field}", quoted(name));
        let lives_there = |stage: &StageConfig| {
            let moves_there = stage.backup.is_some_and(|backup| backup.to_string() == *name);
            stage.domain() == *name || moves_there
        };
        if !job.stages.iter().any(lives_there) {
            let rule = "is the domain of no stage";
            return Err(document.at(&at(""), ConfigFault::Rule { rule }));
        }
        section.config(device).validate().map_err(|invalid| {
            let field = invalid.field.rsplit('.').next().unwrap_or(invalid.field);
            document.at(&at(&format!(".{field}")), ConfigFault::Rule { rule: invalid.rule })
        })?;
    }
    Ok(())
}
