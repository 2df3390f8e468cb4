//! What people ask of a supervisor.

use std::sync::Arc;

use rustkernel_core::supervision::{ChildKey, ChildState, Refusal};
use tokio::sync::oneshot;

use super::life::{Phase, Purpose};
use super::message::{ChildError, Order};
use super::status::{ChildStatus, SupervisorFacts};
use super::{Arriving, Body, Declaration, Myself, Node, Recovery, Stopped};

impl Recovery {
    pub(super) async fn obey(&mut self, order: Order, myself: &Myself) {
        let now = self.now();
        // Whoever asked may be gone when the answer comes; so everywhere below.
        match order {
            Order::StartChild { child, started } => self.start_child(*child, started),
            Order::Terminate { name, done } => self.terminate(&name, done),
            Order::Restart { name, started } => match self.machine.restart_child(&name, now) {
                Ok(key) => {
                    if let Some(child) = self.children.get_mut(&key) {
                        child.started.push(started);
                    }
                    if let Some(kernel) = self.kernel(key) {
                        // As at its first start: if it fails, its policy is not asked, and whoever asked is told.
                        kernel.asked = true;
                    }
                }
                Err(refusal) => drop(started.send(Err(refusal.into()))),
            },
            Order::Delete { name, done } => match self.machine.delete_child(&name) {
                // Answered when it is forgotten: then its names are free.
                Ok(key) => {
                    if let Some(child) = self.children.get_mut(&key) {
                        child.stopped.push(Stopped::Child(done));
                        self.leaves(key);
                    }
                }
                Err(refusal) => drop(done.send(Err(refusal))),
            },
            Order::KillChild { name, done } => drop(done.send(self.kill_child(&name))),
            Order::Resume { slot, done } => drop(done.send(self.resume_kernel(slot, now))),
            Order::Kill { slot, done } => self.kill_present(slot, done),
            Order::Stop { slot, drain, done } => self.stop_for_good(slot, drain, done),
            Order::Replace { slot, version, done } => {
                self.replace(slot, Purpose::Replace(version, done), myself).await;
            }
            Order::FailBack { slot, done } => self.replace(slot, Purpose::FailBack(done), myself).await,
            Order::Shutdown { grace, done } => self.shut_down(grace, done),
            Order::Which { reply } => {
                let children = self.facts().children.into_iter().map(|(child, _)| child);
                drop(reply.send(children.collect()));
            }
            Order::Count { reply } => drop(reply.send(self.machine.count_children())),
            Order::Describe { reply } => drop(reply.send(self.facts())),
        }
    }

    fn start_child(&mut self, child: Arriving, started: oneshot::Sender<Result<(), ChildError>>) {
        let now = self.now();
        let Some(spec) = child.spec().filter(|_| self.shutdown.is_none()) else {
            drop(child);
            return drop(started.send(Err(ChildError::SupervisorGone)));
        };
        match self.machine.start_child(spec, now) {
            Ok(key) => {
                let Some(child) = child.arrive().map(Arc::new) else { return };
                self.adopt(key, Arc::clone(&child));
                self.node.add_guest(key, child);
                if let Some(child) = self.children.get_mut(&key) {
                    child.started.push(started);
                }
            }
            Err(refusal) => {
                drop(child);
                drop(started.send(Err(refusal.into())));
            }
        }
    }

    /// The child is on its way out for good.
    fn leaves(&mut self, key: ChildKey) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.leaves = true;
        self.node.dismiss(key, child.declared.name());
    }

    fn terminate(&mut self, name: &str, done: oneshot::Sender<Result<(), Refusal>>) {
        let now = self.now();
        let Some(key) = self.machine.key(name) else {
            return drop(done.send(Err(Refusal::NotFound)));
        };
        if self.machine.child(key).is_some_and(|view| view.state == ChildState::Down) {
            return drop(done.send(Ok(())));
        }
        if let Some(child) = self.children.get_mut(&key) {
            child.stopped.push(Stopped::Child(done));
        }
        // The name was found a moment ago.
        let _key = self.machine.terminate_child(name, now);
    }

    fn kill_child(&mut self, name: &str) -> bool {
        let Some(child) = self.machine.key(name).and_then(|key| self.children.get(&key)) else {
            return false;
        };
        let actor = match &child.body {
            Body::Task(running) => running.as_ref().map(|(actor, _)| actor),
            Body::Supervisor(running) => running.as_ref(),
            Body::Kernel(_) => None,
        };
        actor.inspect(|actor| actor.kill()).is_some()
    }

    fn kill_present(&mut self, slot: u32, done: oneshot::Sender<bool>) {
        let present = self.kernel_of(slot).and_then(|(_, kernel)| kernel.present_mut());
        let Some((life, actor)) = present.and_then(|life| life.actor.clone().map(|actor| (life, actor)))
        else {
            let _ = done.send(false);
            return;
        };
        actor.kill();
        life.killers.add(done);
    }

    /// Stops a kernel and forgets it.
    fn stop_for_good(&mut self, slot: u32, drain: bool, done: oneshot::Sender<()>) {
        let now = self.now();
        let Some(key) = self.slots.get(&slot).copied() else {
            // Unknown here means stopped already, for this life of the supervisor at least.
            self.node.strike(slot);
            let _ = done.send(());
            return;
        };
        let Some(child) = self.children.get_mut(&key) else { return };
        child.stopped.push(Stopped::Kernel(done));
        let name = Arc::clone(child.declared.name());
        self.leaves(key);
        let Some(kernel) = self.kernel(key) else { return };
        // One that has no incarnation, in its restart delay for example, gets none any more.
        let lives = matches!(kernel.phase, Phase::Starting | Phase::Serving);
        if drain && lives && !kernel.plan.kernel.is_idle() {
            kernel.draining = true;
            kernel.plan.kernel.drain();
            if kernel.phase == Phase::Serving {
                let at = now + kernel.plan.grace;
                kernel.timers.set(super::life::Due::Drain, at);
            }
            return;
        }
        self.stop_now(&name);
    }

    /// Stops a child that leaves: it is forgotten as soon as it is down.
    pub(super) fn stop_now(&mut self, name: &str) {
        let now = self.now();
        let Some(key) = self.machine.key(name) else { return };
        if let Some(kernel) = self.kernel(key) {
            kernel.recovery.on_stop();
        }
        if self.machine.child(key).is_some_and(|view| view.state == ChildState::Down) {
            self.machine.forget_child(key);
        } else {
            // It is a child until it is forgotten.
            let _key = self.machine.terminate_child(name, now);
        }
    }

    fn facts(&self) -> SupervisorFacts {
        let now = self.now();
        let children = self.machine.which_children().filter_map(|view| {
            let child = self.children.get(&view.key)?;
            let kernel = match &child.body {
                Body::Kernel(kernel) => Some(kernel.status(now, view.state, child.last_failure.clone())),
                Body::Task(_) | Body::Supervisor(_) => None,
            };
            let below: Option<Arc<Node>> = match &child.declared.body {
                Declaration::Supervisor(node) => Some(Arc::clone(node)),
                Declaration::Kernel(_) | Declaration::Task(_) => None,
            };
            let status = ChildStatus {
                name: view.spec.name.to_string(),
                kind: view.spec.kind,
                restart: view.spec.rules.restart,
                significant: view.spec.rules.significant,
                state: view.state.into(),
                life: view.life,
                last_failure: child.last_failure.clone(),
                kernel,
            };
            Some((status, below))
        });
        SupervisorFacts {
            restarts_in_period: self.machine.restarts_in_period(now),
            restarts: self.machine.restarts(),
            children: children.collect(),
        }
    }
}
