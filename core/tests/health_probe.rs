//! Health probes, as their users see them.

#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rustkernel_core::resilience::{
    HealthCheckResult, HealthProbe, HealthProbeConfig, HealthStatus, HealthTarget,
};

struct Always(HealthStatus);

impl HealthTarget for Always {
    async fn check(&self) -> HealthCheckResult {
        HealthCheckResult { status: self.0, reason: None }
    }
}

#[tokio::test]
async fn a_second_registration_replaces_the_first_and_a_stranger_is_unknown() {
    let probe = HealthProbe::new(HealthProbeConfig::default());
    probe.register("graph/pagerank", Always(HealthStatus::Healthy));
    assert_eq!(probe.check("graph/pagerank").await, HealthStatus::Healthy);
    probe.register("graph/pagerank", Always(HealthStatus::Degraded));
    assert_eq!(probe.status("graph/pagerank"), HealthStatus::Unknown);
    assert_eq!(probe.check("graph/pagerank").await, HealthStatus::Degraded);
    assert_eq!(probe.check("graph/other").await, HealthStatus::Unknown);
    assert_eq!(probe.names(), ["graph/pagerank"]);
}

#[tokio::test]
async fn failed_checks_count_up_to_the_threshold() {
    let probe = HealthProbe::new(HealthProbeConfig { failure_threshold: 2, ..Default::default() });
    probe.register("k/a", Always(HealthStatus::Unhealthy));
    assert_eq!(probe.check("k/a").await, HealthStatus::Unknown);
    assert_eq!(probe.check("k/a").await, HealthStatus::Unhealthy);
}

#[tokio::test]
async fn a_check_that_panics_is_a_failed_check() {
    struct Panics;

    impl HealthTarget for Panics {
        async fn check(&self) -> HealthCheckResult {
            panic!("the check panics")
        }
    }

    let probe = HealthProbe::new(HealthProbeConfig { failure_threshold: 1, ..Default::default() });
    probe.register("k/a", Panics);
    assert_eq!(probe.check("k/a").await, HealthStatus::Unhealthy);
    assert_eq!(probe.check("k/a").await, HealthStatus::Unhealthy);
}

/// Blocks its thread until it is released, and then is healthy.
struct Blocks {
    started: AtomicUsize,
    release: Mutex<Receiver<()>>,
    ended: Sender<()>,
}

impl HealthTarget for Blocks {
    async fn check(&self) -> HealthCheckResult {
        self.started.fetch_add(1, Ordering::SeqCst);
        let _released = self.release.lock().unwrap().recv();
        let _ended = self.ended.send(());
        HealthCheckResult::healthy()
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_blocks_is_unhealthy_at_its_timeout_and_never_overlaps_itself() {
    let (release, released) = channel();
    let (ended, end) = channel();
    let target = Arc::new(Blocks { started: AtomicUsize::new(0), release: Mutex::new(released), ended });
    let probe = HealthProbe::new(HealthProbeConfig::default());
    probe.register("k/a", Arc::clone(&target));
    assert_eq!(probe.check("k/a").await, HealthStatus::Unhealthy);
    for _ in 0..10 {
        assert_eq!(probe.check("k/a").await, HealthStatus::Unhealthy);
    }
    assert!(target.started.load(Ordering::SeqCst) <= 1);
    release.send(()).unwrap();
    end.recv().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_check_that_waits_for_ever_is_dropped_at_its_timeout() {
    struct Waits(Mutex<Option<Sender<()>>>);

    impl HealthTarget for Waits {
        async fn check(&self) -> HealthCheckResult {
            let _dropped_with_the_check = self.0.lock().unwrap().take();
            pending().await
        }
    }

    let (alive, ended) = channel();
    let probe = HealthProbe::new(HealthProbeConfig::default());
    probe.register("k/a", Waits(Mutex::new(Some(alive))));
    assert_eq!(probe.check("k/a").await, HealthStatus::Unhealthy);
    assert!(ended.recv().is_err());
}

#[tokio::test]
async fn invalid_settings_leave_every_target_unknown() {
    let config = HealthProbeConfig { failure_threshold: 0, ..Default::default() };
    assert_eq!(
        HealthProbe::try_new(config.clone()).unwrap_err().field,
        "health_check.probe.failure_threshold"
    );
    let probe = HealthProbe::new(config);
    probe.register("k/a", Always(HealthStatus::Healthy));
    assert_eq!(probe.check("k/a").await, HealthStatus::Unknown);
}

/// The second of two checks at once counted as overdue, whatever the first one found.
#[tokio::test]
async fn two_checks_at_once_of_a_healthy_target_leave_it_healthy() {
    let probe = HealthProbe::new(HealthProbeConfig::default());
    probe.register("k/a", Always(HealthStatus::Healthy));
    assert_eq!(probe.check("k/a").await, HealthStatus::Healthy);
    for _ in 0..20 {
        let (first, second) = tokio::join!(probe.check("k/a"), probe.check("k/a"));
        assert_eq!((first, second), (HealthStatus::Healthy, HealthStatus::Healthy));
    }
}
