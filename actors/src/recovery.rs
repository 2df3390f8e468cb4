//! The recovery actor: it supervises the kernels of a runtime and is the one owner of their restarts.
//!
//! | event | from | what it does |
//! |---|---|---|
//! | ready | incarnation | the kernel serves; its breaker is half-open if this is a restart |
//! | failed, terminated | ractor | buries the incarnation, asks the [`RestartMachine`], acts |
//! | hung | slot (timer thread) | kills the actor, abandons its thread, as above |
//! | lane ended, wait over | thread, timer | an ending incarnation is gone at last, or given up: as above |
//! | wait over | timer | starts the next incarnation, or ends a grace time |
//!
//! Nothing here waits: delays and grace times are alarms, and a stale ring is told by its token. A restart begins only after
//! the old incarnation's task and thread have ended and its kernel is dropped, or after it was fenced and counted as
//! abandoned.

mod child;
mod ending;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, Message, SupervisionEvent};
use rustkernel_core::error::DownReason;
use rustkernel_core::restart::{RestartDecision, RestartMachine};
use tokio::sync::oneshot;

pub use child::{KernelState, KernelStatus};
pub use ending::ShutdownReport;

use crate::breaker::BreakerMsg;
use crate::cause::Cause;
use crate::contain::contain;
use crate::kernel_actor::Launch;
use crate::lane::Abandoned;
use crate::links::Links;
use crate::operator::Fact;
use crate::slot::Supervised;
use child::{Child, Phase};
use ending::Shutdown;

pub(crate) enum RecoveryMsg {
    /// Start supervising a kernel. `started` is told when its first incarnation serves, or failed to start.
    Spawn {
        slot: u32,
        plan: ChildPlan,
        started: oneshot::Sender<Result<(), Cause>>,
    },
    /// An incarnation serves.
    Ready {
        slot: u32,
        epoch: u64,
        restored: bool,
    },
    /// An execution hangs; its epoch is void already.
    Hung {
        slot: u32,
        epoch: u64,
    },
    /// A kernel's thread has ended.
    LaneEnded {
        slot: u32,
        epoch: u64,
    },
    /// A draining slot has nothing left.
    Idle,
    /// An alarm of a child rang.
    Alarm {
        slot: u32,
        token: u64,
    },
    /// An alarm of the shutdown rang.
    ShutdownOver,
    /// The operator's words; `done` tells whether the kernel is known and the order made sense.
    Resume {
        slot: u32,
        done: oneshot::Sender<bool>,
    },
    Kill {
        slot: u32,
        done: oneshot::Sender<bool>,
    },
    /// Stop one kernel for good; `drain` finishes what waits first.
    Stop {
        slot: u32,
        drain: bool,
        done: oneshot::Sender<()>,
    },
    /// Drain everything, then stop it in reverse start order.
    Shutdown {
        grace: Duration,
        done: oneshot::Sender<ShutdownReport>,
    },
    /// How the kernels are.
    Status {
        reply: oneshot::Sender<Vec<KernelStatus>>,
    },
}

impl Message for RecoveryMsg {}

/// What it takes to supervise one kernel.
pub(crate) struct ChildPlan {
    pub(crate) kernel: Arc<dyn Supervised>,
    pub(crate) launcher: Box<dyn Launch>,
    pub(crate) machine: RestartMachine,
    /// How long a stopped incarnation may take to end.
    pub(crate) shutdown: Duration,
    /// How long an incarnation may take to start.
    pub(crate) start_limit: Duration,
    /// Frees the kernel's name once it is gone.
    pub(crate) free_name: Box<dyn Fn() + Send + Sync>,
}

pub(crate) struct RecoveryActor {
    pub(crate) links: Weak<Links>,
    pub(crate) abandoned: Abandoned,
    pub(crate) abandoned_limit: usize,
}

pub(crate) struct Recovery {
    links: Arc<Links>,
    abandoned: Abandoned,
    abandoned_limit: usize,
    /// In start order: slots are numbered as they are spawned.
    children: BTreeMap<u32, Child>,
    actors: HashMap<ActorId, u32>,
    shutdown: Option<Shutdown>,
}

type Myself = ActorRef<RecoveryMsg>;

/// No incarnation has this epoch: the first one is 1.
const NO_EPOCH: u64 = 0;

