//! One worker and its kernels, as the domain's keeper sees them.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustkernel_actors::Lifeline;
use rustkernel_core::clock::Timestamp;

use super::arena::Region;
use super::config::DomainConfig;
use super::control::send;
use super::mailbox::{Attach, Attached};
use super::process::Process;
use super::tenant::Tenant;
use super::wire::{FromWorker, PROTOCOL, ToWorker, WireError};

pub(super) struct Worker {
    pub(super) process: Process,
    pub(super) generation: u64,
    pub(super) began: Timestamp,
    /// It has said hello.
    pub(super) is_up: bool,
    pub(super) tenants: HashMap<u64, Resident>,
    /// When it was asked whether it is there, if it has not answered since.
    pub(super) asked: Option<Timestamp>,
    pub(super) next_ask: Timestamp,
    /// A reason to kill it, unless it ends by itself before.
    pub(super) doubt: Option<(Timestamp, String)>,
    /// It has been killed, at this time and for this reason.
    pub(super) killed: Option<(Timestamp, String)>,
}

/// A kernel in a worker.
pub(super) struct Resident {
    pub(super) lifeline: Lifeline,
    pub(super) tenant: Arc<Tenant>,
    /// Requests that nobody waits for, and by when each has to have ended.
    pub(super) abandoned: Vec<(u64, Timestamp)>,
    /// When what stood for it was dropped: it has to go.
    pub(super) leaves: Option<Timestamp>,
}

/// A killed process is gone within this, or stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// A kernel that was left has to be dropped within this.
pub(super) const DROP_LIMIT: Duration = Duration::from_secs(5);
/// A socket closes a little before its process is seen to have ended.
pub(super) const DOUBT: Duration = Duration::from_millis(20);

/// How a worker is spoken to.
pub(super) struct Voice<'a> {
    pub(super) process: &'a Process,
    pub(super) doubt: &'a mut Option<(Timestamp, String)>,
}

impl Voice<'_> {
    pub(super) fn say(&mut self, message: &ToWorker, now: Timestamp) {
        if let Err(error) = send(&self.process.control, message, &[]) {
            self.doubt.get_or_insert_with(|| (now + DOUBT, format!("it does not listen: {error}")));
        }
    }
}

impl Worker {
    pub(super) fn new(process: Process, generation: u64, now: Timestamp) -> Self {
        Self {
            process,
            generation,
            began: now,
            is_up: false,
            tenants: HashMap::new(),
            asked: None,
            next_ask: now,
            doubt: None,
            killed: None,
        }
    }

    pub(super) fn is_condemned(&self) -> bool {
        self.killed.is_some()
    }

    pub(super) fn kill(&mut self, now: Timestamp, reason: String) {
        self.process.kill();
        self.killed.get_or_insert((now, reason));
    }

    /// It is killed, unless it turns out to have ended.
    pub(super) fn suspect(&mut self, now: Timestamp, reason: impl FnOnce() -> String) {
        self.doubt.get_or_insert_with(|| (now + DOUBT, reason()));
    }

    pub(super) fn hear(&mut self, message: &FromWorker, now: Timestamp) {
        match message {
            FromWorker::Hello { protocol: PROTOCOL, .. } => {
                self.is_up = true;
                self.next_ask = now;
            }
            FromWorker::Hello { protocol, .. } => {
                self.kill(now, format!("it speaks version {protocol} of the protocol, not {PROTOCOL}"));
            }
            FromWorker::Pong(_) => self.asked = None,
            FromWorker::Ended { kernel, request } => {
                if let Some(resident) = self.tenants.get_mut(kernel) {
                    resident.abandoned.retain(|(other, _)| other != request);
                    resident.tenant.end(*request);
                }
            }
            // One that has not been left has panicked, or could not be made; what stands for it knows.
            FromWorker::Gone { kernel } => drop(self.tenants.remove(kernel)),
        }
    }

    /// Asks whether it is there, and kills it where it has to be killed.
    pub(super) fn watch(&mut self, config: &DomainConfig, now: Timestamp) {
        if let Some((_, reason)) = self.doubt.take_if(|(due, _)| *due <= now) {
            return self.kill(now, reason);
        }
        if !self.is_up {
            if now.saturating_since(self.began) >= config.start_limit {
                self.kill(now, format!("it is not up after {:?}", config.start_limit));
            }
            return;
        }
        if self.asked.is_some_and(|asked| now.saturating_since(asked) >= config.silence) {
            return self.kill(now, format!("it has not answered for {:?}", config.silence));
        }
        let overdue = self.tenants.values().find_map(|resident| resident.overdue(now));
        if let Some(reason) = overdue {
            return self.kill(now, reason);
        }
        if self.asked.is_none() && self.next_ask <= now {
            let Self { process, doubt, generation, .. } = self;
            Voice { process, doubt }.say(&ToWorker::Ping(*generation), now);
            self.asked = Some(now);
            self.next_ask = now + config.heartbeat;
        }
    }

    pub(super) fn next_due(&self, config: &DomainConfig) -> Option<Timestamp> {
        if let Some((killed, _)) = &self.killed {
            return Some(*killed + PATIENCE);
        }
        let doubt = self.doubt.as_ref().map(|(due, _)| *due);
        let start = (!self.is_up).then(|| self.began + config.start_limit);
        let heartbeat = match self.asked {
            Some(asked) => Some(asked + config.silence),
            None => self.is_up.then_some(self.next_ask),
        };
        let kernels = self.tenants.values().filter_map(Resident::next_due);
        kernels.chain(doubt).chain(start).chain(heartbeat).min()
    }

    /// Whether an earlier life of the same kernel is still there, on its way out.
    pub(super) fn still_holds(&self, lifeline: &Lifeline) -> bool {
        let kernel = lifeline.kernel();
        let holds = |resident: &Resident| resident.leaves.is_some() && resident.lifeline.kernel() == kernel;
        self.tenants.values().any(holds)
    }

    pub(super) fn attach(&mut self, attach: &Attach, tenant: &Arc<Tenant>) -> Result<Attached, WireError> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let regions = [Region::new()?, Region::new()?];
        let message = ToWorker::Attach {
            kernel: tenant.number,
            name: attach.name.to_string(),
            settings: attach.settings.to_vec(),
        };
        let beside = [theirs.as_fd(), regions[0].fd().as_fd(), regions[1].fd().as_fd()];
        send(&self.process.control, &message, &beside)?;
        let resident = Resident {
            lifeline: attach.lifeline.clone(),
            tenant: Arc::clone(tenant),
            abandoned: Vec::new(),
            leaves: None,
        };
        self.tenants.insert(tenant.number, resident);
        Ok(Attached { tenant: Arc::clone(tenant), socket, regions })
    }
}

impl Resident {
    pub(super) fn name(&self) -> String {
        self.lifeline.kernel().map_or_else(|| "a kernel".to_owned(), |kernel| kernel.to_string())
    }

    /// Why the worker has to be killed on this kernel's account, if it has to.
    pub(super) fn overdue(&self, now: Timestamp) -> Option<String> {
        if self.abandoned.iter().any(|(_, by)| *by <= now) {
            return Some(format!("{} does not end a request that was cancelled", self.name()));
        }
        let stays = self.abandoned.is_empty() && self.leaves.is_some_and(|by| by <= now);
        stays.then(|| format!("{} does not go though it was stopped", self.name()))
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.abandoned.iter().map(|(_, by)| *by).chain(self.leaves).min()
    }
}
