//! One request as the slot holds it: a single allocation with the input and the way back.

use std::time::Duration;

use crate::gate::Permit;
use crate::way::Way;

/// An accepted request, shared by the caller, the slot and the execution. The input stays here while it runs, so that it
/// can be run again without a copy.
pub(crate) struct Request<I, O> {
    pub(crate) input: I,
    pub(crate) permit: Permit,
    /// The time it may take from the moment an incarnation takes it; [`Duration::MAX`] when its deadline says it all.
    pub(crate) budget: Duration,
    pub(crate) way: Way<O>,
}

impl<I, O> Request<I, O> {
    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.way.signal().is_raised()
    }
}
