//! `rustkernel doctor`, and through it what the driver's library may do to a process that opens it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "support/standin.rs"]
mod standin;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn doctor(driver: Option<(&Path, &str)>, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rustkernel"));
    command.arg("doctor").args(args).env_remove("LD_LIBRARY_PATH");
    if let Some((folder, script)) = driver {
        command.env("LD_LIBRARY_PATH", folder).env("STANDIN_DRIVER", script);
    }
    command.output().unwrap()
}

fn cuda(output: &Output) -> (String, String) {
    finding(output, "CUDA")
}

/// Its state, and what was found.
fn finding(output: &Output, about: &str) -> (String, String) {
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = document["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["about"] == about).unwrap();
    (finding["state"].as_str().unwrap().to_owned(), finding["found"].as_str().unwrap().to_owned())
}

#[test]
fn a_machine_without_a_gpu_is_told_so_and_is_well() {
    if Path::new("/dev/nvidiactl").exists() {
        return;
    }
    let output = doctor(None, &["--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (state, found) = cuda(&output);
    assert_eq!(state, "absent");
    assert!(found.starts_with("no CUDA driver: libcuda.so.1"), "{found}");
    let (state, found) = finding(&output, "NVML");
    assert!(state == "absent" && found.contains("libnvidia-ml.so"), "{state} {found}");

    let output = doctor(None, &["--device", "cuda:0"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("!!  CUDA") && text.contains("install NVIDIA's driver"), "{text}");
    assert!(!text.contains("nothing is missing"), "what was asked for is: {text}");
    assert!(text.contains("ok  worker processes"), "{text}");
}

/// What doctor says is missing, the job says too, and does not begin.
#[test]
fn a_job_for_a_device_that_is_not_there_ends_by_name() {
    let run = |driver: Option<&str>, device: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rustkernel"));
        command.args(["run", "--device", device]).env_remove("LD_LIBRARY_PATH");
        if let Some(script) = driver {
            command.env("LD_LIBRARY_PATH", standin::driver()).env("STANDIN_DRIVER", script);
        }
        let output = command.output().unwrap();
        assert!(output.stdout.is_empty(), "{output:?}");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let mut cases = vec![
        (Some("count=1"), "cuda:1", "no CUDA device cuda:1: there are 1; look whether the GPU is visible"),
        (Some("count=0"), "cuda:0", "no CUDA device: the driver finds none"),
        (Some("version=11080"), "cuda:0", "is of CUDA 11.8, and has to be of 12.0"),
    ];
    if !Path::new("/dev/nvidiactl").exists() {
        cases.push((None, "cuda:0", "no CUDA driver"));
    }
    for (driver, device, said) in cases {
        let (code, text) = run(driver, device);
        assert_eq!(code, Some(70), "{text}");
        let error = text.lines().find(|line| line.starts_with("error: kernel graph/pagerank did not start"));
        assert!(error.is_some_and(|error| error.contains(said)), "{said}: {text}");
    }
}

#[test]
fn what_a_node_needs_of_the_system_is_looked_at_where_it_is_named() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("doctor-state");
    let _ = fs::remove_dir_all(&folder).or_else(|_| fs::remove_file(&folder));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let named = |folder: &Path, address: &str| {
        doctor(None, &["--format", "json", "--state", folder.to_str().unwrap(), "--serve", address])
    };
    let output = named(&folder, &address);
    assert_eq!(output.status.code(), Some(1));
    let (state, found) = finding(&output, "address");
    assert!(state == "bad" && found.starts_with(&address), "{found}");
    let (state, found) = finding(&output, "state folder");
    assert!(state == "good" && found.contains(" free"), "{found}");
    assert!(!folder.exists(), "it leaves nothing behind");

    drop(taken);
    fs::write(&folder, "a file").unwrap();
    let output = named(&folder, "127.0.0.1:0");
    let (state, found) = finding(&output, "state folder");
    assert!(state == "bad" && found.contains("doctor-state: "), "{found}");
    assert_eq!(finding(&output, "address").0, "good");
    let low = Command::new("sh")
        .args(["-c", "ulimit -n 100; exec \"$0\" doctor --format json", env!("CARGO_BIN_EXE_rustkernel")])
        .output()
        .unwrap();
    assert_eq!(finding(&low, "open files"), ("bad".to_owned(), "up to 100".to_owned()));
    assert_eq!(finding(&low, "memory").0, "good");
}

#[test]
fn what_the_driver_says_is_told_whatever_it_is() {
    let folder = standin::driver();
    let cases = [
        (
            "count=2",
            &["--device", "cuda:1"][..],
            0,
            "good",
            "driver of CUDA 13.0; cuda:0 Stand-in 0 (80 GiB, compute capability 9.0); cuda:1",
        ),
        ("count=2", &["--device", "cuda:2"], 1, "bad", "driver of CUDA 13.0"),
        ("count=0", &[], 0, "absent", "no CUDA device: the driver finds none"),
        ("count=0", &["--device", "cuda:0"], 1, "bad", "no CUDA device"),
        ("cuInit=100", &[], 0, "absent", "no CUDA device"),
        ("cuInit=803", &[], 1, "bad", "cuInit failed with CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        ("cuInit=999", &[], 1, "bad", "cuInit failed with CUDA_ERROR_UNKNOWN"),
        // A code that is in no table ended a process that took it for an enum.
        ("cuDeviceGetName=726", &[], 1, "bad", "cuDeviceGetName failed with"),
        ("cuDeviceTotalMem_v2=-5", &[], 1, "bad", "cuDeviceTotalMem_v2 failed with"),
    ];
    for (script, args, exit, state, found) in cases {
        let output = doctor(Some((&folder, script)), &[args, &["--format", "json"]].concat());
        let told = cuda(&output);
        assert_eq!(output.status.code(), Some(exit), "{script}: {told:?}");
        assert_eq!(told.0, state, "{script}: {told:?}");
        assert!(told.1.contains(found), "{script}: {told:?}");
    }
}

#[test]
fn a_library_that_is_no_driver_is_an_answer_too() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("no-driver");
    fs::create_dir_all(&folder).unwrap();
    for (content, expected) in [(&b"not a library at all"[..], "no CUDA driver"), (b"", "no CUDA driver")] {
        fs::write(folder.join("libcuda.so.1"), content).unwrap();
        let output = doctor(Some((&folder, "")), &["--format", "json"]);
        let (state, found) = cuda(&output);
        assert_eq!(state, "absent");
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn nvml_is_found_by_the_version_of_its_driver() {
    let output = doctor(Some((&standin::nvml(), "")), &["--format", "json"]);
    assert_eq!(finding(&output, "NVML"), ("good".to_owned(), "of driver 580.95.05".to_owned()));
}
