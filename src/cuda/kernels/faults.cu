// Small kernels and deliberate faults, for the tests of a device: that work goes through, that a hang is seen, and that each
// fault is reported, ends its context and is recovered from. No built-in kernel uses them.
//
// Shapes: `data`, `x` and `y` hold `count` entries, and any one-dimensional launch of `rk_add` and `rk_saxpy` is right. `out`
// holds one entry, for `rk_fault_misaligned` two. The faults and `rk_spin` are meant for a single thread.
// The arithmetic is exact, or rounded once an operation: the same input gives the same bits.
//
// A launch that runs past its fault ends well and leaves 1 in `out[0]`. After a fault, `out` may hold anything.
//
// What it does NOT do: choose the error. Which code a fault gives is the driver's decision, and may differ between
// architectures. An illegal instruction is not among the faults: no PTX is known that gives one on every architecture.

typedef unsigned long long wide;

static __device__ wide first_index()
{
    return (wide)blockIdx.x * blockDim.x + threadIdx.x;
}

static __device__ wide grid_stride()
{
    return (wide)gridDim.x * blockDim.x;
}

// The device's clock. Its resolution differs between devices.
static __device__ wide now_ns()
{
    wide now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

extern "C" __global__ void rk_nothing() {}

// data[i] += by
extern "C" __global__ void rk_add(unsigned *data, unsigned count, unsigned by)
{
    for (wide i = first_index(); i < count; i += grid_stride()) {
        data[i] += by;
    }
}

// y = a * x + y, rounded after the product and after the sum.
extern "C" __global__ void rk_saxpy(float a, const float *x, float *y, unsigned count)
{
    for (wide i = first_index(); i < count; i += grid_stride()) {
        y[i] = a * x[i] + y[i];
    }
}

// Holds the device until `stop[0]` is not 0, and no longer than `limit_ns`. out[0] = 1 when the flag ended it, else 2.
extern "C" __global__ void rk_spin(volatile unsigned *stop, unsigned long long limit_ns, unsigned *out)
{
    const wide start = now_ns();
    bool stopped = stop[0] != 0;
    // A clock that jumps back ends the loop too: the difference is then huge.
    while (!stopped && now_ns() - start < limit_ns) {
        stopped = stop[0] != 0;
    }
    if (first_index() == 0) {
        out[0] = stopped ? 1 : 2;
    }
}

// Stores to the lowest pages of the address space. Nothing is ever mapped there, in the device's memory nor, where a device
// reaches that as well, in the process's.
extern "C" __global__ void rk_fault_illegal_address(unsigned *out)
{
    *(volatile unsigned *)4096 = 1;
    out[0] = 1;
}

// The driver prints the assertion to stderr.
extern "C" __global__ void rk_fault_assert(unsigned *out)
{
    assert(out == 0);
    out[0] = 1;
}

extern "C" __global__ void rk_fault_trap(unsigned *out)
{
    __trap();
    out[0] = 1;
}

// Stores 4 bytes at an address that 4 does not divide.
extern "C" __global__ void rk_fault_misaligned(unsigned *out)
{
    *(volatile unsigned *)((char *)out + 1) = 1;
    out[0] = 1;
}

// The sum of 0 ..= depth, by one call for each. The frame is read after the call returns, so that no call is a tail call.
// `extern "C"`, because the mangled name of a static function holds a hash.
extern "C" __device__ __noinline__ unsigned rk_descend(unsigned depth)
{
    volatile unsigned frame[16];
    frame[depth % 16] = depth;
    const unsigned below = depth == 0 ? 0 : rk_descend(depth - 1);
    return below + frame[depth % 16];
}

// Calls itself `depth` times. A depth that fits the stack is no fault: out[0] is then the sum of 0 ..= depth.
extern "C" __global__ void rk_fault_stack(unsigned *out, unsigned depth)
{
    out[0] = rk_descend(depth);
}

// Stores a MiB beyond the block's shared memory, which is more than any multiprocessor has.
extern "C" __global__ void rk_fault_shared(unsigned *out)
{
    __shared__ volatile unsigned cell[1];
    unsigned far;
    // Through assembly, so that the compiler cannot see that the store is undefined.
    asm volatile("mov.u32 %0, 262144;" : "=r"(far));
    cell[far] = 1;
    out[0] = 1;
}
