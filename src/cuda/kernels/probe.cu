// Known-answer probe of a device: out[i] = in[i] * 2654435761 + i, in arithmetic modulo 2^32.
//
// Shapes: `in` and `out` hold `count` words. Any one-dimensional launch is right.
// Every word depends on its own input and index, and the arithmetic is exact: the same input gives the same bits.
// The factor is odd, so that every wrong bit of an input shows in the output.
//
// What it does NOT do: floating point, shared memory. A device that passes may still compute those wrongly.

extern "C" __global__ void rk_probe(const unsigned *in, unsigned *out, unsigned count)
{
    // 64 bits wide, so that the last stride cannot wrap below `count`.
    const unsigned long long stride = (unsigned long long)gridDim.x * blockDim.x;
    for (unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        out[i] = in[i] * 2654435761u + (unsigned)i;
    }
}
