// C = A * B in f32, row-major: A is m x k, B is k x n, C is m x n.
//
// Shapes: blocks of (16, 16, 1); the usual grid is (ceil(n / 16), ceil(m / 16), 1), and any other two-dimensional grid is right
// too. With k = 0, C is zero.
// One thread computes one element at a time, by fused multiply-adds in the order of k and from zero. That is a loop of
// `mul_add` on a CPU, bit for bit (a NaN may differ in its payload), whatever the grid.
//
// What it does NOT do: tensor cores, register tiling, transposition, C += A * B. A library is many times faster.

#define TILE 16u

typedef unsigned long long wide;

extern "C" __global__ void __launch_bounds__(TILE * TILE)
rk_matmul_f32(const float *a, const float *b, float *c, unsigned m, unsigned k, unsigned n)
{
    // Another block would leave tiles half filled. A fault is better than a wrong product.
    if (blockDim.x != TILE || blockDim.y != TILE || blockDim.z != 1) {
        __trap();
    }
    __shared__ float left[TILE][TILE];
    __shared__ float right[TILE][TILE];
    const unsigned x = threadIdx.x;
    const unsigned y = threadIdx.y;
    // The bounds of these loops are the same for the whole block, so that all its threads meet at the barriers.
    for (wide top = (wide)blockIdx.y * TILE; top < m; top += (wide)gridDim.y * TILE) {
        for (wide side = (wide)blockIdx.x * TILE; side < n; side += (wide)gridDim.x * TILE) {
            const wide row = top + y;
            const wide column = side + x;
            float sum = 0.0f;
            for (wide first = 0; first < k; first += TILE) {
                const bool in_a = row < m && first + x < k;
                const bool in_b = first + y < k && column < n;
                left[y][x] = in_a ? a[row * k + first + x] : 0.0f;
                right[y][x] = in_b ? b[(first + y) * n + column] : 0.0f;
                __syncthreads();
                // Not over the padding: adding +0 would turn a sum of -0 into +0.
                const unsigned depth = k - first < TILE ? (unsigned)(k - first) : TILE;
                for (unsigned i = 0; i < depth; i++) {
                    sum = fmaf(left[y][i], right[i][x], sum);
                }
                __syncthreads();
            }
            if (row < m && column < n) {
                c[row * n + column] = sum;
            }
        }
    }
}
