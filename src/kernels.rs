//! Built-in kernels.
//!
//! - [`graph`]: loading an edge list, PageRank one iteration a request, the highest ranks.
//! - [`linalg`]: the product of two dense matrices.
//!
//! With the feature `cuda`, PageRank and the product are there for CUDA devices, too.

pub mod graph;
pub mod linalg;
