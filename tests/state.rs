//! A job that outlives its process: `rustkernel run --state DIR`, killed with SIGKILL and started again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use rustkernel::config::JobConfig;
use rustkernel::core::clock::Timestamp;
use rustkernel::core::envelope::Header;
use rustkernel::inject::Injector;
use rustkernel::job::{JobState, MOST_TWICE, Resumed, Spot};
use rustkernel::kernels::graph::EdgeListSource;
use serde_json::Value;

/// One attempt in twenty hangs, for longer than any of these processes live: each stops at the first one, wherever the seed has it.
const SOME: &str = "hang=0.05";

fn job() -> String {
    let stage = |kernel: &str, more: &str| {
        format!("[[stage]]\nkernel = \"{kernel}\"\nhang_limit = \"10m\"\nconviction_limit = 40\n{more}\n")
    };
    let repeat = "repeat = { until = \"converged\", limit = 200 }\ncheckpointed = true\n\
                  settings = { tolerance = 1e-12 }";
    let stages = [stage(LOAD, ""), stage(PAGERANK, repeat), stage(TOP_K, "settings = { k = 34 }")];
    format!("[job]\nname = \"held\"\n{}", stages.concat())
}

const LOAD: &str = "graph/load";
const PAGERANK: &str = "graph/pagerank";
const TOP_K: &str = "graph/top_k";
/// The first attempt hangs.
const FIRST: &str = "hang=1";

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

/// In the folder's state, with faults.
fn in_state(folder: &Path, faults: &str, seed: u64) -> Command {
    let state = folder.join("state");
    command(folder, &["--state", state.to_str().unwrap(), "--inject", faults, "--seed", &seed.to_string()])
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
fn mark(folder: &Path) -> Option<Spot> {
    let bytes = fs::read(folder.join("state/mark")).ok()?;
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(Spot { stage: word(0)?, round: word(4)? })
}

/// The cursors that are stored, the newest last.
fn cursors(folder: &Path) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(folder.join("state/job/job@cursor")) else { return Vec::new() };
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "ckpt"));
    files.sort();
    files
}

