//! CUDA against a stand-in for its driver: the code that drives a device runs unchanged, and a script says what goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/device.rs"]
mod device;
#[path = "support/kit.rs"]
mod kit;
#[path = "support/serving.rs"]
mod serving;
#[path = "support/stages.rs"]
mod stages;
#[path = "support/standin.rs"]
mod standin;

#[path = "cuda/bad_input.rs"]
mod bad_input;
#[path = "cuda/builtin.rs"]
mod builtin;
#[path = "cuda/chain.rs"]
mod chain;
#[path = "cuda/faults.rs"]
mod faults;
#[path = "cuda/inside.rs"]
mod inside;
#[path = "cuda/model.rs"]
mod model;
#[path = "cuda/nvml.rs"]
mod nvml;
#[path = "cuda/pinned.rs"]
mod pinned;
#[path = "cuda/source.rs"]
mod source;
#[path = "cuda/warm.rs"]
mod warm;

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use rustkernel::actors::{KernelRef, KernelSpec};
use rustkernel::core::resilience::{RecoveryPolicy, RecoveryStrategy};
use rustkernel::worker::{Domain, DomainConfig, DomainState, DomainStatus, Remote, WorkerCommand};

use device::{Order, Rig, Told};

/// In a process that was started as a worker this never returns; elsewhere it is nothing.
#[test]
fn worker_main() {
    rustkernel::worker::init(|kernels| {
        device::kernels(kernels);
        builtin::kernels(kernels);
        chain::kernels(kernels);
        pinned::kernels(kernels);
    });
}

/// This program as a worker, with a driver that does what `script` says.
fn command(script: &str) -> WorkerCommand {
    let arguments = ["--exact", "worker_main", "--nocapture", "--test-threads=1"];
    WorkerCommand::program(std::env::current_exe().unwrap())
        .arguments(arguments)
        .env("LD_LIBRARY_PATH", standin::driver())
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

/// Whether this is the process of its own that the test is for. Elsewhere, that one is started with `environment`, and has to end well.
fn is_inside(test: &str, environment: &[(&str, OsString)]) -> bool {
    const INSIDE: &str = "RUSTKERNEL_INSIDE";
    if std::env::var(INSIDE).is_ok_and(|inside| inside == test) {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env(INSIDE, test)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    false
}

/// Waits until the spare worker is warm.
async fn spare(domain: &Domain) -> u32 {
    found(|| domain.status().spare).await
}

/// Waits until so many of the domain's workers have died, and one that has asked its device is there: without one it takes nothing new.
///
/// A caller can have its fault's answer before the domain has heard of the fault.
async fn back(domain: &Domain, deaths: u64) {
    let is_back = |status: DomainStatus| status.deaths >= deaths && status.state == DomainState::Ready;
    found(|| is_back(domain.status()).then_some(())).await;
}

async fn found<T>(mut find: impl FnMut() -> Option<T>) -> T {
    kit::soon(async {
        loop {
            if let Some(found) = find() {
                break found;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}
