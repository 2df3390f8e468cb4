//! From a spec to what the supervisor needs: everything checked, the slot made, the name taken.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::codec::MAX_SCHEMA_BYTES;
use rustkernel_core::recovery::{RecoveryMachine, Targets};
use rustkernel_core::resilience::{BreakerMachine, InvalidConfig, RetryPlan};
use rustkernel_core::supervision::{ChildKind, ChildSpec, Restart, Shutdown};
use rustkernel_core::traits::LocalKernel;
use rustkernel_core::{DeviceId, KernelId};

use super::{Degraded, KernelSpec, Launcher, Placing, SpawnError};
use crate::breaker::BreakerMsg;
use crate::checkpoint::Checkpointer;
use crate::home::Home;
use crate::kernel_actor::{Canary, Factory, Launch, Recipe};
use crate::recovery::{Declaration, Declared, Env, KernelPlan, Version};
use crate::runtime::Registry;
use crate::slot::{Rules, Slot, Supervised, Watch};

/// Where a child is declared.
pub(crate) struct Declaring<'a> {
    pub(crate) env: &'a Env,
    pub(crate) registry: &'a Arc<Registry>,
    /// The supervisor above.
    pub(crate) home: &'a Arc<Home>,
}

/// A spec whose every field has been checked.
pub(crate) struct Checked<K: LocalKernel> {
    rules: Rules<K::Input>,
    spec: ChildSpec,
    recovery: RecoveryMachine,
    making: Making<K>,
    degraded: Option<Degraded<K>>,
    backup: Option<(DeviceId, Factory<K>)>,
    device: DeviceId,
    replicas: usize,
    start_limit: Duration,
}

/// How a kernel's lives are made.
struct Making<K: LocalKernel> {
    factory: Factory<K>,
    launcher: Launcher<K>,
    inline: bool,
    checkpointer: Option<Checkpointer<K>>,
    canary: Option<Arc<Canary<K>>>,
}

type SlotOf<K> = Arc<Slot<<K as LocalKernel>::Input, <K as LocalKernel>::Output>>;

impl<K: LocalKernel> Making<K> {
    fn launcher(&self, slot: &SlotOf<K>, factory: &Factory<K>, env: &Env) -> Arc<dyn Launch> {
        let recipe = Recipe {
            slot: Arc::clone(slot),
            factory: factory.clone(),
            checkpointer: self.checkpointer,
            canary: self.canary.clone(),
        };
        (self.launcher)(Arc::new(recipe), env.abandoned.clone(), env.handle.clone())
    }

    fn version(
        &self,
        slot: &SlotOf<K>,
        env: &Env,
        device: DeviceId,
        backup: Option<(DeviceId, Factory<K>)>,
    ) -> Version {
        let backup = backup.map(|(device, factory)| (device, self.launcher(slot, &factory, env)));
        Version { main: self.launcher(slot, &self.factory, env), device, backup }
    }
}

impl<K: LocalKernel> KernelSpec<K> {
    /// Checks everything.
    pub(crate) fn check(self) -> Result<Checked<K>, InvalidConfig> {
        self.check_numbers()?;
        self.timeout.validate()?;
        if let Some(breaker) = &self.breaker {
            breaker.validate()?;
        }
        let retry = RetryPlan::try_new(&self.retry)?;
        let targets = Targets {
            replica: self.replicas > 0,
            degraded: self.degraded.is_some(),
            backup: self.backup.is_some(),
        };
        let recovery =
            RecoveryMachine::try_new(self.recovery, &self.escalations, targets, self.restart_window)?;
        let rules = Rules {
            bounds: self.bounds,
            watch: Watch { hang_limit: self.hang_limit, hang_after: self.hang_after },
            breaker: self.breaker,
            retry,
            timeout: self.timeout,
            idempotent: self.idempotent,
            conviction_limit: self.conviction_limit,
            checkpoint_every: self.checkpoint_every,
            checkpoint_after: self.checkpoint_after,
            replicas_follow: self.replicas_follow,
            has_degraded: targets.degraded,
            has_alternative: targets.degraded || targets.replica || targets.backup,
            codec: self.codec,
        };
        let spec = ChildSpec { name: self.id.into(), kind: ChildKind::Kernel, rules: self.rules };
        Ok(Checked {
            rules,
            spec,
            recovery,
            making: Making {
                factory: self.factory,
                launcher: self.launcher,
                inline: self.inline,
                checkpointer: match (self.checkpointer, self.checkpoint_schema) {
                    (Some(checkpointer), Some(schema)) => Some(checkpointer.with_schema(schema)),
                    (checkpointer, _) => checkpointer,
                },
                canary: self.canary,
            },
            degraded: self.degraded,
            backup: self.backup,
            device: self.device,
            replicas: self.replicas,
            start_limit: self.start_limit,
        })
    }

