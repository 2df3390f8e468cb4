//! Intensity over time, and restarts that wait.

use super::super::*;
use super::rig::{Rig, config, ms, permanents};
use crate::resilience::BackoffStrategy;

fn delayed(strategy: Strategy, intensity: u32) -> SupervisorConfig {
    let backoff = BackoffStrategy::Exponential { initial: ms(10), max: ms(40), multiplier: 2.0 };
    SupervisorConfig { intensity, backoff, ..config(strategy) }
}

#[test]
fn failures_are_counted_in_a_sliding_window() {
    let two = SupervisorConfig { intensity: 2, ..config(Strategy::OneForOne) };
    let mut rig = Rig::new(two, permanents(1));
    for millis in [0, 600, 400, 600, 400] {
        rig.pass(millis);
        rig.exit("a", Exit::Abnormal);
    }
    assert_eq!((rig.machine.restarts(), rig.machine.restarts_in_period(rig.now())), (5, 2));
    rig.pass(599);
    rig.exit("a", Exit::Abnormal);
    assert_eq!(rig.moves(), "start a, start a, start a, start a, start a, end intensity a");
}

#[test]
fn the_intensity_is_shared_by_all_children() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(3));
    rig.exit("a", Exit::Abnormal);
    rig.exit("c", Exit::Abnormal);
    assert_eq!(rig.moves(), "start a, stop b, stop a, end intensity c");
}

#[test]
fn an_intensity_of_zero_ends_the_supervisor_at_the_first_failure() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut rig = Rig::new(SupervisorConfig { intensity: 0, ..config(strategy) }, permanents(3));
        rig.exit("b", Exit::Abnormal);
        assert_eq!(rig.moves(), "stop c, stop a, end intensity b", "{strategy:?}");
    }
}

#[test]
fn without_a_limit_a_supervisor_restarts_for_ever() {
    let endless = SupervisorConfig { intensity: u32::MAX, ..config(Strategy::OneForOne) };
    let mut rig = Rig::new(endless, permanents(1));
    for _ in 0..10_000 {
        rig.exit("a", Exit::Abnormal);
    }
    assert_eq!((rig.machine.restarts(), rig.states().as_str()), (10_000, "a up"));
}

#[test]
fn whether_a_restart_is_allowed_can_be_asked_without_spending_one() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(1));
    let key = rig.key("a");
    let allowed = |rig: &mut Rig| rig.tell(|machine, now| machine.allows_restart(key, now));
    assert!(allowed(&mut rig) && allowed(&mut rig));
    rig.exit("a", Exit::Abnormal);
    assert!(!allowed(&mut rig));
    rig.pass(1_000);
    assert!(allowed(&mut rig));
}

#[test]
fn the_delay_grows_with_the_restarts_in_the_period() {
    let mut rig = Rig::new(delayed(Strategy::OneForOne, 9), permanents(1));
    for delay in [10, 20, 40, 40] {
        rig.exit("a", Exit::Abnormal);
        assert_eq!(rig.machine.next_deadline(), Some(rig.now() + ms(delay)));
        rig.pass(delay - 1);
        assert_eq!(rig.states(), "a delayed");
        rig.pass(1);
        assert_eq!(rig.states(), "a up");
    }
    rig.pass(1_000);
    rig.exit("a", Exit::Abnormal);
    assert_eq!(rig.machine.next_deadline(), Some(rig.now() + ms(10)));
}

#[test]
fn a_restart_is_told_with_its_time_and_its_count() {
    let mut machine = SupervisorMachine::try_new(delayed(Strategy::OneForOne, 9), permanents(1), 1).unwrap();
    machine.boot(Timestamp::ZERO);
    let child = machine.key("a").unwrap();
    machine.on_started(child, 1, Timestamp::ZERO);
    machine.on_exit(child, 1, Exit::Abnormal, None, Timestamp::ZERO);
    let actions: Vec<Action> = std::iter::from_fn(|| machine.next_action()).collect();
    let at = Timestamp::ZERO + ms(10);
    let start = Action::Start { child, life: 1 };
    assert_eq!(actions, [start, Action::Booted, Action::Restarting { child, at, in_period: 1 }]);
}

#[test]
fn a_child_s_own_policy_says_when() {
    let mut rig = Rig::new(delayed(Strategy::OneForOne, 9), permanents(1));
    rig.exit_until("a", Exit::Abnormal, 700);
    rig.pass(699);
    assert_eq!(rig.moves(), "");
    rig.pass(1);
    assert_eq!(rig.moves(), "start a");
}

#[test]
fn a_delay_does_not_block_the_supervisor() {
    let mut rig = Rig::new(delayed(Strategy::OneForOne, 9), permanents(2));
    rig.exit_until("a", Exit::Abnormal, 500);
    rig.exit("b", Exit::Abnormal);
    rig.pass(20);
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("start b", "a delayed, b up"));
    rig.tell(|machine, now| machine.terminate_child("b", now)).unwrap();
    rig.pass(480);
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("stop b, start a", "a up, b down"));
}

