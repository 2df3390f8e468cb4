//! The highest ranks of a PageRank computation.
//!
//! Nodes are ordered by rank, highest first, and equal ranks by id, lowest first: the answer does not depend on how it was
//! found. The selection is linear in the nodes, the sort is of the chosen ones only.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use rustkernel_core::error::KernelError;
use rustkernel_core::traits::{Context, Kernel, Payload};

use super::pagerank::PageRankState;

/// How many nodes to name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopKConfig {
    /// The length of the ranking, at least 1. Default 10: what people read. A graph with fewer nodes gives all of them.
    pub k: usize,
}

impl Default for TopKConfig {
    fn default() -> Self {
        Self { k: 10 }
    }
}

/// The kernel `graph/top_k`: [`PageRankState`] to [`Ranking`].
#[derive(Debug)]
pub struct TopK {
    k: usize,
}

/// Why there is no such [`TopK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopKError {
    /// [`TopKConfig::k`] is 0.
    #[error("k: a ranking has at least 1 entry")]
    Zero,
}

/// The highest ranks, and of what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranking {
    /// The nodes, highest rank first, equal ranks by ascending id.
    pub entries: Vec<RankedNode>,
    /// How many iterations led here.
    pub iterations: u32,
    /// How far the last iteration moved the ranks, in L1 norm.
    pub delta: f64,
    /// How many nodes the graph has.
    pub nodes: usize,
    /// How many edges the graph has, repeated ones counted once.
    pub edges: usize,
}

/// A node of a [`Ranking`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankedNode {
    /// The id, as in the edge list.
    pub id: u64,
    /// The rank; all ranks of a graph add up to 1.
    pub rank: f64,
}

impl TopK {
    /// The kernel's name.
    pub const NAME: &'static str = "graph/top_k";

    /// A kernel that names the `k` highest.
    ///
    /// # Errors
    /// [`TopKError::Zero`] when `k` is 0.
    pub fn new(config: &TopKConfig) -> Result<Self, TopKError> {
        match config.k {
            0 => Err(TopKError::Zero),
            k => Ok(Self { k }),
        }
    }
}

impl Kernel for TopK {
    type Input = PageRankState;
    type Output = Ranking;

    /// # Cancel safety
    /// It never waits and keeps nothing.
    async fn execute(
        &mut self,
        input: &PageRankState,
        _cx: &mut Context<'_>,
    ) -> Result<Ranking, KernelError> {
        Ok(Ranking {
            entries: highest(input, self.k),
            iterations: input.iteration(),
            delta: input.delta(),
            nodes: input.graph().node_count(),
            edges: input.graph().edge_count(),
        })
    }
}

impl Payload for Ranking {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.entries.capacity() * size_of::<RankedNode>()
    }

    fn schema() -> String {
        "graph/ranking".into()
    }
}

/// `k` is at least 1.
fn highest(state: &PageRankState, k: usize) -> Vec<RankedNode> {
    debug_assert!(k > 0, "checked at construction");
    let pairs = state.graph().ids().iter().zip(state.ranks());
    let mut nodes: Vec<RankedNode> = pairs.map(|(&id, &rank)| RankedNode { id, rank }).collect();
    if k < nodes.len() {
        nodes.select_nth_unstable_by(k - 1, before);
        nodes.truncate(k);
        nodes.shrink_to_fit();
    }
    nodes.sort_unstable_by(before);
    nodes
}

fn before(one: &RankedNode, other: &RankedNode) -> Ordering {
    other.rank.total_cmp(&one.rank).then(one.id.cmp(&other.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::graph::Graph;

    #[test]
    fn equal_ranks_are_ordered_by_id_and_k_beyond_the_graph_gives_all() {
        let graph = Graph::from_edges(vec![(9, 5), (5, 7), (7, 3)]).unwrap();
        let state = PageRankState::new(graph, [0.2, 0.3, 0.3, 0.2].into(), 1, 0.5).unwrap();
        let ids = |k| highest(&state, k).iter().map(|node| node.id).collect::<Vec<_>>();
        assert_eq!(ids(1), [5]);
        assert_eq!(ids(3), [5, 7, 3]);
        assert_eq!(ids(usize::MAX), [5, 7, 3, 9]);
    }

    #[test]
    fn an_empty_ranking_cannot_be_asked_for() {
        assert_eq!(TopK::new(&TopKConfig { k: 0 }).unwrap_err(), TopKError::Zero);
    }
}
