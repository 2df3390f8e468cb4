//! The way back of one request: to the caller that waits, or on to the next stage of its chain.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use rustkernel_core::KernelError;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::envelope::Header;
use rustkernel_core::error::{KernelErrorKind, Phase};
use rustkernel_core::traits::Signal;
use serde::Serialize;

use crate::cancel::CancelToken;
use crate::contain::wake;
use crate::pipeline::{Mark, Recorder};
use crate::spans::{self, Tracing};
use crate::sync::{Mutex, lock};

/// Where a request's answer goes, and whose cancellation it follows.
pub(crate) enum Way<O> {
    /// To a caller that polls, with a cancellation of its own. It is only a flag: the slot that raises it wakes the
    /// execution.
    Caller(Cell<O>, Signal, Tracing),
    /// To the next stage, under the cancellation that the whole chain shares.
    Chain(Onward<O>),
}

/// A request's place in its chain.
pub(crate) struct Onward<O> {
    next: Arc<dyn Next<O>>,
    chain: Arc<dyn Chain>,
    frames: Option<Arc<Frame>>,
    mark: Option<Box<Mark>>,
    /// Whether an earlier stage has answered through its degraded path.
    degraded: bool,
    given: AtomicBool,
}

/// What all stages of a chain share.
pub(crate) trait Chain: Any + Send + Sync {
    fn token(&self) -> &CancelToken;
    /// Where the times of the stages go, if anybody wants them.
    fn recorder(&self) -> Option<&Recorder>;
    /// The trace of the whole, if it belongs to one.
    fn tracing(&self) -> Option<&spans::Request>;
}

/// What goes from stage to stage beside the value.
pub(crate) struct Flow {
    pub(crate) header: Header,
    /// The time a moment ago; [`Timestamp::ZERO`] when nobody has looked.
    pub(crate) now: Timestamp,
    pub(crate) chain: Arc<dyn Chain>,
    /// The loops and branches it is in, innermost first.
    pub(crate) frames: Option<Arc<Frame>>,
    /// Whether a stage has accepted it: it is old work then, which a drain lets through.
    pub(crate) begun: bool,
}

/// A loop or a branch that a value is in.
pub(crate) enum Frame {
    /// A loop, with the rounds that may still follow.
    Round { left: u32, below: Option<Arc<Self>> },
    /// Part `index` of a scatter, to be brought to where its parts meet.
    Part { index: usize, gather: Arc<dyn Any + Send + Sync> },
}

/// The next step of a chain, made once and shared by all its runs.
pub(crate) trait Next<T>: Send + Sync {
    /// Takes the answer of the step before. Runs in the thread that settled the request, so it hands over and returns.
    fn resume(&self, flow: Flow, result: Result<T, KernelError>);
}

impl<O> Way<O> {
    /// For a caller that will poll, or has polled with `waker`.
    pub(crate) fn to_caller(waker: Option<Waker>, tracing: Tracing) -> Self {
        Self::Caller(Cell::new(waker), Signal::new(), tracing)
    }

    /// For the next stage.
    pub(crate) fn onward(next: Arc<dyn Next<O>>, flow: Flow, mark: Option<Box<Mark>>) -> Self {
        let Flow { header, chain, frames, .. } = flow;
        let degraded = header.degraded;
        Self::Chain(Onward { next, chain, frames, mark, degraded, given: AtomicBool::new(false) })
    }

    /// Answers. `header` is the one the finished stage worked under, `now` the time if it is known. The slot's ledger gives
    /// each request to exactly one settler, so nobody answers twice.
    pub(crate) fn give(&self, header: Header, now: Timestamp, result: Result<O, KernelError>) {
        match self {
            Self::Caller(cell, _, tracing) => {
                spans::answered(tracing.as_deref(), (&header).into(), result.as_ref().err());
                cell.give(&header, result);
            }
            Self::Chain(onward) => onward.give(header, now, result),
        }
    }

