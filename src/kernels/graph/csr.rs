//! A directed graph as compressed sparse rows of in-edges.
//!
//! The pull form of PageRank sums over the nodes that point *to* a node, so a row holds the sources of
//! one node's in-edges, ascending. Node ids are sparse 64-bit numbers; inside, a node is its place among the sorted ids, its
//! index, and an index fits 32 bits.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use rustkernel_core::codec::packed;
use rustkernel_core::traits::Payload;

use super::fingerprint::Fingerprint;

/// A directed graph without weights and without repeated edges. A clone is another handle to the same arrays.
#[derive(Clone, PartialEq, Eq)]
pub struct Graph(Arc<Rows>);

/// Why edges make no [`Graph`]. Nothing is kept of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// There is no edge.
    #[error("the graph is empty")]
    Empty,
    /// More nodes than allowed, or than 32-bit indexes can name.
    #[error("{found} nodes are more than the limit of {limit}")]
    TooManyNodes {
        /// Nodes found.
        found: usize,
        /// Nodes allowed.
        limit: usize,
    },
    /// More edges than 32-bit offsets can name.
    #[error("{found} edges are more than the limit of {limit}")]
    TooManyEdges {
        /// Edges found.
        found: usize,
        /// Edges allowed.
        limit: usize,
    },
    /// Encoded rows that contradict themselves: unsorted ids, offsets that do not fit, sources that do not exist.
    #[error("the rows of the graph are inconsistent at index {index}")]
    Inconsistent {
        /// The index of the node, or of the first entry too many.
        index: usize,
    },
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    #[serde(with = "packed")]
    ids: Vec<u64>,
    #[serde(with = "packed")]
    starts: Vec<u32>,
    #[serde(with = "packed")]
    sources: Vec<u32>,
    // What follows from the others is made anew where they are read.
    #[serde(skip)]
    out_degrees: Vec<u32>,
    #[serde(skip)]
    fingerprint: u64,
}

impl Graph {
    /// The graph of `edges`, each `(from, to)`. Repeated edges count once, as in a networkx `DiGraph`; a loop
    /// is an edge like any other. The order of `edges` does not matter.
    ///
    /// # Errors
    /// [`GraphError::Empty`] without an edge, [`GraphError::TooManyNodes`] and [`GraphError::TooManyEdges`] beyond 32 bits.
    ///
    /// ```
    /// use rustkernel::kernels::graph::Graph;
    ///
    /// let graph = Graph::from_edges(vec![(7, 900), (900, 7), (7, 900)])?;
    /// assert_eq!((graph.node_count(), graph.edge_count()), (2, 2));
    /// assert_eq!(graph.ids(), [7, 900]);
    /// # Ok::<(), rustkernel::kernels::graph::GraphError>(())
    /// ```
    pub fn from_edges(edges: Vec<(u64, u64)>) -> Result<Self, GraphError> {
        Self::from_edges_within(edges, MAX_COUNT)
    }

    pub(super) fn from_edges_within(
        mut edges: Vec<(u64, u64)>,
        max_nodes: usize,
    ) -> Result<Self, GraphError> {
        edges.sort_unstable_by_key(|&(from, to)| (to, from));
        edges.dedup();
        let mut ids: Vec<u64> = edges.iter().flat_map(|&(from, to)| [from, to]).collect();
        ids.sort_unstable();
        ids.dedup();
        Self::check_counts(ids.len(), edges.len(), max_nodes.min(MAX_COUNT))?;
        let mut starts = vec![0_u32; ids.len() + 1];
        let mut sources = Vec::with_capacity(edges.len());
        let mut row = 0;
        for &(from, to) in &edges {
            while ids[row] < to {
                row += 1;
                starts[row] = narrow(sources.len());
            }
            sources.push(narrow(ids.partition_point(|&id| id < from)));
        }
        starts[row + 1..].fill(narrow(sources.len()));
        Ok(Self::with_rows(ids, starts, sources))
    }

