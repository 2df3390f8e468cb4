//! A job that outlives its process: `rustkernel run --state DIR`, killed with SIGKILL and started again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustkernel::job::MOST_TWICE;
use serde_json::Value;

/// Every stage takes a while: six attempts in ten hang until their limit.
const SLOW: &str = "hang=0.6";

fn job() -> String {
    let stage = |kernel: &str, limit: &str, more: &str| {
        format!(
            "[[stage]]\nkernel = \"{kernel}\"\nhang_limit = \"{limit}\"\nconviction_limit = 40\n\
             retry = {{ max_attempts = 60, backoff = {{ fixed = {{ delay = \"0s\" }} }} }}\n\
             recovery = {{ max_restarts = 5000, restart_delay = \"0s\" }}\n\
             breaker = {{ failure_threshold = 61 }}\n{more}\n"
        )
    };
    let repeat = "repeat = { until = \"converged\", limit = 200 }\ncheckpointed = true\n\
                  settings = { tolerance = 1e-12 }";
    let stages = [
        stage("graph/load", "300ms", ""),
        stage("graph/pagerank", "10ms", repeat),
        stage("graph/top_k", "300ms", "settings = { k = 34 }"),
    ];
    format!("[job]\nname = \"slow\"\nretry_budget = 100000\n{}", stages.concat())
}

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("state-{name}"));
    let _none = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("job.toml"), job()).unwrap();
    path
}

fn command(folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rustkernel"));
    let job = folder.join("job.toml");
    command.args(["run", job.to_str().unwrap(), "--input", "data/karate.txt", "--format", "json"]);
    command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn in_state(folder: &Path, seed: u64) -> Command {
    let state = folder.join("state");
    command(folder, &["--state", state.to_str().unwrap(), "--inject", SLOW, "--seed", &seed.to_string()])
}

/// The bytes of the field `result`.
fn result(output: &Output) -> String {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let rest = text.strip_prefix("{\"schema\":1,\"result\":");
    let rest = rest.unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)));
    rest.split_once(",\"stages\":").unwrap().0.to_owned()
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// How far the work has come.
fn mark(folder: &Path) -> Option<(u32, u32)> {
    let bytes = fs::read(folder.join("state/mark")).ok()?;
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some((word(0)?, word(4)?))
}

/// Waits until the job has come to `target`, and kills it. `false` if it was done before.
fn kill_at(mut child: Child, folder: &Path, target: (u32, u32)) -> bool {
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if mark(folder).is_some_and(|mark| mark >= target) {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        // Nothing else tells what another process has written.
        thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_job_that_is_killed_in_every_stage_ends_with_the_result_of_one_that_was_not() {
    let undisturbed = result(&command(&folder("undisturbed"), &[]).output().unwrap());
    let seed = std::env::var("RUSTKERNEL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("again: RUSTKERNEL_SEED={seed} cargo test -p rustkernel --test state killed");
    let mut rng = fastrand::Rng::with_seed(seed);
    let folder = folder("killed");
    let mut rounds: Vec<u32> = (0..4).map(|_| rng.u32(0..60)).collect();
    rounds.sort_unstable();
    let in_stage_2 = rounds.into_iter().map(|round| (1, round));
    let targets: Vec<_> = [(0, 0)].into_iter().chain(in_stage_2).chain([(2, 0)]).collect();
    let mut killed = 0;
    for (index, target) in targets.iter().enumerate() {
        let child = in_state(&folder, seed + index as u64).spawn().unwrap();
        killed += usize::from(kill_at(child, &folder, *target));
    }
    assert!(killed >= 4, "it was killed {killed} times only");
    let last = in_state(&folder, seed + 99).output().unwrap();
    assert_eq!(result(&last), undisturbed);
    let resumed = &document(&last)["resumed"];
    let place = |name: &str| {
        let spot = &resumed[name];
        (spot["stage"].as_u64().unwrap(), spot["round"].as_u64().unwrap())
    };
    let (from, reached) = (place("from"), place("reached"));
    assert!(from <= reached, "{resumed}");
    if from.0 == reached.0 {
        assert!(reached.1 - from.1 <= MOST_TWICE + 1, "{resumed}");
    }
    let again = in_state(&folder, seed).output().unwrap();
    assert_eq!(result(&again), undisturbed);
    assert!(document(&again).get("resumed").is_none(), "a job that is done leaves nothing to go on from");
}

#[test]
fn a_folder_in_use_is_refused_and_so_is_one_of_another_input() {
    let folder = folder("taken");
    let child = in_state(&folder, 1).spawn().unwrap();
    while mark(&folder).is_none() {
        thread::park_timeout(Duration::from_millis(1));
    }
    let second = in_state(&folder, 1).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use by another process"), "{said}");
    assert!(kill_at(child, &folder, (1, 1)));

    let other = folder.join("other.txt");
    fs::write(&other, "1 2\n2 3\n3 1\n").unwrap();
    let state = folder.join("state");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rustkernel"));
    command.arg("run").arg(folder.join("job.toml")).arg("--input").arg(&other);
    let output = command.arg("--state").arg(&state).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another job, or the same job on another input"), "{said}");
    assert!(mark(&folder).is_some(), "nothing was changed");
}

#[test]
fn a_damaged_cursor_is_refused_by_name_and_the_one_before_it_is_used() {
    let undisturbed = result(&command(&folder("whole"), &[]).output().unwrap());
    let folder = folder("damaged");
    assert!(kill_at(in_state(&folder, 3).spawn().unwrap(), &folder, (1, 30)));
    let cursors = folder.join("state/job/job@cursor");
    let mut files: Vec<_> = fs::read_dir(&cursors).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "ckpt"));
    files.sort();
    assert!(files.len() > 1, "{files:?}");
    let newest = files.pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let output = in_state(&folder, 4).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("was refused") && said.contains("checksum"), "{said}");
    assert_eq!(result(&output), undisturbed);
    assert_eq!(document(&output)["resumed"]["from"]["stage"], 1);
}

