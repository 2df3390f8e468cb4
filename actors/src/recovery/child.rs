//! One supervised kernel, as the recovery actor keeps it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::ActorCell;
use rustkernel_core::KernelId;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::error::DownReason;
use serde::Serialize;
use tokio::sync::oneshot;

use super::{ChildPlan, RecoveryMsg};
use crate::cause::Cause;
use crate::lane::Lane;
use crate::links::Links;
use crate::slot::{Accounts, Incarnation, Life};
use crate::timer::Alarm;

/// Where a child stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its incarnation is being made.
    Starting,
    Serving,
    /// Its actor is gone, its fenced thread not yet.
    Ending(Cause),
    /// The next incarnation starts when the wait with this token ends.
    Waiting {
        token: u64,
    },
    Isolated,
    /// It was told to end.
    Stopping,
}

pub(super) struct Child {
    pub(super) slot: u32,
    pub(super) plan: ChildPlan,
    pub(super) phase: Phase,
    pub(super) since: Timestamp,
    pub(super) epoch: u64,
    pub(super) incarnation: u64,
    pub(super) life: Option<Arc<Incarnation>>,
    pub(super) actor: Option<ActorCell>,
    pub(super) lane: Option<Arc<Lane>>,
    pub(super) last_failure: Option<Cause>,
    /// A drain was asked for; a stop follows when the slot is empty.
    pub(super) draining: bool,
    pub(super) stopped: Vec<oneshot::Sender<()>>,
    started: Option<oneshot::Sender<Result<(), Cause>>>,
    served: bool,
    alarm: Arc<ChildAlarm>,
    alarm_token: u64,
}

impl Child {
    pub(super) fn new(
        slot: u32,
        plan: ChildPlan,
        started: oneshot::Sender<Result<(), Cause>>,
        links: &Arc<Links>,
    ) -> Self {
        Self {
            slot,
            plan,
            phase: Phase::Starting,
            since: links.timer.clock().now(),
            epoch: 0,
            incarnation: 0,
            life: None,
            actor: None,
            lane: None,
            last_failure: None,
            draining: false,
            stopped: Vec::new(),
            started: Some(started),
            served: false,
            alarm: Arc::new(ChildAlarm { slot: Some(slot), links: Arc::downgrade(links) }),
            alarm_token: 0,
        }
    }

    pub(super) fn set_phase(&mut self, phase: Phase, links: &Links) {
        self.served |= phase == Phase::Serving;
        self.phase = phase;
        self.since = links.timer.clock().now();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.phase == Phase::Stopping
    }

    pub(super) fn has_never_served(&self) -> bool {
        !self.served
    }

    /// Answers the spawner, once.
    pub(super) fn tell_started(&mut self, started: Result<(), Cause>) {
        if let Some(reply) = self.started.take() {
            // The spawner may be gone.
            let _ = reply.send(started);
        }
    }

    /// Sets the child's one alarm, replacing any other.
    pub(super) fn set_alarm(&mut self, after: Duration, links: &Links) {
        self.alarm_token += 1;
        links.schedule_after(after, &self.alarm, self.alarm_token);
    }

    pub(super) fn clear_alarm(&mut self) {
        self.alarm_token += 1;
    }

    pub(super) fn is_alarm(&self, token: u64) -> bool {
        self.alarm_token == token
    }

    pub(super) fn status(&self, now: Timestamp) -> KernelStatus {
        let snapshot = self.plan.kernel.snapshot();
        let gate = self.plan.kernel.gate();
        KernelStatus {
            id: self.plan.kernel.id().clone(),
            state: self.state(snapshot.life),
            since: now - self.since,
            incarnation: self.incarnation,
            restarts: self.plan.machine.total(),
            restarts_in_window: self.plan.machine.in_window(now),
            max_restarts: self.plan.machine.policy().max_restarts,
            last_failure: self.last_failure.clone(),
            breaker: gate.state_name(),
            breaker_failures: gate.failures(),
            rejected: gate.rejected(),
            stale_outcomes: gate.stale(),
            accounts: snapshot.accounts,
            waiting: snapshot.waiting,
            waiting_bytes: snapshot.waiting_bytes,
            running_for: snapshot.running_since.filter(|since| !since.is_zero()).map(|since| now - since),
            blocked_for: snapshot.blocked_since.filter(|since| since.as_nanos() > 1).map(|since| now - since),
            checkpoint_bytes: snapshot.checkpoint_bytes,
        }
    }

    fn state(&self, life: Life) -> KernelState {
        match &self.phase {
            Phase::Starting => KernelState::Starting,
            Phase::Serving if self.draining || life == Life::Draining => KernelState::Draining,
            Phase::Serving => KernelState::Serving,
            Phase::Ending(_) | Phase::Waiting { .. } => KernelState::Restarting,
            Phase::Isolated => match life {
                Life::Down(DownReason::AbandonedThreads) => KernelState::OutOfThreads,
                Life::Down(_) | Life::Starting | Life::Serving | Life::Waiting(_) | Life::Draining => {
                    KernelState::Isolated
                }
            },
            Phase::Stopping => KernelState::Stopping,
        }
    }
}

/// Rings for a child, or for the shutdown of all.
pub(super) struct ChildAlarm {
    slot: Option<u32>,
    links: Weak<Links>,
}

impl ChildAlarm {
    pub(super) fn shutdown(links: &Arc<Links>) -> Self {
        Self { slot: None, links: Arc::downgrade(links) }
    }
}

impl Alarm for ChildAlarm {
    fn ring(&self, _: Timestamp, token: u64) {
        let Some(links) = self.links.upgrade() else { return };
        links.to_recovery(match self.slot {
            Some(slot) => RecoveryMsg::Alarm { slot, token },
            None => RecoveryMsg::ShutdownOver,
        });
    }
}

/// What a kernel is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelState {
    /// An incarnation is being made.
    Starting,
    /// It takes requests.
    Serving,
    /// It has failed and will be back.
    Restarting,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// Its restart budget is used up; an operator has to resume it.
    Isolated,
    /// Too many abandoned threads; an operator has to resume it.
    OutOfThreads,
    /// It was told to end.
    Stopping,
}

/// How a kernel is.
#[derive(Clone, Debug, Serialize)]
pub struct KernelStatus {
    /// Which kernel.
    pub id: KernelId,
    /// What it is doing.
    pub state: KernelState,
    /// For how long it has been doing that.
    pub since: Duration,
    /// The number of its current life, from 1.
    pub incarnation: u64,
    /// Restarts since it was spawned.
    pub restarts: u64,
    /// Restarts that count against the budget now.
    pub restarts_in_window: u32,
    /// The budget.
    pub max_restarts: u32,
    /// Why the last incarnation ended.
    pub last_failure: Option<Cause>,
    /// The state of its breaker.
    pub breaker: &'static str,
    /// Consecutive failures counted by its closed breaker.
    pub breaker_failures: u32,
    /// Requests its breaker refused.
    pub rejected: u64,
    /// Outcomes that came too late for their breaker generation.
    pub stale_outcomes: u64,
    /// What became of its requests.
    pub accounts: Accounts,
    /// Requests that wait.
    pub waiting: usize,
    /// Payload bytes of all unanswered requests.
    pub waiting_bytes: usize,
    /// For how long the current execution has been running, where that is measured.
    pub running_for: Option<Duration>,
    /// For how long the current execution has been blocking its thread.
    pub blocked_for: Option<Duration>,
    /// The size of the newest checkpoint.
    pub checkpoint_bytes: Option<usize>,
}
