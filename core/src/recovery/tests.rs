use proptest::prelude::*;

use super::*;
use RecoveryStrategy::{Degrade, Failover, NotifyOperator, RestartKernel, UseReplica};

const ALL: Targets = Targets { replica: true, degraded: true, backup: true };

fn policy(
    strategy: RecoveryStrategy,
    max_restarts: u32,
    escalation: Option<RecoveryStrategy>,
) -> RecoveryPolicy {
    RecoveryPolicy { strategy, max_restarts, restart_delay: Duration::from_millis(5), escalation }
}

fn ladder(max_restarts: u32, ladder: &[RecoveryStrategy]) -> RecoveryMachine {
    let policy = policy(ladder[0], max_restarts, ladder.get(1).copied());
    let further = ladder.get(2..).unwrap_or_default();
    RecoveryMachine::try_new(policy, further, ALL, Duration::from_secs(1)).unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_millis(millis)
}

fn now(millis: u64) -> Situation {
    Situation {
        now: at(millis),
        supervisor_allows: true,
        standby_ready: true,
        earliest_deadline: Timestamp::NEVER,
        start_takes: Duration::ZERO,
        paid: false,
    }
}

fn restart(millis: u64, in_window: u32) -> Recovery {
    Recovery::Restart { at: at(millis), in_window, degrade: false }
}

#[test]
fn the_budget_is_used_up_and_escalates_to_the_operator() {
    let mut machine = ladder(1, &[RestartKernel, NotifyOperator]);
    assert_eq!(machine.on_failure(&now(0)), restart(5, 1));
    assert_eq!(machine.on_failure(&now(10)), Recovery::Isolate);
    assert_eq!(machine.on_failure(&now(11)), Recovery::Ignore);
    assert!(machine.on_resume());
    assert_eq!(machine.on_failure(&now(12)), restart(17, 1));
}

#[test]
fn a_restart_of_age_window_no_longer_counts() {
    let mut machine = ladder(1, &[RestartKernel, NotifyOperator]);
    assert_eq!(machine.on_failure(&now(0)), restart(5, 1));
    assert_eq!(machine.on_failure(&now(1000)), restart(1005, 1));
}

#[test]
fn without_an_escalation_the_supervisor_above_decides() {
    assert_eq!(ladder(0, &[RestartKernel]).on_failure(&now(0)), Recovery::GiveUp);
}

#[test]
fn where_the_supervisor_allows_no_restart_the_policy_escalates_first() {
    let refused = Situation { supervisor_allows: false, ..now(0) };
    assert_eq!(ladder(9, &[RestartKernel, NotifyOperator]).on_failure(&refused), Recovery::Isolate);
    assert_eq!(ladder(9, &[RestartKernel]).on_failure(&refused), Recovery::GiveUp);
}

#[test]
fn a_warm_standby_is_promoted_and_the_failed_one_rebuilt_within_the_budget() {
    let mut machine = ladder(2, &[UseReplica, NotifyOperator]);
    assert_eq!(machine.on_failure(&now(0)), Recovery::Promote { rebuild_at: Some(at(5)) });
    assert_eq!(machine.on_failure(&now(1)), Recovery::Promote { rebuild_at: Some(at(6)) });
    assert_eq!(machine.on_failure(&now(2)), Recovery::Isolate);
}

#[test]
fn without_a_warm_standby_use_replica_restarts() {
    let cold = Situation { standby_ready: false, ..now(0) };
    assert_eq!(ladder(2, &[UseReplica, NotifyOperator]).on_failure(&cold), restart(5, 1));
}

#[test]
fn the_degraded_path_is_left_to_the_next_step_when_its_rebuilds_are_used_up() {
    let mut machine = ladder(1, &[Degrade, NotifyOperator]);
    assert_eq!(machine.on_failure(&now(0)), Recovery::Degrade { rebuild_at: Some(at(5)) });
    assert_eq!(machine.on_failure(&now(6)), Recovery::Isolate);
}

