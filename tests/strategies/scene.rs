//! What a soak runs in: a tree of one to three levels with one to three kernels, each with a ladder of its own.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use rustkernel::actors::{KernelSpec, Supervisor};
use rustkernel::core::DeviceId;
use rustkernel::core::resilience::{BackoffStrategy, CircuitBreakerConfig, RecoveryPolicy, RecoveryStrategy};
use rustkernel::core::supervision::{Restart, Strategy, SupervisorConfig};

use crate::kit::{Do, ms};
use crate::world::{Worker, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Inline,
    Thread,
    Elsewhere,
}

/// One kernel: what it is declared as.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) id: &'static str,
    pub(crate) place: Place,
    pub(crate) restart: Restart,
    /// It comes at run time, and goes with its supervisor.
    pub(crate) guest: bool,
    pub(crate) replicas: usize,
    follows: bool,
    degraded: bool,
    pub(crate) backup: bool,
    idempotent: bool,
    breaker: Option<Duration>,
    ladder: Vec<RecoveryStrategy>,
    max_restarts: u32,
    delay: Duration,
    window: Duration,
}

/// One supervisor of the tree.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) name: &'static str,
    pub(crate) restart: Restart,
    config: SupervisorConfig,
}

#[derive(Clone, Debug)]
pub(crate) struct Scene {
    /// The supervisors above the kernels, from the root's child down; none where the kernels are the root's.
    pub(crate) above: Vec<Rules>,
    pub(crate) parts: Vec<Part>,
    /// Restarts that the root allows in a second.
    pub(crate) root_intensity: u32,
    pub(crate) abandoned_limit: usize,
}

impl Scene {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let depth = [0, 1, 1, 1, 2, 2][rng.usize(..6)];
        let above = ["outer", "group"][2 - depth..].iter().map(|name| Rules::new(name, rng)).collect();
        let count = if depth == 0 { 1 } else { rng.usize(1..=3) };
        let parts = ["a/b", "a/c", "a/d"][..count].iter().map(|id| Part::new(id, depth, rng)).collect();
        let root_intensity = if rng.u8(..8) == 0 { rng.u32(1..6) } else { u32::MAX };
        let abandoned_limit = if rng.u8(..8) == 0 { rng.usize(1..4) } else { 1_000 };
        Self { above, parts, root_intensity, abandoned_limit }
    }

    /// The supervisor right above the kernels.
    pub(crate) fn group(&self) -> &'static str {
        self.above.last().map_or("root", |rules| rules.name)
    }

    /// The tree as it is declared, without its guests.
    pub(crate) fn tree(&self, worlds: &[Arc<World>], rng: &mut Rng) -> Option<Supervisor> {
        let mut below: Option<Supervisor> = None;
        for rules in self.above.iter().rev() {
            let mut own = Supervisor::new(rules.name).config(rules.config.clone()).restart(rules.restart);
            own = match below.take() {
                Some(below) => own.supervisor(below),
                None => {
                    let declared = self.parts.iter().zip(worlds).filter(|(part, _)| !part.guest);
                    declared.fold(own, |own, (part, world)| own.kernel(part.spec(world, rng)))
                }
            };
            below = Some(own);
        }
        below
    }

    /// Whether the runtime may come to its end by itself.
    pub(crate) fn may_give_up(&self) -> bool {
        let gives_up = |part: &Part| part.ladder.last() != Some(&RecoveryStrategy::NotifyOperator);
        self.root_intensity != u32::MAX || self.above.is_empty() && self.parts.iter().any(gives_up)
    }
}

impl Rules {
    fn new(name: &'static str, rng: &mut Rng) -> Self {
        let strategies = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
        let config = SupervisorConfig {
            strategy: strategies[rng.usize(..3)],
            intensity: if rng.u8(..3) == 0 { 1_000 } else { rng.u32(..6) },
            period: ms(rng.u64(5..500)),
            backoff: if rng.bool() {
                BackoffStrategy::Fixed { delay: ms(rng.u64(..5)) }
            } else {
                SupervisorConfig::default().backoff
            },
            ..SupervisorConfig::default()
        };
        Self { name, restart: restart(rng, 16), config }
    }
}

