//! One worker and its kernels, as the domain's keeper sees them.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustkernel_actors::{Lifeline, Loss, Suspicion};
use rustkernel_core::KernelId;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::fault::FaultScope;

use super::code::Code;
use super::config::DomainConfig;
use super::control::send;
use super::dying::PATIENCE;
use super::mailbox::{Attach, Attached};
use super::premises::Premises;
use super::process::Process;
use super::tenant::Tenant;
use super::wire::{FromWorker, PROTOCOL, ToWorker, WireError};

pub(super) struct Worker {
    pub(super) process: Process,
    pub(super) generation: u64,
    pub(super) began: Timestamp,
    /// It has said hello.
    pub(super) is_up: bool,
    /// It has said something, as a worker does.
    pub(super) has_spoken: bool,
    /// It was killed because it seemed to have ended.
    seemed_over: bool,
    pub(super) tenants: HashMap<u64, Resident>,
    /// When it was asked whether it is there, if it has not answered since.
    pub(super) asked: Option<Timestamp>,
    pub(super) next_ask: Timestamp,
    /// It is to be killed when this is due, unless it ends by itself before.
    pub(super) doubt: Option<Charge>,
    /// It has been killed.
    pub(super) killed: Option<Charge>,
    /// It has said that it cannot be what it is for, and whether others can.
    pub(super) unable: Option<Unable>,
    premises: Premises,
    /// What there was no room for, and has to be said all the same.
    unsaid: Vec<ToWorker>,
}

/// Why a worker is of no use.
#[derive(Clone)]
pub(super) struct Unable {
    pub(super) reason: String,
    pub(super) for_good: bool,
}

/// What is held against a worker.
pub(super) struct Charge {
    pub(super) at: Timestamp,
    pub(super) reason: String,
    pub(super) blame: Blame,
}

/// On whose account a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// It may be any of those who were active.
    Anybody,
    /// This kernel's.
    Kernel(u64),
    /// None of its kernels': the hardware's.
    Hardware,
    /// Nobody's: it was in order, and has to go.
    Nobody,
}

/// A kernel in a worker.
pub(super) struct Resident {
    /// Its name, which outlives its slot here.
    pub(super) kernel: Option<KernelId>,
    pub(super) lifeline: Lifeline,
    pub(super) tenant: Arc<Tenant>,
    /// Requests that nobody waits for, nor for those before them, and by when each has to have ended.
    pub(super) abandoned: Vec<(u64, Timestamp)>,
    /// The last of those there ever were.
    given_up: u64,
    /// When what stood for it was dropped: it has to go.
    pub(super) leaves: Option<Timestamp>,
    /// The worker says that it is gone.
    pub(super) is_gone: bool,
    /// Until where it has read what it was asked, when it went.
    read_there: u64,
}

/// A kernel that was left has to be dropped within this.
pub(super) const DROP_LIMIT: Duration = Duration::from_secs(5);
/// A socket closes a little before its process is seen to have ended.
pub(super) const DOUBT: Duration = Duration::from_millis(20);

impl Worker {
    pub(super) fn new(process: Process, generation: u64, now: Timestamp, premises: Premises) -> Self {
        Self {
            process,
            premises,
            unsaid: Vec::new(),
            generation,
            began: now,
            is_up: false,
            has_spoken: false,
            seemed_over: false,
            tenants: HashMap::new(),
            asked: None,
            next_ask: now,
            doubt: None,
            killed: None,
            unable: None,
        }
    }

    pub(super) fn is_condemned(&self) -> bool {
        self.killed.is_some()
    }

    /// Whether it seems to have ended by itself, or to be about to.
    pub(super) fn has_hung_up(&self) -> bool {
        self.seemed_over || self.doubt.is_some()
    }

    pub(super) fn kill(&mut self, now: Timestamp, reason: String, blame: Blame) {
        self.premises.note_kill();
        self.process.kill();
        self.killed.get_or_insert(Charge { at: now, reason, blame });
    }

    /// It is killed, unless it turns out to have ended.
    pub(super) fn suspect(&mut self, now: Timestamp, blame: Blame, reason: impl FnOnce() -> String) {
        self.doubt.get_or_insert_with(|| Charge { at: now + DOUBT, reason: reason(), blame });
    }

    /// Says something. One that leaves so much unread that there is no room will be found silent. Gives whether there was room.
    pub(super) fn say(&mut self, message: &ToWorker, now: Timestamp) -> bool {
        match send(&self.process.control, message, &[]) {
            Err(WireError::Io(error)) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => self.suspect(now, Blame::Anybody, || format!("it does not listen: {error}")),
            Ok(()) => {}
        }
        true
    }

    /// Has it load code. One that has no room for the message now loads it when it is wanted.
    pub(super) fn prepare(&self, code: Code, file: BorrowedFd<'_>) {
        if self.is_up && !self.is_condemned() {
            let _ = send(&self.process.control, &ToWorker::Prepare { code }, &[file]);
        }
    }

