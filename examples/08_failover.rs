//! A kernel moves to another device with its queue and its newest checkpoint, and comes back when it is told to.
//!
//! The first device is called `cuda:0` and the backup `cpu:0`; where a kernel really runs is its factory's business, and these two
//! only say their device. Run it: `cargo run --example 08_failover`. On stdout:
//!
//! ```text
//! on cuda:0: 1
//! on cuda:0: 2
//! the device is lost
//! on cpu:0: 3
//! on cpu:0: 4
//! told to go back
//! on cuda:0: 5
//! ```

use std::error::Error;
use std::time::Duration;

use rustkernel::core::DeviceId;
use rustkernel::prelude::*;

struct Counter {
    device: DeviceId,
    count: u64,
}

impl Counter {
    fn on(device: DeviceId) -> impl Fn() -> Self + Send + Sync {
        move || Self { device, count: 0 }
    }
}

impl Kernel for Counter {
    type Input = bool;
    type Output = String;

    async fn execute(&mut self, loses_device: &bool, _cx: &mut Context<'_>) -> Result<String, KernelError> {
        assert!(!*loses_device, "{} has fallen off the bus", self.device);
        self.count += 1;
        Ok(format!("on {}: {}", self.device, self.count))
    }
}

impl CheckpointableKernel for Counter {
    type Checkpoint = u64;

    async fn checkpoint(&self) -> Result<u64, KernelError> {
        Ok(self.count)
    }

    async fn restore(&mut self, count: u64) -> Result<(), KernelError> {
        self.count = count;
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (gpu, cpu): (DeviceId, _) = ("cuda:0".parse()?, DeviceId::CPU);
    let runtime = Runtime::builder().build().await?;
    let recovery = RecoveryPolicy { strategy: RecoveryStrategy::Failover, ..RecoveryPolicy::default() };
    let spec = KernelSpec::new("demo/counter", Counter::on(gpu))
        .device(gpu)
        .backup(cpu, Counter::on(cpu))
        .checkpointed()
        .recovery(recovery);
    let counter = runtime.spawn(spec).await?;
    let limit = Duration::from_secs(10);
    println!("{}", counter.call(false, limit).await?);
    println!("{}", counter.call(false, limit).await?);

    println!("the device is lost");
    assert!(counter.call(true, limit).await.is_err());
    println!("{}", counter.call(false, limit).await?);
    println!("{}", counter.call(false, limit).await?);

    println!("told to go back");
    runtime.fail_back("demo/counter").await?;
    println!("{}", counter.call(false, limit).await?);
    Ok(())
}
