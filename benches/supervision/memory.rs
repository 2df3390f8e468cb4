//! Bytes that one idle kernel keeps alive, everything that supervises it included.

use ractor::{Actor, ActorRef};
use rustkernel::actors::{KernelSpec, Runtime};

use crate::alloc::count;
use crate::report::{Group, Report, Target};
use crate::rounds::Side;
use crate::sides::{Echo, EchoActor, Flavour};

pub(crate) fn run(report: &mut Report) {
    if !report.wants("memory") {
        return;
    }
    let population = report.scale(10_000);
    report.run(Group {
        name: "memory per idle kernel".into(),
        unit: "bytes",
        rounds: 3,
        baseline: Side::new("ractor spawn_linked", || bytes_per_actor(population)),
        contenders: vec![(Side::new("inline kernel", || bytes_per_kernel(population)), Target::Ratio(1.6))],
    });
}

/// Names and factories are part of it; the runtime that they share is not.
pub(crate) fn bytes_per_kernel(population: usize) -> f64 {
    let runtime = Flavour::CurrentThread.runtime();
    let supervisor = runtime.block_on(async { Runtime::builder().build().await.unwrap() });
    let (kernels, counted) = count(|| {
        let mut kernels = Vec::with_capacity(population);
        runtime.block_on(async {
            for number in 0..population {
                let spec = KernelSpec::new(format!("bench/echo-{number}"), || Echo).inline();
                kernels.push(supervisor.spawn(spec).await.unwrap());
            }
            settle().await;
        });
        kernels
    });
    drop(kernels);
    counted.live as f64 / population as f64
}

pub(crate) fn bytes_per_actor(population: usize) -> f64 {
    let runtime = Flavour::CurrentThread.runtime();
    let (owner, _) = runtime.block_on(Actor::spawn(None, EchoActor, ())).unwrap();
    let (actors, counted) = count(|| {
        let mut actors: Vec<ActorRef<_>> = Vec::with_capacity(population);
        runtime.block_on(async {
            for _ in 0..population {
                let (actor, _) = Actor::spawn_linked(None, EchoActor, (), owner.get_cell()).await.unwrap();
                actors.push(actor);
            }
            settle().await;
        });
        actors
    });
    drop(actors);
    counted.live as f64 / population as f64
}

/// Lets what was set off on this one thread come to rest.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
