//! The files for a service manager and a cluster say what the command really takes and does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "support/serving.rs"]
mod serving;

use std::process::Command;

use serde_json::{Value, json};
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
    let manifest: Value = serde_saphyr::from_str(MANIFEST).unwrap();
    assert_eq!((&manifest["apiVersion"], &manifest["kind"]), (&json!("apps/v1"), &json!("Deployment")));
    let pod = &manifest["spec"]["template"]["spec"];
    let node = &pod["containers"][0];
    assert_eq!(node["command"], json!(["rustkernel"]));
    let args: Vec<&str> = texts(&node["args"]);
    assert_eq!(args[0], "run");
    assert_flags(&args.join(" "));
    let after = |flag: &str| args[1 + args.iter().position(|arg| *arg == flag).unwrap()];
    assert_eq!(after("--serve"), "127.0.0.1:9470", "where the probes look by default");

    let mut serving = Serving::start(&[]);
    serving.result();
    for (probe, name) in [("startup", "startupProbe"), ("ready", "readinessProbe"), ("live", "livenessProbe")]
    {
        let probed = &node[name];
        let command = texts(&probed["exec"]["command"]);
        assert_eq!(command, ["rustkernel", "health", "--probe", probe], "{name}");
        // The command itself gives up after ten.
        assert!(probed["timeoutSeconds"].as_u64().unwrap() < 10, "{name}");
        assert_eq!(serving.health(&command[2..]).status.code(), Some(0), "{name}");
    }
    assert_eq!(serving.health(&["--probe", "ready"]).stdout, b"ready\n");
}

#[test]
fn the_manifest_agrees_with_itself() {
    let manifest: Value = serde_saphyr::from_str(MANIFEST).unwrap();
    let template = &manifest["spec"]["template"];
    assert_eq!(manifest["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
    assert_eq!(manifest["spec"]["strategy"]["type"], "Recreate", "a state folder has one owner");
    let (pod, node) = (&template["spec"], &template["spec"]["containers"][0]);
    let names = |list: &Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(|item| item["name"].clone()).collect()
    };
    assert_eq!(names(&node["volumeMounts"]), names(&pod["volumes"]));
    let args = texts(&node["args"]);
    let paths: Vec<&str> = node["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    assert!(args[1].starts_with(paths[0]), "the job's file is mounted");
    assert_eq!(args[1 + args.iter().position(|arg| *arg == "--state").unwrap()], paths[1]);
    // The drain, the grace and the webhook's, with room.
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= 30);
    assert_eq!(node["env"][0]["name"], "RUSTKERNEL_TOKEN");
    assert!(node["env"][0]["valueFrom"]["secretKeyRef"]["key"].is_string(), "the token is a secret");
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}
