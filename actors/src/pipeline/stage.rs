//! The stages that hand on: a kernel, nothing, and one after the other.

use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Payload;

use super::report::Timed;
use crate::slot::{Refused, Slot, Timing};
use crate::way::{Continuation, Flow, Way};

/// Something that takes a value and answers a continuation, sooner or later, exactly once.
pub(super) trait Stage<I, O>: Send + Sync {
    fn submit(&self, input: I, flow: Flow, next: Box<dyn Continuation<O>>);
    /// Whether a kernel is in it, so that a submit does not answer before it returns.
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
    fn submit(&self, input: I, flow: Flow, next: Box<dyn Continuation<O>>) {
        let next = Timed::wrap(&self.slot.id, &flow, self.slot.clock(), next);
        let timing = Timing { header: flow.header, budget: Duration::MAX };
        let Err(refused) = self.slot.submit(input, timing, Way::through(flow.chain, next)) else { return };
        // The value is of no use to anybody now: the chain ends here.
        let Refused { way, error, .. } = refused;
        way.give(flow.header, Err(error));
    }

    fn has_kernel(&self) -> bool {
        true
    }
}

/// Hands the value on as it is.
pub(super) struct Pass;

impl<T: Send + 'static> Stage<T, T> for Pass {
    fn submit(&self, input: T, flow: Flow, next: Box<dyn Continuation<T>>) {
        next.resume(flow, Ok(input));
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

impl<I: Send + 'static, M: Send + 'static, O: Send + 'static> Stage<I, O> for Then<I, M, O> {
    fn submit(&self, input: I, flow: Flow, next: Box<dyn Continuation<O>>) {
        self.first.submit(input, flow, Box::new(Hop { stage: Arc::clone(&self.second), next }));
    }

    fn has_kernel(&self) -> bool {
        self.first.has_kernel() || self.second.has_kernel()
    }
}

/// The way from one stage into the next.
struct Hop<M, O> {
    stage: Arc<dyn Stage<M, O>>,
    next: Box<dyn Continuation<O>>,
}

impl<M: Send + 'static, O: Send + 'static> Continuation<M> for Hop<M, O> {
    fn resume(self: Box<Self>, mut flow: Flow, result: Result<M, KernelError>) {
        flow.header = flow.header.next_stage();
        match result {
            Ok(value) => self.stage.submit(value, flow, self.next),
            Err(error) => self.next.resume(flow, Err(error)),
        }
    }
}
