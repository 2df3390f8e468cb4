//! The recovery actor: one node of the restart tree. It supervises kernels, tasks and other recovery actors, and is the one owner of
//! their restarts.
//!
//! What is decided is decided in `core`: whom to start, stop and restart by the
//! [`SupervisorMachine`], what a kernel's failure leads to by its
//! [`RecoveryMachine`](rustkernel_core::recovery::RecoveryMachine). This actor tells them what happened and does what they say
//! ([`perform`](mod@perform)).
//!
//! | event | from | what it does |
//! |---|---|---|
//! | ready, took over | a kernel's life | the kernel serves, or has another present life |
//! | failed, terminated | ractor | buries the life, asks the machines, acts |
//! | hung, lost | slot (timer's thread, a domain's) | kills the actor, abandons its thread, as above |
//! | lane ended, alarm | thread, timer | an ending life is gone at last, or given up: as above |
//! | tick | timer | a delay or a grace time of the machine is over |
//!
//! Nothing here waits: delays and grace times are alarms, and a ring for what has changed since finds nothing due. A restart begins only
//! after the old life's task and thread have ended and its kernel is dropped, or after it was fenced and counted as abandoned.

mod ending;
mod failure;
mod halt;
mod kernel;
mod life;
mod message;
mod node;
mod order;
mod perform;
mod remains;
mod status;

use std::sync::{Arc, Weak};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use rustkernel_core::clock::Timestamp;
use rustkernel_core::supervision::{ChildKey, ChildState, End, SupervisorMachine};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use ending::ShutdownReport;
pub use message::{ChildError, HandOverError};
pub(crate) use message::{Order, RecoveryMsg};
pub(crate) use node::{Arriving, Declaration, Declared, KernelPlan, Node, Version};
pub(crate) use status::SupervisorFacts;
pub use status::{Branch, ChildPhase, ChildStatus, KernelState, KernelStatus, Tree};

use crate::cause::Cause;
use crate::counted::CountedMap;
use crate::home::Home;
use crate::lane::Abandoned;
use crate::links::Links;
use crate::task::Control;
use crate::timer::Alarm;
use ending::Shutdown;
use life::{KernelChild, Stage};

/// What all recovery actors of a runtime share.
#[derive(Clone)]
pub(crate) struct Env {
    pub(crate) links: Arc<Links>,
    pub(crate) abandoned: Abandoned,
    pub(crate) abandoned_limit: usize,
    pub(crate) handle: Handle,
}

pub(crate) struct RecoveryActor {
    /// Weak in the root, so that a runtime that is dropped ends.
    pub(crate) links: Weak<Links>,
    pub(crate) abandoned: Abandoned,
    pub(crate) abandoned_limit: usize,
    pub(crate) handle: Handle,
    pub(crate) node: Arc<Node>,
    /// The supervisor above, and what this one is to it; `None` for the root.
    pub(crate) above: Option<Above>,
    /// Told when the first children are up.
    pub(crate) booted: std::sync::Mutex<Option<oneshot::Sender<()>>>,
}

#[derive(Clone)]
pub(crate) struct Above {
    pub(crate) home: Arc<Home>,
    pub(crate) child: ChildKey,
    pub(crate) life: u64,
}

pub(crate) struct Recovery {
    env: Env,
    node: Arc<Node>,
    above: Option<Above>,
    booted: Option<oneshot::Sender<()>>,
    machine: SupervisorMachine,
    children: CountedMap<ChildKey, Child>,
    /// Kernels by the number of their slot.
    slots: CountedMap<u32, ChildKey>,
    /// Rings for the machine, and what it is set to.
    alarm: Arc<TickAlarm>,
    armed: Timestamp,
    shutdown: Option<Shutdown>,
    /// It is the root, and everybody knows why it ends.
    end_is_told: bool,
}

/// One child.
struct Child {
    declared: Arc<Declared>,
    body: Body,
    /// Who waits for it to be up.
    started: Vec<oneshot::Sender<Result<(), ChildError>>>,
    /// Who waits for it to be gone.
    stopped: Vec<Stopped>,
    /// It is to be forgotten when it is down.
    leaves: bool,
    last_failure: Option<Cause>,
}

