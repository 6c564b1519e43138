//! Estimators on bare memory.

#![allow(unsafe_code)]

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::arrays::{self, ArrayRef, Code};
use super::call::{Call, Extras, Flags, Op};
use super::frame::Frame;
use crate::ops::estimators::Rates;

/// The results of an estimator, written to arrays that are given by their addresses.
#[pyfunction]
#[pyo3(signature = (op, arrays, results, shape, sequences, time_dim, numbers, /))]
pub(super) fn estimate_raw(
    py: Python<'_>,
    op: usize,
    arrays: &Bound<'_, PyList>,
    results: &Bound<'_, PyList>,
    shape: &Bound<'_, PyTuple>,
    sequences: usize,
    time_dim: isize,
    numbers: &Bound<'_, PyList>,
) -> PyResult<()> {
    let op = Op::from_int(op)
        .ok_or_else(|| PyValueError::new_err(format!("op must be between 0 and 7, not {op}")))?;
    let steps = op.steps();
    check_count("arrays", arrays.len(), steps + 9)?;
    check_count("results", results.len(), op.results())?;
    let frame = Frame::new(&shape.extract::<Vec<usize>>()?, time_dim)?;
    let given = |index: usize, frame: Frame| {
        let array = arrays.get_item(index)?;
        placed(&array, frame)
    };
    let wanted = |index: usize, frame: Frame| {
        given(index, frame)?
            .ok_or_else(|| PyValueError::new_err(format!("array {index} must be given")))
    };
    let (times, envs) = frame.sizes();
    let bounds = given(steps + 6, Frame::row(sequences + 1))?
        .map(|array| bounds(array, times))
        .transpose()?;
    let last = bounds
        .as_ref()
        .map_or(frame.last(), |_| Frame::row(sequences));
    let lengths = given(steps + 5, Frame::row(envs))?
        .map(|array| lengths(array, times))
        .transpose()?;
    let (first, code) = wanted(0, frame)?;
    if !code.is_float() {
        return Err(PyValueError::new_err(
            "array 0 must be of a floating-point type",
        ));
    }
    let values = |index: usize, frame| match given(index, frame)? {
        Some((_, found)) if found != code => Err(PyValueError::new_err(format!(
            "array {index} must be of the type of the first"
        ))),
        array => Ok(array.map(|(layout, _)| layout)),
    };
    let mut step_layouts = [Some(first), None, None, None];
    for (index, layout) in step_layouts.iter_mut().enumerate().take(steps).skip(1) {
        wanted(index, frame)?;
        *layout = values(index, frame)?;
    }
    let mut outputs = [None; 2];
    for (slot, result) in outputs.iter_mut().zip(results.iter()) {
        *slot = placed(&result, frame)?.map(|(layout, _)| layout);
    }
    let mut moments = None;
    if op == Op::GaeMoments {
        moments = placed(&results.get_item(2)?, Frame::row(3))?;
        if moments.is_some_and(|(_, code)| code != Code::F64) {
            return Err(PyValueError::new_err("moments must be float64"));
        }
    }
    if op == Op::TdLambdaReturns {
        outputs.swap(0, 1);
    }
    let (rates, n) = rates(op, &numbers.extract::<Vec<f64>>()?)?;
    let call = Call {
        op,
        code,
        steps: step_layouts,
        terminated: wanted(steps, frame)?,
        last_values: values(steps + 1, last)?,
        truncated: given(steps + 2, frame)?,
        final_values: values(steps + 3, frame)?,
        extras: Extras {
            gammas: values(steps + 7, frame)?,
            lambdas: values(steps + 8, frame)?,
            mask: given(steps + 4, frame)?,
            lengths,
            bounds,
        },
        outputs,
        moments: moments.map(|(layout, _)| layout),
        rates,
        n,
    };
    // SAFETY: the caller vouches for the memory.
    unsafe { call.run(py) }
}

fn check_count(name: &str, found: usize, expected: usize) -> PyResult<()> {
    if found == expected {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{name} must be {expected} arrays, not {found}"
    )))
}

