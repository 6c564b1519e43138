//! The divergence of categorical distributions, on bare memory.

#![allow(unsafe_code)]

use half::{bf16, f16};
use pyo3::prelude::*;

use super::arrays::Code;
use super::logprobs::{array, array_mut, float, raised, rows_at};
use crate::ops::element::Element;
use crate::ops::full_kl::{self as core, Inputs, Saved};
use crate::pool::PoolError;

/// Logits as Python names them: address, `(outer, inner)`, strides of both.
type Place = (usize, (usize, usize), (isize, isize));

/// What both passes read: the logits of policy and reference, their last dimension, the mask
/// (unless its address is 0) and the temperature.
struct Call {
    logits: Place,
    ref_logits: Place,
    vocabulary: usize,
    mask: usize,
    temperature: f64,
}

/// Divergences, and the statistics that the backward pass needs.
#[pyfunction]
#[pyo3(signature = (
    logits, ref_logits, vocabulary, code, mask, temperature, divergences, statistics, /
))]
pub(super) fn full_kl_raw(
    py: Python<'_>,
    logits: Place,
    ref_logits: Place,
    vocabulary: usize,
    code: usize,
    mask: usize,
    temperature: f64,
    divergences: usize,
    statistics: usize,
) -> PyResult<()> {
    let call = Call {
        logits,
        ref_logits,
        vocabulary,
        mask,
        temperature,
    };
    let results = [divergences, statistics];
    let run = match float(code)? {
        Code::F16 => forward::<f16>,
        Code::Bf16 => forward::<bf16>,
        Code::F32 => forward::<f32>,
        _ => forward::<f64>,
    };
    // SAFETY: the caller vouches for the addresses, shapes and types.
    py.detach(|| unsafe { run(&call, results) })
        .map_err(|error| raised(&error))
}

/// The gradients of the logits of both, C-contiguous; address 0 for one that is not wanted.
#[pyfunction]
#[pyo3(signature = (
    logits, ref_logits, vocabulary, code, mask, temperature, grad, divergences, statistics,
    grad_logits, grad_ref, /
))]
pub(super) fn full_kl_backward_raw(
    py: Python<'_>,
    logits: Place,
    ref_logits: Place,
    vocabulary: usize,
    code: usize,
    mask: usize,
    temperature: f64,
    grad: usize,
    divergences: usize,
    statistics: usize,
    grad_logits: usize,
    grad_ref: usize,
) -> PyResult<()> {
    let call = Call {
        logits,
        ref_logits,
        vocabulary,
        mask,
        temperature,
    };
    let saved = [grad, divergences, statistics];
    let gradients = [grad_logits, grad_ref];
    let run = match float(code)? {
        Code::F16 => backward::<f16>,
        Code::Bf16 => backward::<bf16>,
        Code::F32 => backward::<f32>,
        _ => backward::<f64>,
    };
    // SAFETY: as above.
    py.detach(|| unsafe { run(&call, saved, gradients) })
        .map_err(|error| raised(&error))
}

/// # Safety
/// The addresses are those of aligned arrays of these shapes and types; results overlap nothing.
unsafe fn forward<E: Element>(
    call: &Call,
    [divergences, statistics]: [usize; 2],
) -> Result<(), PoolError> {
    let rows = call.rows();
    // SAFETY: the caller's promise.
    unsafe {
        let divergences = array_mut(divergences, rows);
        let statistics = array_mut(statistics, rows);
        core::forward::<E>(call.inputs(), divergences, statistics)
    }
}

/// # Safety
/// As [`forward`].
unsafe fn backward<E: Element>(
    call: &Call,
    [grad, divergences, statistics]: [usize; 3],
    [grad_logits, grad_ref]: [usize; 2],
) -> Result<(), PoolError> {
    let rows = call.rows();
    // SAFETY: the caller's promise.
    unsafe {
        let saved = Saved {
            grad: array(grad, rows),
            divergences: array(divergences, rows),
            statistics: array(statistics, rows),
        };
        let grad_logits = array_mut(grad_logits, rows * call.vocabulary);
        let grad_ref = array_mut(grad_ref, rows * call.vocabulary);
        core::backward::<E>(call.inputs(), saved, grad_logits, grad_ref)
    }
}

impl Call {
    fn rows(&self) -> usize {
        self.logits.1.0 * self.logits.1.1
    }

    /// # Safety
    /// As [`forward`].
    unsafe fn inputs<'a, E: Element>(
        &self,
    ) -> Inputs<'a, impl Fn(usize) -> &'a [E] + Copy + Send, impl Fn(usize) -> &'a [E] + Copy + Send>
    {
        let place = |(address, (_, inner), strides): Place| (address, inner, strides);
        Inputs {
            // SAFETY: the caller's promise, here and below.
            row: unsafe { rows_at(place(self.logits), self.vocabulary) },
            ref_row: unsafe { rows_at(place(self.ref_logits), self.vocabulary) },
            mask: unsafe { array(self.mask, self.rows()) },
            rows: self.rows(),
            vocabulary: self.vocabulary,
            temperature: self.temperature,
        }
    }
}
