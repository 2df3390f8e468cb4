//! PageRank by power iteration, one iteration a request.
//!
//! An iteration takes the ranks `r` of a graph with `n` nodes to `r'`, where
//!
//! ```text
//! r'[v] = (1 - d) / n  +  d * (sum of r[u] over nodes u without out-edges) / n
//!                      +  d * (sum of r[u] / out_degree[u] over the edges u -> v)
//! ```
//!
//! The model is L. Page, S. Brin, R. Motwani, T. Winograd, "The PageRank Citation Ranking" (1999), with the mass of
//! dangling nodes spread evenly as in A. Langville, C. Meyer, "Deeper Inside PageRank" (2004); networkx decides
//! the same, so the results compare. Sums run in the order of node indexes on one thread: the same input gives the same bits.
//!
//! The caller loops: it sends [`PageRankState::start`], then each answer again, until [`PageRankState::is_converged`].
//! A request is idempotent. The kernel remembers its last answer, and a checkpoint keeps it: the same request,
//! sent again after a crash, is answered without computing.
//!
//! With the feature `cuda` there is `CudaPageRank`, the same kernel on a device: its ranks are those of this one within 1e-12 in L1
//! norm, because its two long sums run in another order.
//!
//! What it does NOT do: personalisation, weights, more than one thread.

#[cfg(feature = "cuda")]
mod cuda;
mod ranker;
mod state;
mod step;

use serde::{Deserialize, Serialize};

use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};
use rustkernel_core::traits::{CheckpointableKernel, Context, Kernel};

#[cfg(feature = "cuda")]
pub use cuda::CudaPageRank;
pub use ranker::PageRankCheckpoint;
use ranker::{Ranker, Recalled};
pub use state::PageRankState;

/// How to rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageRankConfig {
    /// The probability of following an edge instead of jumping anywhere; above 0 and below 1. Default 0.85: as
    /// in the paper. Closer to 1, the structure counts more and convergence takes longer: the distance
    /// shrinks by at least this factor each iteration.
    pub damping: f64,
    /// A state whose last iteration moved the ranks by no more than this, in L1 norm, comes back as it is; above 0. Default
    /// 1e-9: the shipped graph is there after about 70 rounds. The ranks are then within `tolerance * damping / (1 - damping)` of the limit. Below about 1e-15, rounding
    /// decides.
    pub tolerance: f64,
}

impl Default for PageRankConfig {
    fn default() -> Self {
        Self { damping: 0.85, tolerance: 1e-9 }
    }
}

/// The kernel `graph/pagerank`: [`PageRankState`] to the next one. See the [module](self).
#[derive(Debug)]
pub struct PageRank(Ranker);

/// Why a configuration, a state or a checkpoint is no such thing. What was there before stays.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PageRankError {
    /// [`PageRankConfig::damping`] is out of range.
    #[error("damping: {value} is not between 0 and 1")]
    Damping {
        /// The value.
        value: f64,
    },
    /// [`PageRankConfig::tolerance`] is out of range.
    #[error("tolerance: {value} is not a finite number above 0")]
    Tolerance {
        /// The value.
        value: f64,
    },
    /// There is not one rank for each node.
    #[error("ranks: {found} ranks for {nodes} nodes")]
    RankCount {
        /// Ranks given.
        found: usize,
        /// Nodes of the graph.
        nodes: usize,
    },
    /// A rank is negative or not finite.
    #[error("ranks: {value} at index {index} is not a finite number from 0")]
    Rank {
        /// The index.
        index: usize,
        /// The value.
        value: f64,
    },
    /// The distance is negative or not finite.
    #[error("delta: {value} is not a finite number from 0")]
    Delta {
        /// The value.
        value: f64,
    },
}

impl PageRank {
    /// The kernel's name.
    pub const NAME: &'static str = "graph/pagerank";

    /// A kernel that has answered nothing yet.
    ///
    /// # Errors
    /// [`PageRankError::Damping`] or [`PageRankError::Tolerance`] for a value that the field may not have.
    pub fn new(config: PageRankConfig) -> Result<Self, PageRankError> {
        Ranker::new(config).map(Self)
    }

    /// How the kernel ranks.
    #[must_use]
    pub fn config(&self) -> &PageRankConfig {
        self.0.config()
    }

    /// How many requests were answered from memory, since this instance was made.
    #[must_use]
    pub fn reused(&self) -> u64 {
        self.0.reused()
    }
}

impl Kernel for PageRank {
    type Input = PageRankState;
    type Output = PageRankState;

    /// # Cancel safety
    /// It never waits, so it is never dropped half-way; between pieces of 65536 edges it looks whether it is
    /// [cancelled](Context::is_cancelled), and then remembers nothing of the iteration.
    async fn execute(
        &mut self,
        input: &PageRankState,
        cx: &mut Context<'_>,
    ) -> Result<PageRankState, KernelError> {
        let request = match self.0.recall(input) {
            Recalled::Answer(answer) => return Ok(answer),
            Recalled::Nothing(request) => request,
        };
        let damping = self.0.config().damping;
        let Some((ranks, delta)) = step::step(input, damping, || cx.is_cancelled()) else {
            return Err(cancelled(cx));
        };
        Ok(self.0.keep(request, input, ranks, delta))
    }
}

impl CheckpointableKernel for PageRank {
    /// `None` before the first answer.
    type Checkpoint = Option<PageRankCheckpoint>;

    async fn checkpoint(&self) -> Result<Self::Checkpoint, KernelError> {
        Ok(self.0.checkpoint())
    }

    /// # Errors
    /// A checkpoint with a rank or a distance that no iteration gives is refused as permanent.
    async fn restore(&mut self, checkpoint: Self::Checkpoint) -> Result<(), KernelError> {
        self.0.restore(checkpoint)
    }
}

/// The error of work that stopped because [`Context::is_cancelled`] said so.
pub(super) fn cancelled(cx: &Context<'_>) -> KernelError {
    let kind =
        if cx.remaining().is_zero() { KernelErrorKind::DeadlineExceeded } else { KernelErrorKind::Cancelled };
    KernelError::new(kind, Phase::Executing)
}
