//! A path that gives less answers while the kernel cannot, and says so.
//!
//! The kernel squares; its degraded path knows a table of three. When the kernel panics, the table answers, its answers and
//! the kernel's health are marked, and the kernel is rebuilt behind it after its delay.
//!
//! Time is turned by hand. Run it: `cargo run --example 07_degrade`. On stdout:
//!
//! ```text
//! 3 squared is 9; 12 squared is 144; health: Healthy
//! after a panic: 3 squared is 9 (degraded); 12 squared: not in the table (degraded); health: Degraded
//! 2 s later: 3 squared is 9; 12 squared is 144; health: Healthy
//! ```

use std::error::Error;
use std::time::Duration;

use rustkernel::core::envelope::Deadline;
use rustkernel::core::resilience::HealthTarget;
use rustkernel::prelude::*;

struct Square;

impl Kernel for Square {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _cx: &mut Context<'_>) -> Result<u64, KernelError> {
        assert_ne!(*input, 13, "unlucky");
        Ok(input * input)
    }
}

struct Table;

impl Kernel for Table {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _cx: &mut Context<'_>) -> Result<u64, KernelError> {
        let known = [(1, 1), (2, 4), (3, 9)].into_iter().find(|(number, _)| number == input);
        known.map(|(_, square)| square).ok_or_else(|| KernelError::permanent("not in the table"))
    }
}

async fn say(when: &str, square: &KernelRef<u64, u64>) {
    let mut answers = Vec::new();
    for input in [3, 12] {
        let (answer, report) = square.call_reported(input, Deadline::None).await;
        let answer = match answer {
            Ok(answer) => format!("{input} squared is {answer}"),
            Err(error) => {
                let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                format!("{input} squared: {cause}")
            }
        };
        answers.push(format!("{answer}{}", if report.degraded { " (degraded)" } else { "" }));
    }
    println!("{when}{}; health: {:?}", answers.join("; "), square.check().await.status);
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (runtime, clock) = Runtime::builder().build_with_manual_clock().await?;
    let recovery = RecoveryPolicy {
        strategy: RecoveryStrategy::Degrade,
        restart_delay: Duration::from_secs(2),
        ..RecoveryPolicy::default()
    };
    let spec = KernelSpec::new("demo/square", || Square).degraded(|| Table).recovery(recovery);
    let square = runtime.spawn(spec).await?;
    say("", &square).await;

    assert!(square.call(13, Deadline::None).await.is_err());
    say("after a panic: ", &square).await;

    let mut events = runtime.events();
    clock.advance(Duration::from_secs(2));
    events.find("demo/square", |fact| *fact == Fact::Recovered).await;
    say("2 s later: ", &square).await;
    Ok(())
}
