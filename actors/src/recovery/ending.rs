//! How the whole tree ends on purpose.
//!
//! A shutdown first lets every slot drain, for at most its grace, so that chains get through; then the root stops its children in reverse
//! start order, each awaited, and so does every supervisor below.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::error::DownReason;
use rustkernel_core::supervision::End;
use tokio::sync::oneshot;

use super::message::ChildError;
use super::{KernelPlan, Myself, Recovery, RecoveryMsg};
use crate::cause::Cause;
use crate::home::Home;
use crate::operator::Fact;
use crate::timer::Alarm;

/// How a runtime's shutdown went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Kernels that ended by themselves.
    pub stopped: usize,
    /// Kernels that had to be killed because their grace time was over.
    pub killed: usize,
    /// Threads that still block and were left behind.
    pub abandoned_threads: usize,
}

/// A shutdown under way: first every slot drains, then the children stop one by one.
pub(super) struct Shutdown {
    draining: bool,
    /// The kernels as they were when it began; those before this one have been seen idle.
    kernels: Vec<Arc<KernelPlan>>,
    seen_idle: usize,
    /// What had ended before it began.
    before: (usize, usize),
    /// Everybody who asked.
    done: Vec<oneshot::Sender<ShutdownReport>>,
    _alarm: Arc<ShutdownAlarm>,
}

struct ShutdownAlarm(std::sync::Weak<Home>);

impl Alarm for ShutdownAlarm {
    fn ring(&self, _: Timestamp, _: u64) {
        if let Some(home) = self.0.upgrade() {
            home.tell(RecoveryMsg::ShutdownOver);
        }
    }
}

impl Shutdown {
    /// Whether it is worth while to look at every kernel: not while the first one that was busy at the last look is busy still. Many
    /// kernels that end one by one are so looked at once each, not all of them each time.
    fn may_be_quiet(&mut self) -> bool {
        let rest = self.kernels[self.seen_idle..].iter();
        self.seen_idle += rest.take_while(|plan| plan.kernel.is_idle()).count();
        let all = self.seen_idle == self.kernels.len();
        if all {
            self.seen_idle = 0;
        }
        all
    }
}

impl Recovery {
    pub(super) fn shut_down(&mut self, grace: Duration, done: oneshot::Sender<ShutdownReport>) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.done.push(done);
            return;
        }
        let alarm = Arc::new(ShutdownAlarm(Arc::downgrade(&self.node.home)));
        self.env.links.schedule_after(grace, &alarm, 0);
        let before = self.endings();
        self.env.links.mark_draining();
        let kernels = self.node.kernels();
        for plan in &kernels {
            plan.kernel.drain();
        }
        self.shutdown =
            Some(Shutdown { draining: true, kernels, seen_idle: 0, before, done: vec![done], _alarm: alarm });
        self.idle(None, self.now());
    }

    /// Some slot says it is empty. A kernel that was to be drained is stopped; when all slots of a tree that shuts down are empty, the
    /// stopping begins.
    pub(super) fn idle(&mut self, slot: Option<u32>, now: Timestamp) {
        if let Some(key) = slot.and_then(|slot| self.slots.get(&slot).copied()) {
            let drained =
                self.kernel(key).is_some_and(|kernel| kernel.draining && kernel.plan.kernel.is_idle());
            if drained {
                let name = self.children.get(&key).map(|child| Arc::clone(child.declared.name()));
                name.into_iter().for_each(|name| self.stop_now(&name));
            }
        }
        if slot.is_none() {
            self.env.links.idle_heard();
        }
        let may_be_quiet =
            self.shutdown.as_mut().is_some_and(|shutdown| shutdown.draining && shutdown.may_be_quiet());
        if may_be_quiet && self.is_quiet() {
            self.stop_draining(now);
        }
    }

    /// Whether nothing is left anywhere. A chain can hop into a slot that was just looked at; a hop is an acceptance, so two
    /// looks with none in between are one look at all.
    fn is_quiet(&self) -> bool {
        let kernels = self.node.kernels();
        let quiet = || kernels.iter().all(|plan| plan.kernel.is_idle());
        let accepted = || kernels.iter().map(|plan| plan.kernel.snapshot().accounts.accepted).sum::<u64>();
        quiet() && {
            let before = accepted();
            quiet() && quiet() && before == accepted()
        }
    }

    pub(super) fn stop_draining(&mut self, now: Timestamp) {
        let Some(shutdown) = self.shutdown.as_mut().filter(|shutdown| shutdown.draining) else { return };
        shutdown.draining = false;
        self.machine.shut_down(now);
    }

    /// A root that ends without having been asked to has given up: nobody is left to restart anything, and nothing waits any longer.
    pub(super) fn give_up_if_ending(&mut self) {
        let is_root = self.above.is_none();
        if !is_root || self.end_is_told || self.shutdown.is_some() || !self.machine.is_ending() {
            return;
        }
        self.end_is_told = true;
        self.env.links.operator.tell(None, Fact::GaveUp);
        for plan in self.node.kernels() {
            plan.kernel.close(DownReason::SupervisorGone);
        }
    }

    /// The root's last child is gone: because it was shut down, or because it gave up.
    pub(super) fn end_of_root(&mut self, end: End, myself: &Myself) {
        let links = Arc::clone(&self.env.links);
        let Some(Shutdown { before, done, .. }) = self.shutdown.take().filter(|_| end == End::Stopped) else {
            self.answer_all(&Cause::Killed);
            myself.stop(Some("gave up".into()));
            return;
        };
        self.end_is_told = true;
        self.answer_all(&Cause::Killed);
        links.mark_shut_down();
        let now = self.endings();
        let report = ShutdownReport {
            stopped: now.0 - before.0,
            killed: now.1 - before.1,
            abandoned_threads: self.env.abandoned.alive(),
        };
        let left: Vec<_> = self.children.drain().collect();
        for (key, child) in left {
            self.node.remove_guest(key);
            child.declared.close(DownReason::Stopped);
            child.declared.free_names();
            crate::contain::contain("dropping a child's spec", || drop(child));
        }
        for done in done {
            // Who asked may be gone.
            let _ = done.send(report);
        }
        myself.stop(Some("shut down".into()));
    }

    fn answer_all(&mut self, cause: &Cause) {
        for child in self.children.values_mut() {
            for started in child.started.drain(..) {
                let _ = started.send(Err(ChildError::Failed(cause.clone())));
            }
            child.tell_stopped();
        }
    }

    fn endings(&self) -> (usize, usize) {
        let endings = &self.env.links.endings;
        (endings.stopped.load(Ordering::Relaxed), endings.killed.load(Ordering::Relaxed))
    }
}
