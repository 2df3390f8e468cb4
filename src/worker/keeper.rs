//! The thread that watches over a domain: it starts its workers, hears of their ends, and ends those that do not keep to the rules.
//!
//! It waits in `poll` for mail, for what the workers say, and for their ends; a blocked async runtime does not stall it. It makes no call
//! that waits for a worker.
//!
//! | what it finds | what it does |
//! |---|---|
//! | a worker has ended | the next one is the present one, then all its kernels are told that they are lost |
//! | a cancelled request does not end, a heartbeat is not answered, a start takes too long, garbage | kills the worker; its end follows |
//! | a killed worker takes its time to end, as one with a GPU does | where the device has room for the next one beside it, that is the present one at once |
//! | a killed worker does not end | its kernels are lost all the same, it is counted, and after a while the device that it holds is suspect |
//! | the device is unfit | kills the workers, on nobody's account; starts none, and attaches no kernel, until it is fit again |
//! | too many deaths | no worker is started, and no kernel attached, until one of them is old enough |

use std::collections::VecDeque;
use std::iter;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustkernel_actors::SharedBreaker;
use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::error::{BreakerScope, KernelError};
use rustkernel_core::rate_limit::RateLimit;

use super::code::{Code, Codes};
use super::config::{DomainConfig, DomainState, DomainStatus};
use super::control::{Received, receive};
use super::dying::Dying;
use super::mailbox::{Attach, Mail, Mailbox};
use super::pool::Pool;
use super::premises::Premises;
use super::process::Process;
use super::tenant::Tenant;
use super::ward::{AttachError, Blame, DROP_LIMIT, Worker};
use super::wire::{FromWorker, WireError};

pub(super) struct Keeper {
    name: Arc<str>,
    config: DomainConfig,
    mailbox: Arc<Mailbox>,
    status: Arc<Mutex<DomainStatus>>,
    /// What this process lends its workers lies there.
    memory: Arc<Pool>,
    /// What they have loaded.
    codes: Codes,
    /// The present worker first, then the spare one.
    workers: Vec<Worker>,
    /// Killed, and not waited for. Nobody counts on them.
    dying: Vec<Dying>,
    waiting: VecDeque<Attach>,
    /// When the workers of the last `period` died.
    recent: VecDeque<Timestamp>,
    deaths: u64,
    last_death: Option<String>,
    /// Why no worker can be what it is for, as the last one said.
    unable: Option<String>,
    premises: Premises,
    breaker: SharedBreaker,
    generations: u64,
    /// When the next worker may be started.
    start_due: Timestamp,
    /// Starts in a row that have failed.
    failed_starts: u32,
    /// When a worker that had no room for a kernel is asked again.
    retry_due: Option<Timestamp>,
    tenants: u64,
    /// Of deaths.
    log: RateLimit,
    buffer: Vec<u8>,
    clock: Clock,
}

/// Why no worker may be started.
struct Obstacle {
    reason: String,
    ends: Ends,
}

/// When what is in the way is gone.
enum Ends {
    At(Timestamp),
    /// When somebody has changed something.
    ByHand,
    Unknown,
}

/// The first pause after a start that failed; doubled six times at most.
const START_PAUSE: Duration = Duration::from_millis(10);
/// How long a worker gets to read what it was told before.
const RETRY: Duration = Duration::from_millis(1);
/// That are read of one worker in a turn: more than its socket holds, so that whatever it said before the turn has been read.
const MOST_MESSAGES: usize = 1024;
/// Pieces of code that are heard of in a turn. What is more is loaded when it is wanted.
const MOST_LOADED: usize = 64;

impl Keeper {
    pub(super) fn new(
        name: Arc<str>,
        config: DomainConfig,
        mailbox: Arc<Mailbox>,
        status: Arc<Mutex<DomainStatus>>,
        memory: Arc<Pool>,
    ) -> Self {
        Self {
            name,
            premises: Premises::of(config.device, &mailbox),
            breaker: SharedBreaker::new(BreakerScope::Domain),
            config,
            mailbox,
            status,
            memory,
            codes: Codes::default(),
            workers: Vec::new(),
            dying: Vec::new(),
            waiting: VecDeque::new(),
            recent: VecDeque::new(),
            deaths: 0,
            last_death: None,
            unable: None,
            generations: 0,
            start_due: Timestamp::ZERO,
            failed_starts: 0,
            retry_due: None,
            tenants: 0,
            log: RateLimit::default(),
            buffer: Vec::new(),
            clock: Clock::system(),
        }
    }

