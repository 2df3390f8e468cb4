//! How kernels end on purpose: one stopped or drained, or all of them, in order.
//!
//! A shutdown first lets every slot drain, for at most its grace, so that chains get through; then it stops the kernels in
//! reverse start order, each awaited.

use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::error::DownReason;
use tokio::sync::oneshot;

use super::child::{Child, ChildAlarm, Phase};
use super::{Myself, Recovery, drop_child};
use crate::cause::Cause;
use crate::operator::Fact;

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

/// A shutdown under way: first every slot drains, then the kernels stop one by one.
pub(super) struct Shutdown {
    draining: bool,
    report: ShutdownReport,
    /// Everybody who asked.
    done: Vec<oneshot::Sender<ShutdownReport>>,
    alarm: Arc<ChildAlarm>,
}

impl Recovery {
    pub(super) fn stop(&mut self, slot: u32, drain: bool, done: oneshot::Sender<()>, myself: &Myself) {
        let Some(child) = self.children.get_mut(&slot) else {
            // Unknown here means stopped already.
            let _ = done.send(());
            return;
        };
        child.stopped.push(done);
        // One that has no incarnation, in its restart delay for example, gets none any more.
        let lives = matches!(child.phase, Phase::Starting | Phase::Serving);
        if drain && lives && !child.plan.kernel.is_idle() {
            child.draining = true;
            child.plan.kernel.drain();
            if child.phase == Phase::Serving {
                child.set_alarm(child.plan.shutdown, &self.links);
            }
        } else {
            self.begin_stop(slot, myself);
        }
    }

    /// Tells a kernel to end after its current request.
    pub(super) fn begin_stop(&mut self, slot: u32, myself: &Myself) {
        let Some(child) = self.children.get_mut(&slot) else { return };
        if child.is_stopping() {
            return;
        }
        child.plan.machine.on_stop();
        child.plan.kernel.drain();
        child.plan.kernel.stop();
        child.set_phase(Phase::Stopping, &self.links);
        let thread_lives = child.lane.as_ref().is_some_and(|lane| !lane.has_ended());
        if child.actor.is_some() || thread_lives {
            child.set_alarm(child.plan.shutdown, &self.links);
        } else {
            self.stopped(slot, false, myself);
        }
    }

    pub(super) fn stopped(&mut self, slot: u32, killed: bool, myself: &Myself) {
        let Some(mut child) = self.remove(slot) else { return };
        child.plan.kernel.close(DownReason::Stopped);
        self.links.operator.tell(Some(child.plan.kernel.id()), Fact::Stopped);
        for done in child.stopped.drain(..) {
            // Who asked may be gone.
            let _ = done.send(());
        }
        child.tell_started(Err(Cause::Killed));
        drop_child(child);
        if let Some(shutdown) = &mut self.shutdown {
            if killed {
                shutdown.report.killed += 1;
            } else {
                shutdown.report.stopped += 1;
            }
        }
        self.continue_shutdown(myself);
    }

    pub(super) fn shut_down(
        &mut self,
        grace: Duration,
        done: oneshot::Sender<ShutdownReport>,
        myself: &Myself,
    ) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.done.push(done);
            return;
        }
        let alarm = Arc::new(ChildAlarm::shutdown(&self.links));
        self.links.schedule_after(grace, &alarm, 0);
        self.shutdown =
            Some(Shutdown { draining: true, report: ShutdownReport::default(), done: vec![done], alarm });
        for child in self.children.values() {
            child.plan.kernel.drain();
        }
        self.drained(myself);
    }

    /// Some slot says it is empty. When all are that should be, the stopping begins.
    pub(super) fn drained(&mut self, myself: &Myself) {
        let idle = |child: &&Child| child.draining && child.plan.kernel.is_idle();
        let ready: Vec<u32> = self.children.values().filter(idle).map(|child| child.slot).collect();
        for slot in ready {
            self.begin_stop(slot, myself);
        }
        if self.is_quiet() {
            self.stop_draining(myself);
        }
    }

    /// Whether nothing is left anywhere. A chain can hop into a slot that was just looked at; a hop is an acceptance, so two
    /// looks with none in between are one look at all.
    fn is_quiet(&self) -> bool {
        let kernels = || self.children.values().map(|child| &child.plan.kernel);
        let accepted = || kernels().map(|kernel| kernel.snapshot().accounts.accepted).sum::<u64>();
        let before = accepted();
        kernels().all(|kernel| kernel.is_idle())
            && kernels().all(|kernel| kernel.is_idle())
            && before == accepted()
    }

    pub(super) fn stop_draining(&mut self, myself: &Myself) {
        let Some(shutdown) = self.shutdown.as_mut().filter(|shutdown| shutdown.draining) else { return };
        shutdown.draining = false;
        self.continue_shutdown(myself);
    }

    /// Stops the youngest kernel that is left; reports when there is none.
    pub(super) fn continue_shutdown(&mut self, myself: &Myself) {
        if self.shutdown.as_ref().is_none_or(|shutdown| shutdown.draining) {
            return;
        }
        if let Some(slot) = self.children.last_key_value().map(|(slot, _)| *slot) {
            self.begin_stop(slot, myself);
        } else if let Some(Shutdown { mut report, done, alarm, .. }) = self.shutdown.take() {
            drop(alarm);
            report.abandoned_threads = self.abandoned.alive();
            self.links.mark_shut_down();
            for done in done {
                // Who asked may be gone.
                let _ = done.send(report);
            }
            myself.stop(Some("shut down".into()));
        }
    }
}
