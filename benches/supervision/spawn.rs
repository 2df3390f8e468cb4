//! A hundred thousand kernels under one supervisor, from nothing to all of them serving.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use rustkernel::actors::{KernelSpec, Runtime, Supervisor};

use tokio::sync::oneshot;

use crate::report::{Group, Report, Target};
use crate::restart::Nothing;
use crate::rounds::{Side, nanos_per};
use crate::sides::{Ask, Echo, EchoActor, Flavour};

/// Spawns that wait at the same time, where they do not come one by one.
const SPAWNERS: usize = 64;

pub(crate) fn run(report: &mut Report) {
    if !report.wants("spawn") {
        return;
    }
    let population = report.scale(100_000);
    for flavour in Flavour::BOTH {
        let side = |name, spawn: fn(&tokio::runtime::Runtime, usize) -> f64| {
            // A tokio runtime of its own, so that its end takes everything along, outside the measured span.
            Side::new(name, move || spawn(&flavour.runtime(), population))
        };
        report.run(Group {
            name: format!("spawn of {population}, each, {}", flavour.name()),
            unit: "ns",
            rounds: 3,
            baseline: side("ractor spawn_linked, all started", actors),
            contenders: vec![
                (side("ractor spawn_linked alone", actors_unheard), Target::None),
                (side("Runtime::spawn, one by one", one_by_one), Target::Ratio(1.5)),
                (side("Runtime::spawn, 64 at a time", many_at_a_time), Target::Ratio(1.5)),
                (side("Runtime::supervise, one tree", one_tree), Target::Ratio(1.5)),
            ],
        });
    }
}

/// Ends when the supervisor has heard from every actor that it has started.
fn actors(runtime: &tokio::runtime::Runtime, population: usize) -> f64 {
    spawn_actors(runtime, population, true)
}

/// Ends when the last one is spawned, whoever runs by then: on the current thread, none.
fn actors_unheard(runtime: &tokio::runtime::Runtime, population: usize) -> f64 {
    spawn_actors(runtime, population, false)
}

fn spawn_actors(runtime: &tokio::runtime::Runtime, population: usize, heard: bool) -> f64 {
    let (told, all_up) = oneshot::channel();
    let owner = Owner { population, told: Mutex::new(Some(told)) };
    let (owner, _) = runtime.block_on(Actor::spawn(None, owner, ())).unwrap();
    let mut actors: Vec<ActorRef<Ask>> = Vec::with_capacity(population);
    nanos_per(population, || {
        let spawning = async {
            for _ in 0..population {
                let (actor, _) = Actor::spawn_linked(None, EchoActor, (), owner.get_cell()).await?;
                actors.push(actor);
            }
            if heard {
                all_up.await.unwrap();
            }
            Ok::<_, ractor::SpawnErr>(())
        };
        runtime.block_on(spawning).unwrap();
    })
}

/// Counts who has started.
struct Owner {
    population: usize,
    told: Mutex<Option<oneshot::Sender<()>>>,
}

impl Actor for Owner {
    type Msg = Nothing;
    type State = usize;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Nothing>, (): ()) -> Result<usize, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Nothing>,
        event: SupervisionEvent,
        started: &mut usize,
    ) -> Result<(), ActorProcessingErr> {
        *started += usize::from(matches!(event, SupervisionEvent::ActorStarted(_)));
        if *started == self.population {
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Who counted to the end alone does not listen.
            let _ = told.map(|told| told.send(()));
        }
        Ok(())
    }
}

fn spec(number: usize) -> KernelSpec<Echo> {
    KernelSpec::new(format!("bench/echo-{number}"), || Echo).inline()
}

fn supervisor(runtime: &tokio::runtime::Runtime) -> Runtime {
    runtime.block_on(async { Runtime::builder().build().await.unwrap() })
}

fn one_by_one(runtime: &tokio::runtime::Runtime, population: usize) -> f64 {
    let supervisor = supervisor(runtime);
    let mut kernels = Vec::with_capacity(population);
    nanos_per(population, || {
        runtime.block_on(async {
            for number in 0..population {
                kernels.push(supervisor.spawn(spec(number)).await.unwrap());
            }
        });
    })
}

fn many_at_a_time(runtime: &tokio::runtime::Runtime, population: usize) -> f64 {
    let supervisor = supervisor(runtime);
    let next = Arc::new(AtomicUsize::new(0));
    let mut kernels = Vec::with_capacity(population);
    nanos_per(population, || {
        let spawner = || {
            let (supervisor, next) = (supervisor.clone(), Arc::clone(&next));
            async move {
                let mut kernels = Vec::new();
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= population {
                        return kernels;
                    }
                    kernels.push(supervisor.spawn(spec(number)).await.unwrap());
                }
            }
        };
        let spawners: Vec<_> = (0..SPAWNERS).map(|_| runtime.spawn(spawner())).collect();
        for spawner in spawners {
            kernels.extend(runtime.block_on(spawner).unwrap());
        }
    })
}

fn one_tree(runtime: &tokio::runtime::Runtime, population: usize) -> f64 {
    let supervisor = supervisor(runtime);
    nanos_per(population, || {
        let children = (0..population).map(spec);
        let tree = children.fold(Supervisor::new("all"), Supervisor::kernel);
        runtime.block_on(supervisor.supervise(tree)).unwrap();
    })
}
