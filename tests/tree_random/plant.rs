//! What a random tree is declared as, for the model and for the runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rustkernel::actors::{KernelSpec, Supervisor};
use rustkernel::core::Result;
use rustkernel::core::resilience::{BackoffStrategy, RecoveryPolicy, RecoveryStrategy};
use rustkernel::core::supervision::{AutoShutdown, Restart, Shutdown, Strategy, SupervisorConfig};

use rustkernel::core::traits::{Context, Kernel};

use crate::cast::Cast;
use crate::kit::{Do, Puppet, at_once};

/// One supervisor or leaf. Node 0 is the runtime's root; a node's children have greater numbers than it, in start order.
#[derive(Clone, Debug)]
pub(crate) struct Plant {
    pub(crate) name: String,
    pub(crate) parent: usize,
    pub(crate) restart: Restart,
    pub(crate) significant: bool,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Up as soon as it runs.
    Task,
    /// Up when it says so.
    Announcer,
    Kernel,
    /// A kernel with a warm standby that takes over when it fails.
    Twin,
    Supervisor(Rules),
}

#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) strategy: Strategy,
    pub(crate) intensity: u32,
    pub(crate) period_ms: u64,
    pub(crate) delay_ms: u64,
    pub(crate) auto_shutdown: AutoShutdown,
}

const DEPTH: usize = 6;

/// A random tree: the root, its one child `n1`, and what is below that.
pub(crate) fn grow(rng: &mut Rng) -> Vec<Plant> {
    let nodes = if rng.u8(..4) == 0 { rng.usize(40..500) } else { rng.usize(4..40) };
    let root = Rules {
        strategy: Strategy::OneForOne,
        intensity: if rng.bool() { u32::MAX } else { rng.u32(0..3) },
        period_ms: 1_000,
        delay_ms: 0,
        auto_shutdown: AutoShutdown::Never,
    };
    let mut plants = vec![plant(0, 0, Restart::Permanent, Kind::Supervisor(root))];
    plants.push(plant(1, 0, restart(rng), Kind::Supervisor(rules(rng))));
    let mut supervisors = vec![(1, 1)];
    for number in 2..nodes {
        let (parent, depth) = supervisors[rng.usize(..supervisors.len())];
        let kind = match rng.u8(..10) {
            0..=2 if depth < DEPTH => Kind::Supervisor(rules(rng)),
            3..=4 => Kind::Kernel,
            5 => Kind::Twin,
            6..=7 => Kind::Announcer,
            _ => Kind::Task,
        };
        if matches!(kind, Kind::Supervisor(_)) {
            supervisors.push((number, depth + 1));
        }
        let Kind::Supervisor(above) = &plants[parent].kind else { unreachable!() };
        let watched = above.auto_shutdown != AutoShutdown::Never;
        let mut plant = plant(number, parent, restart(rng), kind);
        plant.significant = watched && plant.restart != Restart::Permanent && rng.bool();
        plants.push(plant);
    }
    plants
}

fn plant(number: usize, parent: usize, restart: Restart, kind: Kind) -> Plant {
    let name =
        if matches!(kind, Kind::Kernel | Kind::Twin) { format!("k/n{number}") } else { format!("n{number}") };
    Plant { name, parent, restart, significant: false, kind }
}

fn restart(rng: &mut Rng) -> Restart {
    match rng.u8(..6) {
        0 => Restart::Temporary,
        1 => Restart::Transient,
        _ => Restart::Permanent,
    }
}

fn rules(rng: &mut Rng) -> Rules {
    let strategies = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
    Rules {
        strategy: strategies[rng.usize(..3)],
        intensity: if rng.u8(..3) == 0 { rng.u32(0..3) } else { rng.u32(3..50) },
        period_ms: rng.u64(20..2_000),
        delay_ms: if rng.bool() { 0 } else { rng.u64(1..200) },
        auto_shutdown: match rng.u8(..6) {
            0 => AutoShutdown::AnySignificant,
            1 => AutoShutdown::AllSignificant,
            _ => AutoShutdown::Never,
        },
    }
}

impl Rules {
    pub(crate) fn config(&self) -> SupervisorConfig {
        SupervisorConfig {
            strategy: self.strategy,
            intensity: self.intensity,
            period: Duration::from_millis(self.period_ms),
            auto_shutdown: self.auto_shutdown,
            backoff: BackoffStrategy::Fixed { delay: Duration::from_millis(self.delay_ms) },
            ..SupervisorConfig::default()
        }
    }
}

/// The supervisor of this number with everything below it, as it is declared to the runtime.
pub(crate) fn declare(plants: &[Plant], number: usize, cast: &Cast, living: &Arc<AtomicUsize>) -> Supervisor {
    let own = &plants[number];
    let Kind::Supervisor(rules) = &own.kind else { unreachable!() };
    let mut declared =
        Supervisor::new(&own.name).config(rules.config()).restart(own.restart).shutdown(Shutdown::Infinity);
    if own.significant {
        declared = declared.significant();
    }
    let below = (1..).zip(&plants[1..]).filter(|(_, plant)| plant.parent == number);
    for (child, Plant { name, restart, significant, kind, .. }) in below {
        declared = match kind {
            Kind::Supervisor(_) => declared.supervisor(declare(plants, child, cast, living)),
            Kind::Kernel => {
                // Without an escalation of its own, a kernel whose restart is one too many ends its supervisor, as a task does.
                let policy = RecoveryPolicy { escalation: None, ..at_once(u32::MAX) };
                let spec = cast.kernel(name).inline().recovery(policy).restart(*restart);
                declared.kernel(if *significant { spec.significant() } else { spec })
            }
            Kind::Twin => {
                let spec = twin(name, living).restart(*restart);
                declared.kernel(if *significant { spec.significant() } else { spec })
            }
            Kind::Task | Kind::Announcer => {
                let announces = matches!(kind, Kind::Announcer);
                let task = if announces { cast.announcer(name) } else { cast.task(name) };
                let task = task.restart(*restart);
                declared.task(if *significant { task.significant() } else { task })
            }
        };
    }
    declared
}

/// A twin counts its instances and writes no lines: when its standbys come and go among the others is not told.
fn twin(name: &str, living: &Arc<AtomicUsize>) -> KernelSpec<Counted> {
    let living = Arc::clone(living);
    let policy = RecoveryPolicy { strategy: RecoveryStrategy::UseReplica, ..at_once(u32::MAX) };
    let factory = move || {
        living.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(&living))
    };
    KernelSpec::new(name, factory).inline().breaker(None).replicas(1).recovery(policy)
}

pub(crate) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Kernel for Counted {
    type Input = Do;
    type Output = u64;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<u64> {
        Puppet.execute(input, cx).await
    }
}