    /// Nobody waits any more for this request and those before it.
    pub(super) fn abandon(&mut self, tenant: u64, request: u64, by: Timestamp, now: Timestamp) {
        if let Some(resident) = self.tenants.get_mut(&tenant).filter(|resident| !resident.is_gone) {
            resident.abandoned.push((request, by));
            resident.given_up = resident.given_up.max(request);
            self.say(&ToWorker::Cancel { kernel: tenant, request }, now);
        }
    }

    /// What stood for the kernel is gone.
    pub(super) fn leave(&mut self, tenant: u64, by: Timestamp, now: Timestamp) {
        let Some(resident) = self.tenants.get_mut(&tenant) else { return };
        let read = resident.tenant.read();
        if resident.is_gone {
            // What it was sent since was read by nobody.
            drop(self.process.border().forget(tenant, resident.read_there));
            self.tenants.remove(&tenant);
        } else {
            resident.leaves = Some(by);
        }
        let left = ToWorker::Left { kernel: tenant, read };
        if !self.say(&left, now) {
            self.unsaid.push(left);
        }
    }

    /// What comes from the kernel is no answer, or nothing comes any more.
    pub(super) fn breaks(&mut self, tenant: u64, reason: &str, now: Timestamp) {
        let Some(resident) = self.tenants.get(&tenant) else { return };
        let reason = format!("{}: {reason}", resident.name());
        if resident.is_gone {
            // The worker has ended it, and goes on: that is this kernel's failure alone.
            let suspicion = resident.tenant.suspicion(true);
            resident.lifeline.lost(Loss::Panicked { reason, suspicion });
        } else {
            self.suspect(now, Blame::Kernel(tenant), || reason);
        }
    }

    /// What its death says about what each of its kernels has in hand. Read at once, before anybody is told: who is told lets others go on.
    pub(super) fn verdicts(tenants: HashMap<u64, Resident>, blame: Blame) -> Vec<(Lifeline, Suspicion)> {
        let active = tenants.values().filter(|resident| resident.is_active()).count();
        let verdict = |(number, resident): (u64, Resident)| {
            let may_be_it = match blame {
                Blame::Anybody => true,
                Blame::Kernel(kernel) => kernel == number,
                Blame::Hardware | Blame::Nobody => false,
            };
            let alone = active <= 1 && may_be_it;
            (resident.lifeline, resident.tenant.suspicion(alone))
        };
        tenants.into_iter().map(verdict).collect()
    }

    pub(super) fn hear(&mut self, message: &FromWorker, now: Timestamp) {
        self.has_spoken = true;
        match message {
            FromWorker::Hello { protocol: PROTOCOL, .. } => {
                self.is_up = true;
                self.next_ask = now;
            }
            FromWorker::Hello { protocol, .. } => {
                let reason = format!("it speaks version {protocol} of the protocol, not {PROTOCOL}");
                self.kill(now, reason, Blame::Anybody);
            }
            FromWorker::Unable { reason, for_good } => {
                self.unable = Some(Unable { reason: reason.clone(), for_good: *for_good });
                self.kill(now, reason.clone(), Blame::Anybody);
            }
            // It ends by itself, unless its driver holds it up.
            FromWorker::DeviceLost { reason, fault } => {
                // What the hardware does is no request's doing.
                let is_hardware = fault.class.scope() == FaultScope::Device;
                let blame = if is_hardware { Blame::Hardware } else { Blame::Anybody };
                self.kill(now, reason.clone(), blame);
            }
            FromWorker::Pong => self.asked = None,
            // Its keeper's to keep.
            FromWorker::Loaded { .. } => {}
            FromWorker::Returned { numbers } => drop(self.process.border().take_back(numbers)),
            FromWorker::Ended { kernel, request } => self.hear_ended(*kernel, *request, now),
            FromWorker::Gone { kernel, read } => self.hear_gone(*kernel, *read),
        }
    }

    fn hear_ended(&mut self, kernel: u64, request: u64, now: Timestamp) {
        let Some(resident) = self.tenants.get_mut(&kernel).filter(|resident| !resident.is_gone) else {
            return;
        };
        if request <= resident.given_up {
            // They end in the order of their numbers.
            resident.abandoned.retain(|(abandoned, _)| *abandoned > request);
            resident.tenant.end(request);
            return;
        }
        let reason = format!("{} has ended a request that nobody gave up", resident.name());
        self.kill(now, reason, Blame::Kernel(kernel));
    }

