//! What supervision cannot mend is an operator's: a hook tells somebody, and the kernel serves nobody until it is resumed.
//!
//! The kernel needs a file that is missing. It fails at once with every restart, so after two of them it is isolated. The
//! operator, here a task that listens to the hook, brings the file and resumes the kernel.
//!
//! Run it: `cargo run --example 09_notify_operator`. On stdout:
//!
//! ```text
//! a request fails: crashed
//! the operator hears: demo/reader was isolated
//! meanwhile: down: isolated
//! the operator brings the file and resumes it
//! it answers: 42
//! ```

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustkernel::core::error::KernelErrorKind;
use rustkernel::prelude::*;
use tokio::sync::mpsc;

struct Reader;

impl Reader {
    fn open(file: &AtomicBool) -> Result<Self, KernelError> {
        if file.load(Ordering::SeqCst) { Ok(Self) } else { Err(KernelError::permanent("no such file")) }
    }
}

impl Kernel for Reader {
    type Input = bool;
    type Output = u64;

    async fn execute(&mut self, panics: &bool, _cx: &mut Context<'_>) -> Result<u64, KernelError> {
        assert!(!*panics, "the file is gone");
        Ok(42)
    }
}

fn in_words(kind: &KernelErrorKind) -> &'static str {
    if matches!(kind, KernelErrorKind::Crashed) {
        "crashed"
    } else if matches!(kind, KernelErrorKind::Down(_)) {
        "down: isolated"
    } else {
        "something else"
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (tell, mut heard) = mpsc::unbounded_channel();
    let hook = move |event: &Event| {
        if let (Fact::Isolated { .. }, Some(child)) = (&event.fact, &event.child) {
            // An error means that nobody listens any more.
            let _ = tell.send(child.to_string());
        }
    };
    let runtime = Runtime::builder().hook(hook).build().await?;
    let file = Arc::new(AtomicBool::new(true));
    let opens = Arc::clone(&file);
    let recovery =
        RecoveryPolicy { max_restarts: 2, restart_delay: Duration::ZERO, ..RecoveryPolicy::default() };
    let spec = KernelSpec::fallible("demo/reader", move || Reader::open(&opens)).recovery(recovery);
    let reader = runtime.spawn(spec).await?;

    file.store(false, Ordering::SeqCst);
    let limit = Duration::from_secs(10);
    let Err(error) = reader.call(true, limit).await else { return Ok(()) };
    println!("a request fails: {}", in_words(error.kind()));

    let id = heard.recv().await.ok_or("nothing to hear")?;
    println!("the operator hears: {id} was isolated");
    let Err(error) = reader.call(false, limit).await else { return Ok(()) };
    println!("meanwhile: {}", in_words(error.kind()));
    file.store(true, Ordering::SeqCst);
    println!("the operator brings the file and resumes it");
    runtime.resume(&id).await;
    println!("it answers: {}", reader.call(false, limit).await?);
    Ok(())
}
