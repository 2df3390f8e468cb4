//! What waits to be sent, and what became of the rest.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::document::Document;

/// What became of a webhook's documents. Every failed attempt is in `retried` or in `failed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WebhookStats {
    /// Documents that were taken.
    pub sent: u64,
    /// Attempts that failed and were made again.
    pub retried: u64,
    /// Documents that were given up: their last attempt failed, or the webhook ended before the next one.
    pub failed: u64,
    /// Documents that were never tried: the queue was full, or the webhook ended before their turn.
    pub dropped: u64,
}

/// A bounded queue between the hooks and the thread that sends.
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Document>,
    /// Whether the thread has a document in hand.
    is_sending: bool,
    is_closed: bool,
    stats: WebhookStats,
}

impl Outbox {
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), capacity }
    }

    pub(super) fn put(&self, document: Document) {
        let mut state = self.lock();
        if state.is_closed || state.waiting.len() >= self.capacity {
            state.stats.dropped += 1;
            return;
        }
        state.waiting.push_back(document);
        drop(state);
        self.changed.notify_all();
    }

    /// The next document, when there is one; `None` at the end. The one before is done with.
    pub(super) fn next(&self) -> Option<Document> {
        let mut state = self.lock();
        state.is_sending = false;
        self.changed.notify_all();
        let has_none = |state: &mut State| state.waiting.is_empty() && !state.is_closed;
        state = self.changed.wait_while(state, has_none).unwrap_or_else(PoisonError::into_inner);
        let next = state.waiting.pop_front();
        state.is_sending = next.is_some();
        next
    }

    /// Waits for `delay`; `false` if the end comes first.
    pub(super) fn pause(&self, delay: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, delay, |state| !state.is_closed);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.is_closed
    }

    /// Waits until nothing is left to be sent, for at most `grace`.
    pub(super) fn wait_until_idle(&self, grace: Duration) {
        let is_busy = |state: &mut State| state.is_sending || !state.waiting.is_empty();
        // Idle or not, what comes next is the same.
        let _ = self.changed.wait_timeout_while(self.lock(), grace, is_busy);
    }

    /// Takes nothing more, and lets nothing more be sent.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.stats.dropped += state.waiting.len() as u64;
        state.waiting.clear();
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut WebhookStats)) {
        count(&mut self.lock().stats);
    }

    pub(super) fn stats(&self) -> WebhookStats {
        self.lock().stats
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
