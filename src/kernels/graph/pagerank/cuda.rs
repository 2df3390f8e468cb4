//! One power iteration on a CUDA device.

#![allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]

use std::fmt;
use std::future::{Future, ready};
use std::sync::Arc;

use rustkernel_core::error::KernelError;
use rustkernel_core::traits::{CheckpointableKernel, Context, LocalKernel};

use super::ranker::{PageRankCheckpoint, Ranker, Recalled};
use super::{PageRankConfig, PageRankState, cancelled, state};
use crate::cuda::{Argument, Buffer, CudaError, Device, Function, Grid, Image, Stream};
use crate::inject::FaultPlan;
use crate::kernels::graph::Graph;

/// [`PageRank`](super::PageRank) on a CUDA device. The graph stays there from one request to the next; ranks go there and back.
pub struct CudaPageRank {
    ranker: Ranker,
    faults: Option<Arc<FaultPlan<PageRankState>>>,
    functions: Functions,
    stream: Stream,
    resident: Option<Resident>,
}

struct Functions {
    shares: Function,
    base: Function,
    pull: Function,
    sum: Function,
}

/// A graph on the device.
struct Resident {
    fingerprint: u64,
    nodes: u32,
    starts: Buffer<u32>,
    sources: Buffer<u32>,
    out_degrees: Buffer<u32>,
}

const PTX: &str = include_str!("../../../cuda/kernels/pagerank.ptx");
const THREADS: u32 = 256;
/// Part of what the result's bits depend on: the sums of blocks are added in their order.
const MAX_BLOCKS: u32 = 1024;

impl CudaPageRank {
    /// A kernel on `device` that has answered nothing yet. `faults` are injected before its requests.
    ///
    /// # Errors
    /// A configuration that a field may not have, or what the device cannot do.
    pub fn new(
        device: &Device,
        config: PageRankConfig,
        faults: Option<Arc<FaultPlan<PageRankState>>>,
    ) -> Result<Self, KernelError> {
        let ranker = Ranker::new(config).map_err(KernelError::permanent)?;
        let module = device.load(Image::Ptx(PTX))?;
        let functions = Functions {
            shares: module.function("rk_pagerank_shares")?,
            base: module.function("rk_pagerank_base")?,
            pull: module.function("rk_pagerank_pull")?,
            sum: module.function("rk_sum")?,
        };
        Ok(Self { ranker, faults, functions, stream: device.stream()?, resident: None })
    }

    async fn step(&mut self, state: &PageRankState, cx: &Context<'_>) -> Result<(Vec<f64>, f64), CudaError> {
        let fingerprint = state.graph().fingerprint();
        let here = self.resident.take().filter(|resident| resident.fingerprint == fingerprint);
        let graph = match here {
            Some(graph) => graph,
            None => Resident::upload(&self.stream, state.graph())?,
        };
        let (stream, functions) = (&self.stream, &self.functions);
        let (nodes, damping) = (graph.nodes, self.ranker.config().damping);
        let mut grid = Grid::over(nodes, THREADS);
        grid.blocks[0] = grid.blocks[0].min(MAX_BLOCKS);
        let ([blocks, ..], one) = (grid.blocks, Grid { blocks: [1; 3], ..grid });
        let ranks = stream.upload(state.ranks())?;
        let (shares, next) = (stream.alloc::<f64>(ranks.len())?, stream.alloc::<f64>(ranks.len())?);
        let parts = stream.alloc::<f64>(blocks as usize)?;
        let (base, total) = (stream.alloc::<f64>(1)?, stream.alloc::<f64>(1)?);
        let moved = stream.alloc::<f64>(blocks as usize)?;
        let Resident { starts, sources, out_degrees, .. } = &graph;
        let of_shares: [&dyn Argument; 5] = [&ranks, out_degrees, &shares, &parts, &nodes];
        let of_base: [&dyn Argument; 5] = [&parts, &blocks, &base, &damping, &nodes];
        let of_pull: [&dyn Argument; 9] =
            [starts, sources, &shares, &ranks, &base, &next, &moved, &damping, &nodes];
        let of_sum: [&dyn Argument; 3] = [&moved, &blocks, &total];
        // SAFETY: as the functions are declared in pagerank.cu; a graph's rows name no node that it has not.
        unsafe {
            stream.launch(&functions.shares, grid, &of_shares)?;
            stream.launch(&functions.base, one, &of_base)?;
            stream.launch(&functions.pull, grid, &of_pull)?;
            stream.launch(&functions.sum, one, &of_sum)?;
        }
        let ranks = stream.download(&next, cx).await?;
        let delta = stream.download(&total, cx).await?;
        self.resident = Some(graph);
        Ok((ranks, delta.first().copied().unwrap_or(f64::NAN)))
    }
}

impl Resident {
    fn upload(stream: &Stream, graph: &Graph) -> Result<Self, CudaError> {
        let nodes = u32::try_from(graph.node_count());
        let nodes =
            nodes.map_err(|_| CudaError::Length { wanted: graph.node_count(), there: u32::MAX as usize })?;
        Ok(Self {
            fingerprint: graph.fingerprint(),
            nodes,
            starts: stream.upload(graph.starts())?,
            sources: stream.upload(graph.sources())?,
            out_degrees: stream.upload(graph.out_degrees())?,
        })
    }
}

impl LocalKernel for CudaPageRank {
    type Input = PageRankState;
    type Output = PageRankState;

    /// # Cancel safety
    /// Dropped half-way, or cancelled, it remembers nothing of the iteration.
    async fn execute_local(
        &mut self,
        input: &PageRankState,
        cx: &mut Context<'_>,
    ) -> Result<PageRankState, KernelError> {
        if let Some(plan) = &self.faults {
            plan.strike(input, cx)?;
        }
        let request = match self.ranker.recall(input) {
            Recalled::Answer(answer) => return Ok(answer),
            Recalled::Nothing(request) => request,
        };
        if cx.is_cancelled() {
            return Err(cancelled(cx));
        }
        let (ranks, delta) = self.step(input, cx).await?;
        // A device that computes wrongly says so nowhere.
        state::check_numbers(&ranks, delta).map_err(KernelError::transient)?;
        Ok(self.ranker.keep(request, input, ranks, delta))
    }
}

impl CheckpointableKernel for CudaPageRank {
    type Checkpoint = Option<PageRankCheckpoint>;

    fn checkpoint(&self) -> impl Future<Output = Result<Self::Checkpoint, KernelError>> + Send {
        ready(Ok(self.ranker.checkpoint()))
    }

    fn restore(
        &mut self,
        checkpoint: Self::Checkpoint,
    ) -> impl Future<Output = Result<(), KernelError>> + Send {
        ready(self.ranker.restore(checkpoint))
    }
}

impl fmt::Debug for CudaPageRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaPageRank").field("ranker", &self.ranker).finish_non_exhaustive()
    }
}
