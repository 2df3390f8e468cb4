//! One life of a kernel, as its slot and its supervisor know it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustkernel_core::KernelId;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::traits::Signal;
use serde::Serialize;
use tokio::sync::Notify;
use tracing::Span;

use crate::cause::Cause;
use crate::shared_breaker::SharedBreaker;
use crate::spans;

/// Which of a kernel's factories an incarnation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// The kernel itself, on its own device.
    Main,
    /// Its degraded path.
    Degraded,
    /// The kernel on its backup device.
    Backup,
}

/// What an incarnation that is made and proven does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It takes requests.
    Serves,
    /// It waits until it is called.
    StandsBy,
    /// It is wanted no more.
    Fenced,
}

/// One life of a kernel, numbered. It serves while its epoch is the slot's; a standby has none yet.
#[derive(Debug)]
pub(crate) struct Incarnation {
    /// Everything the incarnation does carries this; after a fence it is void. 0 before it is promoted.
    epoch: AtomicU64,
    /// The number of this life, from 1.
    pub(crate) number: u64,
    pub(crate) variant: Variant,
    /// It takes over from a life that could go on: what it cannot restore is its own fault, and no checkpoint's.
    pub(crate) on_trial: bool,
    /// Raised when the incarnation has been fenced.
    pub(crate) fence: Signal,
    /// Rung for an incarnation that stands by: it was promoted, dismissed, or there is a new checkpoint.
    call: Notify,
    /// Since when user code blocks the thread, in clock nanoseconds; 0 while it does not.
    blocked_since: AtomicU64,
    /// Set when it is made and proven: whether it was restored.
    ready: OnceLock<bool>,
    /// Set when it has taken over and restored what the life before it left.
    serves: AtomicBool,
    /// Set when it was fenced because what it lived in, or its kernel elsewhere, is gone.
    lost: OnceLock<Cause>,
    /// Whether the request in hand has still to begin, in a place that has no room for it yet.
    waits: AtomicBool,
    /// The breakers of what it lives in, where it has named them.
    shared: OnceLock<Arc<[SharedBreaker]>>,
    /// Its span, where lives are recorded.
    span: OnceLock<Box<Span>>,
}

impl Incarnation {
    /// It begins, under nobody's lock.
    pub(crate) fn open_span(&self, kernel: &KernelId) {
        if let Some(span) = spans::incarnation(kernel, self.number) {
            let _opened_before = self.span.set(span);
        }
    }

    pub(crate) fn span(&self) -> Option<&Span> {
        self.span.get().map(|span| &**span)
    }

    pub(crate) fn new(epoch: u64, number: u64, variant: Variant, on_trial: bool) -> Self {
        Self {
            epoch: AtomicU64::new(epoch),
            number,
            variant,
            on_trial,
            fence: Signal::new(),
            call: Notify::new(),
            blocked_since: AtomicU64::new(0),
            ready: OnceLock::new(),
            serves: AtomicBool::new(false),
            lost: OnceLock::new(),
            waits: AtomicBool::new(false),
            shared: OnceLock::new(),
            span: OnceLock::new(),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The slot is its own from now on.
    pub(super) fn promote(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
        self.call.notify_one();
    }

    /// The slot is its own no more; it may be promoted again.
    pub(super) fn demote(&self) {
        self.epoch.store(0, Ordering::Release);
    }

    /// It is not wanted any more.
    pub(crate) fn dismiss(&self) {
        self.fence.raise();
        self.call.notify_one();
    }

    /// Tells it to look again.
    pub(super) fn ring(&self) {
        self.call.notify_one();
    }

    /// Waits for the next ring.
    pub(crate) async fn rung(&self) {
        self.call.notified().await;
    }

    pub(crate) fn blocked_since(&self) -> Option<Timestamp> {
        match self.blocked_since.load(Ordering::Acquire) {
            0 => None,
            nanos => Some(Timestamp::from_nanos(nanos)),
        }
    }

    /// It is made and proven.
    pub(crate) fn set_ready(&self, restored: bool) {
        // An incarnation is made once.
        let _ = self.ready.set(restored);
    }

    /// Whether it was restored, if it has ever been ready.
    pub(crate) fn ready(&self) -> Option<bool> {
        self.ready.get().copied()
    }

    /// It has taken over, with everything that was left to it.
    pub(crate) fn set_serves(&self) {
        self.serves.store(true, Ordering::Release);
    }

    /// Whether it has taken over for good.
    pub(crate) fn serves(&self) -> bool {
        self.serves.load(Ordering::Acquire)
    }

    pub(super) fn set_lost(&self, cause: &Cause) {
        // The first one counts.
        let _ = self.lost.set(cause.clone());
    }

    /// Why it was fenced, unless it hung.
    pub(crate) fn lost(&self) -> Option<&Cause> {
        self.lost.get()
    }

    pub(crate) fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Release);
    }

    pub(crate) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// It stands behind these, too.
    pub(crate) fn stand_behind(&self, breakers: &[SharedBreaker]) {
        // The first ones count: a life has one place.
        let _ = self.shared.set(Arc::from(breakers));
    }

    pub(super) fn shared(&self) -> Arc<[SharedBreaker]> {
        self.shared.get().cloned().unwrap_or_default()
    }

    pub(super) fn enter(&self, now: Timestamp) {
        self.blocked_since.store(now.as_nanos().max(1), Ordering::Release);
    }

    pub(super) fn leave(&self) {
        self.blocked_since.store(0, Ordering::Release);
    }
}
