//! How a kernel is ended because its supervisor says so: after its current request, or at once.

use std::sync::Arc;

use rustkernel_core::supervision::{ChildKey, ChildState, Exit};

use super::Recovery;
use super::life::{Due, Life, Phase, Role};
use crate::cause::Cause;
use crate::operator::Fact;

impl Recovery {
    /// The machine wants the kernel down: after its current request.
    pub(super) fn stop_kernel(&mut self, key: ChildKey) {
        let now = self.now();
        let terminates = self.children.get(&key).is_some_and(|child| !child.stopped.is_empty());
        let Some(kernel) = self.kernel(key) else { return };
        kernel.set_phase(Phase::Stopping, now);
        kernel.timers.clear(Due::Rebuild);
        kernel.timers.clear(Due::Standby);
        kernel.timers.clear(Due::Drain);
        kernel.dismiss(now, |role| !matches!(role, Role::Present));
        if terminates {
            kernel.plan.kernel.drain();
        }
        kernel.plan.kernel.stop();
        if kernel.lives.is_empty() {
            self.kernel_stopped(key);
        }
    }

    /// The machine wants the kernel dead at once.
    pub(super) fn kill_kernel(&mut self, key: ChildKey) {
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        kernel.set_phase(Phase::Stopping, now);
        kernel.dismiss(now, |_| true);
        let numbers: Vec<u64> = kernel.lives.iter().map(Life::number).collect();
        for number in numbers {
            self.bury(key, number, &Cause::Killed);
            let Some(life) = self.kernel(key).and_then(|kernel| kernel.life(number)) else { continue };
            if let Some(actor) = &life.actor {
                actor.kill();
            }
            if life.lane.is_some() || life.actor.is_none() {
                // A thread cannot be killed: it is fenced and left.
                self.let_go(key, number);
                if let Some(kernel) = self.kernel(key) {
                    kernel.take_life(number);
                }
            }
        }
        self.env.links.endings.killed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if self.kernel(key).is_some_and(|kernel| kernel.lives.is_empty()) {
            self.kernel_gone(key);
        }
    }

    /// The kernel's failure is its last: what else there is of it ends, too, and then its supervisor hears of it.
    pub(super) fn ends_for_good(&mut self, key: ChildKey) {
        let now = self.now();
        let Some(kernel) = self.kernel(key) else { return };
        kernel.exit = Some(Exit::Abnormal);
        kernel.set_phase(Phase::Stopping, now);
        kernel.timers.clear(Due::Rebuild);
        kernel.timers.clear(Due::Standby);
        kernel.timers.clear(Due::Drain);
        kernel.dismiss(now, |_| true);
        if kernel.lives.is_empty() {
            self.kernel_gone(key);
        }
    }

    pub(super) fn abandon_kernel(&mut self, key: ChildKey) {
        let Some(kernel) = self.kernel(key) else { return };
        let numbers: Vec<u64> = kernel.lives.iter().map(Life::number).collect();
        for number in numbers {
            self.let_go(key, number);
            if let Some(kernel) = self.kernel(key) {
                kernel.take_life(number);
            }
        }
        self.reset_kernel(key);
    }

    pub(super) fn kernel_stopped(&mut self, key: ChildKey) {
        let killed = self.machine.child(key).is_some_and(|view| view.state != ChildState::Stopping);
        if !killed {
            self.env.links.endings.stopped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        self.kernel_gone(key);
    }

    /// Nothing of the kernel is alive any more, as the machine wanted.
    pub(super) fn kernel_gone(&mut self, key: ChildKey) {
        let now = self.now();
        let drained = self.kernel(key).is_some_and(|kernel| kernel.draining);
        self.reset_kernel(key);
        if !self.machine.is_running()
            && let Some(id) = self.kernel(key).map(|kernel| kernel.plan.kernel.id().clone())
        {
            // Its supervisor ends, and nobody else will say so.
            self.env.links.operator.tell(Some(&id), Fact::Stopped);
        }
        let exit = self.kernel(key).and_then(|kernel| kernel.exit.take()).unwrap_or(Exit::Shutdown);
        if let Some(life) = self.machine.child(key).map(|view| view.life) {
            self.machine.on_exit(key, life, exit, None, now);
        }
        if drained && let Some(child) = self.children.get(&key) {
            // It was to be stopped when it had nothing left: its group may not bring it back.
            let name = Arc::clone(child.declared.name());
            self.stop_now(&name);
        }
    }

    /// A kernel that is down waits to be started again as if for the first time.
    pub(super) fn reset_kernel(&mut self, key: ChildKey) {
        let now = self.now();
        if let Some(kernel) = self.kernel(key).filter(|kernel| kernel.lives.is_empty()) {
            kernel.draining = false;
            kernel.timers.clear(Due::Rebuild);
            kernel.timers.clear(Due::Standby);
            kernel.timers.clear(Due::Drain);
            if kernel.phase != Phase::Isolated {
                kernel.set_phase(Phase::Starting, now);
            }
        }
    }
}
