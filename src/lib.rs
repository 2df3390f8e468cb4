//! A supervision runtime for GPU kernels.
//!
//! - [`kernels`]: the built-in kernels.
//! - [`inject`]: faults on purpose, reproducibly.
//! - [`store`]: checkpoints in files.
//! - `http`: health, state and actions as axum routers (feature `http`).
//! - `metrics`: what a node counts, for the `metrics` facade (feature `metrics`).
//! - `config`, `catalog`, `job`, `cli`: pipelines from a file, and the `rustkernel` command (feature `cli`).
//! - `cuda`: devices, and what runs on them (feature `cuda`).
//! - `worker`: kernels in processes of their own, which may die (feature `worker`).
//! - `webhook`: what an operator has to hear of, posted to an address (feature `webhook`).
//! - [`actors`] and [`core`]: the runtime, and the policies it acts by.

#[cfg(feature = "cli")]
pub mod catalog;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "cli")]
mod cursor;
#[cfg(feature = "http")]
pub mod http;
pub mod inject;
#[cfg(feature = "cli")]
pub mod job;
pub mod kernels;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod store;
#[cfg(feature = "webhook")]
pub mod webhook;
#[cfg(feature = "worker")]
pub mod worker;

pub use rustkernel_actors as actors;
pub use rustkernel_core as core;

/// What most programs need: `use rustkernel::prelude::*`.
pub mod prelude {
    pub use rustkernel_actors::{Event, Fact, KernelRef, KernelSpec, Pipeline, Runtime};
    pub use rustkernel_core::resilience::{
        CircuitBreakerConfig, RecoveryPolicy, RecoveryStrategy, ResilienceConfig, RetryConfig, TimeoutConfig,
    };
    pub use rustkernel_core::traits::{CheckpointableKernel, Context, Kernel, Payload};
    pub use rustkernel_core::{KernelError, KernelId};
}

/// The README's example is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The guide's example, compiled.
#[cfg(all(doctest, feature = "worker"))]
#[doc = include_str!("../docs/guide/worker-processes.md")]
struct WorkerGuide;

/// The guide's example, compiled.
#[cfg(all(doctest, feature = "cuda", feature = "worker"))]
#[doc = include_str!("../docs/guide/cuda.md")]
struct CudaGuide;

/// The tutorial's service, compiled.
#[cfg(all(doctest, feature = "http"))]
#[doc = include_str!("../docs/guide/first-kernel.md")]
struct FirstKernel;

/// The guide's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/operating.md")]
struct OperatingGuide;

/// The guide's example, run.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/chains.md")]
struct ChainsGuide;

/// The guide's example, run.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/replicas.md")]
struct ReplicasGuide;

/// The guide's example, run.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/checkpoints.md")]
struct CheckpointsGuide;

/// The guide's example, run.
#[cfg(all(doctest, feature = "metrics"))]
#[doc = include_str!("../docs/guide/mounting.md")]
struct MountingGuide;
