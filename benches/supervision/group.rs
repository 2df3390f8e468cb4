//! One of a hundred children panics, and all of them serve again: in order, each awaited, as one_for_all promises, beside a hand-written
//! supervisor that kills the others and spawns everybody anew in no order.

use std::sync::Arc;
use std::time::Duration;

use rustkernel::actors::{KernelRef, Runtime, Supervisor};
use rustkernel::core::clock::Clock;
use rustkernel::core::envelope::Deadline;

use crate::owner::{Children, Whom};
use crate::report::{Group, Report, Target};
use crate::restart::{GOOD, PANIC, PROVEN, ask_actor, fragile, prove};
use crate::rounds::{Sample, Side};
use crate::sides::Flavour;

const CHILDREN: usize = 100;

pub(crate) fn run(report: &mut Report) {
    if !report.wants("group") {
        return;
    }
    for flavour in Flavour::BOTH {
        let runtime = flavour.runtime();
        let failures = report.scale(50);
        let supervisor = runtime.block_on(async { Runtime::builder().build().await.unwrap() });
        let kernels = runtime.block_on(kernel_group(&supervisor, "guarded", true));
        let without_breaker = runtime.block_on(kernel_group(&supervisor, "bare", false));
        let actors = runtime.block_on(Children::spawn(Whom::All, CHILDREN));
        let in_order = runtime.block_on(Children::spawn(Whom::AllInOrder, CHILDREN));
        let kernel_side = |name, kernels: &Arc<[KernelRef<u64, u64>]>| {
            let (runtime, kernels) = (&runtime, Arc::clone(kernels));
            Side::new(name, move || {
                runtime.block_on(runtime.spawn(fail_kernels(Arc::clone(&kernels), failures))).unwrap()
            })
        };
        report.run(Group {
            name: format!("group of {CHILDREN}: panic of one to all serving, {}", flavour.name()),
            unit: "us",
            rounds: 15,
            baseline: Side::new("hand-written ractor supervisor, in no order", || {
                runtime.block_on(runtime.spawn(fail_actors(actors.clone(), failures))).unwrap()
            }),
            contenders: vec![
                (
                    Side::new("hand-written ractor supervisor, in order, each awaited", || {
                        runtime.block_on(runtime.spawn(fail_actors(in_order.clone(), failures))).unwrap()
                    }),
                    Target::None,
                ),
                (kernel_side("one_for_all, inline kernels", &kernels), Target::Ratio(1.5)),
                (kernel_side("one_for_all, inline kernels without breakers", &without_breaker), Target::None),
            ],
        });
        runtime.block_on(supervisor.shutdown(Duration::from_secs(5)));
    }
}

/// The child that fails `n`th: another one each time, the first and the last among them.
fn whose_turn(n: usize, children: usize) -> usize {
    n * 33 % children
}

async fn kernel_group(
    supervisor: &Runtime,
    name: &'static str,
    breakers: bool,
) -> Arc<[KernelRef<u64, u64>]> {
    let mut group = Supervisor::new(name).one_for_all().intensity(u32::MAX, Duration::from_secs(5));
    let names: Vec<_> = (0..CHILDREN).map(|child| format!("{name}/child-{child}")).collect();
    for name in &names {
        let spec = fragile(name);
        group = group.kernel(if breakers { spec } else { spec.breaker(None) });
    }
    supervisor.supervise(group).await.unwrap();
    names.iter().map(|name| supervisor.kernel(name).unwrap()).collect()
}

/// The median of `failures` group restarts, in microseconds. The last child is stopped first and started last: its first answer from a
/// new life says that all serve.
async fn fail_kernels(kernels: Arc<[KernelRef<u64, u64>]>, failures: usize) -> f64 {
    let clock = Clock::system();
    let mut spans = Vec::with_capacity(failures);
    let last = &kernels[kernels.len() - 1];
    for n in 0..failures {
        let failing = &kernels[whose_turn(n, kernels.len())];
        prove(failing).await;
        prove(last).await;
        let old = last.call(GOOD, Deadline::None).await.unwrap();
        let before = clock.now();
        let crashed = failing.call(PANIC, Deadline::None).await;
        assert!(crashed.is_err(), "a request that panics has no answer");
        while !last.call(GOOD, Deadline::None).await.is_ok_and(|life| life > old) {
            tokio::task::yield_now().await;
        }
        while failing.call(GOOD, Deadline::None).await.is_err() {
            tokio::task::yield_now().await;
        }
        spans.push((clock.now() - before).as_secs_f64() * 1e6);
        for kernel in kernels.iter() {
            kernel.call(GOOD, Deadline::None).await.unwrap();
        }
    }
    Sample::of(spans).median()
}

async fn fail_actors(children: Children, failures: usize) -> f64 {
    let clock = Clock::system();
    let mut spans = Vec::with_capacity(failures);
    for n in 0..failures {
        let failing = whose_turn(n, CHILDREN);
        for child in [failing, CHILDREN - 1] {
            for _ in 0..PROVEN {
                ask_actor(&children.child(child), GOOD).await.unwrap();
            }
        }
        let mut up = children.up.clone();
        up.mark_unchanged();
        let before = clock.now();
        let crashed = ask_actor(&children.child(failing), PANIC).await;
        assert!(crashed.is_none(), "a request that panics has no answer");
        up.changed().await.unwrap();
        ask_actor(&children.child(CHILDREN - 1), GOOD).await.unwrap();
        ask_actor(&children.child(failing), GOOD).await.unwrap();
        spans.push((clock.now() - before).as_secs_f64() * 1e6);
        for child in 0..CHILDREN {
            ask_actor(&children.child(child), GOOD).await.unwrap();
        }
    }
    Sample::of(spans).median()
}
