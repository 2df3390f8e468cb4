//! What the operating system allows.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};

use super::{Finding, State};

pub(super) fn cores() -> Finding {
    let cores = thread::available_parallelism();
    let found = cores.map_or_else(|error| error.to_string(), |cores| format!("{cores} processors"));
    Finding { about: "processors", state: State::Good, found, advice: None }
}

/// What is free, and what the control groups of this process leave of it, as a container's and a unit's do.
pub(super) fn memory() -> Finding {
    let about = "memory";
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let Some(free) = kilobytes.map(|kilobytes| kilobytes << 10) else {
        let found = "/proc/meminfo does not tell".to_owned();
        return Finding { about, state: State::Absent, found, advice: None };
    };
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = left_by_groups(&groups, Path::new("/sys/fs/cgroup"));
    let found = match left.filter(|left| *left < free) {
        Some(left) => {
            format!("{} available, of which this process's group may use {}", size(free), size(left))
        }
        None => format!("{} available", size(free)),
    };
    let is_little = free.min(left.unwrap_or(u64::MAX)) < LEAST_MEMORY;
    let advice = is_little.then(|| format!("the shipped job takes up to {}", size(LEAST_MEMORY)));
    Finding { about, state: if is_little { State::Bad } else { State::Good }, found, advice }
}

/// What the strictest of this process's control groups (version 2) has left; `None` where none has a limit.
fn left_by_groups(groups: &str, root: &Path) -> Option<u64> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let read = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let left = |group: &Path| {
        let group = root.join(group);
        let limit = read(group.join("memory.max"))?;
        let used = read(group.join("memory.current")).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(reclaimable(&group))))
    };
    Path::new(own).ancestors().filter_map(left).min()
}

/// What a group's files and caches hold, which makes room for whoever needs it.
fn reclaimable(group: &Path) -> u64 {
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let known = ["inactive_file ", "active_file ", "slab_reclaimable "];
    let lines = stat.lines().filter_map(|line| known.iter().find_map(|name| line.strip_prefix(name)));
    lines.filter_map(|bytes| bytes.parse::<u64>().ok()).sum()
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

/// Whether a job's state can be written down there, or the folder be made.
pub(super) fn folder(dir: &Path) -> Finding {
    let about = "state folder";
    // The nearest one that is there: nothing is made that would stay.
    let there = dir.ancestors().find(|dir| dir.exists() || dir.as_os_str().is_empty()).unwrap_or(dir);
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let probe = there.join(format!(".rustkernel-doctor-{}", std::process::id()));
    let written = fs::OpenOptions::new().write(true).create_new(true).open(&probe).and_then(|mut file| {
        let written = file.write_all(b"as a checkpoint is written").and_then(|()| file.sync_all());
        fs::remove_file(&probe).and(written)
    });
    match written {
        Ok(()) => {
            let space = statvfs(there).map(|found| found.f_bavail.saturating_mul(found.f_frsize));
            let free = space.map_or_else(|error| error.to_string(), |bytes| format!("{} free", size(bytes)));
            let can = if there == dir { "can be written" } else { "can be made" };
            Finding {
                about,
                state: State::Good,
                found: format!("{} {can}, {free}", dir.display()),
                advice: None,
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_group_counts_and_caches_make_room() {
        let root = std::env::temp_dir().join(format!("rustkernel-groups-{}", std::process::id()));
        let unit = root.join("system.slice/node.service");
        fs::create_dir_all(&unit).unwrap();
        let write = |group: &Path, file: &str, text: &str| fs::write(group.join(file), text).unwrap();
        let left = || left_by_groups("1:name=systemd:/other\n0::/system.slice/node.service\n", &root);
        write(&unit, "memory.max", "max\n");
        assert_eq!(left(), None);
        write(&root.join("system.slice"), "memory.max", "5000\n");
        write(&unit, "memory.max", "1000\n");
        write(&unit, "memory.current", "900\n");
        assert_eq!(left(), Some(100));
        write(&unit, "memory.stat", "anon 200\nfile 700\ninactive_file 300\nactive_file 350\n");
        assert_eq!(left(), Some(750));
        assert_eq!(left_by_groups("4:memory:/version/one\n", &root), None);
        fs::remove_dir_all(root).unwrap();
    }
}
