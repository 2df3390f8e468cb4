//! A new version behind the same name, while requests keep coming.
//!
//! The new version is made, restored and proven by a canary while the old one serves; then the old one finishes its request, takes
//! a last checkpoint and makes way. A version that does not pass its canary changes nothing.
//!
//! Run it: `cargo run --example 10_replace_a_kernel`. On stdout:
//!
//! ```text
//! greetings: 100, all counted once: true
//! first "hello 1", last "good day 100"
//! a broken version: the new version did not start: failed to start: the kernel failed (permanent): the canary gave a wrong answer
//! still "good day 101"
//! ```

use std::error::Error;
use std::time::Duration;

use rustkernel::prelude::*;

struct Greeter {
    words: &'static str,
    count: u64,
}

impl Kernel for Greeter {
    type Input = u64;
    type Output = String;

    async fn execute(&mut self, guests: &u64, _cx: &mut Context<'_>) -> Result<String, KernelError> {
        self.count += guests;
        Ok(format!("{} {}", self.words, self.count))
    }
}

impl CheckpointableKernel for Greeter {
    type Checkpoint = u64;

    async fn checkpoint(&self) -> Result<u64, KernelError> {
        Ok(self.count)
    }

    async fn restore(&mut self, count: u64) -> Result<(), KernelError> {
        self.count = count;
        Ok(())
    }
}

fn version(words: &'static str) -> KernelSpec<Greeter> {
    KernelSpec::new("demo/greeter", move || Greeter { words, count: 0 })
        .checkpointed()
        .checkpoint_every(1_000)
        .canary(0, |greeting| !greeting.starts_with(' '))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().build().await?;
    let greeter = runtime.spawn(version("hello")).await?;
    let mut greetings = Vec::new();
    let limit = Duration::from_secs(10);
    for _ in 0..50 {
        greetings.push(greeter.call(1, limit).await?);
    }
    // One request is in the queue whenever the versions change.
    let call = greeter.call(1, limit);
    let (greeting, replaced) = tokio::join!(call, runtime.replace(version("good day")));
    replaced?;
    greetings.push(greeting?);
    while greetings.len() < 100 {
        greetings.push(greeter.call(1, limit).await?);
    }
    let counts = greetings.iter().map(|greeting| greeting.rsplit(' ').next().unwrap_or_default());
    let once = counts.eq((1..=100).map(|count| count.to_string()).collect::<Vec<_>>());
    println!("greetings: {}, all counted once: {once}", greetings.len());
    println!("first {:?}, last {:?}", greetings[0], greetings[99]);

    let Err(error) = runtime.replace(version("")).await else { return Ok(()) };
    println!("a broken version: {error}");
    println!("still {:?}", greeter.call(1, limit).await?);
    Ok(())
}
