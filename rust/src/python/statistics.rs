//! Running moments, and normalising by them, on bare memory.

#![allow(unsafe_code)]

use half::{bf16, f16};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::arrays::Code;
use super::ops::{slice_at, slice_of};
use super::sampling::{Place, detached, float, layout};
use crate::ops::element::Element;
use crate::ops::statistics::{Scaling, normalize, update};
use crate::ops::strided::{FlagSource, Layout, Sink, Source};

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(update_moments_raw, module)?)?;
    module.add_function(wrap_pyfunction!(normalize_raw, module)?)
}

/// Take `[B, D]` into a state `[3, D]`.
#[pyfunction]
#[pyo3(signature = (state, x, mask, shape, codes, /))]
fn update_moments_raw(
    py: Python<'_>,
    state: usize,
    x: Place,
    mask: Option<(usize, isize)>,
    shape: (usize, usize),
    codes: (usize, usize),
) -> PyResult<()> {
    let code = float(codes.0)?;
    let mask_code = Code::from_int(codes.1).ok_or_else(|| {
        PyValueError::new_err(format!("no dtype of flags has the code {}", codes.1))
    })?;
    let mask = mask.map(|(address, stride)| {
        let layout = Layout {
            base: address as *mut u8,
            row_stride: stride * mask_code.size(),
            lane_stride: 0,
            rows: shape.0,
            lanes: 1,
        };
        // SAFETY: the caller vouches for all arrays.
        unsafe { FlagSource::new(layout, mask_code.flag_kind()) }
    });
    // SAFETY: the caller vouches for all arrays.
    detached(py, shape.0 * shape.1, || unsafe {
        let state = slice_at(state, 3 * shape.1);
        match code {
            Code::F16 => update(state, source::<f16>(x, shape), mask),
            Code::Bf16 => update(state, source::<bf16>(x, shape), mask),
            Code::F32 => update(state, source::<f32>(x, shape), mask),
            _ => update(state, source::<f64>(x, shape), mask),
        }
    })
}

/// Normalise `[R, D]` into contiguous memory.
#[pyfunction]
#[pyo3(signature = (x, mean, var, out, shape, code, clip, eps, /))]
fn normalize_raw(
    py: Python<'_>,
    x: Place,
    mean: usize,
    var: usize,
    out: usize,
    shape: (usize, usize),
    code: usize,
    clip: f64,
    eps: f64,
) -> PyResult<()> {
    let code = float(code)?;
    // SAFETY: the caller vouches for all arrays.
    detached(py, shape.0 * shape.1, || unsafe {
        let scaling = Scaling {
            mean: slice_of(mean, shape.1),
            var: slice_of(var, shape.1),
            eps,
            clip,
        };
        match code {
            Code::F16 => normalize(source::<f16>(x, shape), row::<f16>(out, shape), scaling),
            Code::Bf16 => normalize(source::<bf16>(x, shape), row::<bf16>(out, shape), scaling),
            Code::F32 => normalize(source::<f32>(x, shape), row::<f32>(out, shape), scaling),
            _ => normalize(source::<f64>(x, shape), row::<f64>(out, shape), scaling),
        }
    })
}

/// # Safety
/// As for [`Source::new`].
unsafe fn source<V: Element>(at: Place, (rows, lanes): (usize, usize)) -> Source<V::Real> {
    // SAFETY: the caller's promise.
    unsafe { Source::new::<V>(layout::<V>(at, rows, lanes)) }
}

/// All elements as one row.
///
/// # Safety
/// As for [`Sink::new`].
unsafe fn row<V: Element>(address: usize, (rows, lanes): (usize, usize)) -> Sink<'static, V::Real> {
    // SAFETY: the caller's promise.
    unsafe { Sink::new::<V>(layout::<V>((address, 0, 1), 1, rows * lanes)) }
}
