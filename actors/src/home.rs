//! The address of a supervisor: it stays the same when the supervisor itself is restarted.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ractor::{ActorRef, ActorStatus};
use tokio::sync::oneshot;

use crate::recovery::RecoveryMsg;

/// Where the recovery actor of one node of the tree is reached, while there is one. What is said to a node that is down is dropped: it
/// begins anew.
#[derive(Debug, Default)]
pub(crate) struct Home(Mutex<Option<ActorRef<RecoveryMsg>>>);

impl Home {
    /// A new recovery actor lives here.
    pub(crate) fn move_in(&self, actor: ActorRef<RecoveryMsg>) {
        *self.lock() = Some(actor);
    }

    /// Says something. `false` if nobody is there.
    pub(crate) fn tell(&self, message: RecoveryMsg) -> bool {
        let actor = self.lock().clone();
        actor.is_some_and(|actor| actor.send_message(message).is_ok())
    }

    /// Whether somebody is there.
    pub(crate) fn is_occupied(&self) -> bool {
        let alive = |actor: &ActorRef<RecoveryMsg>| {
            !matches!(actor.get_status(), ActorStatus::Stopping | ActorStatus::Stopped)
        };
        self.lock().as_ref().is_some_and(alive)
    }

    /// Asks something; `None` if nobody is there, or it ends before it answers.
    pub(crate) async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> RecoveryMsg) -> Option<T> {
        self.put(question)?.await.ok()
    }

    /// Puts a question, and leaves it to the caller to wait for the answer; `None` if nobody is there.
    pub(crate) fn put<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> RecoveryMsg,
    ) -> Option<oneshot::Receiver<T>> {
        let (reply, answer) = oneshot::channel();
        self.tell(question(reply)).then_some(answer)
    }

    fn lock(&self) -> MutexGuard<'_, Option<ActorRef<RecoveryMsg>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
