//! Random trees through random histories, on the real runtime, against a plain model of OTP's rules.
//!
//! `RUSTKERNEL_CASES` sets how many histories are tried; a failure prints the line that runs its history again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "tree/cast.rs"]
#[allow(dead_code, reason = "the other tests of trees use the rest")]
mod cast;
#[path = "support/kit.rs"]
mod kit;
#[path = "tree_random/model.rs"]
mod model;
#[path = "tree_random/plant.rs"]
mod plant;
#[path = "tree_random/play.rs"]
mod play;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn a_tree_does_what_otp_does_whatever_happens_to_it() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cases = number("RUSTKERNEL_CASES").unwrap_or(250);
    let seeds: Vec<u64> = match number("RUSTKERNEL_SEED") {
        Some(seed) => vec![seed],
        None => (0..cases).map(|_| fastrand::u64(..)).collect(),
    };
    for seed in seeds {
        let failed = match catch_unwind(AssertUnwindSafe(|| play::history(seed))) {
            Ok(outcome) => outcome.err(),
            Err(_) => Some("a panic, see above".into()),
        };
        if let Some(error) = failed {
            let test = "a_tree_does_what_otp_does_whatever_happens_to_it";
            let replay = format!("RUSTKERNEL_SEED={seed} cargo test -p rustkernel --test tree_random {test}");
            panic!("{error}\nreplay: {replay}");
        }
    }
}