/// A NumPy array, another as `(address, strides, code)` with strides in elements, or `None`.
fn placed(array: &Bound<'_, PyAny>, frame: Frame) -> PyResult<Option<Flags>> {
    if array.is_none() {
        return Ok(None);
    }
    if arrays::is_array(array) {
        let array = ArrayRef::new("array", array)?;
        let code = array
            .code
            .ok_or_else(|| PyTypeError::new_err("an array must be of flags or of floats"))?;
        check_strides(array.ndim, frame)?;
        return Ok(Some((frame.place(array.data, array.strides, code), code)));
    }
    let array = array.cast::<PyTuple>()?;
    let address: usize = array.get_borrowed_item(0)?.extract()?;
    let strides = array.get_borrowed_item(1)?;
    let strides = strides.cast::<PyTuple>()?;
    let code = array.get_borrowed_item(2)?.extract()?;
    let code = Code::from_int(code).ok_or_else(|| {
        PyValueError::new_err(format!("a type code must be between 0 and 7, not {code}"))
    })?;
    check_strides(strides.len(), frame)?;
    let mut bytes = [0; 2];
    for (axis, stride) in bytes.iter_mut().take(frame.ndim).enumerate() {
        *stride = strides.get_borrowed_item(axis)?.extract::<isize>()? * code.size();
    }
    Ok(Some((frame.place(address as *mut u8, bytes, code), code)))
}

fn check_strides(found: usize, frame: Frame) -> PyResult<()> {
    if found == frame.ndim {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "an array must have {} strides, not {found}",
        frame.ndim
    )))
}

/// Whole numbers of four or eight bytes.
fn counts((layout, code): Flags) -> Vec<i64> {
    (0..layout.lanes)
        .map(|lane| {
            let at = layout.address(0, lane);
            // SAFETY: the caller of `estimate_raw` vouches for the memory.
            unsafe {
                if code == Code::I32 {
                    i64::from(at.cast::<i32>().read_unaligned())
                } else {
                    at.cast::<i64>().read_unaligned()
                }
            }
        })
        .collect()
}

fn lengths(array: Flags, times: usize) -> PyResult<Vec<usize>> {
    let check = |length: i64| match usize::try_from(length) {
        Ok(length) if length <= times => Ok(length),
        _ => Err(PyValueError::new_err(format!(
            "lengths: expected numbers of steps from 0 to {times}, got {length}"
        ))),
    };
    counts(array).into_iter().map(check).collect()
}

fn bounds(array: Flags, total: usize) -> PyResult<Vec<usize>> {
    let found = counts(array);
    let ends = found.first() == Some(&0) && found.last() == Some(&(total as i64));
    if ends && found.is_sorted() {
        return Ok(found.into_iter().map(|bound| bound as usize).collect());
    }
    Err(PyValueError::new_err(format!(
        "cu_seqlens: expected ascending offsets from 0 to {total}, got {found:?}"
    )))
}

/// The rates, and the number of steps of n-step returns.
fn rates(op: Op, numbers: &[f64]) -> PyResult<(Rates, usize)> {
    let mut rates = Rates {
        gamma: 1.0,
        lambda: 1.0,
        bars: [1.0; 2],
    };
    let mut n = 1;
    match (op, numbers) {
        (Op::DiscountedReturns, &[gamma]) => rates.gamma = gamma,
        (Op::NStepReturns, &[gamma, steps]) => (rates.gamma, n) = (gamma, steps as usize),
        (Op::Vtrace, &[gamma, rho_bar, c_bar]) => {
            (rates.gamma, rates.bars) = (gamma, [rho_bar, c_bar]);
        }
        (
            Op::Gae | Op::GaeMoments | Op::TdLambdaReturns | Op::Retrace | Op::EligibilityTraces,
            &[gamma, lambda],
        ) => (rates.gamma, rates.lambda) = (gamma, lambda),
        _ => {
            return Err(PyValueError::new_err(format!(
                "numbers must be those of {op:?}, not {numbers:?}"
            )));
        }
    }
    Ok((rates, n))
}
