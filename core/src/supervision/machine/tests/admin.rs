//! What people ask of a supervisor, with OTP's answers.

use super::super::*;
use super::rig::{Rig, child, config, permanent, permanents, temporary, transient};
use crate::supervision::{AutoShutdown, ChildRules, Restart};

fn added(rig: &mut Rig, spec: ChildSpec) -> Result<(), Refusal> {
    rig.tell(|machine, now| machine.start_child(spec, now)).map(|_| ())
}

fn terminated(rig: &mut Rig, name: &str) -> Result<(), Refusal> {
    rig.tell(|machine, now| machine.terminate_child(name, now)).map(|_| ())
}

fn restarted(rig: &mut Rig, name: &str) -> Result<(), Refusal> {
    rig.tell(|machine, now| machine.restart_child(name, now)).map(|_| ())
}

fn deleted(rig: &mut Rig, name: &str) -> Result<(), Refusal> {
    rig.tell(|machine, _| machine.delete_child(name)).map(|_| ())
}

/// Supervises an `a` that failed and waits for its restart.
fn delayed() -> Rig {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    rig.exit_until("a", Exit::Abnormal, 500);
    assert_eq!(rig.states(), "a delayed");
    rig.log();
    rig
}

#[test]
fn a_child_is_started_terminated_restarted_and_deleted() {
    let mut rig = Rig::new(config(Strategy::OneForOne), []);
    added(&mut rig, permanent("a")).unwrap();
    terminated(&mut rig, "a").unwrap();
    restarted(&mut rig, "a").unwrap();
    terminated(&mut rig, "a").unwrap();
    deleted(&mut rig, "a").unwrap();
    assert_eq!(rig.log(), "start a, stop a, settled a, start a, stop a, settled a, forget a");
    added(&mut rig, permanent("a")).unwrap();
    assert_eq!(rig.states(), "a up");
}

#[test]
fn no_request_finds_a_child_that_is_not_there() {
    let mut rig = Rig::new(config(Strategy::OneForOne), []);
    let answers = [terminated(&mut rig, "x"), restarted(&mut rig, "x"), deleted(&mut rig, "x")];
    assert!(answers.iter().all(|answer| *answer == Err(Refusal::NotFound)));
}

#[test]
fn a_running_child_is_neither_started_restarted_nor_deleted() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    let answers = [added(&mut rig, permanent("a")), restarted(&mut rig, "a"), deleted(&mut rig, "a")];
    assert!(answers.iter().all(|answer| *answer == Err(Refusal::Running)));
    assert_eq!(rig.log(), "");
}

#[test]
fn a_name_is_taken_while_its_child_is_down_or_waits() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    terminated(&mut rig, "a").unwrap();
    assert_eq!(added(&mut rig, permanent("a")), Err(Refusal::AlreadyPresent));
    assert_eq!(added(&mut delayed(), permanent("a")), Err(Refusal::AlreadyPresent));
}

#[test]
fn a_child_that_waits_for_its_restart_is_neither_restarted_nor_deleted() {
    let mut rig = delayed();
    assert_eq!(restarted(&mut rig, "a"), Err(Refusal::Restarting));
    assert_eq!(deleted(&mut rig, "a"), Err(Refusal::Restarting));
    rig.pass(500);
    assert_eq!(rig.log(), "start a");
}

#[test]
fn terminating_a_stopped_child_is_fine_and_does_nothing() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    terminated(&mut rig, "a").unwrap();
    rig.log();
    terminated(&mut rig, "a").unwrap();
    assert_eq!(rig.log(), "");
}

#[test]
fn a_terminated_temporary_child_is_forgotten() {
    let mut rig = Rig::new(config(Strategy::OneForOne), [temporary("a")]);
    terminated(&mut rig, "a").unwrap();
    assert_eq!(rig.log(), "stop a, forget a");
    assert_eq!(terminated(&mut rig, "a"), Err(Refusal::NotFound));
}

#[test]
fn a_terminated_child_costs_no_restart_and_does_not_come_back_by_itself() {
    for restart in [Restart::Permanent, Restart::Transient] {
        let mut rig = Rig::new(config(Strategy::OneForAll), [child("a", restart), permanent("b")]);
        terminated(&mut rig, "a").unwrap();
        assert_eq!((rig.log().as_str(), rig.states().as_str()), ("stop a, settled a", "a down, b up"));
        assert_eq!(rig.machine.restarts(), 0);
    }
}

#[test]
fn a_child_that_is_added_and_does_not_start_never_was() {
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        let mut rig = Rig::new(config(Strategy::OneForOne), []);
        rig.fail_starts("a", 1);
        added(&mut rig, child("a", restart)).unwrap();
        assert_eq!((rig.log().as_str(), rig.machine.restarts()), ("start a, forget a", 0));
        added(&mut rig, child("a", restart)).unwrap();
        assert_eq!(rig.states(), "a up");
    }
}

#[test]
fn a_child_that_is_restarted_and_does_not_start_stays_down() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    terminated(&mut rig, "a").unwrap();
    rig.fail_starts("a", 1);
    rig.log();
    restarted(&mut rig, "a").unwrap();
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("start a, settled a", "a down"));
    assert_eq!(rig.machine.restarts(), 0);
}

