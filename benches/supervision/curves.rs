//! What a kernel costs over how many there are, and a chain over its length: cost curves, as files.

use std::hint::black_box;
use std::path::Path;

use rustkernel::actors::{KernelRef, KernelSpec, Runtime};
use rustkernel::core::clock::Clock;
use rustkernel::core::envelope::Deadline;
use tokio::sync::mpsc;

use crate::call::INPUT;
use crate::memory::{bytes_per_actor, bytes_per_kernel};
use crate::owner::{Children, Whom};
use crate::pipeline::{bare_chain, kernel_chain, run_kernels, run_tasks};
use crate::plot::Curve;
use crate::restart::{GOOD, PANIC, PROVEN, ask_actor, fragile, prove};
use crate::rounds::{Sample, Side, nanos_per, run as rounds};
use crate::sides::{Bare, Echo, Flavour, Payload, bare_call, bare_task};

/// Writes all curves into `folder`.
#[allow(clippy::print_stdout, reason = "says how far it is")]
pub(crate) fn run(folder: &Path, quick: bool) {
    let most = if quick { 100 } else { 100_000 };
    let populations: Vec<usize> = (0..6).map(|power| 10_usize.pow(power)).filter(|n| *n <= most).collect();
    let lengths: Vec<usize> = (0..7).map(|power| 1 << power).collect();
    let kernels = "kernels";
    for curve in [
        Curve {
            name: "call",
            title: "One call at a time, the kernels in turn (current thread)",
            x: kernels,
            y: "ns a call",
            series: vec!["tokio mpsc + oneshot", "inline kernels"],
            points: points(&populations, calls),
        },
        Curve {
            name: "restart",
            title: "From a panic to the next good answer, one kernel at random (current thread)",
            x: kernels,
            y: "us a restart",
            series: vec!["hand-written ractor supervisor", "inline kernels"],
            points: points(&populations, restarts),
        },
        Curve {
            name: "memory",
            title: "Memory that an idle kernel keeps",
            x: kernels,
            y: "bytes a kernel",
            series: vec!["ractor spawn_linked", "inline kernels"],
            points: points(&populations, |n| vec![bytes_per_actor(n), bytes_per_kernel(n)]),
        },
        Curve {
            name: "chain",
            title: "One request through a chain of kernels (current thread)",
            x: "stages",
            y: "ns a request",
            series: vec!["tokio mpsc chain + oneshot", "inline kernels"],
            points: points(&lengths, chain),
        },
    ] {
        curve.write(folder);
        println!("{}: {}", curve.name, curve.title);
    }
}

fn points(at: &[usize], measure: impl Fn(usize) -> Vec<f64>) -> Vec<(usize, Vec<f64>)> {
    at.iter().map(|x| (*x, measure(*x))).collect()
}

fn medians(count: usize, mut sides: Vec<Side<'_>>) -> Vec<f64> {
    rounds(count, &mut sides).iter().map(Sample::median).collect()
}

/// Calls of each round.
const CALLS: usize = 50_000;

fn calls(population: usize) -> Vec<f64> {
    let runtime = Flavour::CurrentThread.runtime();
    let tasks: Vec<mpsc::Sender<Bare>> = (0..population).map(|_| bare_task(&runtime)).collect();
    let (_supervisor, kernels) =
        runtime.block_on(spawn(population, |name| KernelSpec::new(name, || Echo).inline()));
    let bare = || {
        runtime.block_on(async {
            for task in tasks.iter().cycle().take(CALLS) {
                black_box(bare_call(task, black_box(INPUT)).await);
            }
        });
    };
    let ours = || {
        runtime.block_on(async {
            for kernel in kernels.iter().cycle().take(CALLS) {
                let kernel: &KernelRef<Payload, Payload> = kernel;
                black_box(kernel.call(black_box(INPUT), Deadline::None).await.unwrap());
            }
        });
    };
    medians(15, vec![Side::new("", || nanos_per(CALLS, bare)), Side::new("", || nanos_per(CALLS, ours))])
}

/// Restarts of each round.
const RESTARTS: usize = 100;

fn restarts(population: usize) -> Vec<f64> {
    let runtime = Flavour::CurrentThread.runtime();
    let actors = runtime.block_on(Children::spawn(Whom::TheFailed, population));
    let (_supervisor, kernels) = runtime.block_on(spawn(population, fragile));
    let bare = || runtime.block_on(median_of(population, |index| panic_actor(&actors, index)));
    let ours = || runtime.block_on(median_of(population, |index| panic_kernel(&kernels[index])));
    medians(7, vec![Side::new("", bare), Side::new("", ours)])
}

async fn median_of<F: Future<Output = f64>>(population: usize, restart: impl Fn(usize) -> F) -> f64 {
    let mut spans = Vec::with_capacity(RESTARTS);
    for _ in 0..RESTARTS {
        spans.push(restart(fastrand::usize(..population)).await);
    }
    Sample::of(spans).median()
}

async fn panic_actor(actors: &Children, index: usize) -> f64 {
    for _ in 0..PROVEN {
        ask_actor(&actors.child(index), GOOD).await.unwrap();
    }
    let clock = Clock::system();
    let before = clock.now();
    assert!(ask_actor(&actors.child(index), PANIC).await.is_none(), "a request that panics has no answer");
    while ask_actor(&actors.child(index), GOOD).await.is_none() {
        tokio::task::yield_now().await;
    }
    (clock.now() - before).as_secs_f64() * 1e6
}

async fn panic_kernel(kernel: &KernelRef<u64, u64>) -> f64 {
    prove(kernel).await;
    let clock = Clock::system();
    let before = clock.now();
    assert!(kernel.call(PANIC, Deadline::None).await.is_err(), "a request that panics has no answer");
    while kernel.call(GOOD, Deadline::None).await.is_err() {
        tokio::task::yield_now().await;
    }
    (clock.now() - before).as_secs_f64() * 1e6
}

fn chain(stages: usize) -> Vec<f64> {
    let runtime = Flavour::CurrentThread.runtime();
    let tasks = bare_chain(&runtime, stages);
    let (_supervisor, kernels) = runtime.block_on(kernel_chain(stages));
    let calls = 20_000 / stages;
    let bare = || nanos_per(calls, || runtime.block_on(run_tasks(tasks.clone(), calls)));
    let ours = || nanos_per(calls, || runtime.block_on(run_kernels(kernels.clone(), calls, Deadline::None)));
    medians(15, vec![Side::new("", bare), Side::new("", ours)])
}

/// As many kernels as are asked for, under the root.
async fn spawn<K>(
    population: usize,
    spec: impl Fn(String) -> KernelSpec<K>,
) -> (Runtime, Vec<KernelRef<K::Input, K::Output>>)
where
    K: rustkernel::core::traits::Kernel,
{
    let supervisor = Runtime::builder().build().await.unwrap();
    let mut kernels = Vec::with_capacity(population);
    for number in 0..population {
        kernels.push(supervisor.spawn(spec(format!("bench/kernel-{number}"))).await.unwrap());
    }
    (supervisor, kernels)
}
