//! The files for a service manager and a cluster say what the command really takes and does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "support/serving.rs"]
mod serving;

use std::process::Command;

use serving::Serving;

const UNIT: &str = include_str!("../examples/deploy/rustkernel.service");
const MANIFEST: &str = include_str!("../examples/deploy/kubernetes.yaml");

/// Every flag of `words` is one of the command's.
fn assert_flags(words: &str) {
    let mut words = words.split_whitespace();
    let subcommand = words.next().unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_rustkernel")).args([subcommand, "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for flag in words.filter(|word| word.starts_with("--")) {
        assert!(help.contains(flag), "`rustkernel {subcommand}` has no {flag}");
    }
}

#[test]
fn the_unit_file_starts_the_command_as_it_is() {
    let start =
        UNIT.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/rustkernel ")).unwrap();
    assert_flags(start);
    for line in ["Type=notify", "WatchdogSec=30", "Restart=on-failure", "RestartPreventExitStatus=2 78"] {
        assert!(UNIT.lines().any(|other| other == line), "{line}");
    }
    let keys = ["[", "#", "Description=", "After=", "Wants=", "WantedBy=", "ExecStart="];
    for line in UNIT.lines().filter(|line| !line.is_empty() && !keys.iter().any(|key| line.starts_with(key)))
    {
        let (name, value) = line.split_once('=').unwrap();
        assert!(name.chars().all(char::is_alphanumeric) && !value.is_empty(), "{line}");
    }
}

#[test]
fn the_manifest_probes_a_node_as_it_answers() {
    let lists: Vec<Vec<String>> = MANIFEST
        .lines()
        .filter_map(|line| line.trim().split_once(": [").map(|(_, list)| list.trim_end_matches(']')))
        .map(|list| list.split(", ").map(|word| word.trim_matches('"').to_owned()).collect())
        .collect();
    let probes: Vec<&Vec<String>> =
        lists.iter().filter(|list| list.contains(&"--probe".to_owned())).collect();
    assert_eq!(probes.len(), 3);
    let args = lists.iter().find(|list| list[0] == "run").unwrap();
    assert_flags(&args.join(" "));
    let mut node = Serving::start(&[]);
    node.result();
    for probe in probes {
        assert_eq!(probe[0], "rustkernel");
        let output = node.health(&[&probe[2..].iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{probe:?}");
    }
    assert_eq!(node.health(&["--probe", "ready"]).stdout, b"ready\n");
    assert!(MANIFEST.contains("127.0.0.1:9470"), "where the probes look by default");
}
