//! Telling a listener about transitions: in order, once each, and never under the breaker's lock.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::Transition;

type Listener = Arc<dyn Fn(&Transition) + Send + Sync>;

/// Transitions that wait while a listener is busy; the oldest is given up for a new one beyond that.
const MAX_WAITING: usize = 256;

/// The listener and the transitions it has not heard of yet.
///
/// Transitions are queued under the breaker's lock, so that their order is the breaker's, and delivered outside of
/// it by one thread at a time. A listener that changes the breaker only queues: it is not called from within itself.
#[derive(Default)]
pub(super) struct Listeners(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    listener: Option<Listener>,
    waiting: VecDeque<Transition>,
    delivering: bool,
}

impl Listeners {
    pub(super) fn set(&self, listener: Listener) {
        self.lock().listener = Some(listener);
    }

    pub(super) fn queue(&self, moved: Option<Transition>) {
        let Some(transition) = moved else { return };
        let mut queue = self.lock();
        if queue.listener.is_none() {
            return;
        }
        if queue.waiting.len() == MAX_WAITING {
            queue.waiting.pop_front();
        }
        queue.waiting.push_back(transition);
    }

    /// Delivers what waits, unless another call does so already.
    pub(super) fn deliver(&self) {
        let mut queue = self.lock();
        if queue.delivering {
            return;
        }
        queue.delivering = true;
        while let Some(transition) = queue.waiting.pop_front() {
            let listener = queue.listener.clone();
            drop(queue);
            if let Some(listener) = listener {
                // It may run while a panic unwinds, where a second one would abort the process.
                let _panicked = catch_unwind(AssertUnwindSafe(|| listener(&transition)));
            }
            queue = self.lock();
        }
        queue.delivering = false;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
