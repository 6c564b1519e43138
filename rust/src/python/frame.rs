//! The shape that the arrays of an estimator's call share.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::arrays::{self, Code};
use crate::ops::strided::Layout;

/// A shape, and which axis of it is time.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) ndim: usize,
    shape: [usize; 2],
    row_major: bool,
}

impl Frame {
    pub(super) fn new(shape: &[usize], time_dim: isize) -> PyResult<Self> {
        let row_major = match (shape.len(), time_dim) {
            (1, 0 | -1) | (2, 0 | -2) => false,
            (2, 1 | -1) => true,
            (1, _) => {
                return Err(PyValueError::new_err(format!(
                    "time_dim must be 0 or -1 for one trajectory, not {time_dim}"
                )));
            }
            (2, _) => {
                return Err(PyValueError::new_err(format!(
                    "time_dim must be 0 for [T, N] or -1 for [N, T], not {time_dim}"
                )));
            }
            _ => {
                return Err(PyValueError::new_err(format!(
                    "rewards must have shape [T] or [T, N], not {}",
                    arrays::show_shape(shape)
                )));
            }
        };
        Ok(Self {
            ndim: shape.len(),
            shape: [shape[0], *shape.get(1).unwrap_or(&1)],
            row_major,
        })
    }

    /// `count` numbers in a row.
    pub(super) fn row(count: usize) -> Self {
        Self {
            ndim: 1,
            shape: [count, 1],
            row_major: true,
        }
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape[..self.ndim]
    }

    /// Times and environments.
    pub(super) fn sizes(&self) -> (usize, usize) {
        if self.row_major {
            (self.shape[1], self.shape[0])
        } else {
            (self.shape[0], self.shape[1])
        }
    }

    /// The frame of `last_values`.
    pub(super) fn last(&self) -> Self {
        Self {
            ndim: self.ndim - 1,
            shape: [self.sizes().1, 1],
            row_major: true,
        }
    }

    /// A C-contiguous array of this shape.
    pub(super) fn contiguous(&self, base: *mut u8, code: Code) -> Layout {
        let size = code.size();
        let strides = match self.ndim {
            1 => [size, 0],
            _ => [size * self.shape[1] as isize, size],
        };
        self.place(base, strides, code)
    }

    /// An array of this shape; strides in bytes.
    pub(super) fn place(&self, base: *mut u8, strides: [isize; 2], code: Code) -> Layout {
        let axis = |index: usize| {
            let stride = if index < self.ndim {
                strides[index]
            } else {
                code.size()
            };
            (self.shape[index], stride)
        };
        let ((rows, row_stride), (lanes, lane_stride)) = if self.row_major {
            (axis(1), axis(0))
        } else {
            (axis(0), axis(1))
        };
        Layout {
            base,
            row_stride,
            lane_stride,
            rows,
            lanes,
        }
    }
}
