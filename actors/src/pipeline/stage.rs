//! The stages that hand on: a kernel, nothing, and one after the other.

use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Payload;

use super::adapt::guarded;
use super::report::Mark;
use crate::slot::{Refused, Slot, Timing};
use crate::way::{Flow, Next, Way};

/// Something between an `I` and an `O`, before it is known what comes after it.
pub(super) trait Stage<I, O>: Send + Sync {
    /// The step that takes an `I`, does its part and hands an `O` to `next`. Made once for all runs, so that a run through kernels
    /// allocates nothing but its requests.
    fn link(&self, next: Arc<dyn Next<O>>) -> Arc<dyn Next<I>>;
    /// Whether a kernel is in it, so that a value does not come out before [`Next::resume`] has returned.
    fn has_kernel(&self) -> bool;
}

/// A kernel's slot.
pub(super) struct KernelStage<I, O> {
    slot: Arc<Slot<I, O>>,
}

impl<I, O> KernelStage<I, O> {
    pub(super) fn new(slot: Arc<Slot<I, O>>) -> Self {
        Self { slot }
    }
}

impl<I: Payload, O: Payload> Stage<I, O> for KernelStage<I, O> {
    fn link(&self, next: Arc<dyn Next<O>>) -> Arc<dyn Next<I>> {
        Arc::new(Submit { slot: Arc::clone(&self.slot), next })
    }

    fn has_kernel(&self) -> bool {
        true
    }
}

/// The way into a slot.
struct Submit<I, O> {
    slot: Arc<Slot<I, O>>,
    next: Arc<dyn Next<O>>,
}

impl<I: Payload, O: Payload> Next<I> for Submit<I, O> {
    fn resume(&self, flow: Flow, result: Result<I, KernelError>) {
        let counted = result.and_then(|input| {
            let bytes = guarded(|| input.size_bytes())?;
            Ok((input, bytes))
        });
        let (input, bytes) = match counted {
            Ok(counted) => counted,
            Err(error) => return self.next.resume(flow, Err(error)),
        };
        let header = flow.header.next_stage();
        let looked = header.deadline.is_never() || !flow.now.is_zero();
        let now = if looked { flow.now } else { self.slot.clock().now() };
        let mark = flow.chain.recorder().map(|_| Mark::new(&self.slot.id, self.slot.clock()));
        let timing = Timing { header, budget: Duration::MAX, now, begun: flow.begun };
        let way = Way::onward(Arc::clone(&self.next), flow, mark);
        if let Err(refused) = self.slot.submit(input, bytes, timing, way, |_, _| ()) {
            // The chain ends here; the value is dropped after it has, because a payload's `Drop` is user code.
            let Refused { way, error, input } = refused;
            way.give(header, Timestamp::ZERO, Err(error));
            drop(input);
        }
    }
}

/// Hands the value on as it is.
pub(super) struct Pass;

impl<T: Send + 'static> Stage<T, T> for Pass {
    fn link(&self, next: Arc<dyn Next<T>>) -> Arc<dyn Next<T>> {
        next
    }

    fn has_kernel(&self) -> bool {
        false
    }
}

/// One stage after another.
pub(super) struct Then<I, M, O> {
    first: Arc<dyn Stage<I, M>>,
    second: Arc<dyn Stage<M, O>>,
}

impl<I, M, O> Then<I, M, O> {
    pub(super) fn new(first: Arc<dyn Stage<I, M>>, second: Arc<dyn Stage<M, O>>) -> Self {
        Self { first, second }
    }
}

impl<I: 'static, M: 'static, O: 'static> Stage<I, O> for Then<I, M, O> {
    fn link(&self, next: Arc<dyn Next<O>>) -> Arc<dyn Next<I>> {
        self.first.link(self.second.link(next))
    }

    fn has_kernel(&self) -> bool {
        self.first.has_kernel() || self.second.has_kernel()
    }
}
