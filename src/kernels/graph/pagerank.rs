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
//! What it does NOT do: personalisation, weights, more than one thread.

mod state;
mod step;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};
use rustkernel_core::traits::{CheckpointableKernel, Context, Kernel};

use super::fingerprint::Fingerprint;

pub use state::PageRankState;

/// How to rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageRankConfig {
    /// The probability of following an edge instead of jumping anywhere; above 0 and below 1, 0.85 by default as in
    /// the paper. Closer to 1, the structure counts more and convergence takes longer: the distance
    /// shrinks by at least this factor each iteration.
    pub damping: f64,
    /// A state whose last iteration moved the ranks by no more than this, in L1 norm, comes back as it is; above 0, 1e-9 by
    /// default. The ranks are then within `tolerance * damping / (1 - damping)` of the limit. Below about 1e-15, rounding
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
pub struct PageRank {
    config: PageRankConfig,
    last: Option<PageRankCheckpoint>,
    reused: u64,
}

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

/// The last answer of a [`PageRank`] kernel, and which request it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageRankCheckpoint {
    request: u64,
    graph: u64,
    iteration: u32,
    ranks: Arc<[f64]>,
    delta: f64,
}

impl PageRankCheckpoint {
    /// The [fingerprint](super::Graph::fingerprint) of the graph.
    #[must_use]
    pub fn graph(&self) -> u64 {
        self.graph
    }

    /// The iteration that the kernel had reached.
    #[must_use]
    pub fn iteration(&self) -> u32 {
        self.iteration
    }
}

impl PageRank {
    /// The kernel's name.
    pub const NAME: &'static str = "graph/pagerank";

    /// A kernel that has answered nothing yet.
    ///
    /// # Errors
    /// [`PageRankError::Damping`] or [`PageRankError::Tolerance`] for a value that the field may not have.
    pub fn new(config: PageRankConfig) -> Result<Self, PageRankError> {
        let PageRankConfig { damping, tolerance } = config;
        if !(damping > 0.0 && damping < 1.0) {
            return Err(PageRankError::Damping { value: damping });
        }
        if !(tolerance > 0.0 && tolerance.is_finite()) {
            return Err(PageRankError::Tolerance { value: tolerance });
        }
        Ok(Self { config, last: None, reused: 0 })
    }

    /// How the kernel ranks.
    #[must_use]
    pub fn config(&self) -> &PageRankConfig {
        &self.config
    }

    /// How many requests were answered from memory, since this instance was made.
    #[must_use]
    pub fn reused(&self) -> u64 {
        self.reused
    }

    /// What a request is recognised by: everything its answer depends on.
    fn request(&self, input: &PageRankState) -> u64 {
        Fingerprint::new(DOMAIN)
            .words([self.config.damping.to_bits(), input.graph().fingerprint(), u64::from(input.iteration())])
            .words(input.ranks().iter().map(|rank| rank.to_bits()))
            .finish()
    }

    /// The remembered answer, if it is one to this request.
    fn remembered(&self, request: u64, input: &PageRankState) -> Option<PageRankState> {
        let last = self.last.as_ref().filter(|last| last.request == request)?;
        let follows = last.graph == input.graph().fingerprint()
            && Some(last.iteration) == input.iteration().checked_add(1);
        if !follows {
            return None;
        }
        PageRankState::new(input.graph().clone(), Arc::clone(&last.ranks), last.iteration, last.delta).ok()
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
        if input.is_converged(self.config.tolerance) {
            return Ok(input.clone());
        }
        let request = self.request(input);
        if let Some(answer) = self.remembered(request, input) {
            self.reused += 1;
            return Ok(answer);
        }
        let Some((ranks, delta)) = step::step(input, self.config.damping, || cx.is_cancelled()) else {
            return Err(cancelled(cx));
        };
        let answer = input.next(ranks.into(), delta);
        self.last = Some(PageRankCheckpoint {
            request,
            graph: answer.graph().fingerprint(),
            iteration: answer.iteration(),
            ranks: answer.shared_ranks(),
            delta,
        });
        Ok(answer)
    }
}

impl CheckpointableKernel for PageRank {
    /// `None` before the first answer.
    type Checkpoint = Option<PageRankCheckpoint>;

    async fn checkpoint(&self) -> Result<Self::Checkpoint, KernelError> {
        Ok(self.last.clone())
    }

    /// # Errors
    /// A checkpoint with a rank or a distance that no iteration gives is refused as permanent.
    async fn restore(&mut self, checkpoint: Self::Checkpoint) -> Result<(), KernelError> {
        if let Some(last) = &checkpoint {
            state::check_numbers(&last.ranks, last.delta).map_err(KernelError::permanent)?;
        }
        self.last = checkpoint;
        Ok(())
    }
}

/// The error of work that stopped because [`Context::is_cancelled`] said so.
pub(super) fn cancelled(cx: &Context<'_>) -> KernelError {
    let kind =
        if cx.remaining().is_zero() { KernelErrorKind::DeadlineExceeded } else { KernelErrorKind::Cancelled };
    KernelError::new(kind, Phase::Executing)
}

const DOMAIN: u64 = u64::from_be_bytes(*b"ranks/v1");
