//! The built-in kernels on a device give what they give on a processor.

use rustkernel::actors::Runtime;
use rustkernel::core::traits::{Context, Kernel};
use rustkernel::cuda::Device;
use rustkernel::kernels::graph::pagerank::CudaPageRank;
use rustkernel::kernels::graph::{Graph, PageRank, PageRankConfig, PageRankState};
use rustkernel::kernels::linalg::{CudaMatMul, MatMul, Matrix};
use rustkernel::worker::Kernels;

use crate::domain;
use crate::kit::soon;

pub(crate) fn kernels(kernels: &mut Kernels) {
    kernels.register("matmul", |ordinal: u16| CudaMatMul::new(&Device::open(ordinal)?));
    kernels.register_checkpointed("pagerank", |ordinal: u16| {
        CudaPageRank::new(&Device::open(ordinal)?, PageRankConfig::default(), None)
    });
}

fn matrix(rows: u32, columns: u32, seed: u64) -> Matrix {
    let mut rng = fastrand::Rng::with_seed(seed);
    Matrix::new(rows, columns, (0..rows * columns).map(|_| rng.f32() - 0.5).collect()).unwrap()
}

#[tokio::test]
async fn a_product_is_the_same_to_the_bit() {
    let domain = domain("");
    let runtime = Runtime::builder().build().await.unwrap();
    let spec = domain.kernel::<CudaMatMul>("linalg/matmul", "matmul", &0_u16);
    let there = soon(runtime.spawn(spec)).await.unwrap();
    for (m, k, n) in [(1, 1, 1), (16, 16, 16), (33, 17, 65), (5, 0, 3), (0, 4, 4), (100, 300, 2)] {
        let pair = (matrix(m, k, 1), matrix(k, n, 2));
        let here = MatMul.execute(&pair, &mut Context::detached()).await.unwrap();
        assert_eq!(soon(there.execute(pair)).await.unwrap(), here, "{m} x {k} x {n}");
    }
    let wrong = (matrix(2, 3, 1), matrix(2, 3, 1));
    let error = soon(there.execute(wrong)).await.unwrap_err();
    assert!(error.to_string().contains("3 columns cannot be multiplied with 2 rows"), "{error}");
}

/// The sums over all nodes run in another order: the ranks differ by rounding.
#[tokio::test]
async fn ranks_are_the_same_within_rounding() {
    let domain = domain("");
    let runtime = Runtime::builder().build().await.unwrap();
    let spec = domain.kernel::<CudaPageRank>("graph/pagerank", "pagerank", &0_u16);
    let there = soon(runtime.spawn(spec)).await.unwrap();
    let mut rng = fastrand::Rng::with_seed(7);
    for nodes in [2, 300, 5_000] {
        let edges = (0..nodes * 4).map(|_| (rng.u64(..nodes), rng.u64(..nodes))).collect();
        let mut on_device = PageRankState::start(Graph::from_edges(edges).unwrap());
        let mut on_processor = on_device.clone();
        let mut kernel = PageRank::new(PageRankConfig::default()).unwrap();
        for _ in 0..5 {
            on_device = soon(there.execute(on_device)).await.unwrap();
            on_processor = kernel.execute(&on_processor, &mut Context::detached()).await.unwrap();
        }
        let apart: f64 = on_device.ranks().iter().zip(on_processor.ranks()).map(|(a, b)| (a - b).abs()).sum();
        assert!(apart <= 1e-12, "{nodes} nodes: {apart}");
        assert_eq!(on_device.iteration(), on_processor.iteration());
    }
}
