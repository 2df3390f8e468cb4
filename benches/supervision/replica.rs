//! From a fault to the first good answer of a warm standby, beside a restart from the factory.

use std::time::Duration;

use rustkernel::actors::{KernelRef, Runtime};
use rustkernel::core::clock::Clock;
use rustkernel::core::envelope::Deadline;
use rustkernel::core::resilience::{RecoveryPolicy, RecoveryStrategy};

use crate::report::{Group, Report, Target};
use crate::restart::{GOOD, PANIC, fragile, prove};
use crate::rounds::{Sample, Side};
use crate::sides::Flavour;

pub(crate) fn run(report: &mut Report) {
    if !report.wants("replica") {
        return;
    }
    for flavour in Flavour::BOTH {
        let runtime = flavour.runtime();
        let faults = report.scale(200);
        let restarted = runtime.block_on(kernel(0));
        let replicated = runtime.block_on(kernel(1));
        let side = |name, (supervisor, kernel): &(Runtime, KernelRef<u64, u64>), standbys| {
            let (runtime, supervisor, kernel) = (&runtime, supervisor.clone(), kernel.clone());
            Side::new(name, move || {
                let faults = strike(supervisor.clone(), kernel.clone(), standbys, faults);
                runtime.block_on(runtime.spawn(faults)).unwrap()
            })
        };
        report.run(Group {
            name: format!("replica: panic to good answer, {}", flavour.name()),
            unit: "us",
            rounds: 15,
            baseline: side("RestartKernel: inline kernel from its factory", &restarted, 0),
            contenders: vec![(
                side("UseReplica: inline kernel, 1 standby", &replicated, 1),
                Target::Absolute(100.0),
            )],
        });
    }
}

/// The median of `faults`, each of which finds its standbys warm.
async fn strike(supervisor: Runtime, kernel: KernelRef<u64, u64>, standbys: usize, faults: usize) -> f64 {
    let clock = Clock::system();
    let mut spans = Vec::with_capacity(faults);
    for _ in 0..faults {
        while supervisor.status().await[0].standbys < standbys {
            tokio::task::yield_now().await;
        }
        prove(&kernel).await;
        let before = clock.now();
        let crashed = kernel.call(PANIC, Deadline::None).await;
        assert!(crashed.is_err(), "a request that panics has no answer");
        while kernel.call(GOOD, Deadline::None).await.is_err() {
            tokio::task::yield_now().await;
        }
        spans.push((clock.now() - before).as_secs_f64() * 1e6);
    }
    Sample::of(spans).median()
}

async fn kernel(standbys: usize) -> (Runtime, KernelRef<u64, u64>) {
    let supervisor = Runtime::builder().build().await.unwrap();
    let mut spec = fragile("bench/fragile");
    if standbys > 0 {
        let policy = RecoveryPolicy {
            strategy: RecoveryStrategy::UseReplica,
            restart_delay: Duration::ZERO,
            max_restarts: u32::MAX,
            ..RecoveryPolicy::default()
        };
        spec = spec.recovery(policy).replicas(standbys);
    }
    let kernel = supervisor.spawn(spec).await.unwrap();
    (supervisor, kernel)
}
