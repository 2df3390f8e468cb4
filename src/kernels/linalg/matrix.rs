//! A dense matrix.

use std::fmt;

use rustkernel_core::codec::packed;
use rustkernel_core::traits::Payload;
use serde::{Deserialize, Deserializer, Serialize};

/// A dense matrix of `f32`, row by row.
#[derive(Clone, PartialEq, Serialize)]
pub struct Matrix {
    rows: u32,
    columns: u32,
    #[serde(with = "packed")]
    values: Vec<f32>,
}

/// Why values make no [`Matrix`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MatrixError {
    /// There are not as many values as rows times columns.
    #[error("{found} values are no matrix of {rows} rows by {columns} columns")]
    Values {
        /// Rows.
        rows: u32,
        /// Columns.
        columns: u32,
        /// Values given.
        found: usize,
    },
    /// The columns of the one are not the rows of the other.
    #[error("{columns} columns cannot be multiplied with {rows} rows")]
    Inner {
        /// Columns of the left matrix.
        columns: u32,
        /// Rows of the right one.
        rows: u32,
    },
}

impl Matrix {
    /// The matrix of `rows` by `columns` whose rows stand one behind the other in `values`. Either may be zero.
    ///
    /// # Errors
    /// [`MatrixError::Values`] where there are not as many values as that.
    pub fn new(rows: u32, columns: u32, values: Vec<f32>) -> Result<Self, MatrixError> {
        if u64::from(rows) * u64::from(columns) == values.len() as u64 {
            Ok(Self { rows, columns, values })
        } else {
            Err(MatrixError::Values { rows, columns, found: values.len() })
        }
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// How many columns.
    #[must_use]
    pub fn columns(&self) -> u32 {
        self.columns
    }

    /// The values, row by row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

impl Payload for Matrix {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.values.capacity() * size_of::<f32>()
    }

    fn schema() -> String {
        "matrix<f32>".into()
    }
}

impl<'de> Deserialize<'de> for Matrix {
    /// Checks that there are as many values as the shape says: the bytes may come from anywhere.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "Matrix", deny_unknown_fields)]
        struct Parts {
            rows: u32,
            columns: u32,
            #[serde(with = "packed")]
            values: Vec<f32>,
        }
        let Parts { rows, columns, values } = Parts::deserialize(deserializer)?;
        Self::new(rows, columns, values).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matrix")
            .field("rows", &self.rows)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustkernel_core::codec;

    use super::*;

    #[test]
    fn an_encoded_matrix_comes_back_and_one_of_another_shape_does_not() {
        let matrix = Matrix::new(2, 3, (0_u8..6).map(f32::from).collect()).unwrap();
        assert_eq!(codec::decode::<Matrix>(&codec::encode(&matrix).unwrap()).unwrap(), matrix);
        let wrong = codec::encode(&(2_u32, 4_u32, vec![0.0_f32; 6])).unwrap();
        assert!(codec::decode::<Matrix>(&wrong).is_err());
        assert_eq!(
            Matrix::new(u32::MAX, u32::MAX, Vec::new()),
            Err(MatrixError::Values { rows: u32::MAX, columns: u32::MAX, found: 0 })
        );
    }
}
