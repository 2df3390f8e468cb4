//! The built-in kernels on the device give what they give on the processor.

use rustkernel::core::traits::{Context, Kernel, LocalKernel};
use rustkernel::cuda::Device;
use rustkernel::kernels::graph::pagerank::CudaPageRank;
use rustkernel::kernels::graph::{Graph, PageRank, PageRankConfig, PageRankState};
use rustkernel::kernels::linalg::{CudaMatMul, MatMul, Matrix};

use crate::figures::{rounded, timed};
use crate::row::{Bench, Found, Halt, Outcome, ensure};
use crate::scene::{self, play};

/// The ranks' two long sums run in another order than on a processor: as `CudaPageRank` documents.
const APART: f64 = 1e-12;

fn matrix(rows: u32, columns: u32, seed: u64) -> Result<Matrix, Halt> {
    let mut rng = fastrand::Rng::with_seed(seed);
    Matrix::new(rows, columns, (0..rows * columns).map(|_| rng.f32() - 0.5).collect()).map_err(Halt::fail)
}

fn sizes(bench: Bench) -> Vec<(u32, u32, u32)> {
    let mut sizes = vec![(1, 1, 1), (16, 16, 16), (33, 17, 65), (5, 0, 3), (0, 4, 4), (100, 300, 2)];
    if !bench.quick && !bench.is_standin {
        sizes.extend([(257, 511, 129), (512, 512, 512), (2, 100_000, 2), (70_000, 3, 5)]);
    }
    sizes
}

pub(crate) fn matmul(bench: Bench) -> Outcome {
    let device = Device::open(0)?;
    let mut kernel = CudaMatMul::new(&device)?;
    let mut compared = 0_usize;
    for (m, k, n) in sizes(bench) {
        let pair = (matrix(m, k, 1)?, matrix(k, n, 2)?);
        let (there, here) = play(async {
            let there = kernel.execute_local(&pair, &mut Context::detached()).await?;
            Ok((there, MatMul.execute(&pair, &mut Context::detached()).await?))
        })?;
        let bits = |matrix: &Matrix| matrix.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        ensure(bits(&there) == bits(&here), || format!("{m} x {k} x {n} differs"))?;
        compared += here.values().len();
    }
    Ok(Found::new(format!("{} shapes, the same to the bit", sizes(bench).len())).figure("values", compared))
}

pub(crate) fn pagerank(bench: Bench) -> Outcome {
    let device = Device::open(0)?;
    let mut sizes = vec![2, 300, 5_000];
    if !bench.quick && !bench.is_standin {
        sizes.extend([100_000, 1_000_000]);
    }
    let mut worst = 0.0_f64;
    let mut found = Found::new("");
    for nodes in &sizes {
        let (apart, speedup) = rank(&device, *nodes)?;
        ensure(apart <= APART, || format!("{nodes} nodes: {apart:e} apart in L1 norm"))?;
        worst = worst.max(apart);
        found = found.figure(&format!("times_one_thread_at_{nodes}_nodes"), rounded(speedup));
    }
    found.text = format!("{} graphs, five iterations each, at most {worst:e} apart in L1 norm", sizes.len());
    Ok(found)
}

/// How far apart the ranks are after five iterations, and how many times as long the processor took.
fn rank(device: &Device, nodes: u64) -> Result<(f64, f64), Halt> {
    let mut rng = fastrand::Rng::with_seed(7);
    let edges = (0..nodes * 4).map(|_| (rng.u64(..nodes), rng.u64(..nodes))).collect();
    let mut there = PageRankState::start(Graph::from_edges(edges).map_err(Halt::fail)?);
    let mut here = there.clone();
    let mut on_device = CudaPageRank::new(device, PageRankConfig::default(), None)?;
    let mut on_processor = PageRank::new(PageRankConfig::default()).map_err(Halt::fail)?;
    let (mut device_seconds, mut processor_seconds) = (0.0, 0.0);
    let tokio = scene::tokio()?;
    for _ in 0..5 {
        let cx = &mut Context::detached();
        let (seconds, ranked) = timed(|| tokio.block_on(on_device.execute_local(&there, cx)));
        (device_seconds, there) = (device_seconds + seconds, ranked?);
        let (seconds, ranked) = timed(|| tokio.block_on(on_processor.execute(&here, cx)));
        (processor_seconds, here) = (processor_seconds + seconds, ranked?);
    }
    let apart = there.ranks().iter().zip(here.ranks()).map(|(a, b)| (a - b).abs()).sum();
    ensure(there.iteration() == here.iteration(), || "another number of iterations".to_owned())?;
    Ok((apart, processor_seconds / device_seconds))
}