impl Actor for RecoveryActor {
    type Msg = RecoveryMsg;
    type State = Recovery;
    type Arguments = ();

    async fn pre_start(&self, _: Myself, (): ()) -> Result<Recovery, ActorProcessingErr> {
        let links = self.links.upgrade().ok_or("the runtime is gone")?;
        Ok(Recovery {
            links,
            abandoned: self.abandoned.clone(),
            abandoned_limit: self.abandoned_limit,
            children: BTreeMap::new(),
            actors: HashMap::new(),
            shutdown: None,
        })
    }

    async fn handle(
        &self,
        myself: Myself,
        message: RecoveryMsg,
        state: &mut Recovery,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RecoveryMsg::Spawn { slot, plan, started } => {
                if state.shutdown.is_some() {
                    // Dropping `started` says that it is too late. The slot could be found by its name already.
                    plan.kernel.close(DownReason::SupervisorGone);
                    state.links.to_breaker(BreakerMsg::Remove { slot });
                    return Ok(());
                }
                state.children.insert(slot, Child::new(slot, plan, started, &state.links));
                state.start(slot, &myself).await;
            }
            RecoveryMsg::Ready { slot, epoch, restored } => state.ready(slot, epoch, restored),
            RecoveryMsg::Hung { slot, epoch } => state.hung(slot, epoch, &myself).await,
            RecoveryMsg::LaneEnded { slot, epoch } => state.lane_ended(slot, epoch, &myself).await,
            RecoveryMsg::Idle => state.drained(&myself),
            RecoveryMsg::Alarm { slot, token } => state.alarm(slot, token, &myself).await,
            RecoveryMsg::ShutdownOver => state.stop_draining(&myself),
            RecoveryMsg::Resume { slot, done } => {
                // The operator may be gone; so below.
                let _ = done.send(state.resume(slot, &myself).await);
            }
            RecoveryMsg::Kill { slot, done } => {
                let _ = done.send(state.kill(slot));
            }
            RecoveryMsg::Stop { slot, drain, done } => state.stop(slot, drain, done, &myself),
            RecoveryMsg::Shutdown { grace, done } => state.shut_down(grace, done, &myself),
            RecoveryMsg::Status { reply } => {
                let now = state.links.timer.clock().now();
                let _ = reply.send(state.children.values().map(|child| child.status(now)).collect());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: Myself,
        event: SupervisionEvent,
        state: &mut Recovery,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(actor, error) => {
                state.actor_ended(actor.get_id(), Some(error.to_string()), &myself).await;
            }
            SupervisionEvent::ActorTerminated(actor, _, _) => {
                state.actor_ended(actor.get_id(), None, &myself).await
            }
            SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_)
            | SupervisionEvent::PidLifecycleEvent(_) => {}
        }
        Ok(())
    }
}

