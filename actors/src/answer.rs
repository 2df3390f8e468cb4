//! Where one request's answer goes: to the caller that waits, or on to the next stage.

use std::fmt;
use std::task::{Context, Poll, Waker};

use rustkernel_core::KernelError;
use rustkernel_core::envelope::Header;

use crate::sync::{Mutex, lock};

/// What happens with an answer instead of waking a caller: the next stage of a chain takes it.
pub(crate) trait Continuation<O>: Send {
    /// Takes the answer. `header` is the one the finished stage worked under. Runs in the thread that settled the
    /// request, so it hands over and returns.
    fn resume(self: Box<Self>, header: Header, result: Result<O, KernelError>);
}

/// A cell that is answered exactly once and read at most once.
pub(crate) struct Answer<O>(Mutex<State<O>>);

enum State<O> {
    /// Nobody has polled yet, or the waker of the last poll.
    Waiting(Option<Waker>),
    Route(Box<dyn Continuation<O>>),
    Ready(Result<O, KernelError>),
    Done,
}

impl<O> Answer<O> {
    /// For a caller that will poll.
    pub(crate) fn to_caller() -> Self {
        Self(Mutex::new(State::Waiting(None)))
    }

    /// For the next stage.
    pub(crate) fn to_route(route: Box<dyn Continuation<O>>) -> Self {
        Self(Mutex::new(State::Route(route)))
    }

    /// Answers. The slot's ledger gives each request to exactly one settler, so a second answer is a defect of this
    /// crate; it is dropped.
    pub(crate) fn give(&self, header: Header, result: Result<O, KernelError>) {
        let mut state = lock(&self.0);
        match std::mem::replace(&mut *state, State::Done) {
            State::Waiting(waker) => {
                *state = State::Ready(result);
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Route(route) => {
                drop(state);
                route.resume(header, result);
            }
            State::Ready(first) => {
                *state = State::Ready(first);
                drop(state);
                debug_assert!(false, "a request was answered twice");
            }
            State::Done => {}
        }
    }

    /// Takes the answer, or leaves the waker.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<O, KernelError>> {
        let mut state = lock(&self.0);
        match &mut *state {
            State::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => Poll::Pending,
            State::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Route(_) | State::Done => Poll::Pending,
            State::Ready(_) => match std::mem::replace(&mut *state, State::Done) {
                State::Ready(result) => Poll::Ready(result),
                State::Waiting(_) | State::Route(_) | State::Done => Poll::Pending,
            },
        }
    }

    /// Whether nobody has answered yet.
    pub(crate) fn is_open(&self) -> bool {
        matches!(&*lock(&self.0), State::Waiting(_) | State::Route(_))
    }

    /// Gives up the route without answering, because the request was refused at the door.
    pub(crate) fn take_route(&self) -> Option<Box<dyn Continuation<O>>> {
        let mut state = lock(&self.0);
        match std::mem::replace(&mut *state, State::Done) {
            State::Route(route) => Some(route),
            other => {
                *state = other;
                None
            }
        }
    }
}

impl<O> fmt::Debug for Answer<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*lock(&self.0) {
            State::Waiting(_) => "waiting",
            State::Route(_) => "route",
            State::Ready(_) => "ready",
            State::Done => "done",
        };
        f.debug_tuple("Answer").field(&state).finish()
    }
}
