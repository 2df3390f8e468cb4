//! The ends of workers: how they are seen, whom nobody waits for, and what is made of them.

use std::sync::PoisonError;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustkernel_actors::Loss;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::fault::FaultClass;
use rustkernel_core::rate_limit::RateDecision;

use super::super::code::Codes;
use super::super::config::{DomainState, DomainStatus};
use super::super::dying::{Dying, PATIENCE};
use super::super::process::{Process, fault_of};
use super::super::ward::{Blame, Charge, Worker};
use super::Keeper;

/// How long after a death the next spare worker is started: first the kernels come back.
const SPARE_DELAY: Duration = Duration::from_millis(10);

impl Keeper {
    /// Takes leave of the workers that have ended.
    pub(super) fn see_ends(&mut self) {
        let now = self.clock.now();
        self.dying.retain_mut(|dying| !dying.has_ended(now));
        let mut at = 0;
        while at < self.workers.len() {
            match self.workers[at].process.end() {
                None => at += 1,
                Some(end) => {
                    // Its last words may have come since it was heard.
                    let lost = self.hear_one(at);
                    let worker = self.remove(at);
                    if lost && !self.has_proven() {
                        self.breaker.open(None);
                    }
                    let fault = fault_of(end);
                    let how = format!("worker {} ended: {end} ({})", worker.process.pid(), fault.name);
                    let refuses = fault.class == FaultClass::Configuration && !worker.is_up;
                    self.bury(worker, &how);
                    if refuses && self.workers.is_empty() {
                        // The next one would refuse it, too.
                        self.unable = self.last_death.clone();
                    }
                }
            }
        }
    }

    /// Kills whom it has to, and does not wait for whom it need not.
    pub(super) fn watch(&mut self, now: Timestamp) {
        for worker in self.workers.iter_mut().filter(|worker| !worker.is_condemned()) {
            worker.watch(&self.config, now);
        }
        let mut at = 0;
        while at < self.workers.len() {
            let Some(killed) = self.workers[at].killed.as_ref().map(|killed| killed.at) else {
                at += 1;
                continue;
            };
            let is_stuck = now.saturating_since(killed) >= PATIENCE;
            if !is_stuck && !self.may_leave(at) {
                at += 1;
                continue;
            }
            let worker = self.remove(at);
            let pid = worker.process.pid();
            let how = if is_stuck {
                format!("worker {pid} does not end though it was killed")
            } else {
                format!("worker {pid} was killed")
            };
            let process = self.bury(worker, &how);
            self.dying.push(Dying::new(process, killed, self.premises.clone()));
        }
    }

    /// Whether nobody has to wait for a killed worker. The end of one that holds a GPU takes its time.
    fn may_leave(&self, at: usize) -> bool {
        // One that has hung up is on its way out by itself, and how that ends is worth knowing.
        if !self.config.holds_gpu() || self.workers[at].has_hung_up() {
            return false;
        }
        match self.workers.get(at + 1) {
            // The next one is started when it has ended, or not at all.
            None => self.dying.is_empty(),
            Some(_) if self.premises.unfit().is_some() => true,
            Some(next) => {
                let is_there = next.is_up && !next.is_condemned() && !next.has_hung_up();
                // The device has room for two, as far as is known. For three there may be none.
                is_there && self.dying.is_empty() && self.premises.has_room()
            }
        }
    }

    /// Takes leave of one of them. Where one that stood by has died, it may be of what it was to prepare: the next one is not asked to.
    pub(super) fn remove(&mut self, at: usize) -> Worker {
        let worker = self.workers.remove(at);
        if at > 0 && worker.is_up {
            self.codes = Codes::default();
        }
        worker
    }

    /// A worker is gone, or nobody waits for its end: the next one is the present one, and its kernels are told. Gives back the process.
    fn bury(&mut self, worker: Worker, how: &str) -> Process {
        let now = self.clock.now();
        let Worker { process, tenants, killed, has_spoken, unable, .. } = worker;
        let blame = killed.as_ref().map_or(Blame::Anybody, |killed| killed.blame);
        let mut reason = match killed {
            Some(Charge { reason, .. }) => format!("{how}: {reason}"),
            None => how.to_owned(),
        };
        if !has_spoken {
            reason.push_str(
                ", before it was up; does the main of its program begin with rustkernel::worker::init?",
            );
        }
        self.note_death(&reason, blame, now);
        if let Some(unable) = unable.filter(|unable| unable.for_good && self.workers.is_empty()) {
            self.unable = Some(unable.reason);
        }
        // The spare one has taken over before anybody is told: who is restarted finds it there. The next spare one comes later, for
        // it takes the time of a process to start; and without a spare one, at once.
        self.start_due = if self.workers.is_empty() { now } else { now + SPARE_DELAY };
        let unfit = self.premises.unfit();
        for (lifeline, suspicion) in Worker::verdicts(tenants, blame) {
            if let Some(unfit) = &unfit {
                lifeline.place_unfit(&**unfit);
            }
            lifeline.lost(Loss::Domain { reason: reason.clone(), suspicion });
        }
        process
    }

    pub(super) fn note_death(&mut self, reason: &str, blame: Blame, now: Timestamp) {
        if let RateDecision::Allow { refused: suppressed } = self.log.allow(now) {
            tracing::warn!(domain = %self.name, suppressed, "{reason}");
        }
        self.deaths += 1;
        self.last_death = Some(reason.to_owned());
        self.forget_old(now);
        if blame != Blame::Nobody {
            self.recent.push_back(now);
        }
    }

    /// Ends everything that is left.
    pub(super) fn close(mut self) {
        // Whoever waits, or comes now, is told that nobody is here.
        self.mailbox.close();
        self.waiting.clear();
        for worker in &mut self.workers {
            worker.kill(self.clock.now(), format!("the domain {} was closed", self.name), Blame::Nobody);
        }
        let killed = self.clock.now();
        let until = killed + PATIENCE;
        while let Some(mut worker) = self.workers.pop() {
            while worker.process.end().is_none() && self.clock.now() < until {
                let mut fds = [PollFd::from_borrowed_fd(worker.process.watch(), PollFlags::IN)];
                let left = Timespec::try_from(until.saturating_since(self.clock.now())).ok();
                let _ = poll(&mut fds, left.as_ref());
            }
            if worker.process.end().is_none() {
                self.dying.push(Dying::new(worker.process, killed, self.premises.clone()));
            }
            let reason = format!("the domain {} was closed", self.name);
            for (lifeline, suspicion) in Worker::verdicts(worker.tenants, Blame::Nobody) {
                lifeline.lost(Loss::Domain { reason: reason.clone(), suspicion });
            }
        }
        self.dying.retain_mut(|dying| !dying.ends_in_time(&self.clock));
        let undying = self.dying.len();
        self.dying.into_iter().for_each(|process| process.outlive(self.clock.clone()));
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        *status = DomainStatus {
            state: DomainState::Closed,
            pid: None,
            spare: None,
            kernels: 0,
            deaths: self.deaths,
            last_death: self.last_death.clone(),
            obstacle: None,
            generation: status.generation,
            dying: undying,
            undying,
        };
    }
}
