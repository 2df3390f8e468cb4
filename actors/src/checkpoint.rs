//! Checkpoints: out of one incarnation, into the next one, and onto a store that outlives the process.
//!
//! A [`CheckpointStore`] keeps records by kernel and number and knows nothing of what is in them. What a record is, that it is
//! whole, and how many are kept, is decided above it. [`MemoryStore`] is the store of tests; whoever writes one runs
//! [`conformance()`] against it.

mod archive;
mod checkpointer;
mod conformance;
mod memory;
mod pending;
mod store;
mod vault;
mod writer;

pub(crate) use archive::RETENTION;
pub use archive::{Recovered, RefusedCheckpoint};
pub(crate) use checkpointer::{Checkpointer, Frame};
pub use conformance::conformance;
pub use memory::MemoryStore;
pub use store::{CheckpointStore, StoreError};
pub use vault::Vault;
pub use writer::SaveError;
