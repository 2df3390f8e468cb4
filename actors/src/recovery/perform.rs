//! Doing what the machine says, child by child.

use std::sync::{Arc, Weak};

use ractor::{Actor, ActorId};
use rustkernel_core::clock::Timestamp;
use rustkernel_core::error::DownReason;
use rustkernel_core::supervision::{Action, ChildKey, ChildState, ChildView, End, Exit, Shutdown};

use super::Stopped;
use super::life::Life;
use super::node::{Alive, Body as AliveBody};
use super::{
    Above, Body, Child, ChildError, Declaration, Myself, Node, Recovery, RecoveryActor, RecoveryMsg,
};
use crate::cause::Cause;
use crate::contain::contain;
use crate::operator::Fact;
use crate::timer::Alarm;

impl Recovery {
    /// Does everything that the machine wants done, and sets its alarm.
    pub(super) async fn pump(&mut self, myself: &Myself) {
        while let Some(action) = self.machine.next_action() {
            self.perform(action, myself).await;
        }
        self.give_up_if_ending();
        let due = self.machine.next_deadline().unwrap_or(Timestamp::NEVER);
        if due < self.armed {
            self.armed = due;
            let alarm: Weak<dyn Alarm> = Arc::downgrade(&self.alarm) as Weak<dyn Alarm>;
            self.env.links.timer.schedule(due, alarm, 0);
        }
    }

    async fn perform(&mut self, action: Action, myself: &Myself) {
        match action {
            Action::Start { child, life } => self.start(child, life, myself).await,
            Action::Stop { child } => self.stop(child),
            Action::Kill { child } => self.kill(child),
            Action::Abandon { child } => self.abandon(child),
            Action::Restarting { child, at, in_period } => self.restarting(child, at, in_period),
            Action::Settled { child } => self.settled(child),
            Action::Forget { child } => self.forget(child),
            Action::Booted => self.has_booted(),
            Action::End(end) => self.end(end, myself),
        }
    }

    async fn start(&mut self, key: ChildKey, life: u64, myself: &Myself) {
        let Some(child) = self.children.get(&key) else { return };
        let declared = Arc::clone(&child.declared);
        let started = match &declared.body {
            Declaration::Kernel(_) => return self.start_kernel(key, life, myself).await,
            Declaration::Task(plan) => {
                let started = plan.start(key, life, myself).await;
                started.map(|started| {
                    let running = Some((started.actor.clone(), started.control));
                    (started.actor, Body::Task(running), AliveBody::Task, started.ready)
                })
            }
            Declaration::Supervisor(node) => {
                let actor = self.recovery_actor(node, key, life);
                let spawned = Actor::spawn_linked(None, actor, (), myself.get_cell()).await;
                spawned.map(|(actor, _)| {
                    let cell = actor.get_cell();
                    let body = AliveBody::Supervisor(Arc::clone(node));
                    (cell.clone(), Body::Supervisor(Some(cell)), body, false)
                })
            }
        };
        let now = self.now();
        match started {
            Ok((actor, body, alive, ready)) => {
                self.node.add_alive(Alive { child: key, number: life, actor, lane: None, body: alive });
                if let Some(child) = self.children.get_mut(&key) {
                    child.body = body;
                }
                if ready {
                    self.machine.on_started(key, life, now);
                }
            }
            Err(error) => self.start_failed(key, life, Cause::StartFailed(error.to_string()), now),
        }
        self.tell_started(key);
    }

    /// A task or a supervisor has not started.
    pub(super) fn start_failed(&mut self, key: ChildKey, life: u64, cause: Cause, now: Timestamp) {
        self.note_failure(key, cause);
        self.machine.on_start_failed(key, life, None, now);
    }

    fn recovery_actor(&self, node: &Arc<Node>, child: ChildKey, life: u64) -> RecoveryActor {
        RecoveryActor {
            links: Arc::downgrade(&self.env.links),
            abandoned: self.env.abandoned.clone(),
            abandoned_limit: self.env.abandoned_limit,
            handle: self.env.handle.clone(),
            node: Arc::clone(node),
            above: Some(Above { home: Arc::clone(&self.node.home), child, life }),
            booted: std::sync::Mutex::new(None),
        }
    }

    fn stop(&mut self, key: ChildKey) {
        let Some(child) = self.children.get_mut(&key) else { return };
        match &child.body {
            Body::Kernel(_) => self.stop_kernel(key),
            Body::Task(Some((_, control))) => control.stop(),
            Body::Supervisor(Some(_)) => {
                if let Declaration::Supervisor(node) = &child.declared.body {
                    node.home.tell(RecoveryMsg::End);
                }
            }
            Body::Task(None) | Body::Supervisor(None) => self.is_gone(key),
        }
    }

    fn kill(&mut self, key: ChildKey) {
        let has_grace = |view: ChildView<'_>| view.spec.rules.shutdown != Shutdown::Brutal;
        if self.machine.child(key).is_some_and(has_grace) {
            self.note_failure(key, Cause::Killed);
        }
        let Some(child) = self.children.get_mut(&key) else { return };
        match &child.body {
            Body::Kernel(_) => self.kill_kernel(key),
            Body::Task(Some((actor, control))) => {
                control.stop();
                actor.kill();
            }
            Body::Supervisor(Some(actor)) => actor.kill(),
            Body::Task(None) | Body::Supervisor(None) => self.is_gone(key),
        }
    }

