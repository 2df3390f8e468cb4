//! Supervisors against random histories: prompt ones against a plain model of OTP, slow ones and whole trees against invariants.
//!
//! `RUSTKERNEL_CASES` sets how many histories each test tries; a failure prints the line that runs its history again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "supervision_model/late.rs"]
mod late;
#[path = "supervision_model/otp.rs"]
mod otp;
#[path = "supervision_model/prompt.rs"]
mod prompt;
#[path = "supervision_model/replay.rs"]
mod replay;
#[path = "supervision_model/tree.rs"]
mod tree;
#[path = "supervision_model/watched.rs"]
mod watched;

#[test]
fn a_prompt_supervisor_does_what_otp_does() {
    replay::check("a_prompt_supervisor_does_what_otp_does", 1_200, prompt::histories(), prompt::compare);
}

#[test]
fn a_supervisor_of_slow_children_keeps_its_invariants_and_settles() {
    let name = "a_supervisor_of_slow_children_keeps_its_invariants_and_settles";
    replay::check(name, 1_200, late::histories(), late::live);
}

#[test]
fn a_tree_of_supervisors_leaves_no_orphans_and_settles() {
    replay::check("a_tree_of_supervisors_leaves_no_orphans_and_settles", 250, tree::histories(), tree::live);
}

#[test]
fn a_failure_that_no_restart_cures_passes_every_level_of_the_tree() {
    tree::escalates_level_by_level();
}

#[test]
fn a_transient_supervisor_that_gave_up_is_not_restarted_and_its_parent_stays() {
    tree::a_transient_supervisor_gives_up();
}
