//! How a domain's keeper, which waits in `poll`, is told something.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustkernel_actors::Lifeline;
use rustkernel_core::error::KernelError;
use tokio::sync::oneshot;

use super::border::Border;
use super::tenant::Tenant;

/// What is said to a keeper.
pub(super) enum Mail {
    /// A life of a kernel wants to live in the worker.
    Attach(Attach),
    /// Nobody waits any more for this execution and those before it.
    Abandoned { tenant: u64, request: u64 },
    /// What stands for the kernel is gone.
    Detached { tenant: u64 },
    /// The kernel's socket is closed, or what came over it is no answer.
    Broken { tenant: u64, reason: String },
    /// The device has become unfit, or fit again.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "there are no devices then"))]
    DeviceTurned,
    /// Nobody uses the domain any more.
    Close,
}

pub(super) struct Attach {
    pub(super) lifeline: Lifeline,
    /// The name that the worker knows the kernel by.
    pub(super) name: Arc<str>,
    pub(super) settings: Arc<[u8]>,
    pub(super) attached: oneshot::Sender<Result<Attached, KernelError>>,
}

/// A kernel's place in a worker.
pub(super) struct Attached {
    pub(super) tenant: Arc<Tenant>,
    /// Until it is taken.
    pub(super) socket: Option<UnixStream>,
    /// With the worker.
    pub(super) border: Arc<Border>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.tenant.tell(Mail::Detached { tenant: self.tenant.number });
    }
}

pub(super) struct Mailbox {
    /// None when nobody reads it any more.
    mail: Mutex<Option<VecDeque<Mail>>>,
    /// Readable when there is mail.
    bell: OwnedFd,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { mail: Mutex::new(Some(VecDeque::new())), bell }))
    }

    /// What comes when nobody reads it any more is dropped.
    pub(super) fn post(&self, mail: Mail) {
        let unread = match &mut *self.lock() {
            Some(read) => {
                read.push_back(mail);
                None
            }
            None => Some(mail),
        };
        // Outside the lock: it may be the last to hold a place in the domain, whose end is mail, too.
        drop(unread);
        // A bell that cannot be rung any louder is ringing.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Everything that has come. Mail that comes from now on rings again.
    pub(super) fn take(&self) -> VecDeque<Mail> {
        let mut count = [0; 8];
        // One that was not ringing has nothing to read.
        let _ = rustix::io::read(&self.bell, &mut count);
        self.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Nobody reads it any more.
    pub(super) fn close(&self) {
        let unread = self.lock().take();
        drop(unread);
    }

    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Mail>>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("mail", &self.lock().as_ref().map(VecDeque::len)).finish()
    }
}
