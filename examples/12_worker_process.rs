//! A kernel in a process of its own: whatever ends that process ends no request that may run twice, and not this process.
//!
//! The first line of `main` makes this program a worker, if it was started as one. Run it: `cargo run --example 12_worker_process`. On
//! stdout:
//!
//! ```text
//! 21 doubled in another process: 42
//! a loop without an end, answered at its deadline: deadline exceeded
//! 22 doubled in the next process: 44
//! 13 ended the process: demo/double: the kernel crashed while it had the request
//! 23 doubled in the process after that: 46
//! workers that died: 2, restarts that the kernel paid for: 0
//! ```

use std::error::Error;
use std::process;
use std::time::Duration;

use rustkernel::prelude::*;
use rustkernel::worker::{self, Domain, DomainConfig, Kernels};

/// Doubles what it can. Its answer says where.
struct Double;

impl Kernel for Double {
    type Input = u64;
    type Output = (u64, u32);

    async fn execute(&mut self, input: &u64, _cx: &mut Context<'_>) -> Result<(u64, u32), KernelError> {
        match input {
            // As a fault in a driver does.
            13 => process::abort(),
            14 => loop {
                std::hint::spin_loop();
            },
            _ => Ok((input * 2, process::id())),
        }
    }
}

fn kernels(kernels: &mut Kernels) {
    kernels.register("demo/double", |()| Ok(Double));
}

#[tokio::main(flavor = "current_thread")]
async fn run() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().build().await?;
    let domain = Domain::start("demo", DomainConfig::default())?;
    // Without a breaker, which would refuse what comes between a fault and the restart.
    let spec = domain.kernel::<Double>("demo/double", "demo/double", &()).breaker(None);
    let double = runtime.spawn(spec).await?;

    let (doubled, first) = double.call(21, Duration::from_secs(10)).await?;
    assert_ne!(first, process::id());
    println!("21 doubled in another process: {doubled}");

    if let Err(error) = double.call(14, Duration::from_millis(200)).await {
        println!("a loop without an end, answered at its deadline: {}", error.kind());
    }
    let (doubled, second) = double.call(22, Duration::from_secs(10)).await?;
    assert_ne!(second, first);
    println!("22 doubled in the next process: {doubled}");

    if let Err(error) = double.call(13, Duration::from_secs(10)).await {
        println!("13 ended the process: {}", error.to_string().split(": lost").next().unwrap_or_default());
    }
    let (doubled, third) = double.call(23, Duration::from_secs(10)).await?;
    assert_ne!(third, second);
    println!("23 doubled in the process after that: {doubled}");

    let restarts = runtime.status().await[0].restarts;
    println!("workers that died: {}, restarts that the kernel paid for: {restarts}", domain.status().deaths);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    worker::init(kernels);
    run()
}
