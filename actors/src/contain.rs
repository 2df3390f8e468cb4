//! User code that the runtime runs in passing: wakers, drops of payloads, texts, encodings.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs `code`; `None` if it panics. Whoever calls this has more to do than that one user's code, and does it.
pub(crate) fn contain<R>(what: &'static str, code: impl FnOnce() -> R) -> Option<R> {
    let result = catch_unwind(AssertUnwindSafe(code));
    if result.is_err() {
        tracing::error!(what, "user code panicked; the runtime goes on");
    }
    result.ok()
}

/// Wakes, whatever the waker does.
pub(crate) fn wake(waker: impl IntoIterator<Item = Waker>) {
    for waker in waker {
        contain("a waker", || waker.wake());
    }
}