    fn check_numbers(&self) -> Result<(), InvalidConfig> {
        let refuse = |field, rule| Err(InvalidConfig { field, rule });
        let at_least_one = [
            ("queue.requests", self.bounds.requests == 0),
            ("queue.bytes", self.bounds.bytes == 0),
            ("conviction_limit", self.conviction_limit == 0),
            ("checkpoint_every", self.checkpoint_every == 0),
        ];
        if let Some((field, _)) = at_least_one.into_iter().find(|(_, zero)| *zero) {
            return refuse(field, "must be at least 1");
        }
        let above_zero = [
            ("hang_limit", self.hang_limit == Some(Duration::ZERO)),
            ("start_limit", self.start_limit.is_zero()),
            ("checkpoint_after", self.checkpoint_after == Some(Duration::ZERO)),
        ];
        if let Some((field, _)) = above_zero.into_iter().find(|(_, zero)| *zero) {
            return refuse(field, "must be longer than zero");
        }
        if self.checkpoint_schema.is_some_and(|name| name.is_empty() || name.len() > MAX_SCHEMA_BYTES) {
            return refuse("checkpoint_schema", "must have 1 to 255 bytes");
        }
        if self.replicas > MAX_REPLICAS {
            return refuse("replicas", "must be at most 16");
        }
        if self.replicas_follow && (self.replicas == 0 || self.checkpointer.is_none()) {
            return refuse("replicas_follow", "needs replicas and checkpoints to follow");
        }
        if self.rules.significant && self.rules.restart == Restart::Permanent {
            return refuse("significant", "cannot be a permanent kernel: it never ends for good");
        }
        match &self.backup {
            Some((device, _)) if *device == self.device => {
                refuse("backup.device", "must be another device than the kernel's own")
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl<K: LocalKernel> Checked<K> {
    /// Takes the name, makes the slot, and gives back what the supervisor needs.
    pub(crate) fn declare(self, at: &Declaring<'_>) -> Result<(Declared, SlotOf<K>), SpawnError> {
        let Self { rules, spec, recovery, making, degraded, backup, device, replicas, start_limit } = self;
        let Declaring { env, registry, home } = at;
        let id = KernelId::new(&spec.name)?;
        let now = env.links.timer.clock().now();
        let breaker = breaker_of(&rules, &id, now)?;
        let index = registry.reserve(&id)?;
        let slot = Slot::new(id.clone(), index, rules, Arc::clone(&env.links), Arc::clone(home));
        registry.fill(&id, index, &slot);
        let kernel = Arc::clone(&slot) as Arc<dyn Supervised>;
        if let Some(machine) = breaker {
            let (kernel, machine) = (Arc::clone(&kernel), Box::new(machine));
            // A breaker actor that is gone leaves the gate closed; so does its end later on.
            env.links.to_breaker(BreakerMsg::Register { slot: index, kernel, machine });
        }
        let placing =
            Placing { inline: making.inline, abandoned: env.abandoned.clone(), handle: env.handle.clone() };
        let (names, name, links) = (Arc::clone(registry), id, Arc::clone(&env.links));
        let plan = KernelPlan {
            version: Mutex::new(making.version(&slot, env, device, backup)),
            degraded: degraded.map(|make| make(Arc::clone(&slot), placing)),
            kernel,
            slot: index,
            replicas,
            recovery,
            has_moved: AtomicBool::new(false),
            grace: grace_of(spec.rules.shutdown),
            start_limit,
            free_name: Box::new(move || {
                names.remove(&name, index);
                links.to_breaker(BreakerMsg::Remove { slot: index });
            }),
        };
        Ok((Declared { spec, body: Declaration::Kernel(Arc::new(plan)) }, slot))
    }

    /// Makes another version for a slot that exists.
    pub(crate) fn version(self, slot: &SlotOf<K>, env: &Env) -> Version {
        self.making.version(slot, env, self.device, self.backup)
    }
}

fn breaker_of<I>(
    rules: &Rules<I>,
    id: &KernelId,
    now: Timestamp,
) -> Result<Option<BreakerMachine>, SpawnError> {
    let machine = rules.breaker.clone().map(|config| BreakerMachine::try_new(config, now)).transpose();
    machine.map_err(|source| SpawnError::Config { kernel: id.clone(), source })
}

/// How long a life whose actor has ended may take to notice: its thread cannot be killed, only left.
fn grace_of(shutdown: Shutdown) -> Duration {
    match shutdown {
        Shutdown::Brutal => Duration::ZERO,
        Shutdown::Within(grace) => grace,
        Shutdown::Infinity => Duration::from_secs(5),
    }
}

/// Standbys a kernel may have.
const MAX_REPLICAS: usize = 16;