    fn hear_gone(&mut self, kernel: u64, read: u64) {
        let Some(resident) = self.tenants.get_mut(&kernel) else { return };
        resident.read_there = read;
        drop(self.process.border().forget(kernel, read));
        if resident.leaves.is_some() {
            self.tenants.remove(&kernel);
            return;
        }
        // It has panicked, or could not be made. What stands for it knows, or finds its socket closed and says so.
        resident.is_gone = true;
        resident.abandoned.clear();
        if let Some(doubt) = self.doubt.take_if(|doubt| doubt.blame == Blame::Kernel(kernel)) {
            let (reason, suspicion) = (doubt.reason, resident.tenant.suspicion(true));
            resident.lifeline.lost(Loss::Panicked { reason, suspicion });
        }
    }

    /// Asks whether it is there, and kills it where it has to be killed.
    pub(super) fn watch(&mut self, config: &DomainConfig, now: Timestamp) {
        if let Some(Charge { reason, blame, .. }) = self.doubt.take_if(|doubt| doubt.at <= now) {
            self.seemed_over = true;
            return self.kill(now, reason, blame);
        }
        if !self.is_up {
            if now.saturating_since(self.began) >= config.start_limit {
                self.kill(now, format!("it is not up after {:?}", config.start_limit), Blame::Anybody);
            }
            return;
        }
        if self.asked.is_some_and(|asked| now.saturating_since(asked) >= config.silence) {
            return self.kill(now, format!("it has not answered for {:?}", config.silence), Blame::Anybody);
        }
        let mut tenants = self.tenants.iter();
        let overdue = tenants.find_map(|(number, resident)| Some((*number, resident.overdue(now)?)));
        if let Some((kernel, reason)) = overdue {
            return self.kill(now, reason, Blame::Kernel(kernel));
        }
        if self.asked.is_none() && self.next_ask <= now {
            self.say(&ToWorker::Ping, now);
            self.process.border().return_all();
            for left in std::mem::take(&mut self.unsaid) {
                if !self.say(&left, now) {
                    self.unsaid.push(left);
                }
            }
            self.asked = Some(now);
            self.next_ask = now + config.heartbeat;
        }
    }

    pub(super) fn next_due(&self, config: &DomainConfig) -> Option<Timestamp> {
        if let Some(killed) = &self.killed {
            return Some(killed.at + PATIENCE);
        }
        let doubt = self.doubt.as_ref().map(|doubt| doubt.at);
        let start = (!self.is_up).then(|| self.began + config.start_limit);
        let heartbeat = match self.asked {
            Some(asked) => Some(asked + config.silence),
            None => self.is_up.then_some(self.next_ask),
        };
        let kernels = self.tenants.values().filter_map(Resident::next_due);
        kernels.chain(doubt).chain(start).chain(heartbeat).min()
    }

    /// Whether an earlier life of the same kernel is still there, on its way out.
    pub(super) fn still_holds(&self, kernel: Option<&KernelId>) -> bool {
        let holds = |resident: &Resident| {
            let is_over = resident.leaves.is_some() || resident.lifeline.is_over();
            is_over && !resident.is_gone && resident.kernel.as_ref() == kernel
        };
        self.tenants.values().any(holds)
    }

    /// Hands a kernel over to it.
    pub(super) fn attach(&mut self, attach: &Attach, tenant: &Arc<Tenant>) -> Result<Attached, AttachError> {
        let (socket, theirs) = UnixStream::pair().map_err(AttachError::Here)?;
        socket.set_nonblocking(true).map_err(AttachError::Here)?;
        let message = ToWorker::Attach {
            kernel: tenant.number,
            name: attach.name.to_string(),
            settings: attach.settings.to_vec(),
        };
        match send(&self.process.control, &message, &[theirs.as_fd()]) {
            Ok(()) => {}
            Err(WireError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                return Err(AttachError::NotNow);
            }
            Err(error) => return Err(AttachError::There(error)),
        }
        let resident = Resident {
            kernel: attach.lifeline.kernel(),
            lifeline: attach.lifeline.clone(),
            tenant: Arc::clone(tenant),
            abandoned: Vec::new(),
            given_up: 0,
            leaves: None,
            is_gone: false,
            read_there: 0,
        };
        self.tenants.insert(tenant.number, resident);
        let border = Arc::clone(self.process.border());
        Ok(Attached { tenant: Arc::clone(tenant), socket: Some(socket), border })
    }
}

/// Why a worker has not got a kernel.
pub(super) enum AttachError {
    /// This process has no files left, for example.
    Here(io::Error),
    /// The worker has still to read what it was told before.
    NotNow,
    There(WireError),
}

impl Resident {
    pub(super) fn name(&self) -> String {
        self.kernel.as_ref().map_or_else(|| "a kernel".to_owned(), ToString::to_string)
    }

    /// Whether user code of it may run in the worker: it is made, executes, or is dropped.
    fn is_active(&self) -> bool {
        !self.is_gone && (self.tenant.is_active() || self.leaves.is_some())
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
