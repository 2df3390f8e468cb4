//! Edge lists as SNAP publishes them.
//!
//! The format: one edge a line, `from` and `to` separated by spaces or tabs; lines that begin with `#` or `%` are
//! comments; empty lines count as lines and nothing else. Lines end with LF or CRLF, the last one with or
//! without. The whole may be gzip, told by its first two bytes; several gzip members in a row are one list.
//!
//! | in the file | decision |
//! |---|---|
//! | repeated edges | merged, as networkx does in a `DiGraph` |
//! | loops | kept |
//! | a third column | a finite number (a weight, a time stamp) is checked and ignored; anything else is refused |
//! | a fourth column, or only one | refused |
//! | ids | decimal, `0..=2^63-1`, the range of SNAP's own; signs, fractions, names and larger numbers are refused |
//! | bytes outside printable ASCII | refused, except in comments |
//!
//! Reading is bounded by [`EdgeListLimits`] before anything is stored: a line without an end, a gzip bomb and an endless
//! reader are refused after the limit, not after memory. What it does NOT do: read in parallel, or skip a bad line.

mod error;
mod field;
mod input;

use std::io::BufRead;

use serde::{Deserialize, Serialize};

use super::csr::Graph;
use input::Lines;

pub use error::{EdgeListError, IdFault};

/// How much an edge list may hold. Exactly the limit is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeListLimits {
    /// The longest line, without its end. Default 4096: it bounds what is buffered of a file that has no
    /// lines at all. Two ids need 39 bytes; raise it only for long comments.
    pub max_line_bytes: usize,
    /// The longest list, after decompression and, separately, before it. Default 4 GiB: it bounds the time that a
    /// gzip bomb or an endless reader takes.
    pub max_bytes: u64,
    /// The most lines with an edge, repeated ones included. Default 2^27: an edge takes 16 bytes while the list is
    /// read, 36 while it is indexed and 4 afterwards, so the default allows a peak of almost 5 GiB: lower it where
    /// lists come from strangers.
    pub max_edges: usize,
    /// The most different ids. Default 2^26: a node takes 16 bytes in the graph and 24 in a
    /// PageRank iteration. It is checked when the list is read to its end; what it costs until then
    /// is bounded by `max_edges`.
    pub max_nodes: usize,
}

impl Default for EdgeListLimits {
    /// Enough for the largest graphs that fit 32-bit offsets with room (SNAP's com-Orkut has 117 million edges).
    fn default() -> Self {
        Self { max_line_bytes: 4096, max_bytes: 4 << 30, max_edges: 1 << 27, max_nodes: 1 << 26 }
    }
}

impl EdgeListLimits {
    /// The first limit that is zero and so would let nothing through.
    #[must_use]
    pub fn zero(&self) -> Option<&'static str> {
        let limits = [
            ("max_line_bytes", self.max_line_bytes == 0),
            ("max_bytes", self.max_bytes == 0),
            ("max_edges", self.max_edges == 0),
            ("max_nodes", self.max_nodes == 0),
        ];
        limits.into_iter().find_map(|(name, zero)| zero.then_some(name))
    }
}

/// Reads a whole edge list, plain or gzip, and indexes it. It blocks as long as `input` does.
///
/// # Errors
/// [`EdgeListError`], which names the line, and the column where one field is at fault. The first error ends the reading;
/// `input` is left somewhere behind it.
///
/// ```
/// use rustkernel::kernels::graph::{EdgeListLimits, read_edge_list};
///
/// let text = "# FromNodeId ToNodeId\n1\t2\n2\t1\n";
/// let graph = read_edge_list(text.as_bytes(), &EdgeListLimits::default())?;
/// assert_eq!(graph.edge_count(), 2);
///
/// let error = read_edge_list("1 2\n1 -2\n".as_bytes(), &EdgeListLimits::default()).unwrap_err();
/// assert_eq!(error.to_string(), "line 2, column 3: `-2` is no node id: it is negative");
/// # Ok::<(), rustkernel::kernels::graph::EdgeListError>(())
/// ```
pub fn read_edge_list(input: impl BufRead, limits: &EdgeListLimits) -> Result<Graph, EdgeListError> {
    let mut lines = Lines::open(input, limits)?;
    let mut edges = Vec::new();
    while lines.advance()? {
        let Some(edge) = field::edge(lines.current(), lines.number())? else { continue };
        if edges.len() >= limits.max_edges {
            return Err(EdgeListError::TooManyEdges { line: lines.number(), limit: limits.max_edges });
        }
        edges.push(edge);
    }
    if edges.is_empty() {
        return Err(EdgeListError::Empty { lines: lines.number() });
    }
    Graph::from_edges_within(edges, limits.max_nodes)
        .map_err(|source| EdgeListError::Graph { lines: lines.number(), source })
}
