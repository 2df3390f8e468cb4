//! Kernels that hand memory of a device on to one another.

#![allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]
#![allow(dead_code, reason = "each test file uses its own part")]

use rustkernel::core::error::KernelError;
use rustkernel::core::traits::{Context, LocalKernel};
use rustkernel::cuda::{Buffer, Device, Function, Grid, Image, Stream};

use crate::device::FAULTS;

pub(crate) fn function(device: &Device, name: &str) -> Result<Function, KernelError> {
    Ok(device.load(Image::Ptx(FAULTS))?.function(name)?)
}

/// Brings values to the device.
pub(crate) struct Upload(Stream);

impl Upload {
    pub(crate) fn new() -> Result<Self, KernelError> {
        Ok(Self(Device::open(0)?.stream()?))
    }
}

impl LocalKernel for Upload {
    type Input = Vec<f32>;
    type Output = Buffer<f32>;

    async fn execute_local(
        &mut self,
        values: &Vec<f32>,
        _: &mut Context<'_>,
    ) -> Result<Buffer<f32>, KernelError> {
        Ok(self.0.upload(values)?)
    }
}

/// Twice the input, which stays on the device.
pub(crate) struct Double {
    saxpy: Function,
    stream: Stream,
}

impl Double {
    pub(crate) fn new() -> Result<Self, KernelError> {
        let device = Device::open(0)?;
        Ok(Self { saxpy: function(&device, "rk_saxpy")?, stream: device.stream()? })
    }
}

impl LocalKernel for Double {
    type Input = Buffer<f32>;
    type Output = Buffer<f32>;

    async fn execute_local(
        &mut self,
        input: &Buffer<f32>,
        _: &mut Context<'_>,
    ) -> Result<Buffer<f32>, KernelError> {
        let output = self.stream.zeros::<f32>(input.len())?;
        let len = u32::try_from(input.len()).map_err(KernelError::permanent)?;
        // SAFETY: as faults.cu declares it; both buffers are as long as it is told.
        unsafe { self.stream.launch(&self.saxpy, Grid::over(len, 256), &[&2.0_f32, input, &output, &len])? };
        Ok(output)
    }
}

/// Brings values back.
pub(crate) struct Download(Stream);

impl Download {
    pub(crate) fn new() -> Result<Self, KernelError> {
        Ok(Self(Device::open(0)?.stream()?))
    }
}

impl LocalKernel for Download {
    type Input = Buffer<f32>;
    type Output = Vec<f32>;

    async fn execute_local(
        &mut self,
        input: &Buffer<f32>,
        cx: &mut Context<'_>,
    ) -> Result<Vec<f32>, KernelError> {
        Ok(self.0.download(input, cx).await?)
    }
}

/// So many values, made on the device.
pub(crate) struct Source(Stream);

impl Source {
    pub(crate) fn new() -> Result<Self, KernelError> {
        Ok(Self(Device::open(0)?.stream()?))
    }
}

impl LocalKernel for Source {
    type Input = u64;
    type Output = Buffer<f32>;

    async fn execute_local(&mut self, len: &u64, _: &mut Context<'_>) -> Result<Buffer<f32>, KernelError> {
        Ok(self.0.zeros(usize::try_from(*len).map_err(KernelError::permanent)?)?)
    }
}

/// [`Double`], and until that is done: how many there are.
pub(crate) struct Last(Double);

impl Last {
    pub(crate) fn new() -> Result<Self, KernelError> {
        Double::new().map(Self)
    }
}

impl LocalKernel for Last {
    type Input = Buffer<f32>;
    type Output = u64;

    async fn execute_local(&mut self, input: &Buffer<f32>, cx: &mut Context<'_>) -> Result<u64, KernelError> {
        let doubled = self.0.execute_local(input, cx).await?;
        self.0.stream.done(cx).await?;
        Ok(doubled.len() as u64)
    }
}