#[test]
fn as_the_last_step_the_degraded_path_goes_on_and_rebuilds_when_the_window_allows() {
    let mut machine = ladder(1, &[RestartKernel, Degrade]);
    assert_eq!(machine.on_failure(&now(0)), restart(5, 1));
    assert_eq!(machine.on_failure(&now(10)), Recovery::Degrade { rebuild_at: Some(at(15)) });
    assert_eq!(machine.on_failure(&now(20)), Recovery::Degrade { rebuild_at: Some(at(1010)) });
    let mut none = ladder(0, &[RestartKernel, Degrade]);
    assert_eq!(none.on_failure(&now(0)), Recovery::Degrade { rebuild_at: None });
}

#[test]
fn a_degraded_path_that_fails_gives_way_to_the_next_step() {
    let mut machine = ladder(3, &[Degrade, NotifyOperator]);
    assert_eq!(machine.on_failure(&now(0)), Recovery::Degrade { rebuild_at: Some(at(5)) });
    assert_eq!(machine.on_degraded_failure(&now(1)), Recovery::Isolate);
    let mut last = ladder(3, &[Degrade]);
    assert_eq!(last.on_failure(&now(0)), Recovery::Degrade { rebuild_at: Some(at(5)) });
    assert_eq!(last.on_degraded_failure(&now(1)), Recovery::GiveUp);
}

#[test]
fn failover_moves_once_and_restarts_there_until_the_budget_is_used_up() {
    let mut machine = ladder(1, &[Failover, NotifyOperator]);
    assert_eq!(machine.on_failure(&now(0)), Recovery::Failover);
    assert!(machine.has_failed_over());
    assert_eq!(machine.on_failure(&now(1)), restart(6, 1));
    assert_eq!(machine.on_failure(&now(2)), Recovery::Isolate);
    assert!(machine.on_resume());
    assert!(machine.has_failed_over(), "it does not flip back by itself");
}

#[test]
fn every_step_is_tried_in_its_order_and_a_quiet_window_leads_back_to_the_first() {
    let mut machine = ladder(1, &[RestartKernel, UseReplica, Failover, NotifyOperator]);
    assert_eq!(machine.on_failure(&now(0)), restart(5, 1));
    assert_eq!(machine.on_failure(&now(10)), Recovery::Promote { rebuild_at: Some(at(15)) });
    assert_eq!(machine.on_failure(&now(20)), Recovery::Failover);
    assert_eq!(machine.on_failure(&now(1020)), restart(1025, 1), "a window has passed");
    assert_eq!(machine.strategy(), Some(RestartKernel));
}

#[test]
fn a_restart_that_would_be_back_too_late_is_answered_by_who_is_there() {
    let pressed = Situation { earliest_deadline: at(4), ..now(0) };
    let promote = Recovery::Promote { rebuild_at: Some(at(5)) };
    assert_eq!(ladder(3, &[RestartKernel]).on_failure(&pressed), promote);
    let cold = Situation { standby_ready: false, ..pressed };
    let degrade = Recovery::Restart { at: at(5), in_window: 1, degrade: true };
    assert_eq!(ladder(3, &[RestartKernel]).on_failure(&cold), degrade);
    let relaxed = Situation { earliest_deadline: at(50), ..cold };
    assert_eq!(ladder(3, &[RestartKernel]).on_failure(&relaxed), restart(5, 1));
    let slow = Situation { start_takes: Duration::from_millis(100), ..relaxed };
    assert_eq!(ladder(3, &[RestartKernel]).on_failure(&slow), degrade);
}

#[test]
fn strategies_without_a_target_are_refused_by_name() {
    let refused = |policy: RecoveryPolicy, further: &[RecoveryStrategy], targets| {
        RecoveryMachine::try_new(policy, further, targets, Duration::from_secs(1)).unwrap_err().field
    };
    for strategy in [UseReplica, Degrade, Failover] {
        assert_eq!(refused(policy(strategy, 1, None), &[], Targets::default()), "recovery.strategy");
        let second = policy(RestartKernel, 1, Some(strategy));
        assert_eq!(refused(second, &[], Targets::default()), "recovery.escalation");
        let third = policy(RestartKernel, 1, Some(NotifyOperator));
        assert_eq!(refused(third, &[strategy], Targets::default()), "escalations");
    }
    let twice = policy(RestartKernel, 1, Some(Degrade));
    assert_eq!(refused(twice.clone(), &[Degrade], ALL), "escalations");
    assert_eq!(refused(twice, &[RestartKernel], ALL), "escalations");
    assert_eq!(refused(policy(Degrade, 1, Some(RestartKernel)), &[], ALL), "recovery.escalation");
    assert_eq!(refused(policy(RestartKernel, 1, None), &[Degrade], ALL), "escalations");
}

