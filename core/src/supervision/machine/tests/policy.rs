//! Children with a policy of their own: held, resumed, escalated.

use super::super::*;
use super::rig::{Rig, config, permanent, permanents, temporary, transient};

/// The child's life is over and its policy keeps it.
fn hold(rig: &mut Rig, name: &str) {
    let key = rig.ends_unheard(name);
    rig.tell(|machine, now| machine.hold(key, now));
}

fn resume(rig: &mut Rig, name: &str) -> bool {
    let key = rig.key(name);
    rig.tell(|machine, now| machine.resume(key, now))
}

#[test]
fn a_held_child_stays_down_until_it_is_resumed() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(2));
    hold(&mut rig, "a");
    rig.pass(100_000);
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("", "a held, b up"));
    assert!(resume(&mut rig, "a"));
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("start a", "a up, b up"));
    assert_eq!(rig.machine.restarts(), 0);
}

#[test]
fn only_a_held_or_delayed_child_is_resumed() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(2));
    assert!(!resume(&mut rig, "a"));
    rig.exit_until("a", Exit::Abnormal, 500);
    assert!(resume(&mut rig, "a"));
    rig.pass(1_000);
    assert_eq!(rig.moves(), "start a");
    rig.tell(|machine, now| machine.terminate_child("b", now)).unwrap();
    assert!(!resume(&mut rig, "b"));
}

#[test]
fn a_child_held_in_its_delay_is_not_started() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    rig.exit_until("a", Exit::Abnormal, 500);
    let key = rig.key("a");
    rig.tell(|machine, now| machine.hold(key, now));
    assert_eq!(rig.machine.next_deadline(), None);
    rig.pass(1_000);
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("", "a held"));
}

#[test]
fn a_held_child_is_running_for_those_who_would_start_or_delete_it() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    hold(&mut rig, "a");
    let added = rig.tell(|machine, now| machine.start_child(permanent("a"), now));
    assert_eq!(added, Err(Refusal::Running));
    assert_eq!(rig.tell(|machine, now| machine.restart_child("a", now)), Err(Refusal::Running));
    assert_eq!(rig.tell(|machine, _| machine.delete_child("a")), Err(Refusal::Running));
}

#[test]
fn a_group_restarts_without_its_held_children() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(3));
    hold(&mut rig, "b");
    rig.exit("a", Exit::Abnormal);
    assert_eq!(
        (rig.moves().as_str(), rig.states().as_str()),
        ("stop c, start a, start c", "a up, b held, c up")
    );
}

#[test]
fn a_child_held_in_its_start_lets_its_group_go_on() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(3));
    rig.slow("b");
    rig.exit("a", Exit::Abnormal);
    rig.gone("b");
    hold(&mut rig, "b");
    assert_eq!(
        (rig.moves().as_str(), rig.states().as_str()),
        ("stop c, stop b, start a, start b, start c", "a up, b held, c up")
    );
}

#[test]
fn a_child_resumed_during_a_group_restart_starts_in_its_turn() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(3));
    hold(&mut rig, "b");
    rig.slow("c");
    rig.exit("a", Exit::Abnormal);
    assert!(resume(&mut rig, "b"));
    assert_eq!(rig.moves(), "stop c");
    rig.gone("c");
    assert_eq!(rig.moves(), "start a, start b, start c");
}

#[test]
fn a_held_child_is_stopped_like_one_that_runs() {
    let mut rig = Rig::new(config(Strategy::OneForOne), [permanent("a"), transient("b"), temporary("c")]);
    ["a", "b", "c"].into_iter().for_each(|name| rig.slow(name));
    let (key, life) = (rig.key("b"), rig.life("b").unwrap());
    rig.tell(|machine, now| machine.hold(key, now));
    rig.tell(|machine, now| machine.terminate_child("b", now)).unwrap();
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("stop b", "a up, b stopping, c up"));
    rig.tell(|machine, now| machine.on_exit(key, life, Exit::Shutdown, None, now));
    assert_eq!(rig.states(), "a up, b down, c up");
}

/// What stands behind a held child, its queue for one, is not left alone.
#[test]
fn a_supervisor_that_ends_stops_its_held_children_in_their_turn() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(3));
    let key = rig.key("b");
    rig.tell(|machine, now| machine.hold(key, now));
    rig.tell(SupervisorMachine::shut_down);
    assert_eq!(rig.moves(), "stop c, stop b, stop a, end stopped");
}

#[test]
fn a_held_child_that_ends_for_good_is_down() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    let (key, life) = (rig.key("a"), rig.life("a").unwrap());
    hold(&mut rig, "a");
    rig.tell(|machine, now| machine.on_exit(key, life, Exit::Normal, None, now));
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("settled a", "a down"));
}

#[test]
fn a_policy_with_nothing_left_ends_the_supervisor() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(3));
    let key = rig.ends_unheard("b");
    rig.tell(|machine, now| machine.escalate(key, now));
    assert_eq!(rig.moves(), "stop c, stop a, end escalated b");
}

#[test]
fn a_policy_with_nothing_left_ends_its_supervisor_during_a_group_restart() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(3));
    rig.slow("b");
    rig.exit("a", Exit::Abnormal);
    let key = rig.ends_unheard("b");
    rig.tell(|machine, now| machine.escalate(key, now));
    assert_eq!(rig.moves(), "stop c, stop b, end escalated b");
}

#[test]
fn nobody_is_held_or_resumed_after_the_end() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    let key = rig.key("a");
    rig.tell(SupervisorMachine::shut_down);
    rig.tell(|machine, now| machine.hold(key, now));
    assert!(!rig.tell(|machine, now| machine.resume(key, now)));
    rig.tell(|machine, now| machine.escalate(key, now));
    assert_eq!(rig.moves(), "stop a, end stopped");
}

#[test]
fn a_child_that_was_lost_with_what_it_lived_in_comes_back_at_no_cost() {
    for (spec, comes_back) in [(permanent("a"), true), (transient("a"), true), (temporary("a"), false)] {
        let mut rig = Rig::new(config(Strategy::OneForOne), [spec]);
        rig.log();
        for _ in 0..3 {
            if rig.life("a").is_some() {
                rig.exit("a", Exit::Lost);
            }
        }
        assert_eq!(rig.life("a").is_some(), comes_back);
        assert_eq!((rig.machine.restarts_in_period(rig.now()), rig.machine.is_running()), (0, true));
    }
}
