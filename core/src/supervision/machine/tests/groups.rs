//! Group restarts: who is stopped and started, in which order, and what happens meanwhile.

use super::super::*;
use super::rig::{Rig, config, permanent, permanents, temporary, transient};

fn roomy(strategy: Strategy) -> SupervisorConfig {
    SupervisorConfig { intensity: 2, ..config(strategy) }
}

#[test]
fn a_group_is_stopped_in_reverse_and_each_stop_is_awaited() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(4));
    ["a", "c", "d"].into_iter().for_each(|name| rig.slow(name));
    rig.exit("b", Exit::Abnormal);
    assert_eq!(rig.moves(), "stop d");
    rig.gone("d");
    assert_eq!(rig.moves(), "stop c");
    rig.gone("c");
    assert_eq!(rig.moves(), "stop a");
    rig.gone("a");
    assert_eq!(rig.moves(), "start a");
}

#[test]
fn a_group_is_started_in_order_and_each_start_is_awaited() {
    let mut rig = Rig::new(config(Strategy::RestForOne), permanents(4));
    rig.exit("a", Exit::Abnormal);
    assert_eq!(rig.moves(), "stop d, stop c, stop b, start a, start b, start c, start d");
    rig.pass(1000);
    rig.slow("c");
    rig.exit("b", Exit::Abnormal);
    assert_eq!(rig.moves(), "stop d, stop c");
    rig.gone("c");
    assert_eq!(
        (rig.moves().as_str(), rig.states().as_str()),
        ("start b, start c", "a up, b up, c starting, d planned")
    );
    rig.up("c");
    assert_eq!(rig.moves(), "start d");
}

#[test]
fn a_killed_or_let_go_child_counts_as_stopped_in_its_group() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(2));
    rig.slow("b");
    rig.exit("a", Exit::Abnormal);
    rig.pass(100);
    assert_eq!(rig.moves(), "stop b, kill b");
    rig.pass(5000);
    assert_eq!(rig.moves(), "abandon b, start a, start b");
}

#[test]
fn one_for_all_begins_anew_when_another_child_fails_to_start() {
    let mut rig = Rig::new(roomy(Strategy::OneForAll), permanents(3));
    rig.fail_starts("b", 1);
    rig.exit("c", Exit::Abnormal);
    assert_eq!(rig.moves(), "stop b, stop a, start a, start b, stop a, start a, start b, start c");
    assert_eq!(rig.machine.restarts_in_period(rig.now()), 2);
}

#[test]
fn rest_for_one_begins_anew_from_the_child_that_fails_to_start() {
    let mut rig = Rig::new(roomy(Strategy::RestForOne), permanents(4));
    rig.fail_starts("c", 1);
    rig.exit("b", Exit::Abnormal);
    assert_eq!(rig.moves(), "stop d, stop c, start b, start c, start c, start d");
    assert_eq!(rig.machine.restarts_in_period(rig.now()), 2);
}

#[test]
fn failing_starts_use_up_the_intensity() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut rig = Rig::new(roomy(strategy), [permanent("a")]);
        rig.fail_starts("a", 9);
        rig.exit("a", Exit::Abnormal);
        assert_eq!(rig.moves(), "start a, start a, end intensity a", "{strategy:?}");
    }
}

#[test]
fn near_simultaneous_failures_in_a_group_are_one_restart() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(4));
    rig.slow("d");
    rig.exits(&[("b", Exit::Abnormal), ("a", Exit::Abnormal), ("c", Exit::Normal)]);
    rig.gone("d");
    assert_eq!(rig.moves(), "stop d, start a, start b, start c, start d");
    assert_eq!((rig.machine.restarts(), rig.machine.restarts_in_period(rig.now())), (1, 1));
}

#[test]
fn a_failure_outside_the_group_that_is_being_stopped_is_another_restart_of_a_larger_group() {
    let mut rig = Rig::new(roomy(Strategy::RestForOne), permanents(4));
    rig.slow("d");
    rig.exits(&[("c", Exit::Abnormal), ("a", Exit::Abnormal)]);
    assert_eq!(rig.machine.restarts(), 2);
    rig.gone("d");
    assert_eq!(rig.moves(), "stop d, stop b, start a, start b, start c, start d");
}