enum Stopped {
    Kernel(oneshot::Sender<()>),
    Child(oneshot::Sender<Result<(), rustkernel_core::supervision::Refusal>>),
}

enum Body {
    Kernel(Box<KernelChild>),
    Task(Option<(ActorCell, Arc<Control>)>),
    Supervisor(Option<ActorCell>),
}

/// Rings the recovery actor when its machine has to look again.
struct TickAlarm(Weak<Home>);

impl Alarm for TickAlarm {
    fn ring(&self, _: Timestamp, _: u64) {
        if let Some(home) = self.0.upgrade() {
            home.tell(RecoveryMsg::Tick);
        }
    }
}

type Myself = ActorRef<RecoveryMsg>;

impl Actor for RecoveryActor {
    type Msg = RecoveryMsg;
    type State = Recovery;
    type Arguments = ();

    async fn pre_start(&self, myself: Myself, (): ()) -> Result<Recovery, ActorProcessingErr> {
        let links = self.links.upgrade().ok_or("the runtime is gone")?;
        let node = Arc::clone(&self.node);
        // Of a life that its supervisor did not live to hear of.
        node.take_ended();
        let children = node.children();
        let specs: Vec<_> = children.iter().map(|child| child.spec.clone()).collect();
        let seed = links.seed ^ fastrand::u64(..);
        let machine = SupervisorMachine::try_new(node.config.clone(), specs, seed)?;
        let alarm = Arc::new(TickAlarm(Arc::downgrade(&node.home)));
        let env = Env {
            links,
            abandoned: self.abandoned.clone(),
            abandoned_limit: self.abandoned_limit,
            handle: self.handle.clone(),
        };
        let mut state = Recovery {
            env,
            above: self.above.clone(),
            booted: self.booted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take(),
            machine,
            children: CountedMap::default(),
            slots: CountedMap::default(),
            alarm,
            armed: Timestamp::NEVER,
            shutdown: None,
            end_is_told: false,
            node: Arc::clone(&node),
        };
        for declared in children {
            if let Some(key) = state.machine.key(declared.name()) {
                state.adopt(key, declared);
            }
        }
        node.home.move_in(myself.clone());
        myself.send_message(RecoveryMsg::Boot)?;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: Myself,
        message: RecoveryMsg,
        state: &mut Recovery,
    ) -> Result<(), ActorProcessingErr> {
        state.on_message(message, &myself).await;
        state.pump(&myself).await;
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
                state.actor_ended(actor.get_id(), None, &myself).await;
            }
            SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_)
            | SupervisionEvent::PidLifecycleEvent(_) => return Ok(()),
        }
        state.pump(&myself).await;
        Ok(())
    }
}

impl Recovery {
    async fn on_message(&mut self, message: RecoveryMsg, myself: &Myself) {
        let now = self.now();
        match message {
            RecoveryMsg::Boot => self.machine.boot(now),
            RecoveryMsg::Ready { slot, number, restored } => self.life_ready(slot, number, restored),
            RecoveryMsg::TookOver { slot } => self.see_who_took_over(slot),
            RecoveryMsg::Serves { slot, number } => self.life_serves(slot, number),
            RecoveryMsg::TurnedAway { slot, number, reason } => self.turned_away(slot, number, reason),
            RecoveryMsg::Hung { slot, number } => self.lost(slot, number, Cause::Hung, myself).await,
            RecoveryMsg::Lost { slot, number, cause } => self.lost(slot, number, cause, myself).await,
            RecoveryMsg::LaneEnded { slot, number } => self.lane_ended(slot, number, myself).await,
            RecoveryMsg::Idle { slot } => self.idle(slot, now),
            RecoveryMsg::Pressed { slot } => self.pressed(slot, myself).await,
            RecoveryMsg::Alarm { slot } => self.alarm(slot, myself).await,
            RecoveryMsg::Tick => {
                self.armed = Timestamp::NEVER;
                self.machine.on_timer(now);
            }
            RecoveryMsg::ShutdownOver => self.stop_draining(now),
            RecoveryMsg::ChildReady { child, life } => {
                self.machine.on_started(child, life, now);
                self.tell_started(child);
            }
            RecoveryMsg::Reaped { actor } => self.reaped(actor, now),
            RecoveryMsg::End => self.machine.shut_down(now),
            RecoveryMsg::Order(order) => self.obey(order, myself).await,
        }
    }

