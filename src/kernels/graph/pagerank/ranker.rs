//! The last answer of a ranking kernel, wherever it computes.

use std::sync::Arc;

use rustkernel_core::codec::packed;
use rustkernel_core::error::KernelError;
use serde::{Deserialize, Serialize};

use super::super::fingerprint::Fingerprint;
use super::{PageRankConfig, PageRankError, PageRankState, state};

/// The last answer of a [`PageRank`](super::PageRank) kernel, and which request it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageRankCheckpoint {
    request: u64,
    graph: u64,
    iteration: u32,
    #[serde(with = "packed")]
    ranks: Arc<[f64]>,
    delta: f64,
}

impl PageRankCheckpoint {
    /// The [fingerprint](super::super::Graph::fingerprint) of the graph.
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

/// How to rank, and what was answered last.
#[derive(Debug)]
pub(super) struct Ranker {
    config: PageRankConfig,
    last: Option<PageRankCheckpoint>,
    reused: u64,
}

/// What is known of a request before anything is computed.
pub(super) enum Recalled {
    /// Its answer.
    Answer(PageRankState),
    /// Nothing but what it is recognised by.
    Nothing(u64),
}

impl Ranker {
    pub(super) fn new(config: PageRankConfig) -> Result<Self, PageRankError> {
        let PageRankConfig { damping, tolerance } = config;
        if !(damping > 0.0 && damping < 1.0) {
            return Err(PageRankError::Damping { value: damping });
        }
        if !(tolerance > 0.0 && tolerance.is_finite()) {
            return Err(PageRankError::Tolerance { value: tolerance });
        }
        Ok(Self { config, last: None, reused: 0 })
    }

    pub(super) fn config(&self) -> &PageRankConfig {
        &self.config
    }

    pub(super) fn reused(&self) -> u64 {
        self.reused
    }

    /// The answer that needs no computing: the state itself where it has converged, or the remembered one.
    pub(super) fn recall(&mut self, input: &PageRankState) -> Recalled {
        if input.is_converged(self.config.tolerance) {
            return Recalled::Answer(input.clone());
        }
        let request = self.request(input);
        match self.remembered(request, input) {
            Some(answer) => {
                self.reused += 1;
                Recalled::Answer(answer)
            }
            None => Recalled::Nothing(request),
        }
    }

    /// The answer to a request, from what was computed; remembered from now on.
    pub(super) fn keep(
        &mut self,
        request: u64,
        input: &PageRankState,
        ranks: Vec<f64>,
        delta: f64,
    ) -> PageRankState {
        let answer = input.next(ranks.into(), delta);
        self.last = Some(PageRankCheckpoint {
            request,
            graph: answer.graph().fingerprint(),
            iteration: answer.iteration(),
            ranks: answer.shared_ranks(),
            delta,
        });
        answer
    }

    pub(super) fn checkpoint(&self) -> Option<PageRankCheckpoint> {
        self.last.clone()
    }

    pub(super) fn restore(&mut self, checkpoint: Option<PageRankCheckpoint>) -> Result<(), KernelError> {
        if let Some(last) = &checkpoint {
            state::check_numbers(&last.ranks, last.delta).map_err(KernelError::permanent)?;
        }
        self.last = checkpoint;
        Ok(())
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

const DOMAIN: u64 = u64::from_be_bytes(*b"ranks/v1");
