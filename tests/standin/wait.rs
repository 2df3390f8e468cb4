//! Waiting for what other threads do.

use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::code::Answer;
use crate::fault;

/// Waits until `done`, which is asked again whenever something is announced. A fault ends the wait.
pub(crate) fn until(done: impl Fn() -> bool) -> Answer {
    let mut board = BOARD.lock().unwrap();
    loop {
        let done = done();
        // In this order: what ends with a fault is done after the fault.
        fault::healthy()?;
        if done {
            return Ok(());
        }
        board = CHANGED.wait(board).unwrap();
    }
}

/// To be called after anything that somebody may wait for.
pub(crate) fn announce() {
    // The lock keeps this out of the moment between a waiter's look and its sleep.
    let _board = BOARD.lock().unwrap();
    CHANGED.notify_all();
}

/// Waits until `done`, which nobody announces, and no longer than `limit`; says whether it was.
#[allow(clippy::disallowed_methods, reason = "a device has a clock of its own, which no test winds")]
pub(crate) fn poll(limit: Duration, done: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() >= limit {
            return false;
        }
        thread::park_timeout(POLL);
    }
    true
}

static BOARD: Mutex<()> = Mutex::new(());
static CHANGED: Condvar = Condvar::new();
const POLL: Duration = Duration::from_micros(50);
