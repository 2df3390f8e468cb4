//! Why an edge list is refused.

use std::fmt;
use std::io;

use super::super::csr::GraphError;

/// Why an edge list is refused. Lines and columns count from 1, columns in bytes; no graph is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeListError {
    /// The list has no edge: it is empty, or holds comments only.
    #[error("no edge in {lines} lines")]
    Empty {
        /// Lines there are.
        lines: u64,
    },
    /// A byte that no edge list holds, as in a binary file or in UTF-16.
    #[error("line {line}, column {column}: byte 0x{byte:02x} is no text of an edge list")]
    Binary {
        /// The line.
        line: u64,
        /// The column of the byte.
        column: usize,
        /// The byte.
        byte: u8,
    },
    /// A line longer than [`max_line_bytes`](super::EdgeListLimits::max_line_bytes). The rest of it was not read.
    #[error("line {line} is longer than {limit_bytes} bytes")]
    LineTooLong {
        /// The line.
        line: u64,
        /// Bytes allowed.
        limit_bytes: usize,
    },
    /// A line with one column, or with more than three.
    #[error("line {line}: {found} columns, where an edge has two, or three with a weight")]
    Columns {
        /// The line.
        line: u64,
        /// Columns found.
        found: usize,
    },
    /// A field that is no node id.
    #[error("line {line}, column {column}: `{text}` is no node id: {fault}")]
    Id {
        /// The line.
        line: u64,
        /// The column where the field begins.
        column: usize,
        /// What is wrong with it.
        fault: IdFault,
        /// The field, cut to 32 bytes.
        text: Box<str>,
    },
    /// A third column that is no finite number.
    #[error("line {line}, column {column}: `{text}` is no finite weight")]
    Weight {
        /// The line.
        line: u64,
        /// The column where the field begins.
        column: usize,
        /// The field, cut to 32 bytes.
        text: Box<str>,
    },
    /// More bytes than [`max_bytes`](super::EdgeListLimits::max_bytes), before or after decompression.
    #[error("line {line}: the list is longer than {limit_bytes} bytes")]
    TooManyBytes {
        /// The line being read.
        line: u64,
        /// Bytes allowed.
        limit_bytes: u64,
    },
    /// More edges than [`max_edges`](super::EdgeListLimits::max_edges).
    #[error("line {line}: more than {limit} edges")]
    TooManyEdges {
        /// The line with the first edge too many.
        line: u64,
        /// Edges allowed.
        limit: usize,
    },
    /// The edges make no graph, for instance for too many nodes.
    #[error("the {lines} lines make no graph: {source}")]
    Graph {
        /// Lines there are.
        lines: u64,
        /// Why not.
        #[source]
        source: GraphError,
    },
    /// The gzip data is cut off or damaged.
    #[error("line {line}: the gzip data is cut off or damaged: {source}")]
    Gzip {
        /// The line being read.
        line: u64,
        /// What the decompressor says.
        #[source]
        source: io::Error,
    },
    /// The reader failed. The same list may be readable the next time.
    #[error("line {line}: the list cannot be read on: {source}")]
    Read {
        /// The line being read.
        line: u64,
        /// What the reader says.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdFault {
    /// A minus sign before digits.
    Negative,
    /// Something else than digits: a fraction, a name, NaN.
    NotAnInteger,
    /// More than 2^63 - 1.
    TooLarge,
}

impl fmt::Display for IdFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Negative => "it is negative",
            Self::NotAnInteger => "it is not a decimal integer",
            Self::TooLarge => "it is larger than 2^63 - 1",
        })
    }
}