    fn now(&self) -> Timestamp {
        self.env.links.timer.clock().now()
    }

    /// Takes a child in, not yet started.
    fn adopt(&mut self, key: ChildKey, declared: Arc<Declared>) {
        let body = match &declared.body {
            Declaration::Kernel(plan) => {
                self.slots.insert(plan.slot, key);
                let plan = Arc::clone(plan);
                if !self.env.links.is_draining() {
                    plan.kernel.undrain();
                }
                Body::Kernel(Box::new(KernelChild::new(plan, &self.env.links, &self.node.home)))
            }
            Declaration::Task(_) => Body::Task(None),
            Declaration::Supervisor(_) => Body::Supervisor(None),
        };
        let child = Child {
            declared,
            body,
            started: Vec::new(),
            stopped: Vec::new(),
            leaves: false,
            last_failure: None,
        };
        self.children.insert(key, child);
    }

    fn kernel(&mut self, key: ChildKey) -> Option<&mut KernelChild> {
        match &mut self.children.get_mut(&key)?.body {
            Body::Kernel(kernel) => Some(kernel),
            Body::Task(_) | Body::Supervisor(_) => None,
        }
    }

    fn kernel_of(&mut self, slot: u32) -> Option<(ChildKey, &mut KernelChild)> {
        let key = *self.slots.get(&slot)?;
        Some((key, self.kernel(key)?))
    }

    /// ractor says that an actor has ended. One that was replaced or given up already is of no interest any more.
    async fn actor_ended(&mut self, actor: ActorId, error: Option<String>, myself: &Myself) {
        let Some(alive) = self.node.take_alive(actor) else { return };
        match &alive.body {
            node::Body::Kernel(..) => {
                if alive.has_thread() {
                    self.node.keep(alive.clone());
                }
                if let Some(error) = &error {
                    self.note_failed_stop(alive.child, alive.number, error);
                }
                self.life_actor_ended(alive.child, alive.number, error, myself).await;
            }
            node::Body::Task => self.task_ended(alive.child, alive.number, error),
            node::Body::Supervisor(node) => {
                let node = Arc::clone(node);
                self.supervisor_ended(alive, node, error);
            }
        }
    }

    /// The life of a kernel has failed. If it was told to end, nobody else will say so.
    fn note_failed_stop(&mut self, key: ChildKey, number: u64, error: &str) {
        self.catch_up(key, number);
        let stopping = self.machine.child(key).is_some_and(|view| view.state == ChildState::Stopping);
        let Some(kernel) = self.kernel(key).filter(|_| stopping) else { return };
        let Some(life) = kernel.present().filter(|life| life.number() == number) else { return };
        let error = error.to_owned();
        let cause = match life.stage {
            Stage::Starting | Stage::TakingOver => Cause::StartFailed(error),
            Stage::Ready | Stage::Ending(_) => Cause::Panicked(error),
        };
        self.note_failure(key, cause);
    }

    /// All children are gone.
    fn end(&mut self, end: End, myself: &Myself) {
        let cause = self.cause_of(end);
        if self.above.is_none() {
            return self.end_of_root(end, myself);
        }
        self.node.set_ended(node::Ended { exit: end.exit(), cause });
        // Those that came at run time do not come back with the supervisor.
        for guest in self.node.take_guests() {
            guest.close(rustkernel_core::error::DownReason::SupervisorGone);
            guest.free_names();
        }
        myself.stop(None);
    }
}

impl Drop for Recovery {
    /// Its children hold users' factories, whose drops may panic, and who drops this is the supervisor above.
    fn drop(&mut self) {
        crate::contain::contain("dropping children", || self.children.clear());
    }
}
