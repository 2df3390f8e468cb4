//! Kernels chained kernel to kernel, under one deadline that every stage sees.
//!
//! The first kernel halves until it meets its bound, two kernels look at the result at the same time, and the last one
//! blocks its thread for far too long: the caller is answered at the deadline all the same, and is told which kernel
//! had the request.
//!
//! Run it: `cargo run --example 03_pipeline_with_deadline`. On stdout:
//!
//! ```text
//! 1000 halves to 7; its square and cube are [49, 343]
//! with the slow kernel: deadline exceeded in demo/slow
//! demo/half took 7 requests
//! ```

use std::error::Error;
use std::sync::mpsc;
use std::time::Duration;

use rustkernel::prelude::*;

/// A closure as a kernel.
struct Apply<F>(F);

impl<F: FnMut(u64) -> u64 + Send + 'static> Kernel for Apply<F> {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _cx: &mut Context<'_>) -> Result<u64, KernelError> {
        Ok((self.0)(*input))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().build().await?;
    let half = runtime.spawn(KernelSpec::new("demo/half", || Apply(|n| n / 2)).inline()).await?;
    let square = runtime.spawn(KernelSpec::new("demo/square", || Apply(|n: u64| n.pow(2)))).await?;
    let cube = runtime.spawn(KernelSpec::new("demo/cube", || Apply(|n: u64| n.pow(3)))).await?;

    let small = Pipeline::from(&half).repeat_until(64, |n| *n < 10);
    let powers = small.clone().fan_out([&square, &cube]);
    let (result, report) = powers.run_reported(1000, Duration::from_secs(5)).await;
    println!("1000 halves to 7; its square and cube are {:?}", result?);

    // It waits for a message that nobody sends: a kernel that has truly blocked its thread.
    let (_keep, never) = mpsc::channel::<()>();
    let never = std::sync::Arc::new(std::sync::Mutex::new(never));
    let blocks = move || {
        let never = std::sync::Arc::clone(&never);
        Apply(move |n| {
            let waited = never.lock().map(|never| never.recv_timeout(Duration::from_secs(3)));
            n + u64::from(waited.is_err())
        })
    };
    let slow = runtime.spawn(KernelSpec::new("demo/slow", blocks)).await?;
    match small.then(&slow).run(1000, Duration::from_millis(50)).await {
        Ok(answer) => println!("with the slow kernel: {answer}, which nobody expected"),
        Err(error) => {
            let kernel = error.kernel_id().map_or("no kernel", KernelId::as_str);
            println!("with the slow kernel: {} in {kernel}", error.kind());
        }
    }
    let stage = &report.stages[0];
    println!("{} took {} requests", stage.kernel, stage.calls);
    Ok(())
}
