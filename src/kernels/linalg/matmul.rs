//! The product of two dense matrices.

#[cfg(feature = "cuda")]
mod cuda;

use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};
use rustkernel_core::traits::{Context, Kernel};

use super::{Matrix, MatrixError};

#[cfg(feature = "cuda")]
pub use cuda::CudaMatMul;

/// The kernel `linalg/matmul`: `A` and `B` to `A * B`, on one thread.
///
/// ```
/// use rustkernel::kernels::linalg::{MatMul, Matrix};
/// use rustkernel::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = Runtime::builder().build().await?;
/// let product = runtime.spawn(KernelSpec::new(MatMul::NAME, || MatMul)).await?;
/// let a = Matrix::new(1, 2, vec![2.0, 3.0])?;
/// let b = Matrix::new(2, 1, vec![10.0, 1.0])?;
/// assert_eq!(product.execute((a, b)).await?.values(), [23.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MatMul;

impl MatMul {
    /// The kernel's name.
    pub const NAME: &'static str = "linalg/matmul";
}

impl Kernel for MatMul {
    type Input = (Matrix, Matrix);
    type Output = Matrix;

    /// # Errors
    /// Invalid input, where the columns of the one are not the rows of the other.
    ///
    /// # Cancel safety
    /// It never waits; between rows it looks whether it is [cancelled](Context::is_cancelled).
    async fn execute(
        &mut self,
        (a, b): &(Matrix, Matrix),
        cx: &mut Context<'_>,
    ) -> Result<Matrix, KernelError> {
        check(a, b)?;
        let (inner, columns) = (a.columns() as usize, b.columns() as usize);
        let mut values = vec![0.0_f32; a.rows() as usize * columns];
        if columns > 0 && inner > 0 {
            // Along the rows of both: what is read next lies next to what was read.
            for (row, sums) in a.values().chunks_exact(inner).zip(values.chunks_exact_mut(columns)) {
                if cx.is_cancelled() {
                    return Err(KernelError::new(KernelErrorKind::Cancelled, Phase::Executing));
                }
                for (factor, others) in row.iter().zip(b.values().chunks_exact(columns)) {
                    for (sum, other) in sums.iter_mut().zip(others) {
                        *sum = factor.mul_add(*other, *sum);
                    }
                }
            }
        }
        Matrix::new(a.rows(), b.columns(), values).map_err(KernelError::permanent)
    }
}

fn check(a: &Matrix, b: &Matrix) -> Result<(), KernelError> {
    if a.columns() == b.rows() {
        return Ok(());
    }
    Err(KernelError::invalid_input(MatrixError::Inner { columns: a.columns(), rows: b.rows() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_product_is_as_by_hand_and_shapes_that_do_not_fit_are_refused() {
        let matrix = |rows, columns, values: &[f32]| Matrix::new(rows, columns, values.to_vec()).unwrap();
        let (a, b) = (matrix(2, 2, &[1.0, 2.0, 3.0, 4.0]), matrix(2, 1, &[10.0, 1.0]));
        let cx = &mut Context::detached();
        assert_eq!(MatMul.execute(&(a.clone(), b.clone()), cx).await.unwrap(), matrix(2, 1, &[12.0, 34.0]));
        let refused = MatMul.execute(&(b, a), cx).await.unwrap_err();
        assert!(refused.to_string().contains("1 columns cannot be multiplied with 2 rows"), "{refused}");
        let empty = MatMul.execute(&(matrix(2, 0, &[]), matrix(0, 3, &[])), cx).await.unwrap();
        assert_eq!(empty, matrix(2, 3, &[0.0; 6]));
    }
}
