//! What the death of the supervising process does to its workers.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::kit::block_on;
use crate::puppets::{domain, is_alive, kill};

pub(crate) const PARENT: &str = "RUSTKERNEL_TEST_PARENT";

/// Says which workers it has, and waits.
pub(crate) fn parent() {
    let domain = domain();
    while domain.status().spare.is_none() {
        std::thread::yield_now();
    }
    println!("workers {} {}", domain.status().pid.unwrap(), domain.status().spare.unwrap());
    block_on(std::future::pending::<()>());
}

#[test]
fn workers_go_with_the_process_that_started_them() {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker_main", "--nocapture", "--test-threads=1"])
        .env(PARENT, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(parent.stdout.take().unwrap()).lines();
    let line = said.find_map(|line| line.unwrap().split_once("workers ").map(|(_, pids)| pids.to_owned()));
    let workers: Vec<u32> = line.unwrap().split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert!(workers.iter().all(|pid| is_alive(*pid)));
    kill(parent.id(), Signal::KILL);
    parent.wait().unwrap();
    while workers.iter().any(|pid| is_alive(*pid)) {
        std::thread::yield_now();
    }
}
