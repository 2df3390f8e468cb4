//! Built-in kernels.
//!
//! - [`graph`]: loading an edge list, PageRank one iteration a request, the highest ranks.

pub mod graph;
