//! Worker processes, with real processes that really die.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;
#[path = "support/puppets.rs"]
mod puppets;

#[path = "worker/ahead.rs"]
mod ahead;
#[path = "worker/deaths.rs"]
mod deaths;
#[path = "worker/hostile.rs"]
mod hostile;
#[path = "worker/neighbours.rs"]
mod neighbours;
#[path = "worker/orphans.rs"]
mod orphans;
#[path = "worker/payloads.rs"]
mod payloads;
#[path = "worker/shared.rs"]
mod shared;

/// What a worker of these tests can make.
fn kernels(kernels: &mut rustkernel::worker::Kernels) {
    puppets::kernels(kernels);
    shared::kernels(kernels);
}

/// In a process that was started as a worker this never returns, and one that is to be a parent waits for its end; elsewhere it is nothing.
#[test]
fn worker_main() {
    rustkernel::worker::init(kernels);
    if std::env::var_os(orphans::PARENT).is_some() {
        orphans::parent();
    }
}
