//! Edge lists as kernel input: from a file, from memory, or the one that is shipped.
//!
//! | what fails | the kernel's answer |
//! |---|---|
//! | the list is refused by the parser | invalid input, naming the source and the line |
//! | the file is not there, may not be read, is a directory | invalid input, naming the file |
//! | the device under the file fails | transient: the same request may work the next time |
//! | nobody waits any more | cancelled, or deadline exceeded |
//!
//! Reading blocks the thread it runs on: give this kernel a thread or a process, never the place
//! inline. A file that never answers (a pipe without a writer) hangs it, as any blocking read.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use rustkernel_core::error::KernelError;
use rustkernel_core::traits::{Context, Kernel, Payload};

use super::csr::Graph;
use super::edge_list::{EdgeListError, EdgeListLimits, read_edge_list};
use super::pagerank::cancelled;

/// Where an edge list comes from. All of them may be gzip, except text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeListSource {
    /// A file, opened when the request runs, on the machine and with the rights of the process it runs in.
    Path(PathBuf),
    /// The list itself.
    Text(Arc<str>),
    /// The list itself, as bytes.
    Bytes(Arc<[u8]>),
    /// Debian's package dependency graph, built in: see `data/README.md`.
    Shipped,
}

/// The kernel `graph/load`: [`EdgeListSource`] to [`Graph`]. See the [module](self).
#[derive(Debug, Default)]
pub struct Load {
    limits: EdgeListLimits,
}

/// Why a source gave no graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be opened.
    #[error("{origin}: the file cannot be opened: {source}")]
    Open {
        /// Which source.
        origin: Origin,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The list is refused, or reading stopped.
    #[error("{origin}: {source}")]
    List {
        /// Which source.
        origin: Origin,
        /// Why.
        #[source]
        source: EdgeListError,
    },
}

/// Which source an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    Path(PathBuf),
    /// A list that came with the request.
    Request,
    /// The list that is built in.
    Shipped,
}

impl Load {
    /// The kernel's name.
    pub const NAME: &'static str = "graph/load";

    /// A kernel that reads lists within `limits`.
    #[must_use]
    pub fn new(limits: EdgeListLimits) -> Self {
        Self { limits }
    }

    fn read(&self, source: &EdgeListSource, cx: &Context<'_>) -> Result<Graph, LoadError> {
        let list = |input: &mut dyn BufRead, origin: Origin| {
            let watched = Watched { input, cx };
            read_edge_list(watched, &self.limits).map_err(|source| LoadError::List { origin, source })
        };
        match source {
            EdgeListSource::Path(path) => {
                let origin = Origin::Path(path.clone());
                match File::open(path) {
                    Ok(file) => list(&mut BufReader::with_capacity(FILE_BUFFER_BYTES, file), origin),
                    Err(source) => Err(LoadError::Open { origin, source }),
                }
            }
            EdgeListSource::Text(text) => list(&mut text.as_bytes(), Origin::Request),
            EdgeListSource::Bytes(bytes) => list(&mut &bytes[..], Origin::Request),
            EdgeListSource::Shipped => list(&mut &SHIPPED[..], Origin::Shipped),
        }
    }
}

impl Kernel for Load {
    type Input = EdgeListSource;
    type Output = Graph;

    /// # Cancel safety
    /// It never waits and keeps nothing; it looks whether it is [cancelled](Context::is_cancelled) each time it reads on.
    async fn execute(&mut self, input: &EdgeListSource, cx: &mut Context<'_>) -> Result<Graph, KernelError> {
        self.read(input, cx).map_err(|error| {
            if error.stopped_by_cancellation() {
                cancelled(cx)
            } else if error.is_the_inputs_fault() {
                KernelError::invalid_input(error)
            } else {
                KernelError::transient(error)
            }
        })
    }
}

impl Payload for EdgeListSource {
    fn size_bytes(&self) -> usize {
        let heap = match self {
            Self::Path(path) => path.capacity(),
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Shipped => 0,
        };
        size_of::<Self>() + heap
    }

    fn schema() -> String {
        "graph/edge_list".into()
    }
}

impl LoadError {
    /// Whether the same request would fail the same way.
    fn is_the_inputs_fault(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::List { source: EdgeListError::Read { source, .. }, .. } => {
                NAMING_NO_FILE.contains(&source.kind())
            }
            Self::List { .. } => true,
        }
    }

    fn stopped_by_cancellation(&self) -> bool {
        match self {
            Self::List { source: EdgeListError::Read { source, .. }, .. } => {
                source.get_ref().is_some_and(|inner| inner.is::<NobodyWaits>())
            }
            Self::List { .. } | Self::Open { .. } => false,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Request => f.write_str("the request's edge list"),
            Self::Shipped => f.write_str("the shipped edge list"),
        }
    }
}

/// A reader that fails once nobody waits for what is read.
struct Watched<'a> {
    input: &'a mut dyn BufRead,
    cx: &'a Context<'a>,
}

impl BufRead for Watched<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.cx.is_cancelled() {
            return Err(io::Error::other(NobodyWaits));
        }
        let buffer = self.input.fill_buf()?;
        Ok(&buffer[..buffer.len().min(FILE_BUFFER_BYTES)])
    }

    fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("nobody waits for the graph")]
struct NobodyWaits;

const FILE_BUFFER_BYTES: usize = 1 << 16;
const NAMING_NO_FILE: [io::ErrorKind; 6] = [
    io::ErrorKind::NotFound,
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::IsADirectory,
    io::ErrorKind::NotADirectory,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::InvalidFilename,
];
static SHIPPED: &[u8] = include_bytes!("../../../data/debian-depends.txt.gz");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failing_device_is_worth_another_try() {
        let read = |kind| LoadError::List {
            origin: Origin::Request,
            source: EdgeListError::Read { line: 1, source: io::Error::from(kind) },
        };
        assert!(!read(io::ErrorKind::TimedOut).is_the_inputs_fault());
        assert!(!read(io::ErrorKind::Other).is_the_inputs_fault());
        assert!(read(io::ErrorKind::IsADirectory).is_the_inputs_fault());
        let open = |kind| LoadError::Open { origin: Origin::Shipped, source: io::Error::from(kind) };
        assert!(open(io::ErrorKind::NotFound).is_the_inputs_fault());
        assert!(open(io::ErrorKind::PermissionDenied).is_the_inputs_fault());
        assert!(!open(io::ErrorKind::ResourceBusy).is_the_inputs_fault());
        let empty = LoadError::List { origin: Origin::Request, source: EdgeListError::Empty { lines: 0 } };
        assert!(empty.is_the_inputs_fault() && !empty.stopped_by_cancellation());
    }
}
