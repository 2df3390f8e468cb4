//! User code that the runtime runs in passing: wakers, drops of payloads, texts, encodings.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs `code`; `None` if it panics. Whoever calls this has more to do than that one user's code, and does it.
pub(crate) fn contain<R>(what: &'static str, code: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => Some(result),
        Err(panic) => {
            // Its own drop may panic too.
            std::mem::forget(panic);
            tracing::error!(what, "user code panicked; the runtime goes on");
            None
        }
    }
}

/// A value of the user's whose `Drop` may panic, perhaps while another panic unwinds: two at once would end the process.
pub(crate) struct Contained<T>(Option<T>);

impl<T> Contained<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// The value; `None` only while it is dropped.
    pub(crate) fn get(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            contain("a drop", || drop(value));
        }
    }
}

/// Wakes, whatever the waker does.
pub(crate) fn wake(waker: impl IntoIterator<Item = Waker>) {
    for waker in waker {
        contain("a waker", || waker.wake());
    }
}
