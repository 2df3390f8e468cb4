//! The OS thread of one incarnation of a CPU kernel, and the count of those that had to be left behind.
//!
//! A thread that blocks cannot be ended from outside. It is fenced, so that nothing it still does counts; it is counted, so that there is a
//! cap; and another one takes its place. When it returns at last it finds itself fenced and ends.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::sync::Notify;

/// Abandoned threads that still run, in one runtime.
#[derive(Clone, Debug, Default)]
pub(crate) struct Abandoned(Arc<AtomicUsize>);

impl Abandoned {
    pub(crate) fn alive(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// One kernel thread, as its supervisor sees it.
#[derive(Debug)]
pub(crate) struct Lane {
    state: Mutex<LaneState>,
    abandoned: Abandoned,
    end: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneState {
    /// There is no thread yet; after its actor's end there never will be one.
    Planned,
    Running,
    Abandoned,
    Ended,
}

impl Lane {
    pub(crate) fn new(abandoned: Abandoned) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(LaneState::Planned), abandoned, end: Notify::new() })
    }

    /// The thread is about to be started.
    pub(crate) fn start(&self) {
        *self.lock() = LaneState::Running;
    }

    /// Whether the thread has ended, its kernel dropped, or was never started. For use after the actor's end.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(*self.lock(), LaneState::Ended | LaneState::Planned)
    }

    /// Whether the thread has ended, or was given up. For use after the actor's end.
    pub(crate) fn is_over(&self) -> bool {
        *self.lock() != LaneState::Running
    }

    /// Resolves when the thread has ended or was given up. For use after the actor's end.
    pub(crate) async fn over(&self) {
        loop {
            let end = self.end.notified();
            if self.is_over() {
                return;
            }
            end.await;
        }
    }

    /// Gives the thread up. `false` if it has ended or was given up before.
    pub(crate) fn abandon(&self) -> bool {
        let mut state = self.lock();
        if *state != LaneState::Running {
            return false;
        }
        *state = LaneState::Abandoned;
        self.end.notify_waiters();
        self.abandoned.0.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// The thread ends; its kernel is dropped.
    fn end(&self) {
        let mut state = self.lock();
        if *state == LaneState::Abandoned {
            self.abandoned.0.fetch_sub(1, Ordering::AcqRel);
        }
        *state = LaneState::Ended;
        drop(state);
        self.end.notify_waiters();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the lane when dropped, whatever way the thread goes.
pub(crate) struct EndOfLane(pub(crate) Arc<Lane>);

impl Drop for EndOfLane {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Drives `future` on this thread, which is parked while the future is pending.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
