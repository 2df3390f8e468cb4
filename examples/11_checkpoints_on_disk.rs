//! Checkpoints that outlive the process: two runtimes, one after the other, and a folder.
//!
//! The first one counts to three and is shut down, which takes a last checkpoint and waits until it is stored. The second one
//! finds it and goes on. After a crash it would be the newest one that was stored whole.
//!
//! Run it: `cargo run --example 11_checkpoints_on_disk`. On stdout:
//!
//! ```text
//! the first runtime counts 1, 2, 3
//! what is left of it: 1 folder with checkpoints
//! the second runtime counts 4, 5, 6
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustkernel::prelude::*;
use rustkernel::store::FileStore;

struct Counter(u64);

impl Kernel for Counter {
    type Input = ();
    type Output = u64;

    async fn execute(&mut self, (): &(), _cx: &mut Context<'_>) -> Result<u64, KernelError> {
        self.0 += 1;
        Ok(self.0)
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

/// A whole life of a program: it starts, counts three times, and shuts down in order.
async fn run(who: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let store = Arc::new(FileStore::open(folder)?);
    let runtime = Runtime::builder().checkpoint_store(store).build().await?;
    let counter = runtime.spawn(KernelSpec::new("demo/counter", || Counter(0)).checkpointed()).await?;
    let mut counts = Vec::new();
    for _ in 0..3 {
        counts.push(counter.call((), Duration::from_secs(10)).await?.to_string());
    }
    println!("{who} counts {}", counts.join(", "));
    runtime.shutdown(Duration::from_secs(1)).await.ok_or("the runtime is gone")?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("rustkernel-example-{}", std::process::id()));
    run("the first runtime", &folder).await?;
    let kernels = std::fs::read_dir(&folder)?.count();
    println!("what is left of it: {kernels} folder with checkpoints");
    run("the second runtime", &folder).await?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
