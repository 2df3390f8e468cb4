//! The deadline that travels with a task.
//!
//! Whoever runs work under a deadline leaves it here, and whoever calls further down finds it, without a parameter
//! in between. It belongs to the work: it is in place while the work is polled and gone in between, so a spawned task does not
//! inherit it and another task on the same thread does not see it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;

use crate::clock::Timestamp;

thread_local! {
    static DEADLINE: Cell<Timestamp> = const { Cell::new(Timestamp::NEVER) };
}

/// The deadline of the work that the running task does, or `None` where nobody set one.
#[must_use]
pub fn ambient_deadline() -> Option<Timestamp> {
    Some(DEADLINE.get()).filter(|deadline| !deadline.is_never())
}

/// Runs `work` under `deadline`, or under the deadline that is there already where that one is earlier.
///
/// This only tells the work: nothing is dropped when the deadline passes. [`DeadlineContext`](super::DeadlineContext) does
/// that.
///
/// # Cancel safety
/// As cancel-safe as `work`.
pub async fn with_ambient_deadline<F: Future>(deadline: Timestamp, work: F) -> F::Output {
    let deadline = deadline.min(DEADLINE.get());
    let mut work = pin!(work);
    poll_fn(|cx| {
        let _scope = Scope::enter(deadline);
        work.as_mut().poll(cx)
    })
    .await
}

/// One poll under a deadline; the deadline outside comes back when it is dropped, by a panic too.
pub(super) struct Scope(Timestamp);

impl Scope {
    pub(super) fn enter(deadline: Timestamp) -> Self {
        Self(DEADLINE.replace(deadline))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        DEADLINE.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_inner_deadline_cannot_be_later_than_the_outer_one() {
        let [soon, late] = [1, 2].map(Timestamp::from_nanos);
        assert_eq!(ambient_deadline(), None);
        with_ambient_deadline(soon, async {
            with_ambient_deadline(late, async { assert_eq!(ambient_deadline(), Some(soon)) }).await;
        })
        .await;
        assert_eq!(ambient_deadline(), None);
    }
}