fn restart(rng: &mut Rng, rare: u8) -> Restart {
    match rng.u8(..rare) {
        0 => Restart::Temporary,
        1 => Restart::Transient,
        _ => Restart::Permanent,
    }
}

impl Part {
    fn new(id: &'static str, depth: usize, rng: &mut Rng) -> Self {
        let place = [Place::Inline, Place::Inline, Place::Thread, Place::Thread, Place::Elsewhere];
        let replicas = [0, 1, 1, 2][rng.usize(..4)];
        let (degraded, backup) = (rng.bool(), rng.bool());
        let mut ladder = Vec::new();
        ladder.extend((replicas > 0).then_some(RecoveryStrategy::UseReplica));
        ladder.extend(degraded.then_some(RecoveryStrategy::Degrade));
        ladder.extend(backup.then_some(RecoveryStrategy::Failover));
        rng.shuffle(&mut ladder);
        ladder.truncate(rng.usize(..=3));
        if ladder.is_empty() || rng.bool() {
            ladder.insert(0, RecoveryStrategy::RestartKernel);
        }
        // Without it, the kernel gives up. Below the root that is the end of everything.
        if rng.u8(..8) < if depth == 0 { 7 } else { 3 } {
            ladder.push(RecoveryStrategy::NotifyOperator);
        }
        Self {
            id,
            place: place[rng.usize(..5)],
            restart: restart(rng, 12),
            guest: depth > 0 && id != "a/b" && rng.u8(..4) == 0,
            replicas,
            follows: replicas > 0 && rng.bool(),
            degraded,
            backup,
            idempotent: rng.bool(),
            breaker: (rng.u8(..3) == 0).then(|| ms(rng.u64(1..200))),
            ladder,
            max_restarts: rng.u32(1..4),
            delay: ms(rng.u64(..4)),
            window: ms(rng.u64(5..200)),
        }
    }

    /// One version of it: what a replacement takes.
    pub(crate) fn version(&self, world: &Arc<World>, rng: &mut Rng) -> KernelSpec<Worker> {
        let device: DeviceId = "cpu:1".parse().unwrap();
        let mut spec = match self.place {
            Place::Inline => KernelSpec::new(self.id, world.maker()).inline(),
            Place::Thread => KernelSpec::new(self.id, world.maker()).hang_limit(HANG_LIMIT),
            Place::Elsewhere => KernelSpec::elsewhere(self.id, world.maker_elsewhere()),
        };
        if self.backup {
            spec = match self.place {
                Place::Inline | Place::Thread => spec.backup(device, world.maker()),
                Place::Elsewhere => spec.backup_elsewhere(device, world.maker_elsewhere()),
            };
        }
        spec.checkpointed().checkpoint_every(rng.u32(1..5)).canary(Do::Double(1), |_| true).shutdown(GRACE)
    }

    pub(crate) fn spec(&self, world: &Arc<World>, rng: &mut Rng) -> KernelSpec<Worker> {
        let policy = RecoveryPolicy {
            strategy: self.ladder[0],
            max_restarts: self.max_restarts,
            restart_delay: self.delay,
            escalation: self.ladder.get(1).copied(),
        };
        let breaker = |timeout| CircuitBreakerConfig { timeout, ..CircuitBreakerConfig::default() };
        let mut spec = self
            .version(world, rng)
            .restart(self.restart)
            .replicas(self.replicas)
            .breaker(self.breaker.map(breaker))
            .recovery(policy)
            .escalations(self.ladder.iter().skip(2).copied())
            .restart_window(self.window);
        if self.degraded {
            spec = spec.degraded(world.maker());
        }
        if self.follows {
            spec = spec.replicas_follow();
        }
        if self.idempotent { spec.idempotent() } else { spec }
    }
}

/// Long, as the hand turns it: a thread that has to wait for its core is not hung.
pub(crate) const HANG_LIMIT: Duration = ms(2_000);
const GRACE: Duration = ms(500);
