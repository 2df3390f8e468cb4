//! When an incarnation takes its kernel's state down: between requests, never two at once.
//!
//! After every so many requests, a span after the last one (if anything has changed since), and when it stops or hands over.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::traits::{LocalKernel, Payload};

use super::incarnation::Incarnation;
use super::{Slot, arm};
use crate::checkpoint::Checkpointer;

/// The checkpoints of one incarnation.
pub(super) struct Upkeep<'a, K: LocalKernel> {
    slot: &'a Slot<K::Input, K::Output>,
    checkpointer: Option<&'a Checkpointer<K>>,
    /// Requests since the last one was tried.
    since: u32,
    /// Whether it has served since the last one that was kept.
    dirty: bool,
    /// When the last one was taken, or the incarnation began.
    last: Timestamp,
    /// Whether this incarnation has shown that its state can become bytes.
    proven: bool,
}

impl<'a, K: LocalKernel> Upkeep<'a, K> {
    pub(super) fn new(
        slot: &'a Slot<K::Input, K::Output>,
        checkpointer: Option<&'a Checkpointer<K>>,
    ) -> Self {
        let last = slot.rules.checkpoint_after.map_or(Timestamp::ZERO, |_| slot.clock().now());
        Self { slot, checkpointer, since: 0, dirty: false, last, proven: false }
    }

    /// A request was served. Whether that makes a checkpoint due.
    pub(super) fn served(&mut self) -> bool {
        self.since = self.since.saturating_add(1);
        self.dirty = true;
        self.checkpointer.is_some() && self.since >= self.slot.rules.checkpoint_every
    }

    /// Whether the kernel has served since the last checkpoint that was kept.
    pub(super) fn is_dirty(&self) -> bool {
        self.checkpointer.is_some() && self.dirty
    }

    /// When the next one is due by time.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let span = self.slot.rules.checkpoint_after?;
        self.is_dirty().then(|| self.last + span)
    }

    /// Takes one. With `proves`, and the first time, it has to become bytes now: so that a state which cannot is found out before it is
    /// needed. Not an `async fn`: its future must not hold a shared reference to a kernel that is only `Send`.
    pub(super) fn take<'b>(
        &'b mut self,
        incarnation: &'b Incarnation,
        kernel: &'b K,
        proves: bool,
    ) -> impl Future<Output = Took> + use<'a, 'b, K> {
        let saving = self.checkpointer.map(|checkpointer| checkpointer.save(kernel));
        async move {
            let Some(saving) = saving else { return Took::Kept };
            self.since = 0;
            if self.slot.rules.checkpoint_after.is_some() {
                self.last = self.slot.clock().now();
            }
            let proves = proves || !self.proven;
            let saving = async {
                let frame = saving.await.map_err(|error| error.to_string())?;
                if proves { frame.bytes().map(|_| frame) } else { Ok(frame) }
            };
            let Some(saved) = self.slot.upkeep(incarnation, saving).await else { return Took::Fenced };
            let took = self.slot.keep(incarnation, saved);
            if took == Took::Kept {
                self.dirty = false;
                self.proven = true;
            }
            took
        }
    }
}

/// What became of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Took {
    Kept,
    /// It was not taken; the one before it is the newest still.
    Failed(String),
    /// The incarnation was fenced over it.
    Fenced,
}

impl<I: Payload, O: Payload> Slot<I, O> {
    fn begin_upkeep(&self, incarnation: &Incarnation) {
        let now = self.clock().now();
        let mut state = self.lock();
        let limit = state.ledger.begin_upkeep(incarnation.epoch(), now, &self.rules.watch);
        let arm = arm(&mut state.ledger, limit);
        drop(state);
        self.schedule(arm);
    }

    /// Does something between two requests, under the eyes of the watchdog: takes a checkpoint, for example. `None` if the incarnation was fenced
    /// over it.
    pub(super) async fn upkeep<F: Future>(
        &self,
        incarnation: &Incarnation,
        checkpoint: F,
    ) -> Option<F::Output> {
        self.begin_upkeep(incarnation);
        let mut checkpoint = pin!(checkpoint);
        let saved = poll_fn(|cx| match checkpoint.as_mut().poll(cx) {
            Poll::Ready(saved) => Poll::Ready(Some(saved)),
            Poll::Pending if self.lock().ledger.wait_in_upkeep(incarnation.epoch(), cx.waker()) => {
                Poll::Pending
            }
            Poll::Pending => Poll::Ready(None),
        })
        .await;
        if self.lock().ledger.end_upkeep(incarnation.epoch()) { saved } else { None }
    }
}
