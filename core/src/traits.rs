//! What users implement.

mod ahead;
mod checkpointable;
mod context;
mod kernel;
mod payload;

pub use ahead::{LookAhead, Room, Upcoming};
pub use checkpointable::CheckpointableKernel;
pub use context::{Context, Signal};
pub use kernel::{Kernel, LocalKernel};
pub use payload::{Fill, Payload};
