//! One line on stderr that says how far a job is, where stderr is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::job::{Job, Tally};

/// Writes the line now and then; never ends. Without a terminal it writes nothing.
///
/// # Cancel safety
/// Dropping it leaves the last line; [`clear`] takes it away.
pub(super) async fn show(job: &Job, tally: &Tally) {
    if !io::stderr().is_terminal() {
        std::future::pending::<()>().await;
    }
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (rounds, restarts) = (job.rounds(), tally.counts().restarts);
        let line = format!("iteration {rounds}, {restarts} restarts");
        let _ = write!(io::stderr().lock(), "\r{line:<WIDTH$}");
    }
}

/// Takes the line away.
pub(super) fn clear() {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr().lock(), "\r{:<WIDTH$}\r", "");
    }
}

const PERIOD: Duration = Duration::from_millis(200);
const WIDTH: usize = 60;
