//! How a domain treats its processes, and how it is.

use std::time::Duration;

use rustkernel_core::DeviceId;
use rustkernel_core::device::DeviceKind;
use rustkernel_core::resilience::{HealthCheckResult, InvalidConfig};
use serde::Serialize;

use super::process::WorkerCommand;

/// How a domain treats its processes.
#[derive(Clone, Debug)]
pub struct DomainConfig {
    /// How a worker is started. Default: [this program again](WorkerCommand::itself).
    pub worker: WorkerCommand,
    /// The device that each process opens, and asks something, before it is up; its kernels find it open. Default none.
    pub device: Option<DeviceId>,
    /// Whether a second process stands by, started and without kernels, so that a death is a hand-over. Default yes: it costs the memory
    /// of an idle process; on a device, of a context and of the code that the other one has loaded.
    pub spare: bool,
    /// How long a request that nobody waits for any more may go on before the process is killed; above zero. Default 100 ms: long
    /// enough that a kernel that asks whether it is cancelled is not killed.
    pub kill_after: Duration,
    /// How often a worker is asked whether it is there; above zero. Default 1 s.
    pub heartbeat: Duration,
    /// How long it may leave that unanswered before it is killed; not shorter than `heartbeat`. Default 10 s: a machine under load is
    /// slow, too.
    pub silence: Duration,
    /// How long a process may take until it is up; above zero. Default 10 s.
    pub start_limit: Duration,
    /// Deaths within `period` that are allowed; one more, and no kernel starts there until one of them is so old. Default 5.
    pub max_deaths: u32,
    /// The sliding window of `max_deaths`; above zero. Default 60 s.
    pub period: Duration,
}

/// How a domain is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DomainStatus {
    /// What it can do.
    pub state: DomainState,
    /// The number of the present worker, from 1.
    pub generation: u64,
    /// The process of the present worker.
    pub pid: Option<u32>,
    /// The process that stands by, if it is up.
    pub spare: Option<u32>,
    /// Kernels in the present worker.
    pub kernels: usize,
    /// Workers that have died, spare ones included.
    pub deaths: u64,
    /// What ended the last one.
    pub last_death: Option<String>,
    /// Processes that were killed and have not ended yet, while another one serves in their place.
    pub dying: usize,
    /// Those of them that do not end: they are stuck in the system, with whatever they hold.
    pub undying: usize,
    /// Why no worker may be started, while none may.
    pub obstacle: Option<String>,
}

/// What a domain can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainState {
    /// Its worker is being started.
    Starting,
    /// Its worker is up.
    Ready,
    /// It has lost too many workers, or its device is not fit for use: no kernel starts there.
    Down,
    /// It was closed.
    Closed,
}

impl Default for DomainConfig {
    fn default() -> Self {
        Self {
            worker: WorkerCommand::itself(),
            device: None,
            spare: true,
            kill_after: Duration::from_millis(100),
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(10),
            start_limit: Duration::from_secs(10),
            max_deaths: 5,
            period: Duration::from_secs(60),
        }
    }
}

impl DomainConfig {
    /// For kernels on a CUDA device: each process opens it, and has 60 s to be up, because a context and its code take their time.
    #[must_use]
    pub fn cuda(ordinal: u16) -> Self {
        let device = Some(DeviceId::cuda(ordinal));
        Self { device, start_limit: Duration::from_secs(60), ..Self::default() }
    }

    /// Whether its workers hold memory of a device beside that of the system.
    pub(super) fn holds_gpu(&self) -> bool {
        self.device.is_some_and(|device| device.kind() == DeviceKind::Cuda)
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidConfig> {
        let refuse = |field, rule| Err(InvalidConfig { field, rule });
        let above_zero = [
            ("domain.kill_after", self.kill_after),
            ("domain.heartbeat", self.heartbeat),
            ("domain.start_limit", self.start_limit),
            ("domain.period", self.period),
        ];
        if let Some((field, _)) = above_zero.into_iter().find(|(_, span)| span.is_zero()) {
            return refuse(field, "must be longer than zero");
        }
        if self.silence < self.heartbeat {
            return refuse("domain.silence", "must not be shorter than `heartbeat`");
        }
        Ok(())
    }
}

impl DomainStatus {
    /// The same as a health check tells it: degraded while its worker is being started or a dead one holds on to something, unhealthy
    /// when kernels cannot start in it.
    #[must_use]
    pub fn health(&self) -> HealthCheckResult {
        let last = self.last_death.as_deref().unwrap_or("none");
        let died = format!("workers that died: {}; the last one: {last}", self.deaths);
        match self.state {
            DomainState::Ready if self.undying > 0 => {
                HealthCheckResult::degraded(format!("processes that do not end: {}; {died}", self.undying))
            }
            DomainState::Ready if self.deaths == 0 => HealthCheckResult::healthy(),
            DomainState::Ready => HealthCheckResult { reason: Some(died), ..HealthCheckResult::healthy() },
            DomainState::Starting => {
                HealthCheckResult::degraded(format!("its worker is being started; {died}"))
            }
            DomainState::Down => {
                let obstacle = self.obstacle.as_deref().unwrap_or("unknown");
                HealthCheckResult::unhealthy(format!("no worker may be started: {obstacle}; {died}"))
            }
            DomainState::Closed => HealthCheckResult::unhealthy("it is closed"),
        }
    }

    pub(super) fn new() -> Self {
        Self {
            state: DomainState::Starting,
            generation: 0,
            pid: None,
            spare: None,
            kernels: 0,
            deaths: 0,
            last_death: None,
            dying: 0,
            undying: 0,
            obstacle: None,
        }
    }
}