    /// Raised when nobody waits for the answer any more.
    pub(crate) fn signal(&self) -> &Signal {
        match self {
            Self::Caller(_, signal, _) => signal,
            Self::Chain(onward) => onward.chain.token().signal(),
        }
    }

    /// Asks to be woken when the chain is cancelled. Ready if it has been already; a caller's own cancellation comes
    /// through the slot.
    pub(crate) fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Caller(..) => Poll::Pending,
            Self::Chain(onward) => onward.chain.token().poll_raised(cx),
        }
    }

    /// Whether an earlier stage of its chain has answered through its degraded path.
    pub(crate) fn is_degraded_before(&self) -> bool {
        match self {
            Self::Caller(..) => false,
            Self::Chain(onward) => onward.degraded,
        }
    }

    /// The trace of the request, if it belongs to one.
    pub(crate) fn tracing(&self) -> Option<&spans::Request> {
        match self {
            Self::Caller(_, _, tracing) => tracing.as_deref(),
            Self::Chain(onward) => onward.chain.tracing(),
        }
    }

    /// The caller's cell; `None` in a chain.
    pub(crate) fn cell(&self) -> Option<&Cell<O>> {
        match self {
            Self::Caller(cell, ..) => Some(cell),
            Self::Chain(_) => None,
        }
    }
}

impl<O> Onward<O> {
    fn give(&self, mut header: Header, now: Timestamp, result: Result<O, KernelError>) {
        let given = self.given.swap(true, Ordering::Relaxed);
        debug_assert!(!given, "a request was answered twice");
        if let (Some(mark), Some(recorder)) = (&self.mark, self.chain.recorder()) {
            recorder.record(mark, &header, result.is_err());
        }
        header.degraded |= self.degraded;
        let (chain, frames) = (Arc::clone(&self.chain), self.frames.clone());
        self.next.resume(Flow { header, now, chain, frames, begun: true }, result);
    }
}

impl<O> Drop for Onward<O> {
    /// A request that is dropped on its way, by a panic where none is expected, still ends its chain.
    fn drop(&mut self) {
        if !*self.given.get_mut() {
            let lost =
                KernelError::new(KernelErrorKind::Crashed, Phase::Queued).with_source("dropped on its way");
            self.give(Header::new(0, Timestamp::NEVER), Timestamp::ZERO, Err(lost));
        }
    }
}

/// What became of a request on its way to its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallReport {
    /// Attempts it took; the last one gave the answer. 0 for a request that never entered a slot.
    pub attempts: u32,
    /// Whether a degraded path gave the answer, or in a chain a part of it.
    pub degraded: bool,
}

impl From<&Header> for CallReport {
    fn from(header: &Header) -> Self {
        Self { attempts: header.attempt, degraded: header.degraded }
    }
}

/// A place that is answered once and read once.
pub(crate) struct Cell<O>(Mutex<State<O>>);

enum State<O> {
    /// Nobody has polled yet, or the waker of the last poll.
    Waiting(Option<Waker>),
    Ready(Result<O, KernelError>, CallReport),
    Taken,
}

impl<O> Cell<O> {
    pub(crate) fn new(waker: Option<Waker>) -> Self {
        Self(Mutex::new(State::Waiting(waker)))
    }

    /// Answers, if nobody has.
    pub(crate) fn give(&self, header: &Header, result: Result<O, KernelError>) {
        let mut state = lock(&self.0);
        if let State::Waiting(waker) = &mut *state {
            let waker = waker.take();
            *state = State::Ready(result, header.into());
            drop(state);
            wake(waker);
        }
    }

    /// Takes the answer, or leaves the waker.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<(Result<O, KernelError>, CallReport)> {
        let mut state = lock(&self.0);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Ready(result, report) => Poll::Ready((result, report)),
            State::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => {
                *state = State::Waiting(Some(waker));
                Poll::Pending
            }
            State::Waiting(_) => {
                *state = State::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
            State::Taken => Poll::Pending,
        }
    }

    /// Whether nobody has answered yet.
    pub(crate) fn is_open(&self) -> bool {
        matches!(&*lock(&self.0), State::Waiting(_))
    }
}
