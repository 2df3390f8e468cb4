//! Random cases, each from a seed of its own, so that one line runs a failed one again.

use std::env;
use std::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

/// What a case found, or how it failed.
pub(crate) type Outcome = Result<(), String>;

/// Runs `test` on `cases` random values, or on the one that `RUSTKERNEL_SEED` names.
pub(crate) fn check<V: Debug>(
    name: &str,
    cases: u32,
    values: impl Strategy<Value = V>,
    test: impl Fn(&V) -> Outcome,
) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cases = number("RUSTKERNEL_CASES").unwrap_or_else(|| u64::from(cases));
    let seeds: Vec<u64> = match number("RUSTKERNEL_SEED") {
        Some(seed) => vec![seed],
        None => (0..cases).map(|_| fastrand::u64(..)).collect(),
    };
    for seed in seeds {
        let config = ProptestConfig {
            cases: 1,
            failure_persistence: None,
            max_shrink_iters: 3_000,
            ..ProptestConfig::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let ran = TestRunner::new_with_rng(config, rng)
            .run(&values, |value| test(&value).map_err(TestCaseError::fail));
        if let Err(error) = ran {
            let replay = format!(
                "RUSTKERNEL_SEED={seed} cargo test -p rustkernel-core --test supervision_model {name}"
            );
            panic!("{error}\nreplay: {replay}");
        }
    }
}
