//! The way back of one request: to the caller that waits, or on to the next stage of its chain.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustkernel_core::KernelError;
use rustkernel_core::envelope::Header;

use crate::cancel::CancelToken;
use crate::contain::wake;
use crate::pipeline::Recorder;
use crate::sync::{Mutex, lock};

/// Where a request's answer goes, and whose cancellation it follows.
pub(crate) enum Way<O> {
    /// To a caller that polls, with a cancellation of its own.
    Caller(Cell<O>, CancelToken),
    /// To the next stage, under the cancellation that the whole chain shares.
    Chain(Mutex<Option<Box<dyn Continuation<O>>>>, Arc<dyn Chain>),
}

/// What all stages of a chain share.
pub(crate) trait Chain: Send + Sync {
    fn token(&self) -> &CancelToken;
    /// Where the times of the stages go, if anybody wants them.
    fn recorder(&self) -> Option<&Recorder>;
}

/// What goes from stage to stage beside the value.
pub(crate) struct Flow {
    pub(crate) header: Header,
    pub(crate) chain: Arc<dyn Chain>,
}

/// What happens with an answer instead of waking a caller: the next stage of a chain takes it.
pub(crate) trait Continuation<O>: Send {
    /// Takes the answer. Runs in the thread that settled the request, so it hands over and returns. Dropping a continuation
    /// instead must answer whoever waits at its end.
    fn resume(self: Box<Self>, flow: Flow, result: Result<O, KernelError>);
}

impl<O> Way<O> {
    /// For a caller that will poll.
    pub(crate) fn to_caller() -> Self {
        Self::Caller(Cell::new(), CancelToken::new())
    }

    /// For the next stage.
    pub(crate) fn through(chain: Arc<dyn Chain>, next: Box<dyn Continuation<O>>) -> Self {
        Self::Chain(Mutex::new(Some(next)), chain)
    }

    /// Answers. `header` is the one the finished stage worked under. The slot's ledger gives each request to exactly one
    /// settler, so nobody answers twice.
    pub(crate) fn give(&self, header: Header, result: Result<O, KernelError>) {
        match self {
            Self::Caller(cell, _) => cell.give(result),
            Self::Chain(next, chain) => {
                let next = lock(next).take();
                debug_assert!(next.is_some(), "a request was answered twice");
                if let Some(next) = next {
                    next.resume(Flow { header, chain: Arc::clone(chain) }, result);
                }
            }
        }
    }

    /// Whether the request is on its way through a chain.
    pub(crate) fn is_chain(&self) -> bool {
        matches!(self, Self::Chain(..))
    }

    pub(crate) fn token(&self) -> &CancelToken {
        match self {
            Self::Caller(_, token) => token,
            Self::Chain(_, chain) => chain.token(),
        }
    }

    /// The caller's cell; `None` in a chain.
    pub(crate) fn cell(&self) -> Option<&Cell<O>> {
        match self {
            Self::Caller(cell, _) => Some(cell),
            Self::Chain(..) => None,
        }
    }
}

impl<O> fmt::Debug for Way<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_chain() { "Chain" } else { "Caller" })
    }
}

/// A place that is answered once and read once.
pub(crate) struct Cell<O>(Mutex<State<O>>);

enum State<O> {
    /// Nobody has polled yet, or the waker of the last poll.
    Waiting(Option<Waker>),
    Ready(Result<O, KernelError>),
    Taken,
}

impl<O> Cell<O> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::Waiting(None)))
    }

    /// Answers, if nobody has.
    pub(crate) fn give(&self, result: Result<O, KernelError>) {
        let mut state = lock(&self.0);
        if let State::Waiting(waker) = &mut *state {
            let waker = waker.take();
            *state = State::Ready(result);
            drop(state);
            wake(waker);
        }
    }

    /// Takes the answer, or leaves the waker.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<O, KernelError>> {
        let mut state = lock(&self.0);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Ready(result) => Poll::Ready(result),
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