/// A kernel was spawned with a replica after the operator, and its operator was asked in the replica's place, for ever.
#[test]
fn what_comes_after_notify_operator_is_refused_by_name() {
    let refused = |policy: RecoveryPolicy, further: &[RecoveryStrategy]| {
        let refused = RecoveryMachine::try_new(policy, further, ALL, Duration::from_secs(1)).unwrap_err();
        assert!(refused.rule.contains("after NotifyOperator"), "{refused}");
        refused.field
    };
    for strategy in [UseReplica, Degrade, Failover, NotifyOperator] {
        assert_eq!(refused(policy(NotifyOperator, 1, Some(strategy)), &[]), "recovery.escalation");
        assert_eq!(refused(RecoveryPolicy::default(), &[strategy]), "escalations");
        let later = policy(RestartKernel, 1, Some(Degrade));
        assert_eq!(refused(later, &[NotifyOperator, strategy]), "escalations");
    }
}

#[test]
fn a_stopped_kernel_is_not_recovered() {
    let mut machine = ladder(5, &[RestartKernel]);
    machine.on_stop();
    assert_eq!(machine.on_failure(&now(0)), Recovery::Ignore);
    assert!(!machine.on_resume());
}

proptest! {
    #[test]
    fn no_window_ever_holds_more_restarts_than_the_budget(
        max_restarts in 0_u32..6,
        order in Just([RestartKernel, UseReplica, Degrade, Failover, NotifyOperator]).prop_shuffle(),
        steps in prop::collection::vec((0_u64..400, 0_u8..8, any::<bool>()), 1..200),
    ) {
        let first = order.iter().position(|strategy| *strategy == RestartKernel).unwrap();
        let operator = order.iter().position(|strategy| *strategy == NotifyOperator).unwrap();
        let last = if operator < first { order.len() } else { operator + 1 };
        let mut machine = ladder(max_restarts, &order[first..last]);
        let mut millis = 0;
        for (step, action, warm) in steps {
            millis += step;
            let situation = Situation { standby_ready: warm, ..now(millis) };
            match action {
                0 => { machine.on_resume(); }
                1 => { let _next = machine.on_standby_failure(at(millis), false); }
                2 => { let _next = machine.on_degraded_failure(&situation); }
                _ => { let _next = machine.on_failure(&situation); }
            }
            prop_assert!(machine.in_window(at(millis)) <= max_restarts);
            prop_assert!(machine.recent.len() <= max_restarts as usize);
        }
    }
}

/// Its domain has a budget of its own.
#[test]
fn a_kernel_that_was_lost_with_its_domain_comes_back_at_once_and_at_no_cost() {
    let paid = Situation { paid: true, supervisor_allows: false, standby_ready: false, ..now(7) };
    for strategy in [RestartKernel, UseReplica] {
        let mut machine = ladder(1, &[strategy, NotifyOperator]);
        for _ in 0..5 {
            assert_eq!(machine.on_failure(&paid), restart(7, 0));
        }
        assert_eq!(machine.total(), 0);
        assert_eq!(machine.on_failure(&Situation { standby_ready: false, ..now(8) }), restart(13, 1));
    }
    let mut machine = ladder(0, &[Degrade]);
    assert_eq!(machine.on_failure(&paid), Recovery::Degrade { rebuild_at: Some(at(7)) });
}

/// Its failure counted as the first one after a quiet window, and led back to itself.
#[test]
fn a_degraded_path_that_fails_after_a_quiet_window_gives_way_too() {
    let mut machine = ladder(1, &[Degrade, NotifyOperator]);
    assert_eq!(machine.on_failure(&now(0)), Recovery::Degrade { rebuild_at: Some(at(5)) });
    assert_eq!(machine.on_degraded_failure(&now(1_500)), Recovery::Isolate);
}
