//! Graph analytics: three kernels that make a pipeline.
//!
//! | kernel | input | output | one request is |
//! |---|---|---|---|
//! | [`Load`] | [`EdgeListSource`] | [`Graph`] | one edge list, read and indexed |
//! | [`PageRank`] | [`PageRankState`] | [`PageRankState`] | one iteration |
//! | [`TopK`] | [`PageRankState`] | [`Ranking`] | one selection |
//!
//! One iteration a request makes PageRank a loop of short, idempotent requests: a crash costs one
//! iteration, a deadline has a meaning, and a checkpoint lies between any two of them.
//!
//! Everything here is deterministic to the bit: one thread, sums in a fixed order, neighbours sorted. The same edges, in
//! any order of lines, give the same [`Graph::fingerprint`] and the same ranks.
//!
//! What it does NOT do: weights, parallel execution, and graphs larger than memory.

pub mod csr;
pub mod edge_list;
pub(crate) mod fingerprint;
pub mod load;
pub mod pagerank;
pub mod top_k;

pub use csr::{Graph, GraphError};
pub use edge_list::{EdgeListError, EdgeListLimits, read_edge_list};
pub use load::{EdgeListSource, Load};
pub use pagerank::{PageRank, PageRankConfig, PageRankState};
pub use top_k::{RankedNode, Ranking, TopK, TopKConfig};
