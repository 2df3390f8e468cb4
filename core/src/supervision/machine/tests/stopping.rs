//! How children are stopped, and how a supervisor ends.

use super::super::*;
use super::rig::{Rig, config, kernel, ms, permanent, permanents, stopped_by, temporary};

fn rig_of_one(shutdown: Shutdown) -> Rig {
    let mut rig = Rig::new(config(Strategy::OneForOne), [stopped_by(shutdown, permanent("a"))]);
    rig.slow("a");
    rig.tell(|machine, now| machine.terminate_child("a", now)).unwrap();
    rig
}

#[test]
fn a_child_with_a_grace_time_is_asked_then_killed_then_let_go() {
    let mut rig = rig_of_one(Shutdown::Within(ms(100)));
    rig.pass(99);
    assert_eq!(rig.log(), "stop a");
    rig.pass(1);
    assert_eq!(rig.log(), "kill a");
    rig.pass(4_999);
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("", "a stopping"));
    rig.pass(1);
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("abandon a, settled a", "a down"));
    assert_eq!(rig.machine.next_deadline(), None);
}

#[test]
fn a_child_that_ends_in_its_grace_time_is_not_killed() {
    let mut rig = rig_of_one(Shutdown::Within(ms(100)));
    rig.pass(99);
    rig.gone("a");
    rig.pass(60_000);
    assert_eq!(rig.log(), "stop a, settled a");
}

#[test]
fn a_brutally_stopped_child_is_killed_at_once() {
    let mut rig = rig_of_one(Shutdown::Brutal);
    assert_eq!(rig.log(), "kill a");
    rig.pass(5_000);
    assert_eq!(rig.log(), "abandon a, settled a");
}

#[test]
fn a_child_with_infinite_grace_is_waited_for() {
    let mut rig = rig_of_one(Shutdown::Infinity);
    assert_eq!(rig.machine.next_deadline(), None);
    rig.pass(1_000_000);
    rig.gone("a");
    assert_eq!(rig.log(), "stop a, settled a");
}

#[test]
fn no_grace_at_all_asks_and_kills_in_one_moment() {
    let mut rig = rig_of_one(Shutdown::Within(Duration::ZERO));
    rig.pass(0);
    assert_eq!(rig.log(), "stop a, kill a");
}

#[test]
fn a_supervisor_stops_its_children_in_reverse_and_ends() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(4));
    ["b", "d"].into_iter().for_each(|name| rig.slow(name));
    rig.tell(SupervisorMachine::shut_down);
    assert_eq!(rig.log(), "stop d");
    rig.gone("d");
    assert_eq!(rig.log(), "stop c, stop b");
    rig.gone("b");
    assert_eq!(rig.log(), "stop a, end stopped");
    assert_eq!(rig.machine.next_deadline(), None);
}

#[test]
fn a_dynamic_supervisor_stops_its_children_all_at_once() {
    let mut rig = Rig::new(config(Strategy::Dynamic), []);
    for spec in permanents(3) {
        rig.slow(&spec.name);
        let name = spec.name.to_string();
        rig.tell(|machine, now| machine.start_child(spec, now)).unwrap();
        rig.up(&name);
    }
    rig.log();
    rig.tell(SupervisorMachine::shut_down);
    assert_eq!(rig.log(), "stop a, stop b, stop c");
    rig.gone("b");
    rig.pass(100);
    assert_eq!(rig.log(), "kill a, kill c");
    rig.gone("a");
    rig.pass(5_000);
    assert_eq!(rig.log(), "abandon c, end stopped");
}

#[test]
fn a_supervisor_ends_once() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(2));
    rig.slow("b");
    rig.tell(SupervisorMachine::shut_down);
    rig.tell(SupervisorMachine::shut_down);
    rig.gone("b");
    rig.tell(SupervisorMachine::shut_down);
    assert_eq!(rig.log(), "stop b, stop a, end stopped");
}

#[test]
fn children_that_end_by_themselves_while_the_supervisor_ends_are_not_restarted() {
    let mut rig = Rig::new(config(Strategy::OneForAll), [permanent("a"), temporary("b"), permanent("c")]);
    rig.slow("c");
    rig.tell(SupervisorMachine::shut_down);
    rig.exits(&[("a", Exit::Abnormal), ("b", Exit::Normal)]);
    rig.gone("c");
    assert_eq!(rig.moves(), "stop c, end stopped");
}

#[test]
fn a_supervisor_that_ends_waits_for_no_delay() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(2));
    rig.exit_until("a", Exit::Abnormal, 10_000);
    rig.tell(SupervisorMachine::shut_down);
    assert_eq!((rig.moves().as_str(), rig.machine.next_deadline()), ("stop b, end stopped", None));
}

#[test]
fn a_supervisor_that_ends_while_a_plan_waits_ends_at_once() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(2));
    rig.exit_until("a", Exit::Abnormal, 10_000);
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("stop b", "a planned, b planned"));
    rig.tell(SupervisorMachine::shut_down);
    assert_eq!((rig.moves().as_str(), rig.machine.next_deadline()), ("end stopped", None));
}

#[test]
fn a_supervisor_that_ends_while_a_group_is_being_stopped_asks_nobody_twice() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(3));
    rig.slow("c");
    rig.exit("a", Exit::Abnormal);
    rig.tell(SupervisorMachine::shut_down);
    assert_eq!(rig.moves(), "stop c");
    rig.gone("c");
    assert_eq!(rig.moves(), "stop b, end stopped");
}

