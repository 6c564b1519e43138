//! Log-probabilities of tokens on bare memory.

#![allow(unsafe_code)]

use std::slice;

use half::{bf16, f16};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::arrays::Code;
use crate::ops::element::Element;
use crate::ops::logprobs::{self as core, Inputs, Outputs, Saved};
use crate::ops::transcendental::Transcendental;
use crate::pool::PoolError;

/// Logits as Python names them: address, `(outer, inner, vocabulary)`, strides of the first two.
type Named = (usize, (usize, usize, usize), (isize, isize));

/// Log-probabilities, entropies (unless their address is 0), maxima and logarithms of the sums.
#[pyfunction]
#[pyo3(signature = (
    logits, shape, strides, code, tokens, temperature, logprobs, entropies, maxima, log_sums, /
))]
pub(super) fn token_logprobs_raw(
    py: Python<'_>,
    logits: usize,
    shape: (usize, usize, usize),
    strides: (isize, isize),
    code: usize,
    tokens: usize,
    temperature: f64,
    logprobs: usize,
    entropies: usize,
    maxima: usize,
    log_sums: usize,
) -> PyResult<()> {
    let named = (logits, shape, strides);
    let results = [logprobs, entropies, maxima, log_sums];
    let call = match float(code)? {
        Code::F16 => forward::<f16>,
        Code::Bf16 => forward::<bf16>,
        Code::F32 => forward::<f32>,
        _ => forward::<f64>,
    };
    // SAFETY: the caller vouches for the addresses, shapes and types.
    py.detach(|| unsafe { call(named, tokens, temperature, results) })
        .map_err(|error| raised(&error))
}

/// The gradient of the logits, C-contiguous; address 0 stands for absent entropies.
#[pyfunction]
#[pyo3(signature = (
    logits, shape, strides, code, tokens, temperature, maxima, log_sums, entropies, grad_logprobs,
    grad_entropies, grad_logits, /
))]
pub(super) fn token_logprobs_backward_raw(
    py: Python<'_>,
    logits: usize,
    shape: (usize, usize, usize),
    strides: (isize, isize),
    code: usize,
    tokens: usize,
    temperature: f64,
    maxima: usize,
    log_sums: usize,
    entropies: usize,
    grad_logprobs: usize,
    grad_entropies: usize,
    grad_logits: usize,
) -> PyResult<()> {
    let named = (logits, shape, strides);
    let saved = [maxima, log_sums, entropies, grad_logprobs, grad_entropies];
    let call = match float(code)? {
        Code::F16 => backward::<f16>,
        Code::Bf16 => backward::<bf16>,
        Code::F32 => backward::<f32>,
        _ => backward::<f64>,
    };
    // SAFETY: as above.
    py.detach(|| unsafe { call(named, tokens, temperature, saved, grad_logits) })
        .map_err(|error| raised(&error))
}

pub(super) fn float(code: usize) -> PyResult<Code> {
    Code::from_int(code)
        .filter(|code| code.is_float())
        .ok_or_else(|| PyValueError::new_err(format!("code must be 0 to 3, not {code}")))
}

pub(super) fn raised(error: &PoolError) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

/// # Safety
/// The addresses are those of aligned arrays of these shapes and types; results overlap nothing.
unsafe fn forward<E: Element<Real: Transcendental>>(
    logits: Named,
    tokens: usize,
    temperature: f64,
    [logprobs, entropies, maxima, log_sums]: [usize; 4],
) -> Result<(), PoolError> {
    let rows = logits.1.0 * logits.1.1;
    // SAFETY: the caller's promise.
    unsafe {
        let outputs = Outputs {
            logprobs: array_mut::<E::Real>(logprobs, rows),
            entropies: array_mut(entropies, rows),
            maxima: array_mut(maxima, rows),
            log_sums: array_mut(log_sums, rows),
        };
        core::forward(inputs::<E>(logits, tokens, temperature), outputs)
    }
}

/// # Safety
/// As [`forward`].
unsafe fn backward<E: Element<Real: Transcendental>>(
    logits: Named,
    tokens: usize,
    temperature: f64,
    [maxima, log_sums, entropies, grad_logprobs, grad_entropies]: [usize; 5],
    grad_logits: usize,
) -> Result<(), PoolError> {
    let (outer, inner, vocabulary) = logits.1;
    let rows = outer * inner;
    // SAFETY: the caller's promise.
    unsafe {
        let saved = Saved {
            maxima: array::<E::Real>(maxima, rows),
            log_sums: array(log_sums, rows),
            entropies: array(entropies, rows),
            grad_logprobs: array(grad_logprobs, rows),
            grad_entropies: array(grad_entropies, rows),
        };
        let grad_logits = array_mut(grad_logits, rows * vocabulary);
        core::backward(inputs::<E>(logits, tokens, temperature), saved, grad_logits)
    }
}

/// # Safety
/// As [`forward`].
unsafe fn inputs<'a, E: Element>(
    (logits, (outer, inner, vocabulary), strides): Named,
    tokens: usize,
    temperature: f64,
) -> Inputs<'a, impl Fn(usize) -> &'a [E] + Copy + Send> {
    Inputs {
        // SAFETY: the caller's promise, here and below.
        row: unsafe { rows_at((logits, inner, strides), vocabulary) },
        tokens: unsafe { array(tokens, outer * inner) },
        vocabulary,
        temperature,
    }
}

/// The rows of `[outer, inner, vocabulary]` logits: address, `inner`, and the first two strides.
///
/// # Safety
/// Each row that is asked for can be read.
pub(super) unsafe fn rows_at<'a, E: Element>(
    (logits, inner, strides): (usize, usize, (isize, isize)),
    vocabulary: usize,
) -> impl Fn(usize) -> &'a [E] + Copy + Send {
    move |index: usize| {
        let (i, j) = ((index / inner) as isize, (index % inner) as isize);
        let start = (logits as *const E).wrapping_offset(i * strides.0 + j * strides.1);
        // SAFETY: the caller's promise: a row of the array.
        unsafe { slice::from_raw_parts(start, vocabulary) }
    }
}

/// # Safety
/// As for [`slice::from_raw_parts`], except that address 0 gives an empty slice.
pub(super) unsafe fn array<'a, T>(address: usize, count: usize) -> &'a [T] {
    if address == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(address as *const T, count) }
}

/// # Safety
/// As [`array`].
pub(super) unsafe fn array_mut<'a, T>(address: usize, count: usize) -> &'a mut [T] {
    if address == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts_mut(address as *mut T, count) }
}
