//! A supervision runtime for GPU kernels.

pub mod kernels;

pub use rustkernel_actors as actors;
pub use rustkernel_core as core;
