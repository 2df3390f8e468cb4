//! "Nobody waits for this any more": raised once, seen at every border, and waking what is pending.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};
use rustkernel_core::traits::Signal;

use crate::sync::{Mutex, lock};

/// The cancellation of a request, of a chain, or of one branch of a chain.
#[derive(Debug)]
pub(crate) struct CancelToken {
    signal: Signal,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    /// Executions that are pending; each once.
    executions: Vec<Waker>,
    branches: Vec<Weak<CancelToken>>,
}

impl CancelToken {
    pub(crate) fn new() -> Self {
        Self { signal: Signal::new(), listeners: Mutex::new(Listeners::default()) }
    }

    /// A token of its own that is raised together with this one.
    pub(crate) fn branch(&self) -> Arc<Self> {
        let branch = Arc::new(Self::new());
        let mut listeners = lock(&self.listeners);
        listeners.branches.retain(|other| other.strong_count() > 0);
        listeners.branches.push(Arc::downgrade(&branch));
        drop(listeners);
        if self.is_raised() {
            branch.raise();
        }
        branch
    }

    pub(crate) fn signal(&self) -> &Signal {
        &self.signal
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.signal.is_raised()
    }

    pub(crate) fn raise(&self) {
        self.signal.raise();
        let Listeners { executions, branches } = std::mem::take(&mut *lock(&self.listeners));
        for branch in branches {
            if let Some(branch) = branch.upgrade() {
                branch.raise();
            }
        }
        for waker in executions {
            waker.wake();
        }
    }

    /// Asks to be woken by [`raise`](Self::raise). Ready if it has been raised already.
    pub(crate) fn poll_raised(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut listeners = lock(&self.listeners);
        if !listeners.executions.iter().any(|waker| waker.will_wake(cx.waker())) {
            listeners.executions.push(cx.waker().clone());
        }
        drop(listeners);
        if self.is_raised() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What a cancelled request is answered with.
pub(crate) fn cancelled(phase: Phase) -> KernelError {
    KernelError::new(KernelErrorKind::Cancelled, phase)
}

/// What a request is answered with whose deadline passed.
pub(crate) fn deadline_exceeded(phase: Phase) -> KernelError {
    KernelError::new(KernelErrorKind::DeadlineExceeded, phase)
}
