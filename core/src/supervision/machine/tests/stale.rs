//! Events that come late, twice, or about somebody else.

use super::super::*;
use super::rig::{Rig, config, permanents, temporary, transient};

#[test]
fn an_exit_of_an_older_life_is_ignored() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    let (key, life) = (rig.key("a"), rig.life("a").unwrap());
    rig.exit("a", Exit::Abnormal);
    rig.tell(|machine, now| machine.on_exit(key, life, Exit::Abnormal, None, now));
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("start a", "a up"));
}

#[test]
fn news_of_an_older_start_is_ignored() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    let (key, life) = (rig.key("a"), rig.life("a").unwrap());
    rig.slow("a");
    rig.exit("a", Exit::Abnormal);
    rig.tell(|machine, now| machine.on_started(key, life, now));
    rig.tell(|machine, now| machine.on_start_failed(key, life, None, now));
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("start a", "a starting"));
}

#[test]
fn an_exit_is_counted_once() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    let (key, life) = (rig.key("a"), rig.life("a").unwrap());
    rig.exit_until("a", Exit::Abnormal, 500);
    rig.tell(|machine, now| machine.on_exit(key, life, Exit::Abnormal, None, now));
    rig.tell(|machine, now| machine.on_start_failed(key, life, None, now));
    assert_eq!((rig.machine.restarts(), rig.states().as_str()), (1, "a delayed"));
    rig.pass(500);
    assert_eq!(rig.log(), "restarting a, start a");
}

#[test]
fn a_failed_start_is_counted_once() {
    let two = SupervisorConfig { intensity: 2, ..config(Strategy::OneForAll) };
    let mut rig = Rig::new(two, permanents(2));
    rig.slow("b");
    rig.exit("a", Exit::Abnormal);
    rig.gone("b");
    let (key, life) = (rig.key("b"), rig.life("b").unwrap());
    rig.slow("a");
    rig.fails("b");
    rig.tell(|machine, now| machine.on_start_failed(key, life, None, now));
    rig.tell(|machine, now| machine.on_exit(key, life, Exit::Abnormal, None, now));
    assert_eq!((rig.machine.restarts(), rig.states().as_str()), (2, "a stopping, b planned"));
}

#[test]
fn a_child_that_is_up_cannot_fail_to_start() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    let (key, life) = (rig.key("a"), rig.life("a").unwrap());
    rig.tell(|machine, now| machine.on_start_failed(key, life, None, now));
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("", "a up"));
}

#[test]
fn a_child_that_is_told_to_end_does_not_come_up() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    rig.slow("a");
    rig.exit("a", Exit::Abnormal);
    rig.tell(|machine, now| machine.terminate_child("a", now)).unwrap();
    rig.up("a");
    rig.up("a");
    assert_eq!(rig.states(), "a stopping");
}

#[test]
fn forgotten_children_are_nobody_and_their_names_are_free() {
    let mut rig = Rig::new(config(Strategy::OneForOne), [temporary("a")]);
    let (key, life) = (rig.key("a"), rig.life("a").unwrap());
    rig.exit("a", Exit::Normal);
    rig.tell(|machine, now| machine.start_child(transient("a"), now)).unwrap();
    assert_ne!(rig.key("a"), key);
    rig.tell(|machine, now| {
        machine.on_exit(key, life, Exit::Abnormal, None, now);
        machine.on_started(key, life, now);
        machine.on_start_failed(key, life, None, now);
        machine.hold(key, now);
        machine.escalate(key, now);
    });
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("forget a, start a", "a up"));
    assert_eq!(rig.machine.child(key), None);
}

#[test]
fn news_after_the_end_changes_nothing() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(2));
    let lives = ["a", "b"].map(|name| (rig.key(name), rig.life(name).unwrap()));
    rig.tell(SupervisorMachine::shut_down);
    rig.log();
    for (key, life) in lives {
        rig.tell(|machine, now| machine.on_exit(key, life, Exit::Abnormal, None, now));
        rig.tell(|machine, now| machine.on_start_failed(key, life, None, now));
        rig.tell(|machine, now| machine.on_started(key, life, now));
    }
    rig.pass(10_000);
    assert_eq!((rig.log().as_str(), rig.states().as_str()), ("", "a down, b down"));
}