#[test]
fn a_failure_while_its_group_is_being_started_is_another_restart() {
    let mut rig = Rig::new(roomy(Strategy::OneForAll), permanents(3));
    rig.exit("b", Exit::Abnormal);
    rig.log();
    rig.slow("c");
    rig.exit("a", Exit::Abnormal);
    rig.gone("c");
    assert_eq!(rig.moves(), "stop c, stop b, start a, start b, start c");
    rig.exit("b", Exit::Abnormal);
    assert_eq!(rig.moves(), "stop c");
    rig.gone("c");
    assert_eq!(rig.moves(), "stop a, end intensity b");
}

#[test]
fn a_failure_behind_the_one_being_started_begins_the_group_at_the_older_child() {
    let mut rig = Rig::new(roomy(Strategy::RestForOne), permanents(4));
    rig.exit("b", Exit::Abnormal);
    rig.pass(1000);
    rig.log();
    rig.slow("d");
    rig.exit("b", Exit::Abnormal);
    rig.gone("d");
    assert_eq!(rig.moves(), "stop d, stop c, start b, start c, start d");
    rig.exit("c", Exit::Abnormal);
    rig.gone("d");
    assert_eq!(rig.moves(), "stop d, start c, start d");
    rig.up("d");
    assert_eq!(rig.states(), "a up, b up, c up, d up");
}

#[test]
fn temporary_children_are_stopped_with_their_group_and_forgotten() {
    let children = [permanent("a"), temporary("b"), permanent("c"), temporary("d")];
    let mut rig = Rig::new(config(Strategy::OneForAll), children);
    rig.exit("a", Exit::Abnormal);
    let log = "restarting a, stop d, forget d, stop c, stop b, forget b, start a, start c";
    assert_eq!((rig.log().as_str(), rig.states().as_str()), (log, "a up, c up"));
    assert_eq!(rig.machine.key("b"), None);
}

#[test]
fn a_temporary_child_before_the_rest_is_left_alone() {
    let children = [temporary("a"), permanent("b"), temporary("c")];
    let mut rig = Rig::new(config(Strategy::RestForOne), children);
    rig.exit("b", Exit::Abnormal);
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("stop c, start b", "a up, b up"));
}

#[test]
fn ended_transient_and_terminated_children_come_back_with_their_group() {
    let mut rig = Rig::new(config(Strategy::OneForAll), [permanent("a"), transient("b"), permanent("c")]);
    rig.exit("b", Exit::Normal);
    rig.tell(|machine, now| machine.terminate_child("c", now)).unwrap();
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("stop c", "a up, b down, c down"));
    rig.exit("a", Exit::Abnormal);
    assert_eq!(
        (rig.moves().as_str(), rig.states().as_str()),
        ("start a, start b, start c", "a up, b up, c up")
    );
}

#[test]
fn a_child_that_is_down_before_the_rest_stays_down() {
    let mut rig = Rig::new(config(Strategy::RestForOne), [transient("a"), permanent("b")]);
    rig.exit("a", Exit::Normal);
    rig.exit("b", Exit::Abnormal);
    assert_eq!(rig.states(), "a down, b up");
}

/// OTP stops the whole group before it looks at another exit: such a child was stopped with its group.
#[test]
fn a_child_that_is_done_while_its_group_is_being_stopped_comes_back_with_it() {
    let children = [transient("a"), permanent("b"), temporary("c"), permanent("d")];
    let mut rig = Rig::new(config(Strategy::OneForAll), children);
    rig.slow("d");
    rig.exit("b", Exit::Abnormal);
    rig.exits(&[("a", Exit::Normal), ("c", Exit::Normal)]);
    rig.gone("d");
    assert_eq!(
        (rig.moves().as_str(), rig.states().as_str()),
        ("stop d, start a, start b, start d", "a up, b up, d starting")
    );
}

