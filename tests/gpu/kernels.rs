//! The kernels of the rows: what a worker can make, and what the row's own process does beside it.

#![allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]

use rustkernel::core::error::KernelError;
use rustkernel::core::traits::{Context, LocalKernel};
use rustkernel::cuda::{Device, Function, Grid, Stream};
use rustkernel::kernels::graph::PageRankConfig;
use rustkernel::kernels::graph::pagerank::CudaPageRank;
use rustkernel::kernels::linalg::CudaMatMul;
use rustkernel::worker::Kernels;

use crate::device;
use crate::stages::{Double, Download, Last, Source, Upload, function};

/// What a worker of this program can make; each on the device of the ordinal that it is given.
pub(crate) fn register(kernels: &mut Kernels) {
    device::kernels(kernels);
    kernels.register("burst", Burst::new);
    kernels.register("deaf", Deaf::new);
    kernels.register("free", |ordinal: u16| Ok(Free(Device::open(ordinal)?)));
    kernels.register("upload", |_: u16| Upload::new());
    kernels.register("double", |_: u16| Double::new());
    kernels.register("download", |_: u16| Download::new());
    kernels.register("source", |_: u16| Source::new());
    kernels.register("last", |_: u16| Last::new());
    kernels.register("matmul", |ordinal: u16| CudaMatMul::new(&Device::open(ordinal)?));
    kernels.register_checkpointed("pagerank", |ordinal: u16| {
        CudaPageRank::new(&Device::open(ordinal)?, PageRankConfig::default(), None)
    });
}

const ONE: Grid = Grid { blocks: [1; 3], threads: [1; 3], shared_bytes: 0 };

/// So many launches of nothing, and until all of them are done.
pub(crate) struct Burst {
    nothing: Function,
    stream: Stream,
}

impl Burst {
    pub(crate) fn new(ordinal: u16) -> Result<Self, KernelError> {
        let device = Device::open(ordinal)?;
        Ok(Self { nothing: function(&device, "rk_nothing")?, stream: device.stream()? })
    }
}

impl LocalKernel for Burst {
    type Input = u64;
    type Output = u64;

    async fn execute_local(&mut self, launches: &u64, cx: &mut Context<'_>) -> Result<u64, KernelError> {
        for _ in 0..*launches {
            // SAFETY: it takes nothing.
            unsafe { self.stream.launch(&self.nothing, ONE, &[])? };
        }
        self.stream.done(cx).await?;
        Ok(*launches)
    }
}

/// Keeps the device busy for so many nanoseconds, whoever tells it to stop.
pub(crate) struct Deaf {
    spin: Function,
    stream: Stream,
}

impl Deaf {
    fn new(ordinal: u16) -> Result<Self, KernelError> {
        let device = Device::open(ordinal)?;
        Ok(Self { spin: function(&device, "rk_spin")?, stream: device.stream()? })
    }
}

impl LocalKernel for Deaf {
    type Input = u64;
    type Output = u64;

    async fn execute_local(&mut self, nanos: &u64, cx: &mut Context<'_>) -> Result<u64, KernelError> {
        let (never, said) = (self.stream.zeros::<u32>(1)?, self.stream.zeros::<u32>(1)?);
        // SAFETY: as faults.cu declares it.
        unsafe { self.stream.launch(&self.spin, ONE, &[&never, nanos, &said])? };
        let said = self.stream.download(&said, cx).await?;
        Ok(said.first().copied().unwrap_or(0).into())
    }
}

/// How much memory of the device is free.
pub(crate) struct Free(Device);

impl LocalKernel for Free {
    type Input = u64;
    type Output = u64;

    async fn execute_local(&mut self, _: &u64, _: &mut Context<'_>) -> Result<u64, KernelError> {
        Ok(self.0.memory()?.0)
    }
}
