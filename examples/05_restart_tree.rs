//! A whole service under one tree: who is restarted when something ends.
//!
//! `service` is rest_for_one: when one child ends, it and those after it begin anew. `gpu0`, below it, is one_for_all: its two
//! kernels share what one of them may have broken, so neither survives the other.
//!
//! Run it: `cargo run --example 05_restart_tree`. On stdout, every child with the number of its life:
//!
//! ```text
//! all is up:           connection 1, text/embed 1, gpu0 1, rank/score 1, rank/sort 1
//! rank/score panics:   connection 1, text/embed 1, gpu0 1, rank/score 2, rank/sort 2
//! text/embed panics:   connection 1, text/embed 2, gpu0 2, rank/score 3, rank/sort 3
//! the connection ends: connection 2, text/embed 3, gpu0 3, rank/score 4, rank/sort 4
//! ```

use std::error::Error;
use std::time::Duration;

use rustkernel::actors::{Supervisor, Task, Tree};
use rustkernel::core::resilience::BackoffStrategy;
use rustkernel::prelude::*;

struct Brittle;

impl Kernel for Brittle {
    type Input = ();
    type Output = ();

    async fn execute(&mut self, (): &(), _cx: &mut Context<'_>) -> Result<(), KernelError> {
        panic!("told to panic")
    }
}

fn brittle(id: &str) -> KernelSpec<Brittle> {
    let recovery = RecoveryPolicy { restart_delay: Duration::ZERO, ..RecoveryPolicy::default() };
    KernelSpec::new(id, || Brittle).recovery(recovery)
}

fn lives(tree: &Tree) -> Vec<String> {
    let mut lives = Vec::new();
    for branch in &tree.children {
        let child = &branch.child;
        let life = child.kernel.as_ref().map_or(child.life, |kernel| kernel.incarnation);
        lives.push(format!("{} {life}", child.name));
        if let Some(below) = &branch.supervisor {
            lives.extend(self::lives(below));
        }
    }
    lives
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().build().await?;
    let gpu =
        Supervisor::new("gpu0").one_for_all().kernel(brittle("rank/score")).kernel(brittle("rank/sort"));
    let service = Supervisor::new("service")
        .rest_for_one()
        .backoff(BackoffStrategy::Fixed { delay: Duration::ZERO })
        .task(Task::new("connection", |cx| async move {
            cx.stopped().await;
            Ok(())
        }))
        .kernel(brittle("text/embed"))
        .supervisor(gpu);
    let service = runtime.supervise(service).await?;
    let mut events = runtime.events();
    for step in ["all is up", "rank/score panics", "text/embed panics", "the connection ends"] {
        if let Some(id) = step.strip_suffix(" panics") {
            let kernel: KernelRef<(), ()> = runtime.kernel(id).ok_or("no such kernel")?;
            // The panic is its caller's error, too.
            let _ = kernel.call((), Duration::from_secs(10)).await;
        } else if step == "the connection ends" {
            service.kill_child("connection").await?;
        }
        if step != "all is up" {
            events.find("rank/sort", |fact| matches!(fact, Fact::Started { .. })).await;
        }
        let tree = runtime.tree().await.ok_or("the runtime is gone")?;
        let below = tree.children[0].supervisor.as_ref().ok_or("no supervisor")?;
        println!("{:<20} {}", format!("{step}:"), lives(below).join(", "));
    }
    Ok(())
}
