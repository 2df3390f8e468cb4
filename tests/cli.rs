//! `rustkernel run`, through the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const FAULTS: &str = "panic=0.2,error=0.2,hang=0.05";

fn rustkernel(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rustkernel")).args(args).output().unwrap()
}

fn run(args: &[&str]) -> Output {
    rustkernel(&[&["run"], args].concat())
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stdout(output)))
}

/// The bytes of the field `result`, which comes second.
fn result(output: &Output) -> &str {
    let text = stdout(output).strip_prefix("{\"schema\":1,\"result\":").unwrap();
    text.split_once(",\"stages\":").unwrap().0
}

fn file(name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, content).unwrap();
    path
}

/// Runs on an edge list that is at fault: exit 1, nothing on stdout, the file and `expected` on stderr, no panic.
fn refuses(name: &str, content: impl AsRef<[u8]>, expected: &str) {
    let path = file(name, content);
    let path = path.to_str().unwrap();
    let output = run(&["--input", path]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "{}", stdout(&output));
    assert!(said.contains(path) && said.contains(expected), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn the_shipped_job_gives_the_reference_ranking() {
    let output = run(&["--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "nothing moves where stderr is no terminal");
    let document = document(&output);
    assert_eq!(document["schema"], 1);
    let reference = fs::read_to_string("data/debian-pagerank.reference.json").unwrap();
    let reference: Value = serde_json::from_str(&reference).unwrap();
    assert_eq!(document["result"]["nodes"], reference["nodes"]);
    assert_eq!(document["result"]["edges"], reference["edges"]);
    let entries = document["result"]["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    for (entry, expected) in entries.iter().zip(reference["top"].as_array().unwrap()) {
        assert_eq!(entry["id"], expected["id"]);
        let difference = entry["rank"].as_f64().unwrap() - expected["rank"].as_f64().unwrap();
        assert!(difference.abs() < 1e-8, "{entry} {expected}");
    }
    let iterations = &document["result"]["iterations"];
    assert_eq!(&document["stages"][1]["calls"], iterations, "one iteration is one request");
    assert_eq!(document["supervision"]["restarts"], 0);
    assert_eq!(document["supervision"]["retries"], 0);
    assert_eq!(document["supervision"]["dead_letters"], 0);
}

#[test]
fn the_result_is_the_same_bit_for_bit_while_kernels_panic_err_and_hang() {
    let calm = run(&["--format", "json"]);
    let injected = run(&["--format", "json", "--inject", FAULTS, "--seed", "7"]);
    assert_eq!(injected.status.code(), Some(0), "{}", stderr(&injected));
    assert_eq!(result(&injected), result(&calm));
    let supervision = &document(&injected)["supervision"];
    for cause in ["panicked", "hung"] {
        assert!(supervision["failures"][cause].as_u64() > Some(0), "{supervision}");
    }
    assert!(supervision["restarts"].as_u64() > Some(20), "{supervision}");
    assert!(supervision["retries"].as_u64() > supervision["restarts"].as_u64(), "errors are retried too");
    assert_eq!(supervision["dead_letters"], 0);
    assert_eq!(stderr(&injected), "", "injected faults are counted, not told one by one");
}

#[test]
fn the_result_is_the_same_bit_for_bit_while_worker_processes_are_killed() {
    // The shipped graph, which takes its time without optimisation, is for the release build.
    let edges: String = (0..400_u32).map(|n| format!("{n} {}\n{n} {}\n", n / 2, n * n % 397)).collect();
    let path = file("killed.txt", edges);
    let input = ["--input", path.to_str().unwrap(), "--format", "json"];
    let calm = run(&input);
    for faults in ["kill=0.1", "kill=0.1,panic=0.1,error=0.1"] {
        let output =
            run(&[&input[..], &["--placement", "process", "--inject", faults, "--seed", "7"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(result(&output), result(&calm), "{faults}");
        let failures = &document(&output)["supervision"]["failures"];
        assert!(failures["domain_lost"].as_u64().unwrap() > 0, "{failures}");
        assert_eq!(stderr(&output), "", "injected faults are counted, not told one by one");
    }
}

#[test]
fn the_human_report_names_packages_stages_and_what_supervision_did() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    for expected in [
        "debian-pagerank: 57842 nodes, 247686 edges",
        "   1       16808  0.161441  libc6\n",
        "graph/pagerank",
        "supervision: 0 restarts, 0 retries, 0 dead letters\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn another_edge_list_is_ranked_by_ids() {
    let output = run(&["--input", "data/karate.txt"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("34 nodes, 156 edges"), "{text}");
    assert!(text.contains("   1          34  0.100919\n"), "{text}");
}

#[test]
fn broken_edge_lists_are_refused_by_file_and_line() {
    refuses("cli-binary", [0x7f, b'E', b'L', b'F', 0, 1], "line 1, column 1: byte 0x7f");
    refuses("cli-nan", "1 2\nNaN 2\n", "line 2, column 1: `NaN` is no node id");
    refuses("cli-negative", "1 2\n1 -2\n", "line 2, column 3: `-2` is no node id: it is negative");
    refuses("cli-large", "9223372036854775808 1\n", "line 1, column 1");
    refuses("cli-endless", vec![b'7'; 1 << 20], "line 1 is longer than 4096 bytes");
    refuses("cli-empty", "", "no edge in 0 lines");
    refuses("cli-comments", "# nothing\n", "no edge in 1 lines");
    let cut = &fs::read("data/debian-depends.txt.gz").unwrap()[..4000];
    refuses("cli-cut.gz", cut, "the gzip data is cut off or damaged");
}

#[test]
fn a_file_that_is_not_there_is_a_failure_that_names_it() {
    let output = run(&["--input", "no/such/file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no/such/file: the file cannot be opened"), "{}", stderr(&output));
}

#[test]
fn a_ranking_that_does_not_converge_in_its_rounds_is_a_failure() {
    let text = job("").replace("limit = 200", "limit = 2");
    let output = run(&[file("cli-rounds.toml", text).to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not done within the limit of rounds"), "{}", stderr(&output));
}

#[test]
fn the_deadline_of_the_job_file_counts_and_the_command_line_goes_first() {
    let text = format!("[job]\ndeadline = \"50ms\"\n{}", job("hang_limit = \"10s\""));
    let path = file("cli-deadline.toml", text);
    let path = path.to_str().unwrap();
    let output = run(&[path, "--inject", "hang=1", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(document(&output)["error"]["kind"], "deadline_exceeded");
    let output = run(&[path, "--deadline", "10m"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_deadline_that_is_over_runs_nothing() {
    let output = run(&["--deadline", "0s", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let document = document(&output);
    assert_eq!(document["result"], Value::Null);
    assert_eq!(document["error"]["kind"], "deadline_exceeded");
    assert_eq!(document["error"]["phase"], "admission");
    assert!(stderr(&output).contains("deadline exceeded"), "{}", stderr(&output));
}

#[test]
fn a_hang_does_not_outlive_the_deadline() {
    let output = run(&["--inject", "hang=1", "--deadline", "200ms", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(document(&output)["error"]["kind"], "deadline_exceeded");
}

#[test]
fn attempts_that_are_used_up_end_with_70() {
    for (faults, kind) in [("error=1", "kernel"), ("panic=1", "crashed")] {
        let output = run(&["--inject", faults, "--format", "json"]);
        assert_eq!(output.status.code(), Some(70), "{faults}: {}", stderr(&output));
        let error = &document(&output)["error"]["kind"];
        assert!(error == kind || error.get(kind).is_some(), "{faults}: {error}");
        assert!(!stderr(&output).contains("panicked at"), "{}", stderr(&output));
    }
}

#[test]
fn hangs_that_use_the_attempts_up_end_with_70() {
    let job = file("cli-hang.toml", job("hang_limit = \"20ms\"\nconviction_limit = 3"));
    let output = run(&[job.to_str().unwrap(), "--inject", "hang=1", "--format", "json"]);
    assert_eq!(output.status.code(), Some(70), "{}", stderr(&output));
    let document = document(&output);
    assert_eq!(document["error"]["kind"], "hung");
    assert_eq!(document["supervision"]["failures"]["hung"], 3);
    assert_eq!(document["supervision"]["dead_letters"], 1);
}

#[test]
fn restarts_that_are_used_up_isolate_the_kernel_and_end_with_70() {
    let rules = "conviction_limit = 100\nrecovery = { max_restarts = 4, restart_delay = \"0s\" }";
    let job = file("cli-isolated.toml", format!("[job]\nretry_budget = 100\n{}", job(rules)));
    let output = run(&[job.to_str().unwrap(), "--inject", "panic=1", "--format", "json"]);
    assert_eq!(output.status.code(), Some(70), "{}", stderr(&output));
    let document = document(&output);
    assert_eq!(document["error"]["kind"]["down"], "isolated");
    assert_eq!(document["supervision"]["restarts"], 4);
    assert_eq!(document["supervision"]["isolated"][0], "graph/load");
}

#[test]
fn the_same_seed_gives_the_same_faults_and_another_seed_others() {
    let faults = |seed| {
        let output = run(&["--format", "json", "--inject", "panic=0.3,error=0.2", "--seed", seed]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let supervision = document(&output)["supervision"].clone();
        (supervision["failures"].clone(), supervision["retries"].clone())
    };
    let first = faults("1");
    assert_eq!(first, faults("1"));
    assert_ne!(first, faults("2"));
}

#[test]
fn what_the_command_line_does_not_know_is_wrong_usage() {
    for args in [
        &["run", "--inject", "panic=2"][..],
        &["run", "--inject", "panic=NaN"],
        &["run", "--inject", "panic=0.6,error=0.6"],
        &["run", "--inject", "explode=1"],
        &["run", "--inject", ""],
        &["run", "--seed", "1"],
        &["run", "--seed", "-1", "--inject", "panic=0"],
        &["run", "--inject", "kill=0.1"],
        &["run", "--placement", "cloud"],
        &["run", "--deadline", "soon"],
        &["run", "--format", "yaml"],
        &["run", "--serve", "pipeline.toml"],
        &["run", "a.toml", "b.toml"],
        &["health", "--addr", "nowhere"],
        &["stop"],
        &[],
    ] {
        let output = rustkernel(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    for args in [["--help"], ["--version"]] {
        assert_eq!(rustkernel(&args).status.code(), Some(0));
    }
}

/// A whole job whose first stage has `rules`.
fn job(rules: &str) -> String {
    format!(
        "[[stage]]\nkernel = \"graph/load\"\n{rules}\n\n\
         [[stage]]\nkernel = \"graph/pagerank\"\nrepeat = {{ until = \"converged\", limit = 200 }}\n\n\
         [[stage]]\nkernel = \"graph/top_k\"\n"
    )
}

#[test]
fn bench_measures_each_row_beside_its_baseline() {
    let output = rustkernel(&["bench", "--rounds", "3", "--format", "json"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.lines().all(|line| line.contains("debug build")), "{told}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = document["rows"].as_array().unwrap();
    assert_eq!((document["rounds"].as_u64(), rows.len()), (Some(3), 5));
    for row in rows {
        let [bare, ours, ratio] = ["baseline_ns", "ours_ns", "ratio"].map(|name| row[name].as_f64().unwrap());
        assert!(bare > 0.0 && ours > 0.0, "{row}");
        let [least, most] = [0, 1].map(|index| row["ratios"][index].as_f64().unwrap());
        assert!(least > 0.0 && (least..=most).contains(&ratio), "{row}");
    }
}
