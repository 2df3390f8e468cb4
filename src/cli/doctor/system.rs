//! What the operating system allows.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread;

use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};

use super::{Finding, State};

pub(super) fn cores() -> Finding {
    let cores = thread::available_parallelism();
    let found = cores.map_or_else(|error| error.to_string(), |cores| format!("{cores} processors"));
    Finding { about: "processors", state: State::Good, found, advice: None }
}

/// What is free, and how much of it this process's group may have, as a container has it.
pub(super) fn memory() -> Finding {
    let about = "memory";
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let Some(free) = kilobytes.map(|kilobytes| kilobytes << 10) else {
        let found = "/proc/meminfo does not tell".to_owned();
        return Finding { about, state: State::Absent, found, advice: None };
    };
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
    let found = match limit {
        Some(limit) => format!("{} available; this process's group may use {}", size(free), size(limit)),
        None => format!("{} available", size(free)),
    };
    let is_little = free.min(limit.unwrap_or(u64::MAX)) < LEAST_MEMORY;
    let advice = is_little.then(|| format!("the shipped job takes up to {}", size(LEAST_MEMORY)));
    Finding { about, state: if is_little { State::Bad } else { State::Good }, found, advice }
}

/// Each kernel in a worker has a socket, each domain some more, and each connection one.
pub(super) fn open_files() -> Finding {
    let about = "open files";
    let limit = getrlimit(Resource::Nofile).current;
    let found = limit.map_or_else(|| "any number".to_owned(), |limit| format!("up to {limit}"));
    let is_low = limit.is_some_and(|limit| limit < LEAST_FILES);
    let advice = is_low
        .then(|| format!("allow {LEAST_FILES} at least: `ulimit -n`, or LimitNOFILE= of a systemd unit"));
    Finding { about, state: if is_low { State::Bad } else { State::Good }, found, advice }
}

/// Whether a job's state can be written down there. A folder that is not there is made, and taken away again.
pub(super) fn folder(dir: &Path) -> Finding {
    let about = "state folder";
    let is_new = !dir.exists();
    let probe = dir.join(".doctor");
    let written = fs::create_dir_all(dir)
        .and_then(|()| fs::File::create(&probe))
        .and_then(|mut file| file.write_all(b"as a checkpoint is written").and_then(|()| file.sync_all()));
    let space = statvfs(dir).map(|found| found.f_bavail.saturating_mul(found.f_frsize));
    let _ = fs::remove_file(&probe);
    if is_new {
        let _ = fs::remove_dir(dir);
    }
    match written {
        Ok(()) => {
            let free = space.map_or_else(|error| error.to_string(), |bytes| format!("{} free", size(bytes)));
            let found = format!("{} can be written, {free}", dir.display());
            Finding { about, state: State::Good, found, advice: None }
        }
        Err(error) => {
            let advice = "make it this user's, or name another one with `run --state`".to_owned();
            let found = format!("{}: {error}", dir.display());
            Finding { about, state: State::Bad, found, advice: Some(advice) }
        }
    }
}

/// What the shipped job and one worker have been seen to use, rounded up.
const LEAST_MEMORY: u64 = 256 << 20;
/// All connections of a node, and a few domains.
const LEAST_FILES: u64 = 512;

fn size(bytes: u64) -> String {
    let mebibytes = bytes >> 20;
    if mebibytes < 10 << 10 { format!("{mebibytes} MiB") } else { format!("{} GiB", mebibytes >> 10) }
}