#[test]
fn dead_letters_and_failures_are_there_in_the_next_process() {
    let folder = folder("records");
    let text = job().replace("conviction_limit = 40", "conviction_limit = 1");
    fs::write(folder.join("job.toml"), text).unwrap();
    let state = folder.join("state");
    let more = ["--state", state.to_str().unwrap(), "--inject", "panic=1"];
    let output = command(&folder, &more).output().unwrap();
    assert_eq!(output.status.code(), Some(70), "{}", String::from_utf8_lossy(&output.stderr));

    let tokio = tokio::runtime::Runtime::new().unwrap();
    tokio.block_on(async {
        let (_, document) = rustkernel::config::JobConfig::read(&folder.join("job.toml")).unwrap();
        let input = rustkernel::kernels::graph::EdgeListSource::Path("data/karate.txt".into());
        let state = rustkernel::job::JobState::open(&state, &document, &input).unwrap();
        let runtime = rustkernel::actors::Runtime::builder().build().await.unwrap();
        state.restore_records(&runtime);
        let (total, letters) = runtime.dead_letters();
        assert_eq!((total, letters.len()), (1, 1));
        assert_eq!(letters[0].kernel.as_str(), "graph/load");
        assert!(letters[0].input.is_some(), "it can be replayed");
        let failures = runtime.history("graph/load");
        assert_eq!(failures.len(), 1);
        assert!(failures[0].reason.contains("an injected panic"), "{failures:?}");
        assert_eq!(state.resumed().unwrap().from.stage, 0);
    });
}

/// The folder was emptied as soon as there was a result, so that one which could not be written was lost with it.
#[cfg(target_os = "linux")]
#[test]
fn a_result_that_nobody_got_is_still_there_for_the_next_process() {
    let undisturbed = result(&command(&folder("heard"), &[]).output().unwrap());
    let folder = folder("unheard");
    let state = folder.join("state");
    let kept = || command(&folder, &["--state", state.to_str().unwrap()]);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for (stdout, code) in [(Stdio::from(full), 1), (Stdio::from(writer), 0)] {
        let output = kept().stdout(stdout).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.contains("the result cannot be written"), code == 1, "{said}");
        assert!(state.join("checkpoints").exists(), "{said}");
    }
    let heard = kept().output().unwrap();
    assert_eq!(result(&heard), undisturbed);
    assert_eq!(document(&heard)["resumed"]["from"]["stage"], 2, "only what was left is done again");
    assert!(!state.join("checkpoints").exists());
    assert!(document(&kept().output().unwrap()).get("resumed").is_none());
}
