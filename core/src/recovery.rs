//! What a kernel's failure leads to.
//!
//! The machine of one kernel's [`RecoveryPolicy`] and of what its spec adds: further escalations and the [`Targets`] that the strategies
//! need. A failure and the [`Situation`] go in, a [`Recovery`] comes out. The strategies form a ladder: `strategy`, `escalation`, the
//! further ones; a step that cannot help any more gives way to the next, and after the last the supervisor decides. NotifyOperator always
//! helps: nothing comes after it.
//!
//! | step | budget left | budget used up |
//! |---|---|---|
//! | RestartKernel | restart at now + delay | next step |
//! | UseReplica | promote the standby, rebuild it at now + delay; none warm: restart | next step, unless it was just reached |
//! | Degrade | the degraded path answers, rebuild at now + delay | next step; as the last one: rebuild when the window allows |
//! | Failover | move to the backup; once there: restart | next step |
//! | NotifyOperator | isolate | isolate |
//!
//! The budget is `max_restarts` in a sliding window on the monotonic clock: a restart of age >= window no longer counts. Restarts,
//! rebuilds and failed starts cost one each. Every step has the whole budget; a window without a failure leads
//! back to the first step. The supervisor's intensity counts as a part of the budget: where it allows no restart, the step gives
//! way.
//!
//! A kernel that was lost with its fault domain is brought back at once and at no cost: the domain has its own budget, and where that is
//! used up, starts there fail.
//!
//! Where a restart after its delay cannot be back before a request that waits has to be answered, a warm standby or the degraded path
//! answers. It does NOT restart siblings (the supervisor's part) and does not look at the class of the fault.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::resilience::{InvalidConfig, RecoveryPolicy, RecoveryStrategy};

/// The window that restarts are counted in unless a spec says otherwise.
pub const DEFAULT_RESTART_WINDOW: Duration = Duration::from_secs(60);

/// What a kernel's spec offers the strategies that need a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// It has warm standbys: UseReplica.
    pub replica: bool,
    /// It has a degraded path: Degrade.
    pub degraded: bool,
    /// It has a backup device: Failover.
    pub backup: bool,
}

/// What matters for a decision, beside the failure itself.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// The time.
    pub now: Timestamp,
    /// Whether the supervisor's intensity allows one more restart.
    pub supervisor_allows: bool,
    /// Whether a standby is warm.
    pub standby_ready: bool,
    /// When the first of the requests that wait has to be answered; [`Timestamp::NEVER`] for never.
    pub earliest_deadline: Timestamp,
    /// How long the kernel's starts take, as far as is known.
    pub start_takes: Duration,
    /// Whether the failure is paid for: its fault domain died, which is charged to the domain.
    pub paid: bool,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Recovery {
    /// Start the next incarnation at `at`, together with whom the supervisor's strategy names.
    Restart {
        /// When.
        at: Timestamp,
        /// Restarts in the window, this one included.
        in_window: u32,
        /// Whether the degraded path answers until then.
        degrade: bool,
    },
    /// The warm standby takes over now; the failed one is rebuilt as the new standby.
    Promote {
        /// When to rebuild; `None` never.
        rebuild_at: Option<Timestamp>,
    },
    /// The degraded path takes over now; the kernel is rebuilt behind it.
    Degrade {
        /// When to rebuild; `None` not before an operator says so.
        rebuild_at: Option<Timestamp>,
    },
    /// The next incarnation starts now, on the backup device.
    Failover,
    /// Alert the operator and serve nobody until resumed.
    Isolate,
    /// No step is left: the supervisor ends and the one above decides.
    GiveUp,
    /// The kernel was stopped or given up; nothing is to be done.
    Ignore,
}

/// Who can answer at once while a restart takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Relief {
    /// A warm standby.
    Promote,
    /// The degraded path.
    Degrade,
    /// Nobody.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active,
    Isolated,
    GivenUp,
    Stopped,
}

/// The recovery of one kernel.
#[derive(Clone, Debug)]
pub struct RecoveryMachine {
    policy: RecoveryPolicy,
    /// The strategies in the order in which they are tried.
    ladder: Vec<RecoveryStrategy>,
    targets: Targets,
    window: Duration,
    state: State,
    step: usize,
    failed_over: bool,
    last_failure: Option<Timestamp>,
    /// Times of the restarts in the window, oldest first; at most `max_restarts`.
    recent: VecDeque<Timestamp>,
    total: u64,
}

