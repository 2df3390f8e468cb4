//! Every interleaving of admission, outcomes and publication, within a bound of preemptions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use rustkernel_core::resilience::{CircuitBreakerConfig, Outcome};

use crate::gate::{Gate, Mode, Report};

const SPAN: Duration = Duration::ZERO;

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

fn gate(failure_threshold: u32) -> Arc<Gate> {
    let config = CircuitBreakerConfig { failure_threshold, ..CircuitBreakerConfig::default() };
    Arc::new(Gate::new(Some(&config)))
}

/// Runs `work` in as many threads and gives back what each found.
fn race<T: 'static>(gate: &Arc<Gate>, works: Vec<fn(&Gate) -> T>) -> Vec<T> {
    let threads: Vec<_> = works
        .into_iter()
        .map(|work| {
            let gate = Arc::clone(gate);
            thread::spawn(move || work(&gate))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn fail(gate: &Gate) -> Option<Report> {
    gate.admit().ok().and_then(|permit| gate.observe(permit, Outcome::Failure, SPAN))
}

fn succeed(gate: &Gate) -> Option<Report> {
    gate.admit().ok().and_then(|permit| gate.observe(permit, Outcome::Success, SPAN))
}

#[test]
fn no_failure_is_lost() {
    model(|| {
        let gate = gate(5);
        race(&gate, vec![fail, fail, fail]);
        assert_eq!(gate.failures(), 3);
    });
}

#[test]
fn the_threshold_is_reached_once() {
    model(|| {
        let gate = gate(2);
        let reports = race(&gate, vec![fail, fail, fail]);
        let tripped = reports.iter().flatten().filter(|report| matches!(report, Report::Tripped { .. }));
        assert_eq!(tripped.count(), 1);
        assert_eq!(gate.mode(), Mode::Tripping);
    });
}

#[test]
fn a_success_starts_the_count_again_and_loses_no_later_failure() {
    model(|| {
        let gate = gate(3);
        race(&gate, vec![fail, succeed, fail]);
        assert!(gate.failures() <= 2);
        assert_eq!(gate.mode(), Mode::Closed);
        fail(&gate);
        fail(&gate);
        fail(&gate);
        assert_eq!(gate.mode(), Mode::Tripping);
    });
}

#[test]
fn probes_never_exceed_their_slots() {
    model(|| {
        let gate = gate(1);
        gate.publish(Mode::HalfOpen, 2, 1);
        let admitted = race(&gate, vec![|gate: &Gate| gate.admit().is_ok(); 3]);
        assert_eq!(admitted.iter().filter(|admitted| **admitted).count(), 2);
    });
}

#[test]
fn a_returned_slot_is_one_slot() {
    model(|| {
        let gate = gate(1);
        gate.publish(Mode::HalfOpen, 1, 1);
        let out = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (gate, out) = (Arc::clone(&gate), Arc::clone(&out));
                thread::spawn(move || {
                    if let Ok(permit) = gate.admit() {
                        assert_eq!(out.fetch_add(1, Ordering::AcqRel), 0, "two probes, one slot");
                        out.fetch_sub(1, Ordering::AcqRel);
                        let report = gate.observe(permit, Outcome::Neutral, SPAN);
                        assert!(matches!(report, Some(Report::Probe { .. })));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(gate.admit().is_ok(), "the slot is free again");
        assert!(gate.admit().is_err(), "and only one");
    });
}

#[test]
fn of_two_probes_that_fail_one_opens_and_the_other_is_stale() {
    model(|| {
        let gate = gate(1);
        gate.publish(Mode::HalfOpen, 2, 1);
        let reports = race(&gate, vec![fail, fail]);
        assert_eq!(reports.iter().flatten().count(), 1);
        assert_eq!(gate.mode(), Mode::Tripping);
        // The other one failed too late, or found the gate shut already.
        assert!(gate.stale() <= 1);
    });
}

#[test]
fn an_outcome_of_an_older_generation_never_changes_what_is_published() {
    model(|| {
        let gate = gate(1);
        let old = gate.admit().unwrap();
        let publisher = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.publish(Mode::HalfOpen, 1, 1))
        };
        let report = gate.observe(old, Outcome::Failure, SPAN);
        publisher.join().unwrap();
        assert!(matches!(report, None | Some(Report::Tripped { generation: 0 })));
        assert_eq!(gate.mode(), Mode::HalfOpen);
        assert!(gate.admit().is_ok_and(|permit| permit.probe_generation() == Some(1)));
    });
}