#[test]
fn a_restarted_child_is_supervised_again() {
    let mut rig = Rig::new(config(Strategy::OneForOne), [transient("a")]);
    rig.exit("a", Exit::Normal);
    restarted(&mut rig, "a").unwrap();
    rig.exit("a", Exit::Abnormal);
    assert_eq!(rig.moves(), "start a, start a");
}

#[test]
fn a_dynamic_supervisor_restarts_and_deletes_nobody_by_hand() {
    let mut rig = Rig::new(config(Strategy::Dynamic), []);
    added(&mut rig, permanent("a")).unwrap();
    assert_eq!(restarted(&mut rig, "a"), Err(Refusal::Dynamic));
    assert_eq!(deleted(&mut rig, "a"), Err(Refusal::Dynamic));
    rig.log();
    terminated(&mut rig, "a").unwrap();
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("stop a, forget a", ""));
}

#[test]
fn max_children_counts_those_that_are_down_and_not_those_forgotten() {
    let bounded = SupervisorConfig { max_children: 2, ..config(Strategy::OneForOne) };
    let mut rig = Rig::new(bounded, [transient("a"), temporary("b")]);
    rig.exit("a", Exit::Normal);
    assert_eq!(added(&mut rig, permanent("c")), Err(Refusal::MaxChildren { max_children: 2 }));
    rig.exit("b", Exit::Normal);
    added(&mut rig, permanent("c")).unwrap();
    deleted(&mut rig, "a").unwrap();
    added(&mut rig, permanent("d")).unwrap();
}

#[test]
fn a_name_that_is_taken_is_told_before_a_supervisor_that_is_full() {
    let bounded = SupervisorConfig { max_children: 1, ..config(Strategy::OneForOne) };
    let mut rig = Rig::new(bounded, permanents(1));
    assert_eq!(added(&mut rig, permanent("a")), Err(Refusal::Running));
}

#[test]
fn a_child_whose_rules_do_not_fit_is_refused() {
    let mut rig = Rig::new(config(Strategy::OneForOne), []);
    let mut spec = transient("a");
    spec.rules.significant = true;
    assert!(
        matches!(added(&mut rig, spec), Err(Refusal::Config(error)) if error.field == "child.significant")
    );
    let watches =
        SupervisorConfig { auto_shutdown: AutoShutdown::AnySignificant, ..config(Strategy::OneForOne) };
    let mut rig = Rig::new(watches, []);
    let rules = ChildRules { significant: true, ..ChildRules::default() };
    assert!(matches!(added(&mut rig, ChildSpec { rules, ..permanent("a") }), Err(Refusal::Config(_))));
}

#[test]
fn which_children_are_told_in_start_order_and_a_restart_keeps_the_place() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(2));
    added(&mut rig, permanent("0")).unwrap();
    terminated(&mut rig, "a").unwrap();
    restarted(&mut rig, "a").unwrap();
    assert_eq!(rig.states(), "a up, b up, 0 up");
    let lives: Vec<u64> = rig.machine.which_children().map(|view| view.life).collect();
    assert_eq!(lives, [2, 1, 1]);
}

#[test]
fn children_are_counted_dead_or_alive() {
    let supervisor = ChildSpec { kind: ChildKind::Supervisor, ..permanent("s") };
    let kernel = ChildSpec { kind: ChildKind::Kernel, ..transient("k") };
    let mut rig = Rig::new(config(Strategy::OneForOne), [supervisor, kernel, temporary("t"), permanent("p")]);
    let counts = Counts { specs: 4, active: 4, supervisors: 1, workers: 3 };
    assert_eq!(rig.machine.count_children(), counts);
    rig.exit("k", Exit::Normal);
    rig.exit("t", Exit::Normal);
    rig.exit_until("p", Exit::Normal, 10);
    terminated(&mut rig, "s").unwrap();
    let counts = Counts { specs: 3, active: 0, supervisors: 1, workers: 2 };
    assert_eq!(rig.machine.count_children(), counts);
}

#[test]
fn an_ending_or_ended_supervisor_changes_nothing_any_more() {
    let mut rig = Rig::new(config(Strategy::OneForOne), [permanent("a"), transient("b"), permanent("c")]);
    rig.exit("b", Exit::Normal);
    rig.slow("c");
    rig.log();
    rig.tell(SupervisorMachine::shut_down);
    for end in ["stop c", "stop a, end stopped"] {
        assert_eq!(added(&mut rig, permanent("x")), Err(Refusal::NotRunning));
        assert_eq!(restarted(&mut rig, "b"), Err(Refusal::NotRunning));
        assert_eq!(deleted(&mut rig, "b"), Err(Refusal::NotRunning));
        assert_eq!(terminated(&mut rig, "a"), Ok(()));
        assert_eq!(terminated(&mut rig, "x"), Err(Refusal::NotFound));
        assert_eq!(rig.log(), end);
        if rig.life("c").is_some() {
            rig.gone("c");
        }
    }
}