/// Waits until `is_there`, which is for good: the process hangs there.
fn wait_for(child: &mut Child, is_there: impl Fn() -> bool) {
    while !is_there() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended and was to hang");
        // Nothing else tells what another process has written.
        thread::yield_now();
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Kills the folder's first process in the call of the first stage, with that place stored.
fn killed_in_the_first_stage(folder: &Path) -> Resumed {
    let mut child = in_state(folder, FIRST, 0).spawn().unwrap();
    wait_for(&mut child, || mark(folder) == Some(Spot::default()) && !cursors(folder).is_empty());
    kill(child);
    found(folder)
}

/// What the next process finds.
fn found(folder: &Path) -> Resumed {
    let (_, document) = JobConfig::read(&folder.join("job.toml")).unwrap();
    let input = EdgeListSource::Path("data/karate.txt".into());
    JobState::open(&folder.join("state"), &document, &input).unwrap().resumed().unwrap()
}

/// A seed by which a job of so many `rounds`, going on from `from`, hangs at `target` and nowhere before.
fn seed_that_holds(rng: &mut fastrand::Rng, rounds: u32, from: &Resumed, target: Spot) -> u64 {
    let header = Header::new(from.request, Timestamp::NEVER);
    let calls = |spot: Spot| match spot.stage {
        0 => (LOAD, 0),
        1 => (PAGERANK, u64::from(spot.round)),
        _ => (TOP_K, 0),
    };
    let in_order = places(rounds).into_iter().skip_while(|spot| *spot < from.from);
    let before: Vec<Spot> = in_order.take_while(|spot| *spot < target).collect();
    let seeds = std::iter::repeat_with(|| rng.u64(..));
    let holds = |seed: &u64| {
        let injector = Injector::new(SOME.parse().unwrap(), *seed);
        let hangs = |spot: Spot| {
            let (kernel, call) = calls(spot);
            injector.decide(kernel, call, &header).is_some()
        };
        hangs(target) && !before.iter().any(|spot| hangs(*spot))
    };
    seeds.take(10_000_000).find(holds).unwrap()
}

/// Where a job of so many rounds makes a call, in order.
fn places(rounds: u32) -> Vec<Spot> {
    let in_rounds = (0..rounds).map(|round| Spot { stage: 1, round });
    [Spot::default()].into_iter().chain(in_rounds).chain([Spot { stage: 2, round: 0 }]).collect()
}

/// The mark outlives its process: only a place that no process before has come to says that this one was there.
#[test]
fn a_job_that_is_killed_in_every_stage_ends_with_the_result_of_one_that_was_not() {
    let undisturbed = result(&command(&folder("undisturbed"), &[]).output().unwrap());
    let rounds: Value = serde_json::from_str(&undisturbed).unwrap();
    let rounds = u32::try_from(rounds["iterations"].as_u64().unwrap()).unwrap();
    let seed = std::env::var("RUSTKERNEL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("again: RUSTKERNEL_SEED={seed} cargo test -p rustkernel --test state killed");
    let mut rng = fastrand::Rng::with_seed(seed);
    let folder = folder("killed");
    let mut from = killed_in_the_first_stage(&folder);
    assert_eq!((from.from, from.reached), (Spot::default(), Spot::default()));

    let mut targets: Vec<_> = rng.choose_multiple(1..rounds, 5);
    targets.sort_unstable();
    let targets = targets.into_iter().map(|round| Spot { stage: 1, round });
    for target in targets.chain([Spot { stage: 2, round: 0 }]) {
        assert!(target > from.reached, "{from:?} {target:?}");
        let seed = seed_that_holds(&mut rng, rounds, &from, target);
        let mut child = in_state(&folder, SOME, seed).spawn().unwrap();
        wait_for(&mut child, || mark(&folder) == Some(target));
        kill(child);
        let request = from.request;
        from = found(&folder);
        assert_eq!((from.reached, from.request), (target, request));
        let twice =
            places(rounds).into_iter().filter(|spot| (from.from..from.reached).contains(spot)).count();
        assert!(twice as u64 <= MOST_TWICE + 1, "{twice} places twice: {from:?}");
    }
    let last = command(&folder, &["--state", folder.join("state").to_str().unwrap()]).output().unwrap();
    assert_eq!(result(&last), undisturbed);
    assert_eq!(document(&last)["resumed"], serde_json::to_value(from).unwrap());
    let again = command(&folder, &["--state", folder.join("state").to_str().unwrap()]).output().unwrap();
    assert_eq!(result(&again), undisturbed);
    assert!(document(&again).get("resumed").is_none(), "a job that is done leaves nothing to go on from");
}

#[test]
fn a_folder_in_use_is_refused_and_so_is_one_of_another_input() {
    let folder = folder("taken");
    let mut child = in_state(&folder, FIRST, 1).spawn().unwrap();
    wait_for(&mut child, || mark(&folder).is_some() && !cursors(&folder).is_empty());
    let second = in_state(&folder, FIRST, 1).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use by another process"), "{said}");
    kill(child);

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
    let from = killed_in_the_first_stage(&folder);
    let target = Spot { stage: 1, round: 30 };
    let seed = seed_that_holds(&mut fastrand::Rng::with_seed(3), 31, &from, target);
    let mut child = in_state(&folder, SOME, seed).spawn().unwrap();
    wait_for(&mut child, || mark(&folder) == Some(target));
    // One place was noted by the first process; two stages and so many rounds by this one. What is noted last is stored last.
    let last = format!("{:020}.ckpt", 1 + 2 + u64::from(target.round));
    wait_for(&mut child, || cursors(&folder).last().is_some_and(|newest| newest.ends_with(&last)));
    kill(child);
    let newest = cursors(&folder).pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let output = command(&folder, &["--state", folder.join("state").to_str().unwrap()]).output().unwrap();
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
        let (_, document) = JobConfig::read(&folder.join("job.toml")).unwrap();
        let input = EdgeListSource::Path("data/karate.txt".into());
        let state = JobState::open(&state, &document, &input).unwrap();
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