#[test]
fn a_supervisor_that_ends_while_a_group_is_being_started_stops_the_child_that_starts() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(3));
    rig.exit("a", Exit::Abnormal);
    rig.pass(1_000);
    rig.log();
    rig.slow("b");
    rig.exits(&[("b", Exit::Abnormal)]);
    rig.tell(SupervisorMachine::shut_down);
    rig.fails("b");
    assert_eq!(rig.moves(), "stop c, stop a, start a, start b, stop b, stop a, end stopped");
}

#[test]
fn stopping_a_child_in_its_delay_is_final() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    rig.exit_until("a", Exit::Abnormal, 500);
    rig.tell(|machine, now| machine.terminate_child("a", now)).unwrap();
    assert_eq!(rig.machine.next_deadline(), None);
    rig.pass(1_000);
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("restarting a, settled a", "a down"));
}

#[test]
fn stopping_a_child_while_its_group_waits_is_final_and_the_others_start() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(3));
    rig.exit_until("a", Exit::Abnormal, 500);
    rig.tell(|machine, now| machine.terminate_child("a", now)).unwrap();
    rig.tell(|machine, now| machine.terminate_child("b", now)).unwrap();
    rig.pass(500);
    assert_eq!(rig.moves(), "stop c, stop b, start c");
    assert_eq!(rig.states(), "a down, b down, c up");
}

#[test]
fn stopping_a_child_in_its_slow_start_is_final_however_the_start_goes() {
    for starts in [true, false] {
        let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
        rig.slow("a");
        rig.exit("a", Exit::Abnormal);
        rig.tell(|machine, now| machine.terminate_child("a", now)).unwrap();
        if starts {
            rig.up("a");
            rig.gone("a");
        } else {
            rig.fails("a");
        }
        assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("start a, stop a", "a down"));
    }
}

#[test]
fn what_ends_late_after_it_was_let_go_is_nobody() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(2));
    rig.slow("b");
    let (b, life) = (rig.key("b"), rig.life("b").unwrap());
    rig.exit("a", Exit::Abnormal);
    rig.pass(5_100);
    rig.up("b");
    assert_eq!(rig.moves(), "stop b, kill b, abandon b, start a, start b");
    rig.tell(|machine, now| machine.on_exit(b, life, Exit::Abnormal, None, now));
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("", "a up, b up"));
}

/// A killed supervisor is gone when all below it is: only who sees to that knows how long it takes.
#[test]
fn a_killed_supervisor_is_waited_for_however_long_its_children_take() {
    for shutdown in [Shutdown::Brutal, Shutdown::Within(Duration::from_millis(100))] {
        let mut spec = permanent("a");
        spec.kind = ChildKind::Supervisor;
        spec.rules.shutdown = shutdown;
        let mut rig = Rig::new(config(Strategy::OneForOne), [spec]);
        rig.slow("a");
        rig.tell(|machine, now| machine.terminate_child("a", now)).unwrap();
        rig.pass(100);
        assert_eq!(rig.machine.next_deadline(), None);
        rig.pass(3_600_000);
        assert_eq!(rig.states(), "a stopping");
        rig.gone("a");
        assert_eq!(rig.states(), "a down");
    }
}

#[test]
fn a_child_that_is_stopped_before_it_was_ever_up_never_was() {
    let mut rig = Rig::new(config(Strategy::OneForOne), []);
    rig.slow("a");
    rig.tell(|machine, now| machine.start_child(permanent("a"), now)).unwrap();
    rig.tell(|machine, now| machine.terminate_child("a", now)).unwrap();
    rig.gone("a");
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("start a, stop a, forget a", ""));
}

/// A standby or a degraded path of it may be alive.
#[test]
fn a_kernel_in_its_delay_is_stopped_before_it_is_down() {
    let mut rig = Rig::new(config(Strategy::OneForOne), [kernel(permanent("k"))]);
    rig.exit_until("k", Exit::Abnormal, 500);
    rig.log();
    rig.slow("k");
    rig.tell(|machine, now| machine.terminate_child("k", now)).unwrap();
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("stop k", "k stopping"));
    let (k, life) = (rig.key("k"), 1);
    rig.tell(|machine, now| machine.on_exit(k, life, Exit::Shutdown, None, now));
    rig.pass(10_000);
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("settled k", "k down"));
}

#[test]
fn a_supervisor_that_ends_stops_what_is_left_of_its_kernels_in_their_turn() {
    let spec = || [kernel(permanent("k")), permanent("t"), kernel(permanent("l"))];
    // Told to.
    let mut rig = Rig::new(config(Strategy::OneForOne), spec());
    rig.exit_until("k", Exit::Abnormal, 500);
    rig.log();
    rig.tell(SupervisorMachine::shut_down);
    assert_eq!(rig.log(), "stop l, stop t, stop k, end stopped");
    // Its intensity, one, is used up by the failure of the other kernel.
    let mut rig = Rig::new(config(Strategy::OneForOne), spec());
    rig.exit_until("k", Exit::Abnormal, 500);
    rig.log();
    rig.exit("l", Exit::Abnormal);
    assert_eq!(rig.log(), "stop l, stop t, stop k, end intensity l");
    // The kernel's own policy has nothing left.
    let mut rig = Rig::new(config(Strategy::OneForOne), spec());
    let k = rig.ends_unheard("k");
    rig.log();
    rig.tell(|machine, now| machine.escalate(k, now));
    assert_eq!(rig.log(), "stop l, stop t, stop k, end escalated k");
}
