//! The product on a CUDA device.

#![allow(unsafe_code, reason = "a launch has arguments that no compiler has checked")]

use rustkernel_core::error::KernelError;
use rustkernel_core::traits::{Context, LocalKernel};

use super::{Matrix, check};
use crate::cuda::{Argument, Device, Function, Grid, Image, Stream};

/// [`MatMul`](super::MatMul) on a CUDA device: the same values, to the bit.
#[derive(Debug)]
pub struct CudaMatMul {
    function: Function,
    stream: Stream,
}

const PTX: &str = include_str!("../../../cuda/kernels/matmul.ptx");
/// As matmul.cu has it.
const TILE: u32 = 16;
/// In y, every device has so many.
const MAX_BLOCKS: u32 = 65_535;

impl CudaMatMul {
    /// A kernel on `device`.
    ///
    /// # Errors
    /// What the device cannot do.
    pub fn new(device: &Device) -> Result<Self, KernelError> {
        let function = device.load(Image::Ptx(PTX))?.function("rk_matmul_f32")?;
        Ok(Self { function, stream: device.stream()? })
    }
}

impl LocalKernel for CudaMatMul {
    type Input = (Matrix, Matrix);
    type Output = Matrix;

    /// # Errors
    /// Invalid input, where the columns of the one are not the rows of the other; what the device says.
    async fn execute_local(
        &mut self,
        (a, b): &(Matrix, Matrix),
        cx: &mut Context<'_>,
    ) -> Result<Matrix, KernelError> {
        check(a, b)?;
        let (m, k, n) = (a.rows(), a.columns(), b.columns());
        let len = usize::try_from(u64::from(m) * u64::from(n)).map_err(KernelError::exhausted)?;
        if len == 0 {
            return Matrix::new(m, n, Vec::new()).map_err(KernelError::permanent);
        }
        let stream = &self.stream;
        let (left, right) = (stream.upload(a.values())?, stream.upload(b.values())?);
        let product = stream.alloc::<f32>(len)?;
        let arguments: [&dyn Argument; 6] = [&left, &right, &product, &m, &k, &n];
        // However few blocks there are, they go over the whole product.
        let mut grid = Grid::over_plane(n, m, TILE);
        grid.blocks[1] = grid.blocks[1].min(MAX_BLOCKS);
        // SAFETY: as the function is declared in matmul.cu; the buffers are as long as the shapes say.
        unsafe { stream.launch(&self.function, grid, &arguments)? };
        let values = stream.download(&product, cx).await?;
        Matrix::new(m, n, values).map_err(KernelError::permanent)
    }
}
