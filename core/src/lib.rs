//! Policies and pure machines of the rustkernel supervision runtime.
//!
//! This crate decides; [`rustkernel-actors`](../rustkernel_actors/index.html) acts on the decisions. The machines
//! here take the time, the randomness and the events as arguments and hand decisions back: they spawn nothing,
//! read no clock and own no socket. The thin async shells that the book's API needs (a breaker's `call`, a
//! retry's `execute`, a probe's `check`) stand beside the machine they wrap.
//!
//! - [`resilience`]: breaker, retry, deadline, health, recovery, and their configuration.
//! - [`traits`]: what users implement: kernels, payloads, checkpoints.
//! - [`error`]: the one error type of a kernel call.
//! - [`envelope`]: what travels with a request through a chain of kernels.
//! - [`trace`]: the trace that a request belongs to.
//! - [`codec`]: how registered payloads and checkpoints become bytes.
//! - [`rate_limit`]: how often something may happen: log lines, requests of a peer.
//! - [`excerpt`]: the beginning of a text that is kept.
//! - [`fault`]: what a fault of a device or a worker process means, and how deep its cure goes.
//! - [`checkpoint`]: the bytes of one stored checkpoint.
//! - [`clock`]: the monotonic time that feeds all of them.

pub mod checkpoint;
pub mod clock;
pub mod codec;
pub mod device;
pub mod envelope;
pub mod error;
pub mod excerpt;
pub mod fault;
pub mod id;
pub mod rate_limit;
pub mod recovery;
pub mod resilience;
pub mod supervision;
pub mod trace;
pub mod traits;

pub use device::DeviceId;
pub use error::KernelError;
pub use id::KernelId;

/// The result of a kernel's work; `E` defaults to [`KernelError`].
pub type Result<T, E = KernelError> = std::result::Result<T, E>;