    /// Until somebody closes the domain.
    pub(super) fn keep(mut self) {
        loop {
            let now = self.clock.now();
            self.forget_old(now);
            self.start_workers(now);
            self.attach_waiting(now);
            self.publish(now);
            self.wait(now);
            for mail in self.mailbox.take() {
                if matches!(mail, Mail::Close) {
                    return self.close();
                }
                self.read(mail, self.clock.now());
            }
            self.hear();
            self.see_ends();
            self.watch(self.clock.now());
        }
    }

    /// Sleeps until something happens, or is due.
    fn wait(&self, now: Timestamp) {
        let due = self.next_due(now).map(|due| due.saturating_since(now));
        // A little late rather than a little early: early would be in vain.
        let timeout = due.and_then(|due| Timespec::try_from(due + Duration::from_micros(50)).ok());
        let mut fds = vec![PollFd::from_borrowed_fd(self.mailbox.bell(), PollFlags::IN)];
        fds.extend(self.dying.iter().map(|dying| PollFd::from_borrowed_fd(dying.watch(), PollFlags::IN)));
        for worker in &self.workers {
            fds.push(PollFd::from_borrowed_fd(worker.process.watch(), PollFlags::IN));
            if !worker.is_condemned() {
                fds.push(PollFd::from_borrowed_fd(worker.process.control.as_fd(), PollFlags::IN));
            }
        }
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let workers = self.workers.iter().filter_map(|worker| worker.next_due(&self.config));
        let allows = self.allows_start();
        let oldest = self.recent.front().map(|oldest| *oldest + self.config.period);
        let allowed = oldest.filter(|_| !allows && self.wants_start(now));
        let start = (allows && self.lacks_any(now)).then_some(self.start_due);
        let stuck = self.dying.iter().filter_map(|dying| dying.next_due(now)).min();
        workers.chain(allowed).chain(start).chain(stuck).chain(self.retry_due).min()
    }

    /// Whether another worker may be started.
    fn allows_start(&self) -> bool {
        self.obstacle().is_none()
    }

    /// Whether there is a worker that is up, and has asked its device: the present one, or the one that will be.
    fn has_proven(&self) -> bool {
        self.workers.iter().any(|worker| worker.is_up && !worker.is_condemned())
    }

    /// Why no worker may be started, if none may: so that nobody waits for it.
    fn obstacle(&self) -> Option<Obstacle> {
        if let Some(reason) = &self.unable {
            return Some(Obstacle { reason: reason.clone(), ends: Ends::ByHand });
        }
        if let Some(reason) = self.premises.unfit() {
            return Some(Obstacle { reason, ends: Ends::Unknown });
        }
        if self.recent.len() <= self.config.max_deaths as usize {
            return None;
        }
        let last = self.last_death.as_deref().unwrap_or("unknown");
        let (most, period) = (self.config.max_deaths, self.config.period);
        let reason = format!("it has lost more than {most} workers within {period:?}; the last one: {last}");
        Some(Obstacle {
            reason,
            ends: self.recent.front().map_or(Ends::Unknown, |at| Ends::At(*at + period)),
        })
    }

    /// Deaths of an age of `period` no longer count.
    fn forget_old(&mut self, now: Timestamp) {
        let period = self.config.period;
        while self.recent.front().is_some_and(|at| now.saturating_since(*at) >= period) {
            self.recent.pop_front();
        }
        if self.recent.is_empty() {
            // What was missing may be there by now.
            self.unable = None;
        }
    }

    fn wants_start(&self, now: Timestamp) -> bool {
        self.lacks_any(now) && self.start_due <= now
    }

    /// Whether there is a worker to be started. Not where the only one is dying: a device may be one process's alone, and its memory is not
    /// given back yet.
    fn lacks_any(&self, now: Timestamp) -> bool {
        let is_alone = self.workers.is_empty() && self.dying.iter().all(|dying| dying.is_stuck(now));
        is_alone || self.lacks_spare()
    }

    /// Whether there is to be another worker than the present one.
    fn lacks_spare(&self) -> bool {
        let is_up = self.workers.first().is_some_and(|worker| worker.is_up);
        self.config.spare && is_up && self.workers.len() == 1
    }

