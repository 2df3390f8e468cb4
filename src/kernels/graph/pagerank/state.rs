//! Where a PageRank computation stands.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use rustkernel_core::codec::packed;
use rustkernel_core::traits::Payload;

use super::PageRankError;
use crate::kernels::graph::Graph;

/// Where a PageRank computation stands: the graph, one rank for each node, and how it got there. A clone shares both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageRankState {
    graph: Graph,
    #[serde(with = "packed")]
    ranks: Arc<[f64]>,
    iteration: u32,
    delta: f64,
}

impl PageRankState {
    /// Iteration 0: every node has the same rank.
    #[must_use]
    pub fn start(graph: Graph) -> Self {
        let nodes = graph.node_count();
        let ranks = vec![1.0 / nodes as f64; nodes].into();
        Self { graph, ranks, iteration: 0, delta: LARGEST_DELTA }
    }

    /// A state from its parts, `ranks` in the order of [`Graph::ids`].
    ///
    /// Ranks that do not add up to 1 are taken as they are: the iteration leads them to a sum of 1.
    ///
    /// # Errors
    /// [`PageRankError::RankCount`] when there is not one rank a node; [`PageRankError::Rank`] and
    /// [`PageRankError::Delta`] for a number that is negative or not finite.
    pub fn new(graph: Graph, ranks: Arc<[f64]>, iteration: u32, delta: f64) -> Result<Self, PageRankError> {
        if ranks.len() != graph.node_count() {
            return Err(PageRankError::RankCount { found: ranks.len(), nodes: graph.node_count() });
        }
        check_numbers(&ranks, delta)?;
        Ok(Self { graph, ranks, iteration, delta })
    }

    /// The state one iteration on.
    pub(super) fn next(&self, ranks: Arc<[f64]>, delta: f64) -> Self {
        debug_assert_eq!(ranks.len(), self.ranks.len(), "an iteration keeps the number of ranks");
        Self { graph: self.graph.clone(), ranks, iteration: self.iteration.saturating_add(1), delta }
    }

    /// The graph.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The rank of each node, in the order of [`Graph::ids`].
    #[must_use]
    pub fn ranks(&self) -> &[f64] {
        &self.ranks
    }

    pub(super) fn shared_ranks(&self) -> Arc<[f64]> {
        Arc::clone(&self.ranks)
    }

    /// How many iterations led here.
    #[must_use]
    pub fn iteration(&self) -> u32 {
        self.iteration
    }

    /// How far the last iteration moved the ranks: the sum of all absolute differences. 2, the most that
    /// two distributions can differ, before the first.
    #[must_use]
    pub fn delta(&self) -> f64 {
        self.delta
    }

    /// Whether an iteration has been made and the last one moved the ranks by no more than `tolerance`.
    #[must_use]
    pub fn is_converged(&self, tolerance: f64) -> bool {
        self.iteration > 0 && self.delta <= tolerance
    }
}

impl Payload for PageRankState {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() - size_of::<Graph>() + self.graph.size_bytes() + size_of_val(&*self.ranks)
    }

    fn schema() -> String {
        "graph/ranks".into()
    }
}

impl<'de> Deserialize<'de> for PageRankState {
    /// Checks what [`PageRankState::new`] checks: the bytes may come from anywhere.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "PageRankState", deny_unknown_fields)]
        struct Parts {
            graph: Graph,
            #[serde(with = "packed")]
            ranks: Arc<[f64]>,
            iteration: u32,
            delta: f64,
        }
        let Parts { graph, ranks, iteration, delta } = Parts::deserialize(deserializer)?;
        Self::new(graph, ranks, iteration, delta).map_err(serde::de::Error::custom)
    }
}

/// Whether `ranks` and `delta` are numbers that an iteration can give.
pub(super) fn check_numbers(ranks: &[f64], delta: f64) -> Result<(), PageRankError> {
    let sound = |value: f64| value.is_finite() && value >= 0.0;
    if let Some(index) = ranks.iter().position(|rank| !sound(*rank)) {
        return Err(PageRankError::Rank { index, value: ranks[index] });
    }
    if !sound(delta) {
        return Err(PageRankError::Delta { value: delta });
    }
    Ok(())
}

const LARGEST_DELTA: f64 = 2.0;

#[cfg(test)]
mod tests {
    use rustkernel_core::codec;

    use super::*;

    fn pair() -> Graph {
        Graph::from_edges(vec![(1, 2)]).unwrap()
    }

    #[test]
    fn a_start_is_uniform_and_not_converged() {
        let state = PageRankState::start(pair());
        assert_eq!(state.ranks(), [0.5, 0.5]);
        assert!(!state.is_converged(f64::MAX));
    }

    #[test]
    fn parts_that_make_no_state_are_refused_also_when_decoded() {
        let state = |ranks: &[f64], delta| PageRankState::new(pair(), ranks.into(), 1, delta);
        assert_eq!(state(&[1.0], 0.0), Err(PageRankError::RankCount { found: 1, nodes: 2 }));
        assert_eq!(state(&[1.0, -0.5], 0.0), Err(PageRankError::Rank { index: 1, value: -0.5 }));
        assert!(matches!(state(&[f64::NAN, 0.5], 0.0), Err(PageRankError::Rank { index: 0, .. })));
        assert_eq!(state(&[0.5, 0.5], f64::INFINITY), Err(PageRankError::Delta { value: f64::INFINITY }));
        let bytes = codec::encode(&(pair(), vec![f64::NAN, 0.5], 1_u32, 0.0_f64)).unwrap();
        assert!(codec::decode::<PageRankState>(&bytes).is_err());
        let sound = state(&[0.25, 0.75], 0.5).unwrap();
        assert_eq!(codec::decode::<PageRankState>(&codec::encode(&sound).unwrap()).unwrap(), sound);
    }
}
