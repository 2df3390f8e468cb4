//! A breaker in front of a failing kernel, and what the caller does meanwhile.
//!
//! Three failures in a row open the breaker: further calls are refused at once, without reaching the kernel, and say
//! how long the breaker stays open. After that time two good probes close it.
//!
//! Time is turned by hand here, as in a test, so the example waits for nothing. Run it:
//! `cargo run --example 04_breaker_and_fallback`. On stdout:
//!
//! ```text
//! call 1: the device is busy -> cached 0
//! call 2: the device is busy -> cached 0
//! call 3: the device is busy -> cached 0
//! call 4: refused for up to 30s -> cached 0
//! 30 s later: 5 6
//! the kernel saw 5 calls, and its breaker is closed
//! ```

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustkernel::core::envelope::Deadline;
use rustkernel::core::error::KernelErrorKind;
use rustkernel::prelude::*;

struct Shaky {
    healed: Arc<AtomicBool>,
}

impl Kernel for Shaky {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _cx: &mut Context<'_>) -> Result<u64, KernelError> {
        if self.healed.load(Ordering::SeqCst) {
            Ok(*input)
        } else {
            Err(KernelError::transient("the device is busy"))
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let healed = Arc::new(AtomicBool::new(false));
    let heal = Arc::clone(&healed);
    let (runtime, clock) = Runtime::builder().build_with_manual_clock().await?;
    let breaker = CircuitBreakerConfig { failure_threshold: 3, success_threshold: 2, ..Default::default() };
    let spec = KernelSpec::new("demo/shaky", move || Shaky { healed: Arc::clone(&heal) }).breaker(breaker);
    let shaky = runtime.spawn(spec).await?;

    for call in 1..=4 {
        let Err(error) = shaky.call(call, Deadline::None).await else { continue };
        let reason = if let KernelErrorKind::Rejected(rejection) = error.kind() {
            format!("refused for up to {:?}", rejection.retry_after.unwrap_or_default())
        } else {
            error.source().map_or_else(|| error.to_string(), ToString::to_string)
        };
        println!("call {call}: {reason} -> cached 0");
    }

    healed.store(true, Ordering::SeqCst);
    let mut events = runtime.events();
    clock.advance(Duration::from_secs(30));
    events.find("demo/shaky", |fact| matches!(fact, Fact::Breaker(_))).await;
    let (first, second) = (shaky.call(5, Deadline::None).await?, shaky.call(6, Deadline::None).await?);
    println!("30 s later: {first} {second}");

    let status = &runtime.status().await[0];
    println!("the kernel saw {} calls, and its breaker is {}", status.accounts.accepted, status.breaker);
    Ok(())
}
