//! The product of two matrices.

use crate::code::Answer;
use crate::launch::Launch;

/// `(a, b, c, m, k, n)`: C = A * B, row-major. Each element by fused multiply-adds, from zero in the order of
/// k.
pub(crate) fn matmul(launch: &Launch) -> Answer {
    let (m, k, n) = (launch.count(3), launch.count(4), launch.count(5));
    // Where C has no elements nothing is read.
    let (rows, columns) = if m * n == 0 { (0, 0) } else { (m, n) };
    let a = launch.array::<f32>(0, rows * k)?;
    let b = launch.array::<f32>(1, k * columns)?;
    let c = launch.array::<f32>(2, rows * columns)?;
    for row in 0..rows {
        for column in 0..columns {
            let sum = (0..k).fold(0.0_f32, |sum, i| a.get(row * k + i).mul_add(b.get(i * n + column), sum));
            c.set(row * n + column, sum);
        }
    }
    Ok(())
}
