//! A kernel that survives its own panic: the same reference goes on answering.
//!
//! Run it: `cargo run --example 01_first_kernel`. On stdout:
//!
//! ```text
//! 21 doubled is 42
//! 13 failed: demo/double: the kernel crashed while it had the request: panicked: 13 is unlucky
//! 22 doubled is 44, by incarnation 2
//! ```

use std::error::Error;
use std::time::Duration;

use rustkernel::prelude::*;

struct Double;

impl Kernel for Double {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _cx: &mut Context<'_>) -> Result<u64, KernelError> {
        assert!(*input != 13, "13 is unlucky");
        Ok(input * 2)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().build().await?;
    let policy = RecoveryPolicy { restart_delay: Duration::from_millis(10), ..RecoveryPolicy::default() };
    let double = runtime.spawn(KernelSpec::new("demo/double", || Double).recovery(policy)).await?;

    println!("21 doubled is {}", double.call(21, Duration::from_secs(10)).await?);
    if let Err(error) = double.call(13, Duration::from_secs(10)).await {
        println!("13 failed: {error}");
    }
    // The next request waits in the slot while the kernel restarts.
    let answer = double.call(22, Duration::from_secs(10)).await?;
    println!("22 doubled is {answer}, by incarnation {}", runtime.status().await[0].incarnation);

    runtime.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
