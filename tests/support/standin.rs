//! The stand-ins for NVIDIA's libraries, each under the library's name in a folder that nobody else looks into.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The folder of the driver's stand-in.
pub(crate) fn driver() -> PathBuf {
    library("standin_driver", "standin", "libcuda.so.1")
}

/// The folder of NVML's stand-in.
pub(crate) fn nvml() -> PathBuf {
    library("standin_nvml", "standin_nvml", "libnvidia-ml.so.1")
}

fn library(example: &str, sources: &str, name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(example);
    fs::create_dir_all(&folder).unwrap();
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join(format!("examples/lib{example}.so"));
    let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(sources);
    if changed(&built).is_none_or(|built| newest(&sources).is_some_and(|source| source > built)) {
        // `cargo test` builds it with the examples; one test file alone does not.
        let status = Command::new(env!("CARGO")).args(["build", "--quiet", "--example", example]).status();
        assert!(status.unwrap().success());
    }
    // In one step: other tests may be opening it.
    let own = folder.join(format!("copy-{}-{:?}", std::process::id(), std::thread::current().id()));
    fs::copy(&built, &own).unwrap();
    fs::rename(own, folder.join(name)).unwrap();
    folder
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| changed(&entry.path())).max()
}