#[test]
fn a_child_terminated_while_its_group_is_being_stopped_stays_down_whoever_joins() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(4));
    rig.slow("d");
    rig.exit("b", Exit::Abnormal);
    rig.tell(|machine, now| machine.terminate_child("b", now)).unwrap();
    rig.tell(|machine, now| machine.terminate_child("c", now)).unwrap();
    rig.exit("a", Exit::Abnormal);
    rig.gone("d");
    rig.up("d");
    assert_eq!(rig.moves(), "stop d, stop c, start a, start d");
    assert_eq!(rig.states(), "a up, b down, c down, d up");
}

#[test]
fn a_child_being_stopped_with_its_group_can_be_terminated_and_stays_down() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(2));
    rig.slow("b");
    rig.exit("a", Exit::Abnormal);
    rig.tell(|machine, now| machine.terminate_child("b", now)).unwrap();
    rig.gone("b");
    assert_eq!(
        (rig.log().as_str(), rig.states().as_str()),
        ("restarting a, stop b, settled b, start a", "a up, b down")
    );
}

#[test]
fn a_child_added_during_a_group_restart_starts_in_its_turn() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(3));
    rig.slow("c");
    rig.exit("a", Exit::Abnormal);
    rig.tell(|machine, now| machine.start_child(permanent("z"), now)).unwrap();
    assert_eq!(rig.moves(), "stop c");
    rig.gone("c");
    assert_eq!(rig.moves(), "stop b, start a, start b, start c");
    rig.tell(|machine, now| machine.start_child(temporary("y"), now)).unwrap();
    assert_eq!(rig.moves(), "");
    rig.up("c");
    assert_eq!(
        (rig.moves().as_str(), rig.states().as_str()),
        ("start z, start y", "a up, b up, c up, z up, y up")
    );
}

#[test]
fn a_child_added_during_a_group_restart_that_does_not_start_never_was() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(2));
    rig.slow("b");
    rig.exit("a", Exit::Abnormal);
    rig.fail_starts("x", 1);
    rig.tell(|machine, now| machine.start_child(permanent("x"), now)).unwrap();
    rig.tell(|machine, now| machine.start_child(permanent("y"), now)).unwrap();
    rig.gone("b");
    rig.up("b");
    assert_eq!(rig.log(), "restarting a, stop b, start a, start b, start x, forget x, start y");
}

/// Its turn would not come again.
#[test]
fn a_child_restarted_by_hand_after_its_turn_in_the_group_starts_at_once() {
    let mut rig = Rig::new(config(Strategy::OneForAll), [permanent("a"), transient("b"), permanent("c")]);
    rig.slow("c");
    rig.exit("a", Exit::Abnormal);
    rig.gone("c");
    rig.exit("b", Exit::Normal);
    assert_eq!(
        (rig.moves().as_str(), rig.states().as_str()),
        ("stop c, stop b, start a, start b, start c", "a up, b down, c starting")
    );
    rig.tell(|machine, now| machine.restart_child("b", now)).unwrap();
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("start b", "a up, b up, c starting"));
}

/// Nobody asks for it any more.
#[test]
fn a_child_whose_restart_by_hand_failed_costs_a_restart_when_it_fails_with_its_group() {
    let mut rig = Rig::new(roomy(Strategy::OneForAll), permanents(2));
    rig.tell(|machine, now| machine.terminate_child("b", now)).unwrap();
    rig.fail_starts("b", 2);
    rig.tell(|machine, now| machine.restart_child("b", now)).unwrap();
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("stop b, start b", "a up, b down"));
    rig.exit("a", Exit::Abnormal);
    assert_eq!(rig.moves(), "start a, start b, stop a, start a, start b");
    assert_eq!(rig.states(), "a up, b up");
}

#[test]
fn a_slow_start_does_not_keep_a_one_for_one_sibling_from_its_restart() {
    let mut rig = Rig::new(roomy(Strategy::OneForOne), permanents(2));
    rig.slow("a");
    rig.exits(&[("a", Exit::Abnormal)]);
    rig.exit("b", Exit::Abnormal);
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("start a, start b", "a starting, b up"));
}