    fn check_counts(nodes: usize, edges: usize, max_nodes: usize) -> Result<(), GraphError> {
        if edges == 0 {
            return Err(GraphError::Empty);
        }
        if nodes > max_nodes {
            return Err(GraphError::TooManyNodes { found: nodes, limit: max_nodes });
        }
        if edges > MAX_COUNT {
            return Err(GraphError::TooManyEdges { found: edges, limit: MAX_COUNT });
        }
        Ok(())
    }

    /// `starts` and `sources` are consistent with `ids`.
    fn with_rows(ids: Vec<u64>, starts: Vec<u32>, sources: Vec<u32>) -> Self {
        let mut out_degrees = vec![0; ids.len()];
        for &source in &sources {
            out_degrees[source as usize] += 1;
        }
        let fingerprint = Fingerprint::new(DOMAIN)
            .words([ids.len() as u64, sources.len() as u64])
            .words(ids.iter().copied())
            .words(starts.iter().chain(&sources).map(|&word| u64::from(word)))
            .finish();
        Self(Arc::new(Rows { ids, starts, sources, out_degrees, fingerprint }))
    }

    /// How many nodes there are; at least one.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.0.ids.len()
    }

    /// How many edges there are, repeated ones counted once; at least one.
    #[must_use]
    pub fn edge_count(&self) -> usize {
        self.0.sources.len()
    }

    /// The ids of the nodes, ascending: the id of index `i` is `ids()[i]`.
    #[must_use]
    pub fn ids(&self) -> &[u64] {
        &self.0.ids
    }

    /// The index of the node called `id`.
    #[must_use]
    pub fn index_of(&self, id: u64) -> Option<usize> {
        self.0.ids.binary_search(&id).ok()
    }

    /// For each node, by index, how many edges leave it.
    #[must_use]
    pub fn out_degrees(&self) -> &[u32] {
        &self.0.out_degrees
    }

    /// For each node, by index, the indexes of the nodes that point to it, ascending.
    pub fn in_edges(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.0.starts.windows(2).map(|row| &self.0.sources[row[0] as usize..row[1] as usize])
    }

    /// Where each node's row of [`sources`](Self::sources) begins, by index, and behind the last one where it ends.
    #[must_use]
    pub fn starts(&self) -> &[u32] {
        &self.0.starts
    }

    /// The rows of [`in_edges`](Self::in_edges), one behind the other.
    #[must_use]
    pub fn sources(&self) -> &[u32] {
        &self.0.sources
    }

    /// A hash of ids and edges that is the same in every process and release. Not a defence against made collisions.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.0.fingerprint
    }
}

impl Payload for Graph {
    /// The whole graph is counted for every handle: it is what a request keeps alive.
    fn size_bytes(&self) -> usize {
        let rows = &*self.0;
        let words = rows.starts.capacity() + rows.sources.capacity() + rows.out_degrees.capacity();
        size_of::<Self>()
            + size_of::<Rows>()
            + rows.ids.capacity() * size_of::<u64>()
            + words * size_of::<u32>()
    }

    fn schema() -> String {
        "graph".into()
    }
}

impl Serialize for Graph {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Graph {
    /// Checks that the rows are consistent: the bytes may come from anywhere.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Rows { ids, starts, sources, .. } = Rows::deserialize(deserializer)?;
        checked(ids, starts, sources).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("nodes", &self.node_count())
            .field("edges", &self.edge_count())
            .field("fingerprint", &format_args!("{:016x}", self.fingerprint()))
            .finish_non_exhaustive()
    }
}

