//! A standby that is made beforehand takes over within a scheduling step.
//!
//! The kernel keeps one standby. When it panics, the standby restores the newest checkpoint and answers what waits;
//! the failed one is rebuilt after its delay and becomes the next standby.
//!
//! Time is turned by hand, so nothing here is a matter of luck. Run it: `cargo run --example 06_use_replica`. On stdout:
//!
//! ```text
//! life 1 answers 1, 2, 3; standbys: 1
//! one request panics; the one behind it: life 2 answers 4, and no time has passed
//! standbys: 0, and 2 s later: 1
//! ```

use std::error::Error;
use std::time::Duration;

use rustkernel::core::envelope::Deadline;
use rustkernel::prelude::*;

struct Counter(u64);

impl Kernel for Counter {
    type Input = bool;
    type Output = (u64, u64);

    async fn execute(&mut self, panics: &bool, cx: &mut Context<'_>) -> Result<(u64, u64), KernelError> {
        assert!(!*panics, "told to panic");
        self.0 += 1;
        Ok((cx.incarnation(), self.0))
    }
}

impl CheckpointableKernel for Counter {
    type Checkpoint = u64;

    async fn checkpoint(&self) -> Result<u64, KernelError> {
        Ok(self.0)
    }

    async fn restore(&mut self, count: u64) -> Result<(), KernelError> {
        self.0 = count;
        Ok(())
    }
}

async fn standbys(runtime: &Runtime) -> usize {
    runtime.status().await[0].standbys
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (runtime, clock) = Runtime::builder().build_with_manual_clock().await?;
    let recovery = RecoveryPolicy {
        strategy: RecoveryStrategy::UseReplica,
        restart_delay: Duration::from_secs(2),
        ..RecoveryPolicy::default()
    };
    let spec = KernelSpec::new("demo/counter", || Counter(0)).checkpointed().replicas(1).recovery(recovery);
    let counter = runtime.spawn(spec).await?;
    let mut counts = Vec::new();
    for _ in 0..3 {
        counts.push(counter.call(false, Deadline::None).await?.1.to_string());
    }
    println!("life 1 answers {}; standbys: {}", counts.join(", "), standbys(&runtime).await);

    let panics = counter.try_call(true, Deadline::None).map_err(|refused| refused.error)?;
    let behind = counter.try_call(false, Deadline::None).map_err(|refused| refused.error)?;
    assert!(panics.await.is_err());
    let (life, count) = behind.await?;
    println!("one request panics; the one behind it: life {life} answers {count}, and no time has passed");

    let now = standbys(&runtime).await;
    let mut events = runtime.events();
    clock.advance(Duration::from_secs(2));
    events.find("demo/counter", |fact| matches!(fact, Fact::StandbyReady { .. })).await;
    println!("standbys: {now}, and 2 s later: {}", standbys(&runtime).await);
    Ok(())
}