impl RecoveryMachine {
    /// A machine for a kernel whose first incarnation is about to start. `further` are the escalations after the policy's own.
    ///
    /// # Errors
    /// A policy that is invalid, a window of zero, a strategy whose target does not exist, one that is named twice, RestartKernel as an
    /// escalation, further escalations after none, or anything after NotifyOperator, which would never be tried.
    pub fn try_new(
        policy: RecoveryPolicy,
        further: &[RecoveryStrategy],
        targets: Targets,
        window: Duration,
    ) -> Result<Self, InvalidConfig> {
        policy.validate()?;
        let refuse = |field, rule| Err(InvalidConfig { field, rule });
        if window.is_zero() {
            return refuse("restart_window", "must be longer than zero");
        }
        if policy.escalation.is_none() && !further.is_empty() {
            return refuse("escalations", "go on after `recovery.escalation`, which is none");
        }
        let mut ladder = vec![policy.strategy];
        let first = policy.escalation.iter().map(|strategy| ("recovery.escalation", *strategy));
        for (field, strategy) in first.chain(further.iter().map(|strategy| ("escalations", *strategy))) {
            if strategy == RecoveryStrategy::RestartKernel {
                return refuse(field, "cannot be RestartKernel: what escalates has been restarted already");
            }
            if ladder.last() == Some(&RecoveryStrategy::NotifyOperator) {
                return refuse(field, "come after NotifyOperator, which always answers");
            }
            if ladder.contains(&strategy) {
                return refuse(field, "names a strategy that was tried before");
            }
            ladder.push(strategy);
        }
        for (index, strategy) in ladder.iter().enumerate() {
            let field = ["recovery.strategy", "recovery.escalation", "escalations"][index.min(2)];
            refuse_without_target(field, *strategy, targets)?;
        }
        Ok(Self {
            policy,
            ladder,
            targets,
            window,
            state: State::Active,
            step: 0,
            failed_over: false,
            last_failure: None,
            recent: VecDeque::new(),
            total: 0,
        })
    }

    /// What was serving ended on its own, or failed to start.
    pub fn on_failure(&mut self, situation: &Situation) -> Recovery {
        if self.state != State::Active {
            return Recovery::Ignore;
        }
        let now = situation.now;
        if self.last_failure.is_some_and(|last| now - last >= self.window) {
            self.step = 0;
        }
        self.last_failure = Some(now);
        self.forget_old(now);
        let mut reached = false;
        while let Some(strategy) = self.ladder.get(self.step).copied() {
            if let Some(recovery) = self.try_step(strategy, reached, situation) {
                return recovery;
            }
            self.next_step();
            reached = true;
        }
        self.state = State::GivenUp;
        Recovery::GiveUp
    }

    /// The degraded path, which was serving, failed: that step cannot help any more.
    pub fn on_degraded_failure(&mut self, situation: &Situation) -> Recovery {
        let degrade = self.ladder.iter().position(|strategy| *strategy == RecoveryStrategy::Degrade);
        if self.state == State::Active && degrade.is_some_and(|step| step >= self.step) {
            self.step = degrade.unwrap_or(self.step);
            self.next_step();
            // It has just been tried: no quiet window leads back to it.
            self.last_failure = Some(situation.now);
        }
        self.on_failure(situation)
    }

    /// A standby ended or failed to start; what serves is not concerned. When to rebuild it: at once after the delay, or when the
    /// window allows it; `None` never. One that was lost with its fault domain is `paid` for, and rebuilt now.
    pub fn on_standby_failure(&mut self, now: Timestamp, paid: bool) -> Option<Timestamp> {
        if self.state != State::Active {
            return None;
        }
        if paid {
            return Some(now);
        }
        self.forget_old(now);
        self.rebuild_at(now)
    }

    /// Who can answer at once while the next incarnation is not there.
    pub fn relief(&self, standby_ready: bool) -> Relief {
        if self.state != State::Active {
            Relief::None
        } else if standby_ready {
            Relief::Promote
        } else if self.targets.degraded {
            Relief::Degrade
        } else {
            Relief::None
        }
    }

    /// An operator wants the kernel back: the first step again, with a full budget. `false` for one that was stopped or given up.
    pub fn on_resume(&mut self) -> bool {
        let resumes = matches!(self.state, State::Active | State::Isolated);
        if resumes {
            self.state = State::Active;
            self.step = 0;
            self.last_failure = None;
            self.recent.clear();
        }
        resumes
    }

    /// The kernel is back on its own device, or moved to its backup by hand.
    pub fn set_failed_over(&mut self, failed_over: bool) {
        self.failed_over = failed_over;
        self.step = 0;
        self.recent.clear();
    }

    /// No restart may follow, whatever the policy says, until an operator resumes the kernel.
    pub fn hold(&mut self) {
        if self.state == State::Active {
            self.state = State::Isolated;
        }
    }

    /// The kernel is stopped on purpose, for good.
    pub fn on_stop(&mut self) {
        self.state = State::Stopped;
    }