fn checked(ids: Vec<u64>, starts: Vec<u32>, sources: Vec<u32>) -> Result<Graph, GraphError> {
    Graph::check_counts(ids.len(), sources.len(), MAX_COUNT)?;
    if let Some(index) = ids.windows(2).position(|pair| pair[0] >= pair[1]) {
        return Err(GraphError::Inconsistent { index });
    }
    let ends = (starts.first().copied(), starts.last().map(|&last| last as usize));
    if starts.len() != ids.len() + 1 || ends != (Some(0), Some(sources.len())) {
        return Err(GraphError::Inconsistent { index: ids.len() });
    }
    if let Some(index) = starts.windows(2).position(|row| row[0] > row[1]) {
        return Err(GraphError::Inconsistent { index });
    }
    let sound = |row: &[u32]| {
        let row = &sources[row[0] as usize..row[1] as usize];
        row.windows(2).all(|pair| pair[0] < pair[1])
            && row.last().is_none_or(|&last| (last as usize) < ids.len())
    };
    if let Some(index) = starts.windows(2).position(|row| !sound(row)) {
        return Err(GraphError::Inconsistent { index });
    }
    Ok(Graph::with_rows(ids, starts, sources))
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "counts are at most MAX_COUNT before anything is narrowed"
)]
fn narrow(count: usize) -> u32 {
    debug_assert!(count <= MAX_COUNT, "{count} does not fit an index");
    count as u32
}

const MAX_COUNT: usize = u32::MAX as usize;
const DOMAIN: u64 = u64::from_be_bytes(*b"graph/v1");

#[cfg(test)]
mod tests {
    use rustkernel_core::codec;

    use super::*;

    fn triangle_with_tail() -> Graph {
        Graph::from_edges(vec![(10, 20), (20, 30), (30, 10), (30, 99), (30, 10), (99, 99)]).unwrap()
    }

    #[test]
    fn rows_hold_sorted_sources_and_repeated_edges_once() {
        let graph = triangle_with_tail();
        assert_eq!(graph.ids(), [10, 20, 30, 99]);
        assert_eq!(graph.in_edges().collect::<Vec<_>>(), [&[2][..], &[0], &[1], &[2, 3]]);
        assert_eq!(graph.out_degrees(), [1, 1, 2, 1]);
        assert_eq!((graph.index_of(99), graph.index_of(98)), (Some(3), None));
    }

    #[test]
    fn the_fingerprint_follows_the_content_and_not_the_order_of_lines() {
        let again = Graph::from_edges(vec![(99, 99), (30, 99), (30, 10), (20, 30), (10, 20)]).unwrap();
        assert_eq!(again.fingerprint(), triangle_with_tail().fingerprint());
        let other = Graph::from_edges(vec![(99, 98), (30, 99), (30, 10), (20, 30), (10, 20)]).unwrap();
        assert_ne!(other.fingerprint(), again.fingerprint());
    }

    #[test]
    fn no_edge_and_too_many_nodes_are_refused() {
        assert_eq!(Graph::from_edges(Vec::new()), Err(GraphError::Empty));
        let refused = Graph::from_edges_within(vec![(1, 2), (3, 4)], 3);
        assert_eq!(refused, Err(GraphError::TooManyNodes { found: 4, limit: 3 }));
    }

    #[test]
    fn an_encoded_graph_comes_back_and_a_contradicting_one_does_not() {
        let graph = triangle_with_tail();
        assert_eq!(codec::decode::<Graph>(&codec::encode(&graph).unwrap()).unwrap(), graph);
        let wrong: [(Vec<u64>, Vec<u32>, Vec<u32>); 6] = [
            (vec![], vec![0], vec![]),
            (vec![2, 1], vec![0, 1, 1], vec![0]),
            (vec![1, 2], vec![0, 1], vec![0]),
            (vec![1, 2], vec![0, 2, 1], vec![0]),
            (vec![1, 2], vec![0, 1, 1], vec![2]),
            (vec![1, 2], vec![0, 2, 2], vec![1, 1]),
        ];
        for rows in wrong {
            assert!(codec::decode::<Graph>(&codec::encode(&rows).unwrap()).is_err(), "{rows:?}");
        }
    }

    #[test]
    fn a_payload_counts_its_arrays() {
        assert!(triangle_with_tail().size_bytes() >= 4 * 8 + (5 + 5 + 4) * 4);
    }
}
