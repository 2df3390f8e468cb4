// PageRank by power iteration in f64, for the definition in `src/kernels/graph/pagerank.rs`.
//
// One iteration is four launches in this order: `rk_pagerank_shares`, `rk_pagerank_base`, `rk_pagerank_pull`, and `rk_sum`
// of `moved`, which is the distance in L1 norm.
//
// Shapes: `ranks`, `out_degrees`, `shares` and `next` hold `nodes` entries; `starts` holds `nodes + 1`, and row v of the
// in-edges is `sources[starts[v] .. starts[v + 1]]`, as in the CPU's graph. `dangling` and `moved` hold one entry for each
// block of the launch that writes them; `base` and `total` hold one. Blocks of 256 threads are meant, and any one-dimensional
// launch is right.
//
// Deterministic: no atomics. A block has 256 lanes, whatever its number of threads. A lane sums what it visits in order, the
// block sums its lanes by a fixed tree in shared memory, one block sums the blocks. The same input on the same grids gives
// the same bits. Shares, and the sum of a row of given shares, are the CPU's to the bit, because the file is compiled without
// contraction to fused multiply-adds. The two long sums, dangling mass and distance, run in another order than on the CPU, so
// that the ranks differ by rounding.
//
// What it does NOT do: check the graph (a source from `nodes` up reads outside `shares`), balance rows. One thread sums one
// row, so that a node with very many in-edges holds its whole block up. That is enough for a first version.

#define LANES 256u

typedef unsigned long long wide;

// A lane visits every `grid_stride()`th index from here.
static __device__ wide first_index(unsigned lane)
{
    return (wide)blockIdx.x * LANES + lane;
}

static __device__ wide grid_stride()
{
    return (wide)gridDim.x * LANES;
}

// The sum over the lanes; `sums` is overwritten. All threads of the block have to call this.
static __device__ double sum_of_lanes(double *sums)
{
    __syncthreads();
    for (unsigned half = LANES / 2; half > 0; half /= 2) {
        for (unsigned lane = threadIdx.x; lane < half; lane += blockDim.x) {
            sums[lane] += sums[lane + half];
        }
        __syncthreads();
    }
    return sums[0];
}

// The sum of `count` parts, by one block; `sums` is overwritten. All its threads have to call this.
static __device__ double sum_of_parts(const double *parts, unsigned count, double *sums)
{
    for (unsigned lane = threadIdx.x; lane < LANES; lane += blockDim.x) {
        double mine = 0.0;
        for (wide i = lane; i < count; i += LANES) {
            mine += parts[i];
        }
        sums[lane] = mine;
    }
    return sum_of_lanes(sums);
}

// What each node gives along each of its out-edges, and each block's part of the mass of the nodes that have none.
extern "C" __global__ void rk_pagerank_shares(const double *ranks, const unsigned *out_degrees, double *shares,
                                              double *dangling, unsigned nodes)
{
    __shared__ double sums[LANES];
    for (unsigned lane = threadIdx.x; lane < LANES; lane += blockDim.x) {
        double mine = 0.0;
        for (wide i = first_index(lane); i < nodes; i += grid_stride()) {
            const double rank = ranks[i];
            const unsigned degree = out_degrees[i];
            if (degree == 0) {
                mine += rank;
            }
            shares[i] = degree == 0 ? 0.0 : rank / degree;
        }
        sums[lane] = mine;
    }
    const double sum = sum_of_lanes(sums);
    if (threadIdx.x == 0) {
        dangling[blockIdx.x] = sum;
    }
}

// What every node gets before its in-edges, from the `parts` entries of `dangling`. The first block computes it alone.
extern "C" __global__ void rk_pagerank_base(const double *dangling, unsigned parts, double *base, double damping,
                                            unsigned nodes)
{
    if (blockIdx.x != 0) {
        return;
    }
    __shared__ double sums[LANES];
    const double sum = sum_of_parts(dangling, parts, sums);
    if (threadIdx.x == 0) {
        base[0] = (1.0 - damping + damping * sum) / nodes;
    }
}

// The next ranks, and each block's part of their distance from `ranks`.
extern "C" __global__ void rk_pagerank_pull(const unsigned *starts, const unsigned *sources, const double *shares,
                                            const double *ranks, const double *base, double *next, double *moved,
                                            double damping, unsigned nodes)
{
    __shared__ double sums[LANES];
    const double everyone = base[0];
    for (unsigned lane = threadIdx.x; lane < LANES; lane += blockDim.x) {
        double mine = 0.0;
        for (wide v = first_index(lane); v < nodes; v += grid_stride()) {
            const unsigned end = starts[v + 1];
            double sum = 0.0;
            for (unsigned edge = starts[v]; edge < end; edge++) {
                sum += shares[sources[edge]];
            }
            const double rank = everyone + damping * sum;
            mine += fabs(rank - ranks[v]);
            next[v] = rank;
        }
        sums[lane] = mine;
    }
    const double sum = sum_of_lanes(sums);
    if (threadIdx.x == 0) {
        moved[blockIdx.x] = sum;
    }
}

// total[0] = the sum of `count` parts. The first block computes it alone.
extern "C" __global__ void rk_sum(const double *parts, unsigned count, double *total)
{
    if (blockIdx.x != 0) {
        return;
    }
    __shared__ double sums[LANES];
    const double sum = sum_of_parts(parts, count, sums);
    if (threadIdx.x == 0) {
        total[0] = sum;
    }
}
