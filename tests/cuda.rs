//! CUDA against a stand-in for its driver: the code that drives a device runs unchanged, and a script says what goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/device.rs"]
mod device;
#[path = "support/kit.rs"]
mod kit;

#[path = "cuda/bad_input.rs"]
mod bad_input;
#[path = "cuda/builtin.rs"]
mod builtin;
#[path = "cuda/faults.rs"]
mod faults;
#[path = "cuda/inside.rs"]
mod inside;

use std::time::Duration;

use rustkernel::actors::{KernelRef, KernelSpec};
use rustkernel::core::resilience::{RecoveryPolicy, RecoveryStrategy};
use rustkernel::worker::{Domain, DomainConfig, Remote, WorkerCommand};

use device::{Order, Rig, Told, standin};

/// In a process that was started as a worker this never returns; elsewhere it is nothing.
#[test]
fn worker_main() {
    rustkernel::worker::init(|kernels| {
        device::kernels(kernels);
        builtin::kernels(kernels);
    });
}

/// This program as a worker, with a driver that does what `script` says.
fn command(script: &str) -> WorkerCommand {
    let arguments = ["--exact", "worker_main", "--nocapture", "--test-threads=1"];
    WorkerCommand::program(std::env::current_exe().unwrap())
        .arguments(arguments)
        .env("LD_LIBRARY_PATH", standin())
        .env("STANDIN_DRIVER", script)
}

fn config(script: &str) -> DomainConfig {
    DomainConfig { worker: command(script), max_deaths: u32::MAX, ..DomainConfig::cuda(0) }
}

fn domain(script: &str) -> Domain {
    Domain::start("gpu", config(script)).unwrap()
}

type RigSpec = KernelSpec<Remote<Order, Told>>;
type RigRef = KernelRef<Order, Told>;

/// It may not be restarted at its own cost.
fn rig(domain: &Domain, id: &str) -> RigSpec {
    let recovery = RecoveryPolicy {
        strategy: RecoveryStrategy::RestartKernel,
        max_restarts: 0,
        restart_delay: Duration::ZERO,
        escalation: Some(RecoveryStrategy::NotifyOperator),
    };
    domain.kernel::<Rig>(id, "rig", &0_u16).breaker(None).recovery(recovery)
}

/// Waits until the spare worker is warm.
async fn spare(domain: &Domain) -> u32 {
    kit::soon(async {
        loop {
            if let Some(pid) = domain.status().spare {
                break pid;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}
