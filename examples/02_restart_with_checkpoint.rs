//! A kernel whose state outlives its incarnations: it counts on where the last one stopped.
//!
//! The kernel panics at every fourth request. It is idempotent, so the request that it held is run again by the
//! next incarnation, which has restored the newest checkpoint: the callers see nine answers and no gap.
//!
//! Run it: `cargo run --example 02_restart_with_checkpoint`. On stdout:
//!
//! ```text
//! 1 2 3 4 5 6 7 8 9
//! the kernel is in its 3rd life; its restarts began at 3 and 6
//! ```

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustkernel::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Count(u64);

struct Counter {
    count: u64,
    requests: u64,
    restored: Arc<Mutex<Vec<u64>>>,
}

impl Kernel for Counter {
    type Input = ();
    type Output = u64;

    async fn execute(&mut self, (): &(), _cx: &mut Context<'_>) -> Result<u64, KernelError> {
        self.requests += 1;
        assert!(self.requests < 4, "every fourth request is one too many");
        self.count += 1;
        Ok(self.count)
    }
}

impl CheckpointableKernel for Counter {
    type Checkpoint = Count;

    async fn checkpoint(&self) -> Result<Count, KernelError> {
        Ok(Count(self.count))
    }

    async fn restore(&mut self, checkpoint: Count) -> Result<(), KernelError> {
        self.count = checkpoint.0;
        self.restored.lock().unwrap_or_else(PoisonError::into_inner).push(checkpoint.0);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let restored = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&restored);
    let factory = move || Counter { count: 0, requests: 0, restored: Arc::clone(&seen) };
    let policy = RecoveryPolicy { restart_delay: Duration::ZERO, ..RecoveryPolicy::default() };

    let runtime = Runtime::builder().build().await?;
    let spec = KernelSpec::new("demo/counter", factory).checkpointed().idempotent().recovery(policy);
    let counter = runtime.spawn(spec).await?;
    let mut answers = Vec::new();
    for _ in 0..9 {
        answers.push(counter.call((), Duration::from_secs(10)).await?.to_string());
    }
    println!("{}", answers.join(" "));

    let life = runtime.status().await[0].incarnation;
    let restored = restored.lock().unwrap_or_else(PoisonError::into_inner).clone();
    println!("the kernel is in its {life}rd life; its restarts began at {} and {}", restored[0], restored[1]);
    Ok(())
}
