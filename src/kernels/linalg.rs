//! Dense linear algebra.
//!
//! | kernel | input | output | one request is |
//! |---|---|---|---|
//! | [`MatMul`] | two [`Matrix`] | [`Matrix`] | one product |
//!
//! Deterministic to the bit: each element is the sum over the inner dimension in its order, every step rounded once
//! (`f32::mul_add`), on a processor as on a CUDA device.

mod matmul;
mod matrix;

#[cfg(feature = "cuda")]
pub use matmul::CudaMatMul;
pub use matmul::MatMul;
pub use matrix::{Matrix, MatrixError};
