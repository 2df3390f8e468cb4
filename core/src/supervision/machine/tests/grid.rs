//! {permanent, transient, temporary} x {normal, shutdown, abnormal, lost}, and every strategy up to its escalation.

use super::super::*;
use super::rig::{Rig, child, config, permanent, permanents};
use crate::supervision::Restart;

const EXITS: [Exit; 4] = [Exit::Normal, Exit::Shutdown, Exit::Abnormal, Exit::Lost];

/// What becomes of a child of this type after this exit.
fn fate(restart: Restart, exit: Exit) -> &'static str {
    match (restart, exit) {
        (Restart::Permanent, _) | (Restart::Transient, Exit::Abnormal | Exit::Lost) => "up",
        (Restart::Transient, Exit::Normal | Exit::Shutdown) => "down",
        (Restart::Temporary, _) => "forgotten",
    }
}

fn each_cell(mut check: impl FnMut(Restart, Exit)) {
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        EXITS.into_iter().for_each(|exit| check(restart, exit));
    }
}

#[test]
fn one_for_one_restarts_or_not_as_the_restart_type_and_the_exit_say() {
    each_cell(|restart, exit| {
        let children = [permanent("a"), child("b", restart), permanent("c")];
        let mut rig = Rig::new(config(Strategy::OneForOne), children);
        rig.exit("b", exit);
        let (log, states) = match fate(restart, exit) {
            "up" => ("restarting b, start b", "a up, b up, c up"),
            "down" => ("settled b", "a up, b down, c up"),
            _ => ("forget b", "a up, c up"),
        };
        assert_eq!((rig.log().as_str(), rig.states().as_str()), (log, states), "{restart:?} {exit:?}");
    });
}

#[test]
fn one_for_all_restarts_all_or_none_as_the_restart_type_and_the_exit_say() {
    each_cell(|restart, exit| {
        let children = [permanent("a"), child("b", restart), permanent("c")];
        let mut rig = Rig::new(config(Strategy::OneForAll), children);
        rig.exit("b", exit);
        let (moves, states) = match fate(restart, exit) {
            "up" => ("stop c, stop a, start a, start b, start c", "a up, b up, c up"),
            "down" => ("", "a up, b down, c up"),
            _ => ("", "a up, c up"),
        };
        assert_eq!((rig.moves().as_str(), rig.states().as_str()), (moves, states), "{restart:?} {exit:?}");
    });
}

#[test]
fn rest_for_one_restarts_the_rest_or_none_as_the_restart_type_and_the_exit_say() {
    each_cell(|restart, exit| {
        let children = [permanent("a"), child("b", restart), permanent("c")];
        let mut rig = Rig::new(config(Strategy::RestForOne), children);
        rig.exit("b", exit);
        let (moves, states) = match fate(restart, exit) {
            "up" => ("stop c, start b, start c", "a up, b up, c up"),
            "down" => ("", "a up, b down, c up"),
            _ => ("", "a up, c up"),
        };
        assert_eq!((rig.moves().as_str(), rig.states().as_str()), (moves, states), "{restart:?} {exit:?}");
    });
}

#[test]
fn a_dynamic_child_is_restarted_or_forgotten_and_never_kept() {
    each_cell(|restart, exit| {
        let mut rig = Rig::new(config(Strategy::Dynamic), []);
        for spec in [permanent("a"), child("b", restart), permanent("c")] {
            rig.tell(|machine, now| machine.start_child(spec, now)).unwrap();
        }
        rig.log();
        rig.exit("b", exit);
        let (log, states) = match fate(restart, exit) {
            "up" => ("restarting b, start b", "a up, b up, c up"),
            _ => ("forget b", "a up, c up"),
        };
        assert_eq!((rig.log().as_str(), rig.states().as_str()), (log, states), "{restart:?} {exit:?}");
    });
}

#[test]
fn one_failure_more_than_the_intensity_ends_a_one_for_one_supervisor() {
    let mut rig = Rig::new(config(Strategy::OneForOne), permanents(3));
    rig.exit("b", Exit::Abnormal);
    rig.exit("a", Exit::Abnormal);
    assert_eq!(rig.moves(), "start b, stop c, stop b, end intensity a");
}

#[test]
fn one_failure_more_than_the_intensity_ends_a_one_for_all_supervisor() {
    let mut rig = Rig::new(config(Strategy::OneForAll), permanents(3));
    rig.exit("b", Exit::Abnormal);
    assert_eq!(rig.moves(), "stop c, stop a, start a, start b, start c");
    rig.exit("c", Exit::Abnormal);
    assert_eq!(rig.moves(), "stop b, stop a, end intensity c");
}

#[test]
fn one_failure_more_than_the_intensity_ends_a_rest_for_one_supervisor() {
    let mut rig = Rig::new(config(Strategy::RestForOne), permanents(3));
    rig.exit("c", Exit::Abnormal);
    rig.exit("b", Exit::Abnormal);
    assert_eq!(rig.moves(), "start c, stop c, stop a, end intensity b");
}

#[test]
fn one_failure_more_than_the_intensity_ends_a_dynamic_supervisor() {
    let mut rig = Rig::new(config(Strategy::Dynamic), []);
    for spec in permanents(3) {
        rig.tell(|machine, now| machine.start_child(spec, now)).unwrap();
    }
    rig.log();
    rig.exit("b", Exit::Abnormal);
    rig.exit("a", Exit::Abnormal);
    assert_eq!(rig.moves(), "start b, stop b, stop c, end intensity a");
}

#[test]
fn a_supervisor_that_gave_up_looks_like_an_orderly_end_to_the_one_above() {
    let child = FIRST;
    let orderly =
        [End::Stopped, End::Intensity { child }, End::Escalated { child }, End::AutoShutdown { child }];
    assert!(orderly.into_iter().all(|end| end.exit() == Exit::Shutdown));
    assert_eq!(End::BootFailed { child }.exit(), Exit::Abnormal);
}