    fn start_workers(&mut self, now: Timestamp) {
        if self.wants_start(now) && self.allows_start() {
            match Process::start(&self.config.worker, self.config.device, &self.memory) {
                Ok(process) => {
                    self.generations += 1;
                    self.failed_starts = 0;
                    tracing::debug!(domain = %self.name, pid = process.pid(), "a worker is being started");
                    self.workers.push(Worker::new(process, self.generations, now, self.premises.clone()));
                }
                Err(error) => {
                    let reason = format!("a worker could not be started: {error}");
                    if self.workers.is_empty() {
                        self.note_death(&reason, Blame::Anybody, now);
                    } else {
                        tracing::warn!(domain = %self.name, "{reason}");
                    }
                    // It may be for want of something that comes back in a moment.
                    self.start_due = now + START_PAUSE * (1 << self.failed_starts.min(6));
                    self.failed_starts += 1;
                }
            }
        }
        if let Some(obstacle) = self.obstacle().filter(|_| !self.waiting.is_empty()) {
            // Whoever is refused and asks why finds it there.
            self.publish(now);
            self.refuse_waiting(&obstacle);
        }
    }

    /// Answers those who want to live here. Who has nowhere else to go waits for a device that will be fit again: nobody's restarts are used
    /// up by that.
    fn refuse_waiting(&mut self, Obstacle { reason, ends }: &Obstacle) {
        let error = format!("the domain {} has no worker: {reason}", self.name);
        for attach in std::mem::take(&mut self.waiting) {
            if matches!(ends, Ends::Unknown)
                && !attach.lifeline.has_alternative()
                && !attach.attached.is_closed()
            {
                attach.lifeline.set_waits(true);
                self.waiting.push_back(attach);
                continue;
            }
            let error = match ends {
                Ends::ByHand => KernelError::permanent(error.clone()),
                Ends::Unknown | Ends::At(_) => KernelError::transient(error.clone()),
            };
            // Who asked may be gone; so below.
            let _ = attach.attached.send(Err(error));
        }
    }

    fn read(&mut self, mail: Mail, now: Timestamp) {
        match mail {
            Mail::Attach(attach) => self.waiting.push_back(attach),
            Mail::Abandoned { tenant, request } => {
                let by = now + self.config.kill_after;
                self.workers.iter_mut().for_each(|worker| worker.abandon(tenant, request, by, now));
            }
            Mail::Detached { tenant } => {
                self.workers.iter_mut().for_each(|worker| worker.leave(tenant, now + DROP_LIMIT, now));
            }
            Mail::Broken { tenant, reason } => {
                self.workers.iter_mut().for_each(|worker| worker.breaks(tenant, &reason, now));
            }
            Mail::DeviceTurned => {
                if let Some(reason) = self.premises.unfit() {
                    // Those who live there hear of it when they lose it.
                    self.waiting.iter().for_each(|attach| attach.lifeline.place_unfit(&*reason));
                    let fit = self.workers.iter_mut().filter(|worker| !worker.is_condemned());
                    fit.for_each(|worker| worker.kill(now, reason.clone(), Blame::Nobody));
                }
            }
            Mail::Close => {}
        }
    }

    /// Reads what the workers say.
    fn hear(&mut self) {
        let mut lost = false;
        for at in 0..self.workers.len() {
            lost |= self.hear_one(at);
        }
        if lost && !self.has_proven() {
            self.breaker.open(None);
        }
    }

    /// Reads what one of them says. Gives back whether it has lost its device. One that is condemned says nothing more that counts.
    fn hear_one(&mut self, at: usize) -> bool {
        let (now, mut lost, mut loaded) = (self.clock.now(), false, Vec::new());
        let worker = &mut self.workers[at];
        let was_up = worker.is_up;
        // One that says more than that in a turn has its next turn when the others have had theirs.
        for _ in 0..MOST_MESSAGES {
            if worker.is_condemned() {
                break;
            }
            match receive(&worker.process.control, &mut self.buffer, false) {
                Ok(Received::Nothing) => break,
                Ok(Received::Message(message, beside)) => {
                    match &message {
                        FromWorker::Hello { device: Some(place), .. } => self.premises.located(place),
                        FromWorker::DeviceLost { fault, .. } => {
                            lost = true;
                            self.premises.note_fault(*fault);
                        }
                        FromWorker::Hello { device: None, .. }
                        | FromWorker::Unable { .. }
                        | FromWorker::Gone { .. }
                        | FromWorker::Ended { .. }
                        | FromWorker::Pong
                        | FromWorker::Returned { .. } => {}
                        FromWorker::Loaded { code } => {
                            // Each of them is an open file of this process.
                            let file = beside.into_iter().next().filter(|_| loaded.len() < MOST_LOADED);
                            loaded.extend(file.map(|file| (*code, file)));
                        }
                    }
                    worker.hear(&message, now);
                }
                Ok(Received::Closed) => {
                    worker.suspect(now, Blame::Anybody, || "it has closed its control socket".to_owned());
                    break;
                }
                Err(error) => {
                    worker.kill(now, format!("what it says is no message: {error}"), Blame::Anybody);
                    break;
                }
            }
        }
        // The present one has kernels that load what they want.
        if at > 0 && worker.is_up && !was_up {
            self.codes.all().for_each(|(code, file)| worker.prepare(code, file));
        }
        self.hand_on(at, loaded);
        lost
    }

