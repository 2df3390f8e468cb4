//! One request as the slot holds it: a single allocation with the input, the way back and the cancellation.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};
use rustkernel_core::traits::Signal;

use crate::answer::Answer;
use crate::gate::Permit;
use crate::sync::{Mutex, lock};

/// An accepted request, shared by the caller, the slot and the execution. The input stays here while it runs, so that it can be run
/// again without a copy.
pub(crate) struct Request<I, O> {
    pub(crate) input: I,
    pub(crate) permit: Permit,
    pub(crate) answer: Answer<O>,
    pub(crate) stop: Stop,
}

impl<I, O> fmt::Debug for Request<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("permit", &self.permit)
            .field("answer", &self.answer)
            .finish_non_exhaustive()
    }
}

/// The cancellation of a request: its own, or the one that all stages of a chain share.
#[derive(Debug)]
pub(crate) enum Stop {
    Own(CancelToken),
    Shared(Arc<CancelToken>),
}

impl Stop {
    pub(crate) fn token(&self) -> &CancelToken {
        match self {
            Self::Own(token) => token,
            Self::Shared(token) => token,
        }
    }
}

/// Raised once when nobody waits for the answer any more; wakes the execution that is pending on an await.
#[derive(Debug, Default)]
pub(crate) struct CancelToken {
    signal: Signal,
    execution: Mutex<Option<Waker>>,
}

impl CancelToken {
    pub(crate) fn new() -> Self {
        Self { signal: Signal::new(), execution: Mutex::new(None) }
    }

    pub(crate) fn signal(&self) -> &Signal {
        &self.signal
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.signal.is_raised()
    }

    pub(crate) fn raise(&self) {
        self.signal.raise();
        let waker = lock(&self.execution).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Asks to be woken by [`raise`](Self::raise). Ready if it has been raised already.
    pub(crate) fn poll_raised(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut execution = lock(&self.execution);
        match &mut *execution {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *execution = Some(cx.waker().clone()),
        }
        drop(execution);
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
