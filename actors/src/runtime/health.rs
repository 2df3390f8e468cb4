//! The probe loop: it looks at every kernel at an interval, on the timer's thread, and remembers what it saw.
//!
//! A look reads the slot; it asks no actor and runs no kernel, so a blocked one cannot hold it up. What is certain counts at
//! once (a kernel that is down is unhealthy); what may pass (a thread that blocks for longer than the probe's timeout) counts by the
//! thresholds of the [`ProbeMachine`].

use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustkernel_core::KernelId;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::resilience::{
    HealthCheckConfig, HealthCheckResult, HealthStatus, InvalidConfig, ProbeMachine, aggregate,
};
use serde::Serialize;

use super::RuntimeState;
use super::registry::{Named, Registry};
use crate::counted::CountedMap;
use crate::gate::Mode;
use crate::kernel_ref::health_of;
use crate::links::Links;
use crate::operator::Fact;
use crate::slot::Supervised;
use crate::timer::Alarm;

pub(crate) struct ProbeLoop {
    config: HealthCheckConfig,
    registry: Arc<Registry>,
    links: Weak<Links>,
    seen: Mutex<CountedMap<u32, Seen>>,
    me: Weak<Self>,
}

struct Seen {
    machine: ProbeMachine,
    last: HealthCheckResult,
}

/// How healthy a runtime is.
#[derive(Clone, Debug, Serialize)]
pub struct RuntimeHealth {
    /// The node's state by the configured aggregation; unknown without a kernel.
    pub status: HealthStatus,
    /// Whether a restart of the process would help nothing: false only when the recovery actor gave up.
    pub live: bool,
    /// Whether the node takes traffic.
    pub ready: bool,
    /// Every kernel, in start order.
    pub kernels: Vec<KernelHealth>,
}

/// How healthy one kernel is.
#[derive(Clone, Debug, Serialize)]
pub struct KernelHealth {
    /// Which kernel.
    pub id: KernelId,
    /// Its state.
    pub status: HealthStatus,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// Whether it takes requests: it serves, or waits for its next life, and its breaker lets them through.
    pub takes: bool,
}

impl ProbeLoop {
    pub(super) fn start(
        config: HealthCheckConfig,
        registry: &Arc<Registry>,
        links: &Arc<Links>,
    ) -> Result<Arc<Self>, InvalidConfig> {
        config.validate()?;
        let probes = Arc::new_cyclic(|me| Self {
            config,
            registry: Arc::clone(registry),
            links: Arc::downgrade(links),
            seen: Mutex::default(),
            me: Weak::clone(me),
        });
        links.schedule_after(probes.config.probe.interval, &probes, 0);
        Ok(probes)
    }

    /// Looks at one kernel now.
    pub(crate) fn look(&self, index: u32, kernel: &dyn Supervised) {
        let Some(links) = self.links.upgrade() else { return };
        let now = links.timer.clock().now();
        let result = health_of(kernel, now, self.config.probe.timeout);
        let (before, status) = match self.lock().entry(index) {
            Entry::Occupied(mut known) => {
                let Seen { machine, last } = known.get_mut();
                let before = machine.status();
                let status = machine.on_result(result.status, now);
                *last = result;
                (Some(before), status)
            }
            Entry::Vacant(place) => {
                let limit = Some(now + self.config.startup_limit);
                let Ok(mut machine) = ProbeMachine::try_new(&self.config.probe, limit) else { return };
                let status = machine.on_result(result.status, now);
                place.insert(Seen { machine, last: result });
                (None, status)
            }
        };
        if before != Some(status) {
            links.operator.tell(Some(kernel.id()), Fact::Health(status));
        }
    }

    pub(super) fn health(&self, registry: &Registry, state: RuntimeState) -> RuntimeHealth {
        let Some(links) = self.links.upgrade() else {
            return RuntimeHealth {
                status: HealthStatus::Unhealthy,
                live: false,
                ready: false,
                kernels: Vec::new(),
            };
        };
        let now = links.timer.clock().now();
        let kernels: Vec<KernelHealth> =
            registry.all().iter().map(|named| self.kernel_health(named, now)).collect();
        let status = match state {
            RuntimeState::GaveUp | RuntimeState::Stopped => HealthStatus::Unhealthy,
            RuntimeState::Running | RuntimeState::Draining => {
                aggregate(kernels.iter().map(|kernel| kernel.status), self.config.aggregation)
            }
        };
        RuntimeHealth {
            status,
            live: state != RuntimeState::GaveUp,
            ready: state == RuntimeState::Running && status.is_serving(),
            kernels,
        }
    }

    /// Whether the node takes traffic, were it without the kernels of these names. One without any kernel does not.
    pub(crate) fn ready_without(&self, registry: &Registry, state: RuntimeState, excluded: &[&str]) -> bool {
        let health = self.health(registry, state);
        let mut left =
            health.kernels.iter().filter(|kernel| !excluded.contains(&kernel.id.as_str())).peekable();
        let serves = left.peek().is_none()
            || aggregate(left.map(|kernel| kernel.status), self.config.aggregation).is_serving();
        state == RuntimeState::Running && !health.kernels.is_empty() && serves
    }

    /// What is certain now goes before what the loop saw last.
    fn kernel_health(&self, named: &Named, now: Timestamp) -> KernelHealth {
        let id = named.kernel.id().clone();
        let current = health_of(&*named.kernel, now, Duration::MAX);
        if current.status == HealthStatus::Unhealthy {
            return KernelHealth { id, status: current.status, reason: current.reason, takes: false };
        }
        let takes = !matches!(named.kernel.gate().mode(), Mode::Open | Mode::Tripping | Mode::Isolated);
        let (status, reason) = self
            .lock()
            .get(&named.index)
            .map_or((HealthStatus::Unknown, None), |seen| (seen.machine.status(), seen.last.reason.clone()));
        match (status, current.status) {
            (HealthStatus::Healthy, HealthStatus::Degraded) | (HealthStatus::Degraded, _) => {
                KernelHealth { id, status: current.status, reason: current.reason, takes }
            }
            _ => KernelHealth { id, status, reason, takes: takes && status.is_serving() },
        }
    }

    fn lock(&self) -> MutexGuard<'_, CountedMap<u32, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarm for ProbeLoop {
    fn ring(&self, _: Timestamp, _: u64) {
        let all = self.registry.all();
        for named in &all {
            self.look(named.index, &*named.kernel);
        }
        self.lock().retain(|index, _| all.binary_search_by_key(index, |named| named.index).is_ok());
        if let (Some(links), Some(me)) = (self.links.upgrade(), self.me.upgrade()) {
            links.schedule_after(self.config.probe.interval, &me, 0);
        }
    }
}