impl Recovery {
    /// Starts the next incarnation of a kernel.
    async fn start(&mut self, slot: u32, myself: &Myself) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        let incarnation = child.plan.kernel.begin();
        child.epoch = incarnation.epoch;
        child.incarnation = incarnation.number;
        child.life = Some(Arc::clone(&incarnation));
        child.set_phase(Phase::Starting, &self.links);
        child.set_alarm(child.plan.start_limit, &self.links);
        match child.plan.launcher.launch(incarnation, myself.get_cell()).await {
            Ok(launched) => {
                self.actors.insert(launched.actor.get_id(), slot);
                child.actor = Some(launched.actor);
                child.lane = launched.lane;
            }
            Err(error) => {
                let cause = Cause::StartFailed(error.to_string());
                child.plan.kernel.bury(child.epoch, &cause);
                Box::pin(self.failed(slot, cause, myself)).await;
            }
        }
    }

    fn ready(&mut self, slot: u32, epoch: u64, restored: bool) {
        let Some(child) = self.children.get_mut(&slot).filter(|child| child.epoch == epoch) else { return };
        if child.phase != Phase::Starting {
            return;
        }
        child.set_phase(Phase::Serving, &self.links);
        if child.draining {
            child.set_alarm(child.plan.shutdown, &self.links);
        } else {
            child.clear_alarm();
        }
        if child.incarnation > 1 {
            self.links.to_breaker(BreakerMsg::Restarted { slot });
        }
        let fact = Fact::Started { incarnation: child.incarnation, restored };
        self.links.operator.tell(Some(child.plan.kernel.id()), fact);
        child.tell_started(Ok(()));
    }

    /// ractor says that an actor has ended. An actor that was replaced already is of no interest any more.
    async fn actor_ended(&mut self, actor: ActorId, error: Option<String>, myself: &Myself) {
        let Some(slot) = self.actors.remove(&actor) else { return };
        let Some(child) = self.children.get_mut(&slot) else { return };
        if child.actor.as_ref().is_none_or(|current| current.get_id() != actor) {
            return;
        }
        child.actor = None;
        // The end of an actor overtakes what it said before.
        let epoch = child.epoch;
        if let Some(restored) = child.life.as_ref().and_then(|life| life.served()) {
            self.ready(slot, epoch, restored);
        }
        let Some(child) = self.children.get_mut(&slot) else { return };
        let mut cause = match (error, &child.phase) {
            (Some(text), Phase::Starting) => Cause::StartFailed(text),
            (Some(text), _) => Cause::Panicked(text),
            (None, _) => Cause::Killed,
        };
        let thread_ended = child.lane.as_ref().is_none_or(|lane| lane.has_ended());
        if child.is_stopping() && thread_ended {
            self.stopped(slot, false, myself);
            return;
        }
        if !child.plan.kernel.bury(child.epoch, &cause) {
            // The watchdog was first; its message is still on its way.
            cause = Cause::Hung;
        }
        if child.is_stopping() {
            // Its thread is fenced now; it ends, or the grace time does.
            return;
        }
        if child.lane.as_ref().is_some_and(|lane| !lane.has_ended()) {
            // The actor was killed, its thread was not: it has been fenced and gets its grace time to notice.
            child.set_phase(Phase::Ending(cause), &self.links);
            child.set_alarm(child.plan.shutdown, &self.links);
            return;
        }
        self.failed(slot, cause, myself).await;
    }

    async fn lane_ended(&mut self, slot: u32, epoch: u64, myself: &Myself) {
        let Some(child) = self.children.get_mut(&slot).filter(|child| child.epoch == epoch) else { return };
        if child.actor.is_some() {
            return;
        }
        if child.is_stopping() {
            self.stopped(slot, false, myself);
        } else if let Phase::Ending(cause) = child.phase.clone() {
            self.failed(slot, cause, myself).await;
        }
    }

    async fn hung(&mut self, slot: u32, epoch: u64, myself: &Myself) {
        let Some(child) = self.children.get_mut(&slot).filter(|child| child.epoch == epoch) else { return };
        if matches!(child.phase, Phase::Waiting { .. } | Phase::Isolated) {
            // Its thread noticed the fence, and its end came first: the failure has been decided about.
            return;
        }
        if let Some(actor) = child.actor.take() {
            actor.kill();
        }
        let stopping = child.is_stopping();
        self.abandon_lane(slot);
        if stopping {
            self.stopped(slot, true, myself);
        } else {
            self.failed(slot, Cause::Hung, myself).await;
        }
    }

    /// The incarnation is gone for good, or fenced and given up. Decides and acts.
    async fn failed(&mut self, slot: u32, cause: Cause, myself: &Myself) {
        let now = self.links.timer.clock().now();
        let Some(child) = self.children.get_mut(&slot) else { return };
        child.clear_alarm();
        child.lane = None;
        // News of the ended incarnation that is still on its way finds nobody.
        child.epoch = NO_EPOCH;
        child.last_failure = Some(cause.clone());
        let id = child.plan.kernel.id().clone();
        self.links
            .operator
            .tell(Some(&id), Fact::Failed { incarnation: child.incarnation, cause: cause.clone() });
        if child.has_never_served() {
            // The spawner is told and decides; a kernel that never served is not kept.
            child.plan.kernel.close(DownReason::Stopped);
            if let Some(mut child) = self.remove(slot) {
                child.tell_started(Err(cause));
                drop_child(child);
            }
            // A shutdown may have waited for this one only.
            self.drained(myself);
            return;
        }
        if child.plan.launcher.takes_a_thread() && self.abandoned.alive() >= self.abandoned_limit {
            child.plan.machine.hold();
            child.plan.kernel.close(DownReason::AbandonedThreads);
            child.set_phase(Phase::Isolated, &self.links);
            self.links.operator.tell(Some(&id), Fact::Isolated { cause });
            self.drained(myself);
            return;
        }
        match child.plan.machine.on_failure(now) {
            RestartDecision::Restart { at, token, in_window } => {
                let delay = at - now;
                self.links.operator.tell(Some(&id), Fact::Restarting { delay, in_window });
                child.set_phase(Phase::Waiting { token }, &self.links);
                if delay.is_zero() {
                    if child.plan.machine.on_timer(token) {
                        self.start(slot, myself).await;
                    }
                } else {
                    child.plan.kernel.wait_until(at);
                    child.set_alarm(delay, &self.links);
                }
            }
            RestartDecision::Isolate => {
                child.plan.kernel.close(DownReason::Isolated);
                child.set_phase(Phase::Isolated, &self.links);
                self.links.operator.tell(Some(&id), Fact::Isolated { cause });
                self.drained(myself);
            }
            RestartDecision::GiveUp => {
                self.give_up();
                myself.stop(Some("gave up".into()));
            }
            RestartDecision::Ignore => {}
        }
    }

    /// A child's alarm rang: what it waited for has not happened in time, or a delay is over.
    async fn alarm(&mut self, slot: u32, token: u64, myself: &Myself) {
        let Some(child) = self.children.get_mut(&slot).filter(|child| child.is_alarm(token)) else { return };
        match child.phase.clone() {
            Phase::Waiting { token } => {
                if child.plan.machine.on_timer(token) {
                    self.start(slot, myself).await;
                }
            }
            Phase::Starting => {
                let limit = child.plan.start_limit;
                let cause = Cause::StartFailed(format!("not ready after {limit:?}"));
                self.force_end(slot, &cause);
                self.failed(slot, cause, myself).await;
            }
            Phase::Ending(cause) => {
                self.abandon_lane(slot);
                self.failed(slot, cause, myself).await;
            }
            Phase::Stopping => {
                self.force_end(slot, &Cause::Killed);
                self.stopped(slot, true, myself);
            }
            Phase::Serving | Phase::Isolated => {
                if child.draining {
                    self.begin_stop(slot, myself);
                }
            }
        }
    }

    /// Ends an incarnation that does not end by itself: kill, fence, abandon.
    fn force_end(&mut self, slot: u32, cause: &Cause) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        if let Some(actor) = child.actor.take() {
            actor.kill();
        }
        child.plan.kernel.bury(child.epoch, cause);
        self.abandon_lane(slot);
    }

    fn abandon_lane(&mut self, slot: u32) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        let Some(lane) = child.lane.take() else { return };
        if lane.abandon() {
            let fact = Fact::ThreadAbandoned { alive: self.abandoned.alive() };
            self.links.operator.tell(Some(child.plan.kernel.id()), fact);
        }
    }

    async fn resume(&mut self, slot: u32, myself: &Myself) -> bool {
        if self.shutdown.is_some() {
            return false;
        }
        let Some(child) = self.children.get_mut(&slot) else { return false };
        if !child.plan.machine.on_resume() {
            return false;
        }
        self.links.operator.tell(Some(child.plan.kernel.id()), Fact::Resumed);
        self.start(slot, myself).await;
        true
    }

    fn kill(&mut self, slot: u32) -> bool {
        let actor = self.children.get(&slot).and_then(|child| child.actor.as_ref());
        if let Some(actor) = actor {
            actor.kill();
        }
        actor.is_some()
    }

    /// Forgets a kernel and frees its name.
    fn remove(&mut self, slot: u32) -> Option<Child> {
        self.links.to_breaker(BreakerMsg::Remove { slot });
        let child = self.children.remove(&slot)?;
        if let Some(actor) = &child.actor {
            self.actors.remove(&actor.get_id());
        }
        (child.plan.free_name)();
        Some(child)
    }

    /// Every kernel is down: nobody is left to restart them.
    fn give_up(&mut self) {
        self.links.operator.tell(None, Fact::GaveUp);
        for child in self.children.values_mut() {
            child.plan.kernel.close(DownReason::SupervisorGone);
            child.tell_started(Err(Cause::Killed));
        }
    }
}

/// A child holds the user's factory and canary, whose drops may panic.
fn drop_child(child: Child) {
    contain("dropping a kernel's spec", || drop(child));
}

impl fmt::Debug for RecoveryMsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryMsg")
    }
}
