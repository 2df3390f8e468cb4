//! What a thousand deaths leave behind. Alone in its process: it counts what that holds.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;
#[path = "support/puppets.rs"]
mod puppets;

use std::fs;

use kit::{NONE, soon};
use puppets::{Do, children, domain, kill, puppet, spawned, until};
use rustix::process::Signal;

/// In a process that was started as a worker this never returns; elsewhere it is nothing.
#[test]
fn worker_main() {
    rustkernel::worker::init(puppets::kernels);
}

/// Open files, mappings of shared memory, threads, and living or unburied children of this process.
fn holdings() -> [usize; 4] {
    let count = |path: &str| fs::read_dir(path).unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().filter(|line| line.contains("memfd:rustkernel")).count();
    assert!(mapped > 0, "the answers lie in one");
    [count("/proc/self/fd"), mapped, count("/proc/self/task"), children().len()]
}

#[tokio::test]
async fn a_thousand_kills_in_a_row_leave_nothing_behind() {
    let domain = domain();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    let mut before = None;
    for death in 1..=1_000 {
        let pid = soon(kernel.call(Do::Echo(vec![1; 40_000]), NONE)).await.unwrap().pid;
        kill(pid, Signal::KILL);
        until(|| domain.status().deaths == death).await;
        if death == 10 || death == 1_000 {
            soon(kernel.call(Do::Count, NONE)).await.unwrap();
            until(|| domain.status().spare.is_some()).await;
            let now = holdings();
            assert_eq!(*before.get_or_insert(now), now, "after {death} deaths");
        }
    }
    let accounts = kernel.accounts();
    assert_eq!((accounts.accepted, accounts.failed), (1_002, 0));
}