    /// What one of them has loaded the others load too, and those that come next.
    fn hand_on(&mut self, from: usize, loaded: Vec<(Code, OwnedFd)>) {
        for (code, file) in loaded.into_iter().filter(|_| self.config.spare) {
            let Some(file) = self.codes.take(code, file) else { continue };
            let others = self.workers.iter().enumerate().filter(|(at, _)| *at != from);
            others.for_each(|(_, worker)| worker.prepare(code, file));
        }
    }

    /// Gives those who wait their places, if the present worker is up.
    fn attach_waiting(&mut self, now: Timestamp) {
        self.retry_due = None;
        let breakers: Vec<_> = iter::once(self.breaker.clone()).chain(self.premises.breaker()).collect();
        let Some(worker) = self.workers.first_mut().filter(|worker| worker.is_up && !worker.is_condemned())
        else {
            return;
        };
        for _ in 0..self.waiting.len() {
            let Some(attach) = self.waiting.pop_front() else { return };
            if attach.attached.is_closed() {
                continue;
            }
            if worker.still_holds(attach.lifeline.kernel().as_ref()) {
                // Its earlier life has not given back yet what it holds there.
                self.waiting.push_back(attach);
                continue;
            }
            attach.lifeline.set_waits(false);
            attach.lifeline.behind(&breakers);
            self.tenants += 1;
            let tenant = Tenant::new(self.tenants, Arc::clone(&self.mailbox));
            match worker.attach(&attach, &tenant) {
                Ok(place) => {
                    // Dropped, it says that it is detached.
                    let _ = attach.attached.send(Ok(place));
                }
                Err(AttachError::Here(error)) => {
                    let _ = attach.attached.send(Err(KernelError::exhausted(error)));
                }
                Err(AttachError::NotNow) => {
                    self.waiting.push_front(attach);
                    self.retry_due = Some(now + RETRY);
                    return;
                }
                Err(AttachError::There(error @ WireError::Io(_))) => {
                    worker.suspect(now, Blame::Anybody, || format!("it takes no kernel: {error}"));
                    self.waiting.push_front(attach);
                    return;
                }
                Err(AttachError::There(error)) => {
                    let _ = attach.attached.send(Err(KernelError::permanent(error)));
                }
            }
        }
    }

    /// How the domain is, in its status and its breaker.
    fn publish(&self, now: Timestamp) {
        let present = self.workers.first();
        let obstacle = self.obstacle();
        let state = match present.filter(|worker| !worker.is_condemned()) {
            Some(worker) if worker.is_up && !worker.tenants.is_empty() => DomainState::Ready,
            _ if obstacle.is_some() => DomainState::Down,
            Some(worker) if worker.is_up => DomainState::Ready,
            Some(_) | None => DomainState::Starting,
        };
        match &obstacle {
            Some(Obstacle { ends: Ends::At(at), .. }) if state == DomainState::Down => {
                self.breaker.open(Some(at.saturating_since(now)));
            }
            Some(_) if state == DomainState::Down => self.breaker.open(None),
            Some(_) | None if self.has_proven() => self.breaker.close(),
            // After the loss of a device it stays open until the next worker is up; what else ends one says nothing about the next.
            Some(_) | None => {}
        }
        let spare = self.workers.get(1).filter(|worker| worker.is_up);
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = DomainStatus {
            state,
            generation: present.map_or(self.generations, |worker| worker.generation),
            pid: present.map(|worker| worker.process.pid()),
            spare: spare.map(|worker| worker.process.pid()),
            kernels: present.map_or(0, |worker| worker.tenants.len()),
            deaths: self.deaths,
            last_death: self.last_death.clone(),
            dying: self.dying.len(),
            undying: self.dying.iter().filter(|dying| dying.is_stuck(now)).count(),
            obstacle: obstacle.map(|obstacle| obstacle.reason),
        };
    }
}

mod ends;
#[cfg(all(test, feature = "cuda"))]
mod tests;
