//! All recovery strategies at once, at random, in trees whose supervisors give up, are killed and ended: panics, hangs, losses elsewhere,
//! bad starts, kills, replacements, fail-backs, resumes, stops, from one seed.
//!
//! `RUSTKERNEL_CASES` sets how many are tried; a failure prints the line that tries its seed again. Threads do not repeat themselves: with
//! both variables a seed is tried so many times.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "strategies/chaos.rs"]
mod chaos;
#[path = "strategies/found.rs"]
mod found;
#[path = "support/kit.rs"]
mod kit;
#[path = "strategies/play.rs"]
mod play;
#[path = "strategies/scene.rs"]
mod scene;
#[path = "support/tally.rs"]
mod tally;
#[path = "strategies/verdict.rs"]
mod verdict;
#[path = "strategies/world.rs"]
mod world;

/// Says which seed it was, if the run ends in a panic.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "replay: RUSTKERNEL_CASES=200 RUSTKERNEL_SEED={} cargo test -p rustkernel --test strategies",
                self.0
            );
        }
    }
}

/// Half of the soaks run on one thread, where only kernels with a thread of their own make two runs of a seed differ.
fn run(seed: u64) {
    let mut tokio = match seed % 2 {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let tokio = tokio.worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(play::soak(seed));
}

#[test]
fn whatever_happens_every_caller_is_answered_by_one_life_at_a_time_and_the_books_balance() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (cases, given) = (number("RUSTKERNEL_CASES"), number("RUSTKERNEL_SEED"));
    let usual = if given.is_some() { 1 } else { 100 };
    for _ in 0..cases.unwrap_or(usual) {
        let seed = Seed(given.unwrap_or_else(|| fastrand::u64(..)));
        println!("seed {}", seed.0);
        run(seed.0);
    }
}
