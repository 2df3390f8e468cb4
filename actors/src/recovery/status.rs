//! How the children of a supervisor are.

use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::error::{BreakerScope, DownReason};
use rustkernel_core::supervision::{ChildKind, ChildState, Restart, Strategy};
use rustkernel_core::{DeviceId, KernelId};
use serde::Serialize;

use super::life::{KernelChild, Phase};
use super::node::Node;
use crate::cause::Cause;
use crate::slot::{Accounts, ErrorCounts, Latency, Life as SlotLife};

/// What a kernel is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelState {
    /// An incarnation is being made.
    Starting,
    /// It takes requests.
    Serving,
    /// Its degraded path takes requests.
    Degraded,
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
    /// It is down until its supervisor is told to restart it.
    Stopped,
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
    /// Where that life runs.
    pub device: DeviceId,
    /// Standbys that are warm.
    pub standbys: usize,
    /// Restarts and rebuilds since it was spawned.
    pub restarts: u64,
    /// Those that count against the budget now.
    pub restarts_in_window: u32,
    /// The budget.
    pub max_restarts: u32,
    /// Why the last incarnation ended.
    pub last_failure: Option<Cause>,
    /// The state of its breaker.
    pub breaker: &'static str,
    /// Consecutive failures counted by its closed breaker.
    pub breaker_failures: u32,
    /// What it lives in whose breaker is open, too.
    pub refused_by: Option<BreakerScope>,
    /// Requests that its breaker refused, or that of what it lives in.
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
    /// The newest checkpoint; they are counted from 1.
    pub checkpoint: Option<u64>,
    /// Its size, once it has become bytes.
    pub checkpoint_bytes: Option<usize>,
    /// How old it is; `None` for one that an earlier process has left.
    pub checkpoint_age: Option<Duration>,
    /// What is wrong with its checkpoints.
    pub checkpoint_trouble: Option<String>,
    /// How long its executions take, where that was measured.
    pub latency: Option<Box<Latency>>,
    /// Requests that were not accepted, by why.
    pub refused: ErrorCounts,
    /// Accepted requests that got no answer, by why.
    pub failed: ErrorCounts,
}

/// One child of a supervisor: a line of `which_children`.
#[derive(Clone, Debug, Serialize)]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ChildKind,
    /// Which of its ends make the supervisor start it again.
    pub restart: Restart,
    /// Whether its end may end the supervisor.
    pub significant: bool,
    /// Where it stands.
    pub state: ChildPhase,
    /// The number of its current or last life under this supervisor, from 1; 0 before the first.
    pub life: u64,
    /// Why its last life ended.
    pub last_failure: Option<Cause>,
    /// More about a kernel.
    pub kernel: Option<KernelStatus>,
}

/// Where a child stands, as its supervisor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildPhase {
    /// Not running, until somebody or a group restart starts it.
    Down,
    /// About to be started, after a delay or when its turn in the group comes.
    Restarting,
    /// Being started.
    Starting,
    /// Running.
    Up,
    /// Told to end.
    Stopping,
    /// Held by its own policy until an operator resumes it.
    Held,
}

/// A supervisor with everything below it.
#[derive(Clone, Debug, Serialize)]
pub struct Tree {
    /// Its name; the runtime's own is `root`.
    pub name: String,
    /// Who is restarted when one child fails.
    pub strategy: Strategy,
    /// Restarts allowed within the period; `None` for no limit.
    pub intensity: Option<u32>,
    /// The period.
    pub period: Duration,
    /// Restarts within the present period; `None` while it is not running.
    pub restarts_in_period: Option<u32>,
    /// Restarts since it began.
    pub restarts: u64,
    /// Its children in start order, each supervisor with its own.
    pub children: Vec<Branch>,
}

/// A child in a [`Tree`].
#[derive(Clone, Debug, Serialize)]
pub struct Branch {
    /// The child.
    #[serde(flatten)]
    pub child: ChildStatus,
    /// What is below it, if it is a supervisor.
    pub supervisor: Option<Tree>,
}

/// How a supervisor itself is, and who is below it.
pub(crate) struct SupervisorFacts {
    pub(crate) restarts_in_period: u32,
    pub(crate) restarts: u64,
    pub(crate) children: Vec<(ChildStatus, Option<Arc<Node>>)>,
}

impl From<ChildState> for ChildPhase {
    fn from(state: ChildState) -> Self {
        match state {
            ChildState::Down => Self::Down,
            ChildState::Planned | ChildState::Delayed { .. } => Self::Restarting,
            ChildState::Starting => Self::Starting,
            ChildState::Up => Self::Up,
            ChildState::Stopping => Self::Stopping,
            ChildState::Held => Self::Held,
        }
    }
}

impl KernelChild {
    pub(super) fn status(
        &self,
        now: Timestamp,
        state: ChildState,
        last_failure: Option<Cause>,
    ) -> KernelStatus {
        let snapshot = self.plan.kernel.snapshot();
        let gate = self.plan.kernel.gate();
        let present = self.present().map(|life| &life.incarnation);
        KernelStatus {
            id: self.plan.kernel.id().clone(),
            state: self.state(snapshot.vitals.life, state),
            since: now - self.since,
            incarnation: present.map_or(snapshot.incarnation, |incarnation| incarnation.number),
            device: self.plan.device_of(present.map_or(self.variant, |incarnation| incarnation.variant)),
            standbys: snapshot.standbys,
            restarts: self.recovery.total(),
            restarts_in_window: self.recovery.in_window(now),
            max_restarts: self.recovery.policy().max_restarts,
            last_failure,
            breaker: gate.state_name(),
            breaker_failures: gate.failures(),
            refused_by: snapshot.vitals.refused_by,
            rejected: gate.rejected() + snapshot.refused_by_shared,
            stale_outcomes: gate.stale(),
            accounts: snapshot.accounts,
            waiting: snapshot.waiting,
            waiting_bytes: snapshot.waiting_bytes,
            running_for: snapshot.running_since.filter(|since| !since.is_zero()).map(|since| now - since),
            blocked_for: snapshot
                .vitals
                .blocked_since
                .filter(|since| since.as_nanos() > 1)
                .map(|since| now - since),
            checkpoint: snapshot.checkpoint,
            checkpoint_bytes: snapshot.checkpoint_bytes,
            checkpoint_age: snapshot.checkpoint_taken.map(|taken| now - taken),
            checkpoint_trouble: snapshot.vitals.checkpoint_trouble,
            latency: snapshot.latency,
            refused: snapshot.refused,
            failed: snapshot.failed,
        }
    }

    fn state(&self, life: SlotLife, state: ChildState) -> KernelState {
        if state == ChildState::Down && self.phase != Phase::Isolated {
            return KernelState::Stopped;
        }
        match self.phase {
            Phase::Starting => KernelState::Starting,
            Phase::Serving if self.draining || life == SlotLife::Draining => KernelState::Draining,
            Phase::Serving | Phase::Waiting if self.is_degraded() => KernelState::Degraded,
            Phase::Serving => KernelState::Serving,
            Phase::Waiting => KernelState::Restarting,
            Phase::Isolated if life == SlotLife::Down(DownReason::AbandonedThreads) => {
                KernelState::OutOfThreads
            }
            Phase::Isolated => KernelState::Isolated,
            Phase::Stopping => KernelState::Stopping,
        }
    }
}
