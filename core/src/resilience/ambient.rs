//! The deadline that travels with a task.
//!
//! Whoever runs work under a deadline leaves it here, and whoever calls further down finds it, without a parameter
//! in between. It belongs to the task: a spawned task does not inherit it.

use std::future::Future;

use tokio::task::futures::TaskLocalFuture;

use crate::clock::Timestamp;

tokio::task_local! {
    static DEADLINE: Timestamp;
}

/// The deadline of the work that the running task does, or `None` where nobody set one.
#[must_use]
pub fn ambient_deadline() -> Option<Timestamp> {
    DEADLINE.try_with(|deadline| *deadline).ok().filter(|deadline| !deadline.is_never())
}

/// Runs `work` under `deadline`, or under the deadline that is there already where that one is earlier.
///
/// This only tells the work: nothing is dropped when the deadline passes. [`DeadlineContext`](super::DeadlineContext) does
/// that.
///
/// # Cancel safety
/// As cancel-safe as `work`.
pub async fn with_ambient_deadline<F: Future>(deadline: Timestamp, work: F) -> F::Output {
    let outer = ambient_deadline().unwrap_or(Timestamp::NEVER);
    scope(deadline.min(outer), work).await
}

/// Runs `work` under `deadline`, which the caller has made sure is no later than the one outside.
pub(super) fn scope<F: Future>(deadline: Timestamp, work: F) -> TaskLocalFuture<Timestamp, F> {
    DEADLINE.scope(deadline, work)
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
