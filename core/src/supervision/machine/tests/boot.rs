//! The start of a supervisor is ordered, and fails as a whole.

use super::super::*;
use super::rig::{Rig, config, permanent, permanents, temporary, transient};
use crate::supervision::{ChildRules, Restart};

#[test]
fn children_start_in_order_each_when_the_one_before_it_is_up() {
    let mut rig = Rig::cold(config(Strategy::OneForOne), permanents(3));
    rig.slow("b");
    rig.boot();
    assert_eq!(
        (rig.log().as_str(), rig.states().as_str()),
        ("start a, start b", "a up, b starting, c planned")
    );
    assert!(!rig.machine.is_running());
    rig.up("b");
    assert_eq!(rig.log(), "start c, booted");
    assert!(rig.machine.is_running());
}

#[test]
fn a_supervisor_without_children_boots_at_once() {
    for strategy in [Strategy::OneForOne, Strategy::Dynamic] {
        let mut rig = Rig::cold(config(strategy), []);
        rig.boot();
        assert_eq!(rig.log(), "booted");
    }
}

#[test]
fn a_child_that_does_not_start_fails_the_boot_and_the_others_stop_in_reverse() {
    for spec in [permanent("c"), transient("c"), temporary("c")] {
        let mut rig =
            Rig::cold(config(Strategy::OneForOne), [permanent("a"), permanent("b"), spec, permanent("d")]);
        rig.fail_starts("c", 1);
        rig.boot();
        assert_eq!(rig.moves(), "start a, start b, start c, stop b, stop a, end boot failed c");
    }
}

#[test]
fn the_stops_of_a_failed_boot_are_awaited() {
    let mut rig = Rig::cold(config(Strategy::OneForAll), permanents(3));
    ["b", "c"].into_iter().for_each(|name| rig.slow(name));
    rig.boot();
    rig.up("b");
    rig.fails("c");
    assert_eq!(rig.moves(), "start a, start b, start c, stop b");
    rig.gone("b");
    assert_eq!(rig.moves(), "stop a, end boot failed c");
}

#[test]
fn a_child_that_ends_before_it_is_up_has_not_started() {
    let mut rig = Rig::cold(config(Strategy::OneForOne), permanents(2));
    rig.slow("b");
    rig.boot();
    rig.exit("b", Exit::Normal);
    assert_eq!(rig.moves(), "start a, start b, stop a, end boot failed b");
}

#[test]
fn a_child_that_fails_after_it_was_up_is_restarted_during_the_boot() {
    let mut rig = Rig::cold(config(Strategy::OneForOne), permanents(3));
    rig.slow("b");
    rig.boot();
    rig.exit("a", Exit::Abnormal);
    assert_eq!(rig.moves(), "start a, start b, start a");
    rig.up("b");
    assert_eq!(rig.moves(), "start c, booted");
}

#[test]
fn a_group_restart_during_the_boot_still_ends_in_booted() {
    let mut rig = Rig::cold(config(Strategy::OneForAll), permanents(3));
    rig.slow("b");
    rig.boot();
    rig.exit("a", Exit::Abnormal);
    rig.gone("b");
    assert_eq!(rig.moves(), "start a, start b, stop b, start a, start b");
    rig.up("b");
    assert_eq!(rig.moves(), "start c, booted");
}

#[test]
fn a_supervisor_stopped_during_its_boot_stops_what_was_started() {
    let mut rig = Rig::cold(config(Strategy::OneForOne), permanents(3));
    rig.slow("b");
    rig.boot();
    rig.tell(SupervisorMachine::shut_down);
    rig.up("b");
    assert_eq!(rig.moves(), "start a, start b, stop b");
    rig.gone("b");
    assert_eq!(rig.moves(), "stop a, end stopped");
}

#[test]
fn a_child_stopped_during_its_slow_start_does_not_fail_the_boot() {
    let mut rig = Rig::cold(config(Strategy::OneForOne), permanents(3));
    rig.slow("b");
    rig.boot();
    rig.tell(|machine, now| machine.terminate_child("b", now)).unwrap();
    assert_eq!(rig.moves(), "start a, start b, stop b", "the next one's turn comes when it is gone");
    rig.fails("b");
    assert_eq!(rig.moves(), "start c, booted");
    assert_eq!(rig.states(), "a up, b down, c up");
}

#[test]
fn nothing_can_be_added_before_the_supervisor_has_booted() {
    let mut rig = Rig::cold(config(Strategy::OneForOne), permanents(1));
    rig.slow("a");
    rig.boot();
    let refused = rig.tell(|machine, now| machine.start_child(permanent("z"), now));
    assert_eq!(refused, Err(Refusal::NotRunning));
}

#[test]
fn bad_declarations_are_refused_by_field_before_any_child_starts() {
    let refused = |config: SupervisorConfig, children: Vec<ChildSpec>| {
        SupervisorMachine::try_new(config, children, 1).unwrap_err().field
    };
    let plain = || config(Strategy::OneForOne);
    let no_period = SupervisorConfig { period: Duration::ZERO, ..plain() };
    let one = SupervisorConfig { max_children: 1, ..plain() };
    let mut significant = transient("a");
    significant.rules =
        ChildRules { restart: Restart::Transient, significant: true, ..ChildRules::default() };
    assert_eq!(refused(no_period, vec![]), "supervisor.period");
    assert_eq!(refused(plain(), vec![permanent("a"), permanent("a")]), "supervisor.children");
    assert_eq!(refused(config(Strategy::Dynamic), permanents(1)), "supervisor.children");
    assert_eq!(refused(one, permanents(2)), "supervisor.children");
    assert_eq!(refused(plain(), vec![significant]), "child.significant");
}

#[test]
fn a_boot_that_fails_waits_for_no_delay() {
    let mut rig = Rig::cold(config(Strategy::OneForOne), permanents(2));
    rig.slow("b");
    rig.boot();
    rig.exit_until("a", Exit::Abnormal, 60_000);
    assert_eq!(rig.states(), "a delayed, b starting");
    rig.fails("b");
    assert_eq!(rig.moves(), "start a, start b, end boot failed b");
    assert_eq!(rig.machine.next_deadline(), None);
}
