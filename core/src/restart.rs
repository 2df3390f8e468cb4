//! Whether, and when, a kernel gets its next incarnation.
//!
//! The machine of one kernel's [`RecoveryPolicy`]: failures and timers go in, decisions come out, the time is an argument.
//!
//! | state | failure, budget left | failure, budget used up | timer (own token) | resume |
//! |---|---|---|---|---|
//! | serving | waiting: restart at now + delay | isolated, or given up | - | - |
//! | waiting | - (nothing runs) | - | serving: start | serving: start at once |
//! | isolated | - | - | - | serving: start, budget refilled |
//! | given up, stopped | - | - | - | - |
//!
//! The budget is `max_restarts` in a sliding window on the monotonic clock: a restart of age >= window no longer
//! counts. A failed start is a failure and costs like one. It does NOT look at the class of the fault, and it does not
//! restart siblings: that is the supervisor's part.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::resilience::{InvalidConfig, RecoveryPolicy, RecoveryStrategy};

/// The window that restarts are counted in unless a spec says otherwise.
pub const DEFAULT_RESTART_WINDOW: Duration = Duration::from_secs(60);

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RestartDecision {
    /// Start the next incarnation at `at`, if [`RestartMachine::on_timer`] still wants it with this token then.
    Restart {
        /// When.
        at: Timestamp,
        /// Distinguishes this wait from every other.
        token: u64,
        /// Restarts in the window, this one included.
        in_window: u32,
    },
    /// Alert the operator and serve nobody until resumed.
    Isolate,
    /// The policy has no escalation left: the supervisor above decides.
    GiveUp,
    /// The kernel was stopped; nothing is to be done.
    Ignore,
}

/// Where a kernel's recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartState {
    /// An incarnation lives, or is being made.
    Serving,
    /// The next incarnation starts when the wait with this token ends.
    Waiting {
        /// The token of the wait.
        token: u64,
    },
    /// Held until an operator resumes it.
    Isolated,
    /// The budget is used up and nothing was left to escalate to.
    GivenUp,
    /// Stopped on purpose.
    Stopped,
}

/// The recovery of one kernel.
#[derive(Clone, Debug)]
pub struct RestartMachine {
    policy: RecoveryPolicy,
    window: Duration,
    state: RestartState,
    /// Times of the restarts in the window, oldest first; at most `max_restarts`.
    recent: VecDeque<Timestamp>,
    tokens: u64,
    total: u64,
}

impl RestartMachine {
    /// A machine for a kernel whose first incarnation is about to start.
    ///
    /// # Errors
    /// A policy that is invalid, a window of zero, or a strategy whose target does not exist here.
    pub fn try_new(policy: RecoveryPolicy, window: Duration) -> Result<Self, InvalidConfig> {
        policy.validate()?;
        if window.is_zero() {
            return Err(InvalidConfig { field: "restart_window", rule: "must be longer than zero" });
        }
        refuse_without_target("recovery.strategy", policy.strategy)?;
        if let Some(escalation) = policy.escalation {
            refuse_without_target("recovery.escalation", escalation)?;
            if escalation == RecoveryStrategy::RestartKernel {
                let rule = "cannot be RestartKernel: what escalates has been restarted already";
                return Err(InvalidConfig { field: "recovery.escalation", rule });
            }
            if escalation == policy.strategy {
                return Err(InvalidConfig {
                    field: "recovery.escalation",
                    rule: "must differ from the strategy",
                });
            }
        }
        Ok(Self {
            policy,
            window,
            state: RestartState::Serving,
            recent: VecDeque::new(),
            tokens: 0,
            total: 0,
        })
    }

    /// The incarnation ended on its own, or failed to start.
    pub fn on_failure(&mut self, now: Timestamp) -> RestartDecision {
        match self.state {
            RestartState::Serving => {}
            RestartState::Waiting { .. }
            | RestartState::Isolated
            | RestartState::GivenUp
            | RestartState::Stopped => {
                return RestartDecision::Ignore;
            }
        }
        match self.policy.strategy {
            RecoveryStrategy::RestartKernel => {}
            // Without a target these were refused at construction.
            RecoveryStrategy::UseReplica
            | RecoveryStrategy::Degrade
            | RecoveryStrategy::Failover
            | RecoveryStrategy::NotifyOperator => return self.isolate(),
        }
        self.forget_old(now);
        if self.recent.len() >= self.policy.max_restarts as usize {
            return self.escalate();
        }
        self.recent.push_back(now);
        debug_assert!(
            self.recent.len() <= self.policy.max_restarts as usize,
            "the window holds the budget at most"
        );
        self.total += 1;
        self.tokens += 1;
        self.state = RestartState::Waiting { token: self.tokens };
        let in_window = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        RestartDecision::Restart { at: now + self.policy.restart_delay, token: self.tokens, in_window }
    }

    /// The wait with `token` is over. Says whether to start; a stale token never does.
    pub fn on_timer(&mut self, token: u64) -> bool {
        let due = self.state == RestartState::Waiting { token };
        if due {
            self.state = RestartState::Serving;
        }
        due
    }

    /// An operator wants the kernel back. Says whether to start now; the budget is full again.
    pub fn on_resume(&mut self) -> bool {
        let resumes = match self.state {
            RestartState::Waiting { .. } | RestartState::Isolated => true,
            RestartState::Serving | RestartState::GivenUp | RestartState::Stopped => false,
        };
        if resumes {
            self.recent.clear();
            self.state = RestartState::Serving;
        }
        resumes
    }

    /// No restart may follow, whatever the policy says, until an operator resumes the kernel.
    pub fn hold(&mut self) {
        if self.state != RestartState::Stopped {
            self.state = RestartState::Isolated;
        }
    }

