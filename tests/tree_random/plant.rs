//! What a random tree is declared as, for the model and for the runtime.

use std::time::Duration;

use fastrand::Rng;
use rustkernel::actors::Supervisor;
use rustkernel::core::resilience::{BackoffStrategy, RecoveryPolicy};
use rustkernel::core::supervision::{AutoShutdown, Restart, Shutdown, Strategy, SupervisorConfig};

use crate::cast::Cast;
use crate::kit::at_once;

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
            3..=5 => Kind::Kernel,
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
    let name = if matches!(kind, Kind::Kernel) { format!("k/n{number}") } else { format!("n{number}") };
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
pub(crate) fn declare(plants: &[Plant], number: usize, cast: &Cast) -> Supervisor {
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
            Kind::Supervisor(_) => declared.supervisor(declare(plants, child, cast)),
            Kind::Kernel => {
                // Without an escalation of its own, a kernel whose restart is one too many ends its supervisor, as a task does.
                let policy = RecoveryPolicy { escalation: None, ..at_once(u32::MAX) };
                let spec = cast.kernel(name).inline().recovery(policy).restart(*restart);
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
