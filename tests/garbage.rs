//! Whatever comes from outside is read or refused, and nothing panics: job files, settings from the environment, actions, snapshots.
//! Edge lists, frames of workers and files of checkpoints have the same tests beside their readers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use kit::{Fragile, NONE, at_once};
use proptest::prelude::*;
use rustkernel::actors::{KernelSpec, Runtime, Supervisor};
use rustkernel::config::JobConfig;
use rustkernel::http::{Action, Node, NodeSnapshot, Token};
use rustkernel::job::Plan;

/// A job file with a few bytes of it changed: most of what it says still holds.
fn nearly(text: &'static str) -> impl Strategy<Value = String> {
    let change = (0..text.len(), any::<u8>(), 0..3_u8);
    proptest::collection::vec(change, 1..6).prop_map(move |changes| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte, how) in changes {
            let at = at.min(bytes.len().saturating_sub(1));
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

const JOB: &str = r#"
[job]
name = "n"
deadline = "10s"
retry_budget = 3

[[stage]]
kernel = "graph/load"
retry = { max_attempts = 3, backoff = { fixed = { delay = "1s" } } }

[[stage]]
kernel = "graph/pagerank"
repeat = { until = "converged", limit = 20 }
checkpointed = true
settings = { damping = 0.85 }
shutdown = { within = "5s" }
placement = "process"
domain = "ranks"

[[stage]]
kernel = "graph/top_k"

[supervisor.gpu]
strategy = "one_for_all"
children = ["graph/pagerank", "graph/top_k"]

[domain.ranks]
kill_after = "50ms"
"#;

#[test]
fn the_job_that_is_changed_is_good_as_it_is() {
    let (config, document) = JobConfig::parse("job.toml", JOB).unwrap();
    Plan::new(config, &document).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_job_file_is_a_plan_or_an_error_with_a_place(text in prop_oneof![nearly(JOB), any::<String>()]) {
        let planned = JobConfig::parse("job.toml", &text).and_then(|(config, document)| Plan::new(config, &document));
        if let Err(error) = planned {
            prop_assert!(error.to_string().starts_with("job.toml"), "{error}");
        }
    }

    #[test]
    fn an_action_and_a_token_are_read_or_refused(text in prop_oneof![
        nearly(r#"{"action":"restart","name":"graph/pagerank"}"#),
        any::<String>(),
    ]) {
        let _ = serde_json::from_str::<Action>(&text);
        if let Ok(token) = Token::new(&text) {
            prop_assert!(!format!("{token:?}").contains(text.trim()), "it is shown nowhere");
        }
    }
}

/// What a node says that has failures, dead letters and a supervisor.
static SNAPSHOT: LazyLock<String> = LazyLock::new(|| {
    let workers = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    workers.block_on(async {
        let runtime = Runtime::builder().build().await.unwrap();
        let fragile = KernelSpec::new("a/b", || Fragile).idempotent().breaker(None).recovery(at_once(9));
        let kernel = runtime.spawn(fragile).await.unwrap();
        runtime.supervise(Supervisor::new("low").kernel(KernelSpec::new("a/c", || Fragile))).await.unwrap();
        kernel.call(0, NONE).await.unwrap_err();
        serde_json::to_string(&Node::new(runtime).snapshot().await).unwrap()
    })
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_is_read_or_refused(text in nearly(&SNAPSHOT)) {
        if let Ok(read) = serde_json::from_str::<NodeSnapshot>(&text) {
            let again = serde_json::to_string(&read).unwrap();
            let twice: NodeSnapshot = serde_json::from_str(&again).unwrap();
            prop_assert_eq!(serde_json::to_string(&twice).unwrap(), again);
        }
    }
}

#[test]
fn the_snapshot_that_is_changed_is_good_as_it_is() {
    let read: NodeSnapshot = serde_json::from_str(&SNAPSHOT).unwrap();
    assert_eq!((read.failures.len(), read.dead_letters.letters.len()), (2, 1));
}

proptest! {
    // Each is a process.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_variable_sets_a_field_or_is_an_error_with_its_name(name in "[A-Z_0-9]{0,12}(__[A-Z_0-9]{0,12}){0,3}", value in "[ -~]{0,20}") {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = folder.join("garbage.toml");
        std::fs::write(&file, JOB).unwrap();
        let variable = format!("RUSTKERNEL__{name}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_rustkernel"));
        let output = command.args(["config", "show", "--origin"]).arg(&file).env(&variable, value).output().unwrap();
        let (shown, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        match output.status.code() {
            Some(0) => prop_assert!(shown.lines().any(|line| line.ends_with(&format!("# {variable}"))), "{shown}"),
            code => prop_assert!(code == Some(78) && said.starts_with(&format!("error: {variable}: ")), "{code:?} {said}"),
        }
    }
}
