//! What a slot was told about its kernel.

use std::fmt;
use std::time::Duration;

use rustkernel_core::codec::CodecError;
use rustkernel_core::resilience::{CircuitBreakerConfig, RetryPlan, TimeoutConfig};

use super::{Bounds, Watch};

/// How a registered input becomes bytes, for a dead letter, and an input again.
pub(crate) struct Codec<I> {
    pub(crate) encode: fn(&I) -> Result<Vec<u8>, CodecError>,
    pub(crate) decode: fn(&[u8]) -> Result<I, CodecError>,
}

// Derived, they would ask the same of the input.
impl<I> Copy for Codec<I> {}

impl<I> Clone for Codec<I> {
    fn clone(&self) -> Self {
        *self
    }
}

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
    /// A checkpoint this long after the last one, if the kernel has served since.
    pub(crate) checkpoint_after: Option<Duration>,
    /// Whether standbys take every checkpoint as it comes, instead of the newest when they take over.
    pub(crate) replicas_follow: bool,
    /// Whether a degraded path can answer while no incarnation is there.
    pub(crate) has_degraded: bool,
    /// Whether it has somewhere else to go: a standby, a degraded path, a backup.
    pub(crate) has_alternative: bool,
    pub(crate) codec: Option<Codec<I>>,
}

impl<I> fmt::Debug for Rules<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("bounds", &self.bounds)
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}