    /// The kernel is stopped on purpose, for good.
    pub fn on_stop(&mut self) {
        self.state = RestartState::Stopped;
    }

    /// Where the recovery stands.
    #[must_use]
    pub const fn state(&self) -> RestartState {
        self.state
    }

    /// Restarts since the kernel was spawned.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Restarts that count at `now`.
    #[must_use]
    pub fn in_window(&self, now: Timestamp) -> u32 {
        let live = self.recent.iter().filter(|at| now - **at < self.window).count();
        u32::try_from(live).unwrap_or(u32::MAX)
    }

    /// The policy the machine applies.
    #[must_use]
    pub const fn policy(&self) -> &RecoveryPolicy {
        &self.policy
    }

    fn forget_old(&mut self, now: Timestamp) {
        while self.recent.front().is_some_and(|at| now - *at >= self.window) {
            self.recent.pop_front();
        }
    }

    fn escalate(&mut self) -> RestartDecision {
        match self.policy.escalation {
            Some(_) => self.isolate(),
            None => {
                self.state = RestartState::GivenUp;
                RestartDecision::GiveUp
            }
        }
    }

    fn isolate(&mut self) -> RestartDecision {
        self.state = RestartState::Isolated;
        RestartDecision::Isolate
    }
}

/// The strategies that move work elsewhere need an elsewhere, which no spec can name yet.
fn refuse_without_target(field: &'static str, strategy: RecoveryStrategy) -> Result<(), InvalidConfig> {
    let rule = match strategy {
        RecoveryStrategy::RestartKernel | RecoveryStrategy::NotifyOperator => return Ok(()),
        RecoveryStrategy::UseReplica => "is UseReplica, but the kernel has no replica",
        RecoveryStrategy::Degrade => "is Degrade, but the kernel has no degraded path",
        RecoveryStrategy::Failover => "is Failover, but the kernel has no backup device",
    };
    Err(InvalidConfig { field, rule })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(max_restarts: u32, escalation: Option<RecoveryStrategy>) -> RecoveryPolicy {
        RecoveryPolicy {
            strategy: RecoveryStrategy::RestartKernel,
            max_restarts,
            restart_delay: Duration::from_millis(5),
            escalation,
        }
    }

    fn machine(max_restarts: u32) -> RestartMachine {
        let policy = policy(max_restarts, Some(RecoveryStrategy::NotifyOperator));
        RestartMachine::try_new(policy, Duration::from_secs(1)).unwrap()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn the_budget_is_used_up_and_escalates_to_the_operator() {
        let mut machine = machine(1);
        let RestartDecision::Restart { at: due, token, in_window: 1 } = machine.on_failure(at(0)) else {
            panic!()
        };
        assert_eq!(due, at(5));
        assert!(machine.on_timer(token));
        assert_eq!(machine.on_failure(at(10)), RestartDecision::Isolate);
        assert!(machine.on_resume());
        assert!(matches!(machine.on_failure(at(11)), RestartDecision::Restart { in_window: 1, .. }));
    }

    #[test]
    fn a_restart_of_age_window_no_longer_counts() {
        let mut machine = machine(1);
        let RestartDecision::Restart { token, .. } = machine.on_failure(at(0)) else { panic!() };
        assert!(machine.on_timer(token));
        assert!(matches!(machine.on_failure(at(1000)), RestartDecision::Restart { .. }));
    }

    #[test]
    fn without_an_escalation_the_supervisor_above_decides() {
        let mut machine = RestartMachine::try_new(policy(0, None), Duration::from_secs(1)).unwrap();
        assert_eq!(machine.on_failure(at(0)), RestartDecision::GiveUp);
    }

    #[test]
    fn a_stale_timer_starts_nothing() {
        let mut machine = machine(5);
        let RestartDecision::Restart { token, .. } = machine.on_failure(at(0)) else { panic!() };
        machine.on_stop();
        assert!(!machine.on_timer(token));
        assert!(!machine.on_resume());
    }

    #[test]
    fn strategies_without_a_target_are_refused_by_name() {
        for strategy in [RecoveryStrategy::UseReplica, RecoveryStrategy::Degrade, RecoveryStrategy::Failover]
        {
            let policy = RecoveryPolicy { strategy, ..policy(1, None) };
            let error = RestartMachine::try_new(policy, Duration::from_secs(1)).unwrap_err();
            assert_eq!(error.field, "recovery.strategy");
        }
        let error =
            RestartMachine::try_new(policy(1, Some(RecoveryStrategy::Failover)), Duration::from_secs(1));
        assert_eq!(error.unwrap_err().field, "recovery.escalation");
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_restarts_than_the_budget(
            max_restarts in 0_u32..6,
            steps in prop::collection::vec((0_u64..400, 0_u8..8), 1..200),
        ) {
            let mut machine = machine(max_restarts);
            let (mut now, mut restarts, mut resumed_at) = (0, Vec::<u64>::new(), 0);
            for (step, action) in steps {
                now += step;
                match (action, machine.state()) {
                    (0, _) => {
                        if machine.on_resume() {
                            restarts.clear();
                            resumed_at = now;
                        }
                    }
                    (1, _) => prop_assert!(!machine.on_timer(u64::MAX)),
                    (_, RestartState::Waiting { token }) => prop_assert!(machine.on_timer(token)),
                    _ => {
                        if let RestartDecision::Restart { in_window, .. } = machine.on_failure(at(now)) {
                            restarts.push(now);
                            prop_assert!(in_window <= max_restarts);
                        }
                    }
                }
                let counted = restarts.iter().filter(|t| **t >= resumed_at && now - **t < 1000).count();
                prop_assert!(counted <= max_restarts as usize);
                prop_assert_eq!(machine.in_window(at(now)) as usize, counted);
            }
        }
    }
}