    /// A child that has nothing alive was told to end.
    fn is_gone(&mut self, key: ChildKey) {
        let now = self.now();
        if let Some(life) = self.machine.child(key).map(|child| child.life) {
            self.machine.on_exit(key, life, Exit::Shutdown, None, now);
        }
    }

    /// What does not even end when killed is left to itself. Its late end finds nobody.
    fn abandon(&mut self, key: ChildKey) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let name = Arc::clone(child.declared.name());
        match &mut child.body {
            Body::Kernel(_) => self.abandon_kernel(key),
            Body::Task(running) => {
                if let Some((actor, _)) = running.take() {
                    self.node.take_alive(actor.get_id());
                }
            }
            Body::Supervisor(running) => {
                if let Some(actor) = running.take() {
                    self.node.take_alive(actor.get_id());
                }
            }
        }
        self.env.links.operator.tell_child(&self.node.name, &name, Fact::ChildAbandoned);
    }

    fn restarting(&mut self, key: ChildKey, at: Timestamp, in_period: u32) {
        let now = self.now();
        let Some(child) = self.children.get(&key) else { return };
        match &child.declared.body {
            // Kernels report their own restarts, with their own budgets.
            Declaration::Kernel(_) => {}
            Declaration::Task(_) => {}
            Declaration::Supervisor(node) => {
                for plan in node.kernels() {
                    plan.kernel.wait_until(at, at);
                }
            }
        }
        if !child.declared.is_kernel() {
            let fact = Fact::Restarting { delay: at - now, in_window: in_period };
            self.env.links.operator.tell_child(&self.node.name, child.declared.name(), fact);
        }
    }

    /// The child is down, and nobody is about to start it.
    fn settled(&mut self, key: ChildKey) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.declared.close(DownReason::Stopped);
        let name = Arc::clone(child.declared.name());
        let fact = Fact::Stopped;
        self.env.links.operator.tell_child(&self.node.name, &name, fact);
        self.reset_kernel(key);
        if let Some(kernel) = self.kernel(key) {
            // Whoever starts it again means it: also one that was held for an operator.
            kernel.recovery.on_resume();
            kernel.asked = false;
        }
        self.tell_started(key);
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.leaves {
            self.machine.forget_child(key);
            return;
        }
        child.tell_stopped();
    }

    /// The child is no child any more.
    fn forget(&mut self, key: ChildKey) {
        let Some(mut child) = self.children.remove(&key) else { return };
        if let Body::Kernel(kernel) = &child.body {
            self.slots.remove(&kernel.plan.slot);
        }
        child.declared.close(DownReason::Stopped);
        // What was declared with the supervisor keeps its names: it comes back with the next life.
        if self.node.remove_guest(key).is_some() {
            child.declared.free_names();
        }
        if !child.leaves {
            self.env.links.operator.tell_child(&self.node.name, child.declared.name(), Fact::Stopped);
        }
        let failure = child.last_failure.take();
        for started in child.started.drain(..) {
            let cause = failure.clone().unwrap_or(Cause::Killed);
            // Who asked may be gone; so below.
            let _ = started.send(Err(ChildError::Failed(cause)));
        }
        child.tell_stopped();
        // It holds the user's factory and canary, whose drops may panic.
        contain("dropping a child's spec", || drop(child));
    }

    fn has_booted(&mut self) {
        if let Some(Above { home, child, life }) = &self.above {
            home.tell(RecoveryMsg::ChildReady { child: *child, life: *life });
        }
        if let Some(booted) = self.booted.take() {
            let _ = booted.send(());
        }
    }

    /// A task is gone.
    pub(super) fn task_ended(&mut self, key: ChildKey, life: u64, error: Option<String>) {
        let now = self.now();
        let Some(child) = self.children.get_mut(&key) else { return };
        let Body::Task(running) = &mut child.body else { return };
        let control = running.take().map(|(_, control)| control);
        let done = control.as_ref().is_some_and(|control| control.is_done());
        let returned = control.as_ref().and_then(|control| control.error().map(str::to_owned));
        if control.is_some_and(|control| control.is_up()) {
            // Its end overtakes what it said before.
            self.machine.on_started(key, life, now);
            self.tell_started(key);
        }
        let stopping = self.machine.child(key).is_some_and(|view| view.state == ChildState::Stopping);
        // ractor reports a killed actor as one that ended in peace.
        let starting = self.machine.child(key).is_some_and(|view| view.state == ChildState::Starting);
        let cause = match error {
            Some(error) => Some(returned.map_or(Cause::Panicked(error), Cause::Exited)),
            None if done && starting => Some(Cause::StartFailed("it ended before it was up".into())),
            None if done => None,
            None => Some(Cause::Killed),
        };
        let exit = if cause.is_some() { Exit::Abnormal } else { Exit::Normal };
        // A kill that was meant is no failure, and one after its grace has been noted.
        if let Some(cause) = cause.filter(|cause| !stopping || *cause != Cause::Killed) {
            self.note_failure(key, cause);
        }
        self.machine.on_exit(key, life, exit, None, now);
        self.tell_started(key);
    }

    /// A supervisor below is gone. If it did not end its children itself, they are ended before anything follows.
    pub(super) fn supervisor_ended(&mut self, alive: Alive, node: Arc<Node>, error: Option<String>) {
        let now = self.now();
        let (key, life, actor) = (alive.child, alive.number, alive.actor.get_id());
        if let Some(ended) = node.take_ended() {
            if let Some(child) = self.children.get_mut(&key) {
                child.body = Body::Supervisor(None);
            }
            let stopping = self.machine.child(key).is_some_and(|view| view.state == ChildState::Stopping);
            if !stopping {
                self.note_failure(key, ended.cause);
            }
            self.machine.on_exit(key, life, ended.exit, None, now);
            self.tell_started(key);
            return;
        }
        let stopping = self.machine.child(key).is_some_and(|view| view.state == ChildState::Stopping);
        if !stopping || error.is_some() {
            self.note_failure(key, error.map_or(Cause::Killed, Cause::Panicked));
        }
        // It counts as alive until nothing is left of it: this supervisor may die first.
        self.node.add_alive(alive);
        let (home, env) = (Arc::clone(&self.node.home), self.env.clone());
        self.env.handle.spawn(async move {
            node.reap(env).await;
            home.tell(RecoveryMsg::Reaped { actor });
        });
    }

    pub(super) fn reaped(&mut self, actor: ActorId, now: Timestamp) {
        let Some(Alive { child: key, number, .. }) = self.node.take_alive(actor) else { return };
        if let Some(child) = self.children.get_mut(&key) {
            child.body = Body::Supervisor(None);
        }
        self.machine.on_exit(key, number, Exit::Abnormal, None, now);
        self.tell_started(key);
    }

    /// A life has failed: before it was up, while it ran, or over its end.
    pub(super) fn note_failure(&mut self, key: ChildKey, cause: Cause) {
        let view = self.machine.child(key);
        let state = view.as_ref().map_or(ChildState::Up, |view| view.state);
        let life = view.map_or(0, |view| view.life);
        let present = self.kernel(key).and_then(|kernel| kernel.present().map(Life::number));
        let incarnation = present.unwrap_or(life);
        let cause = if state == ChildState::Starting { cause.of_start() } else { cause };
        let Some(child) = self.children.get_mut(&key) else { return };
        child.last_failure = Some(cause.clone());
        let stops = state == ChildState::Stopping;
        let fact =
            if stops { Fact::StopFailed { incarnation, cause } } else { Fact::Failed { incarnation, cause } };
        self.env.links.operator.tell_child(&self.node.name, child.declared.name(), fact);
    }

    /// Answers who waits for the child to be up, if that is decided.
    pub(super) fn tell_started(&mut self, key: ChildKey) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.started.is_empty() {
            return;
        }
        let Some(state) = self.machine.child(key).map(|view| view.state) else { return };
        let outcome = match state {
            ChildState::Up | ChildState::Held if child.is_complete() => Ok(()),
            ChildState::Down => Err(child.last_failure.clone().unwrap_or(Cause::Killed)),
            ChildState::Up
            | ChildState::Held
            | ChildState::Planned
            | ChildState::Starting
            | ChildState::Delayed { .. }
            | ChildState::Stopping => return,
        };
        for started in std::mem::take(&mut child.started) {
            // Who asked may be gone.
            let _ = started.send(outcome.clone().map_err(ChildError::Failed));
        }
    }

    /// Why this supervisor ends, as the one above is told.
    pub(super) fn cause_of(&self, end: End) -> Cause {
        let name = |key: ChildKey| {
            self.children.get(&key).map_or_else(String::new, |child| child.declared.name().to_string())
        };
        let failure = |key: ChildKey| {
            let failure = self.children.get(&key).and_then(|child| child.last_failure.as_ref());
            failure.map_or_else(String::new, ToString::to_string)
        };
        match end {
            End::Stopped => Cause::Killed,
            End::BootFailed { child } => Cause::StartFailed(format!("{}: {}", name(child), failure(child))),
            End::Intensity { child } | End::Escalated { child } => {
                Cause::GaveUp(format!("{}: {}", name(child), failure(child)))
            }
            End::AutoShutdown { child } => Cause::GaveUp(format!("{} has ended", name(child))),
        }
    }
}

impl Child {
    pub(super) fn tell_stopped(&mut self) {
        for stopped in self.stopped.drain(..) {
            // Who asked may be gone.
            match stopped {
                Stopped::Kernel(done) => drop(done.send(())),
                Stopped::Child(done) => drop(done.send(Ok(()))),
            }
        }
    }

    /// Whether it is up with everything that belongs to it.
    fn is_complete(&self) -> bool {
        match &self.body {
            Body::Kernel(kernel) => kernel.is_complete(),
            Body::Task(_) | Body::Supervisor(_) => true,
        }
    }
}