#[test]
fn a_group_is_down_until_its_delay_is_over() {
    let mut rig = Rig::new(delayed(Strategy::OneForAll, 9), permanents(3));
    rig.exit("b", Exit::Abnormal);
    assert_eq!(
        (rig.moves().as_str(), rig.states().as_str()),
        ("stop c, stop a", "a planned, b planned, c planned")
    );
    rig.pass(9);
    assert_eq!(rig.moves(), "");
    rig.pass(1);
    assert_eq!(rig.moves(), "start a, start b, start c");
    assert_eq!(rig.machine.next_deadline(), None);
}

#[test]
fn a_group_waits_for_the_latest_of_the_delays_that_joined() {
    let mut rig = Rig::new(delayed(Strategy::OneForAll, 9), permanents(4));
    rig.slow("d");
    rig.exit_until("a", Exit::Abnormal, 50);
    rig.exit_until("b", Exit::Abnormal, 300);
    rig.exit_until("c", Exit::Abnormal, 200);
    rig.gone("d");
    rig.pass(299);
    assert_eq!(rig.moves(), "stop d");
    rig.pass(1);
    assert_eq!((rig.moves().as_str(), rig.machine.restarts()), ("start a, start b, start c, start d", 1));
}

#[test]
fn an_older_failure_during_the_delay_of_a_group_widens_it() {
    let mut rig = Rig::new(delayed(Strategy::RestForOne, 9), permanents(3));
    rig.exit_until("c", Exit::Abnormal, 100);
    rig.exit_until("a", Exit::Abnormal, 10);
    assert_eq!((rig.moves().as_str(), rig.states().as_str()), ("stop b", "a planned, b planned, c planned"));
    rig.pass(99);
    assert_eq!(rig.moves(), "");
    rig.pass(1);
    assert_eq!(rig.moves(), "start a, start b, start c");
    assert_eq!((rig.machine.restarts(), rig.machine.next_deadline()), (2, None));
}

#[test]
fn an_older_failure_while_a_group_is_being_stopped_does_not_shorten_its_delay() {
    let mut rig = Rig::new(delayed(Strategy::RestForOne, 9), permanents(4));
    rig.slow("d");
    rig.exit_until("c", Exit::Abnormal, 100);
    rig.exit_until("a", Exit::Abnormal, 10);
    rig.gone("d");
    rig.pass(99);
    assert_eq!(rig.moves(), "stop d, stop b");
    rig.pass(1);
    assert_eq!(rig.moves(), "start a, start b, start c, start d");
}

#[test]
fn a_delay_that_is_over_while_the_group_is_still_being_stopped_adds_nothing() {
    let mut rig = Rig::new(delayed(Strategy::OneForAll, 9), permanents(2));
    rig.slow("b");
    rig.exit("a", Exit::Abnormal);
    rig.pass(50);
    rig.gone("b");
    assert_eq!(rig.moves(), "stop b, start a, start b");
}

#[test]
fn a_timer_that_is_heard_late_or_early_or_twice_does_no_harm() {
    let mut rig = Rig::new(delayed(Strategy::OneForAll, 9), permanents(2));
    rig.exit("a", Exit::Abnormal);
    rig.tell(|machine, now| machine.on_timer(now));
    rig.tell(|machine, now| machine.on_timer(now + ms(5)));
    assert_eq!(rig.moves(), "stop b");
    rig.tell(|machine, now| machine.on_timer(now + ms(500)));
    rig.tell(|machine, now| machine.on_timer(now + ms(500)));
    assert_eq!(rig.moves(), "start a, start b");
}

/// Something else can happen at the very time of the timer, before it is heard.
#[test]
fn no_timer_of_a_plan_outlives_the_supervisor() {
    let mut rig = Rig::new(delayed(Strategy::OneForAll, 9), permanents(1));
    rig.exit("a", Exit::Abnormal);
    rig.tell(|machine, now| machine.terminate_child("a", now + ms(10))).unwrap();
    rig.tell(|machine, now| machine.shut_down(now + ms(10)));
    assert_eq!((rig.moves().as_str(), rig.machine.next_deadline()), ("end stopped", None));
}

/// A policy that asked whether it may restart was told no, though the child would have been restarted with its group.
#[test]
fn a_child_that_fails_while_its_group_is_being_stopped_is_restarted_even_if_no_restart_is_left() {
    let mut rig = Rig::new(SupervisorConfig { intensity: 1, ..config(Strategy::OneForAll) }, permanents(3));
    rig.slow("c");
    rig.exit("a", Exit::Abnormal);
    let key = rig.key("b");
    assert!(rig.tell(|machine, now| machine.allows_restart(key, now)), "its group is being stopped");
    rig.exit("b", Exit::Abnormal);
    rig.gone("c");
    assert!(!rig.tell(|machine, now| machine.allows_restart(key, now)));
    assert_eq!((rig.machine.is_running(), rig.states().as_str()), (true, "a up, b up, c starting"));
}
