//! Significant children and auto-shutdown.

use super::super::*;
use super::rig::{Rig, config, permanent, temporary, transient};

fn watching(strategy: Strategy, auto_shutdown: AutoShutdown) -> SupervisorConfig {
    SupervisorConfig { auto_shutdown, ..config(strategy) }
}

fn significant(mut spec: ChildSpec) -> ChildSpec {
    spec.rules.significant = true;
    spec
}

/// a and b are significant, c is not.
fn three(auto_shutdown: AutoShutdown) -> Rig {
    let children = [significant(transient("a")), significant(temporary("b")), transient("c")];
    Rig::new(watching(Strategy::OneForOne, auto_shutdown), children)
}

#[test]
fn the_end_of_any_significant_child_ends_the_supervisor() {
    let mut rig = three(AutoShutdown::AnySignificant);
    rig.exit("b", Exit::Normal);
    assert_eq!(rig.moves(), "stop c, stop a, end auto-shutdown b");
}

#[test]
fn the_end_of_the_last_significant_child_ends_the_supervisor() {
    let mut rig = three(AutoShutdown::AllSignificant);
    rig.exit("a", Exit::Shutdown);
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("", "a down, b up, c up"));
    rig.exit("b", Exit::Abnormal);
    assert_eq!(rig.moves(), "stop c, end auto-shutdown b");
}

#[test]
fn a_child_that_is_not_significant_may_end() {
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let mut rig = three(auto_shutdown);
        rig.exit("c", Exit::Normal);
        assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("", "a up, b up, c down"));
    }
}

#[test]
fn a_supervisor_without_significant_children_does_not_shut_down_by_itself() {
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let mut rig = Rig::new(watching(Strategy::OneForOne, auto_shutdown), [transient("a")]);
        rig.exit("a", Exit::Normal);
        assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("", "a down"));
    }
}

#[test]
fn a_significant_transient_child_that_fails_is_restarted() {
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let children = [significant(transient("a")), permanent("b")];
        let mut rig = Rig::new(watching(Strategy::OneForOne, auto_shutdown), children);
        rig.exit("a", Exit::Abnormal);
        assert_eq!(rig.moves(), "start a");
        rig.exit("a", Exit::Normal);
        assert_eq!(rig.moves(), "stop b, end auto-shutdown a");
    }
}

#[test]
fn a_significant_temporary_child_that_fails_ends_the_supervisor() {
    let mut rig = three(AutoShutdown::AnySignificant);
    rig.exit("b", Exit::Abnormal);
    assert_eq!(rig.moves(), "stop c, stop a, end auto-shutdown b");
}

#[test]
fn a_significant_child_that_is_terminated_does_not_end_the_supervisor() {
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let mut rig = three(auto_shutdown);
        for name in ["a", "b"] {
            rig.tell(|machine, now| machine.terminate_child(name, now)).unwrap();
        }
        assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("stop a, stop b", "a down, c up"));
    }
}

#[test]
fn a_significant_bystander_of_a_group_restart_does_not_end_the_supervisor() {
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let children = [permanent("a"), significant(transient("b")), significant(temporary("c"))];
        let mut rig = Rig::new(watching(Strategy::OneForAll, auto_shutdown), children);
        rig.exit("a", Exit::Abnormal);
        let moves = "stop c, stop b, start a, start b";
        assert_eq!((rig.moves().as_str(), rig.states().as_str()), (moves, "a up, b up"));
    }
}

#[test]
fn a_significant_child_that_is_done_while_its_group_is_being_stopped_does_not_end_the_supervisor() {
    let children = [permanent("a"), significant(transient("b")), significant(temporary("c")), permanent("d")];
    let mut rig = Rig::new(watching(Strategy::OneForAll, AutoShutdown::AnySignificant), children);
    rig.slow("d");
    rig.exit("a", Exit::Abnormal);
    rig.exits(&[("b", Exit::Normal), ("c", Exit::Normal)]);
    rig.gone("d");
    assert_eq!(
        (rig.moves().as_str(), rig.states().as_str()),
        ("stop d, start a, start b, start d", "a up, b up, d starting")
    );
}

#[test]
fn the_last_significant_child_is_the_last_that_will_run_again() {
    let all = watching(Strategy::OneForOne, AutoShutdown::AllSignificant);
    let mut rig = Rig::new(all, [significant(transient("a")), significant(transient("b"))]);
    rig.exit_until("a", Exit::Abnormal, 500);
    rig.exit("b", Exit::Normal);
    assert_eq!(rig.states(), "a delayed, b down");
    rig.pass(500);
    rig.exit("a", Exit::Normal);
    assert_eq!(rig.moves(), "start a, end auto-shutdown a");
}

/// OTP ends it before it looks at the other's exit.
#[test]
fn a_significant_child_that_is_being_terminated_does_not_keep_the_supervisor() {
    let mut rig = three(AutoShutdown::AllSignificant);
    rig.slow("a");
    rig.tell(|machine, now| machine.terminate_child("a", now)).unwrap();
    rig.exit("b", Exit::Normal);
    rig.gone("a");
    assert_eq!(rig.moves(), "stop a, stop c, end auto-shutdown b");
}

/// It is forgotten once it is down, so nothing significant is left.
#[test]
fn a_significant_temporary_child_that_is_being_stopped_with_its_group_does_not_keep_the_supervisor() {
    let children = [significant(transient("a")), permanent("b"), significant(temporary("c"))];
    let mut rig = Rig::new(watching(Strategy::RestForOne, AutoShutdown::AllSignificant), children);
    rig.slow("c");
    rig.exit("b", Exit::Abnormal);
    rig.exit("a", Exit::Normal);
    rig.gone("c");
    assert_eq!(rig.moves(), "stop c, end auto-shutdown a");
}

#[test]
fn significant_dynamic_children_end_their_supervisor_too() {
    let mut rig = Rig::new(watching(Strategy::Dynamic, AutoShutdown::AllSignificant), []);
    for spec in [significant(transient("a")), significant(transient("b"))] {
        rig.tell(|machine, now| machine.start_child(spec, now)).unwrap();
    }
    rig.log();
    rig.exit("a", Exit::Normal);
    assert_eq!(rig.log(), "forget a");
    rig.exit("b", Exit::Normal);
    assert_eq!(rig.log(), "forget b, end auto-shutdown b");
}

#[test]
fn an_auto_shutdown_goes_up_level_by_level() {
    let children = [significant(transient("s")), permanent("x")];
    let mut above = Rig::new(watching(Strategy::OneForOne, AutoShutdown::AnySignificant), children);
    let mut below = three(AutoShutdown::AnySignificant);
    below.exit("a", Exit::Normal);
    assert_eq!(below.moves(), "stop c, stop b, end auto-shutdown a");
    above.exit("s", End::AutoShutdown { child: FIRST }.exit());
    assert_eq!(above.moves(), "stop x, end auto-shutdown s");
}
