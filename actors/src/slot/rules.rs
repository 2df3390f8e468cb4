//! What a slot was told about its kernel.

use std::fmt;

use rustkernel_core::codec::CodecError;
use rustkernel_core::resilience::{CircuitBreakerConfig, RetryPlan, TimeoutConfig};

use super::{Bounds, Watch};

/// How a registered input becomes bytes, for a dead letter.
pub(crate) type Encode<I> = fn(&I) -> Result<Vec<u8>, CodecError>;

/// The slot's part of a `KernelSpec`, validated.
pub(crate) struct Rules<I> {
    pub(crate) bounds: Bounds,
    pub(crate) watch: Watch,
    pub(crate) breaker: Option<CircuitBreakerConfig>,
    pub(crate) retry: RetryPlan,
    pub(crate) timeout: TimeoutConfig,
    /// Whether the same request may run twice.
    pub(crate) idempotent: bool,
    /// Incarnations a request may take down before it is a dead letter.
    pub(crate) conviction_limit: u32,
    /// A checkpoint after every so many requests.
    pub(crate) checkpoint_every: u32,
    pub(crate) encode: Option<Encode<I>>,
}

impl<I> fmt::Debug for Rules<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("bounds", &self.bounds)
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}