    /// Whether it is held for an operator.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.state == State::Isolated
    }

    /// Whether it has moved to its backup device.
    #[must_use]
    pub const fn has_failed_over(&self) -> bool {
        self.failed_over
    }

    /// The strategy that the next failure is answered with, if its budget lasts.
    #[must_use]
    pub fn strategy(&self) -> Option<RecoveryStrategy> {
        self.ladder.get(self.step).copied()
    }

    /// Restarts and rebuilds since the kernel was spawned.
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

    /// What one step does about a failure; `None` where it cannot help any more. `reached`: the failure has led here just now.
    fn try_step(
        &mut self,
        strategy: RecoveryStrategy,
        reached: bool,
        situation: &Situation,
    ) -> Option<Recovery> {
        match strategy {
            RecoveryStrategy::RestartKernel => self.restart(situation),
            RecoveryStrategy::UseReplica if situation.standby_ready => {
                let helps = reached || situation.paid || self.has_budget();
                helps.then(|| Recovery::Promote { rebuild_at: self.rebuild(situation) })
            }
            RecoveryStrategy::UseReplica => self.restart(situation),
            RecoveryStrategy::Degrade => {
                let last = self.step + 1 == self.ladder.len();
                let helps = reached || last || situation.paid || self.has_budget();
                helps.then(|| Recovery::Degrade { rebuild_at: self.rebuild(situation) })
            }
            RecoveryStrategy::Failover if !self.failed_over => {
                self.failed_over = true;
                self.recent.clear();
                Some(Recovery::Failover)
            }
            RecoveryStrategy::Failover => self.restart(situation),
            RecoveryStrategy::NotifyOperator => {
                self.state = State::Isolated;
                Some(Recovery::Isolate)
            }
        }
    }

    /// A restart, unless budget or intensity are used up; by way of whoever can answer sooner, where it would be back too late.
    fn restart(&mut self, situation: &Situation) -> Option<Recovery> {
        if situation.paid {
            let in_window = self.in_window(situation.now);
            return Some(Recovery::Restart { at: situation.now, in_window, degrade: false });
        }
        if !self.has_budget() || !situation.supervisor_allows {
            return None;
        }
        self.charge(situation.now);
        let at = situation.now + self.policy.restart_delay;
        let late = situation.earliest_deadline <= at + situation.start_takes
            && !situation.earliest_deadline.is_never();
        let relief = if late { self.relief(situation.standby_ready) } else { Relief::None };
        Some(match relief {
            Relief::Promote => Recovery::Promote { rebuild_at: Some(at) },
            Relief::Degrade | Relief::None => Recovery::Restart {
                at,
                in_window: self.in_window(situation.now),
                degrade: relief == Relief::Degrade,
            },
        })
    }

    /// When to rebuild what has been replaced.
    fn rebuild(&mut self, situation: &Situation) -> Option<Timestamp> {
        if situation.paid { Some(situation.now) } else { self.rebuild_at(situation.now) }
    }

    /// When a rebuild may be made: after the delay, charged now, or when the window allows it.
    fn rebuild_at(&mut self, now: Timestamp) -> Option<Timestamp> {
        let delay = self.policy.restart_delay;
        if self.has_budget() {
            self.charge(now);
            return Some(now + delay);
        }
        // The restart that is forgotten then makes room for this one.
        let oldest = self.recent.pop_front()?;
        let at = (oldest + self.window).max(now + delay);
        self.recent.push_back(at);
        self.total += 1;
        Some(at)
    }

    fn has_budget(&self) -> bool {
        self.recent.len() < self.policy.max_restarts as usize
    }

    fn charge(&mut self, now: Timestamp) {
        self.recent.push_back(now);
        self.total += 1;
        debug_assert!(
            self.recent.len() <= self.policy.max_restarts as usize,
            "the window holds the budget at most"
        );
    }

    fn forget_old(&mut self, now: Timestamp) {
        while self.recent.front().is_some_and(|at| now - *at >= self.window) {
            self.recent.pop_front();
        }
    }

    fn next_step(&mut self) {
        self.step += 1;
        self.recent.clear();
    }
}

/// The strategies that move work elsewhere need an elsewhere.
fn refuse_without_target(
    field: &'static str,
    strategy: RecoveryStrategy,
    targets: Targets,
) -> Result<(), InvalidConfig> {
    let (has_target, rule) = match strategy {
        RecoveryStrategy::RestartKernel | RecoveryStrategy::NotifyOperator => return Ok(()),
        RecoveryStrategy::UseReplica => (targets.replica, "is UseReplica, but the kernel has no replica"),
        RecoveryStrategy::Degrade => (targets.degraded, "is Degrade, but the kernel has no degraded path"),
        RecoveryStrategy::Failover => (targets.backup, "is Failover, but the kernel has no backup device"),
    };
    if has_target { Ok(()) } else { Err(InvalidConfig { field, rule }) }
}

#[cfg(test)]
mod tests;
