//! One kernel in a worker, as both of its watchers here know it: what stands for it, and the domain's keeper.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustkernel_actors::Suspicion;

use super::mailbox::{Mail, Mailbox};

/// What the two share.
#[derive(Debug)]
pub(super) struct Tenant {
    /// Its number in its domain.
    pub(super) number: u64,
    /// The execution in the worker; 0 for none. One that nobody waits for any more counts until the worker says that it has ended.
    running: AtomicU64,
    /// Whether somebody waits for it.
    is_awaited: AtomicBool,
    mailbox: Arc<Mailbox>,
}

impl Tenant {
    pub(super) fn new(number: u64, mailbox: Arc<Mailbox>) -> Arc<Self> {
        Arc::new(Self { number, running: AtomicU64::new(0), is_awaited: AtomicBool::new(false), mailbox })
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire) != 0
    }

    /// What the death of the worker says about the request that the kernel has in hand, if it has one. `alone`: nothing else was running
    /// there.
    pub(super) fn suspicion(&self, alone: bool) -> Suspicion {
        match (self.is_awaited.load(Ordering::Acquire), alone) {
            (false, _) => Suspicion::None,
            (true, false) => Suspicion::Suspect,
            (true, true) => Suspicion::Alone,
        }
    }

    /// An execution begins. Dropped before its answer has come, it is one that nobody waits for.
    pub(super) fn begin(self: &Arc<Self>, request: u64) -> InFlight {
        self.running.store(request, Ordering::Release);
        self.is_awaited.store(true, Ordering::Release);
        InFlight { tenant: Arc::clone(self), request }
    }

    /// The execution has ended.
    pub(super) fn end(&self, request: u64) {
        // Another one may have begun.
        let _ = self.running.compare_exchange(request, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(super) fn tell(&self, mail: Mail) {
        self.mailbox.post(mail);
    }
}

/// An execution in the worker whose answer is awaited.
pub(super) struct InFlight {
    tenant: Arc<Tenant>,
    request: u64,
}

impl InFlight {
    /// Its answer has come.
    pub(super) fn arrived(self) {
        self.tenant.end(self.request);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.tenant.is_awaited.store(false, Ordering::Release);
        if self.tenant.running.load(Ordering::Acquire) == self.request {
            self.tenant.tell(Mail::Abandoned { tenant: self.tenant.number, request: self.request });
        }
    }
}
