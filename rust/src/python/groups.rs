//! `group_advantages` for NumPy arrays and for bare memory.

#![allow(unsafe_code)]

use half::{bf16, f16};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::arrays::{self, ArrayRef, Code};
use super::fresh;
use crate::ops::element::Element;
use crate::ops::groups::{self as core, Inputs, Rule, Scale};
use crate::ops::strided::{FlagSource, Layout, Sink, Source};

/// Elements from which releasing the GIL costs less than it gives.
const DETACH_FROM: usize = 4096;

/// Advantages of a NumPy array, or of the tokens `[rewards, T]` of its sequences.
#[pyfunction]
#[pyo3(signature = (
    rewards, group_size, ids, mask, tokens, leave_one_out, scale, ddof, eps, least, /
))]
pub(super) fn group_advantages<'py>(
    rewards: &Bound<'py, PyAny>,
    group_size: Option<usize>,
    ids: Option<&Bound<'py, PyAny>>,
    mask: Option<&Bound<'py, PyAny>>,
    tokens: Option<&Bound<'py, PyAny>>,
    leave_one_out: bool,
    scale: usize,
    ddof: f64,
    eps: f64,
    least: f64,
) -> PyResult<Bound<'py, PyAny>> {
    let py = rewards.py();
    let array = ArrayRef::new("rewards", rewards)?;
    let code = array.code.filter(|code| code.is_float()).ok_or_else(|| {
        PyTypeError::new_err(format!(
            "rewards: expected float16, float32 or float64, got {}",
            arrays::dtype_of(rewards)
        ))
    })?;
    let [groups, size] = shape_of_groups(array.shape(), group_size, ids.is_some())?;
    let fold = |array: &ArrayRef, code| folded(array, code, groups, size);
    let mask = mask
        .map(|mask| -> PyResult<_> {
            let (flags, code) = flags("mask", mask, array.shape())?;
            Ok((fold(&flags, code), code))
        })
        .transpose()?;
    let ids = ids
        .map(|ids| ArrayRef::new("group_ids", ids).map(|ids| ids.data as usize))
        .transpose()?;
    let tokens = tokens
        .map(|tokens| -> PyResult<_> {
            let width = ArrayRef::new("token_mask", tokens)?.shape[1];
            let (flags, code) = flags("token_mask", tokens, &[groups * size, width])?;
            Ok((folded(&flags, code, groups * size, width), code))
        })
        .transpose()?;
    let inputs = [array.data.cast_const()];
    let (result, out) = match &tokens {
        None => fresh::empty(py, array.shape(), code, &inputs)?,
        Some((tokens, _)) => fresh::empty(py, &[tokens.rows, tokens.lanes], code, &inputs)?,
    };
    let (rows, lanes) = tokens.map_or((groups, size), |(tokens, _)| (tokens.rows, tokens.lanes));
    let call = Call {
        code,
        groups,
        size,
        rewards: fold(&array, code),
        mask,
        ids,
        tokens,
        out: Layout {
            base: out,
            row_stride: lanes as isize * code.size(),
            lane_stride: code.size(),
            rows,
            lanes,
        },
        rule: rule(leave_one_out, scale, ddof, eps, least)?,
    };
    // SAFETY: every layout is that of a live array of the checked shape and dtype, ids were made
    // by the caller, and the result is fresh.
    unsafe { call.run(py)? };
    Ok(result)
}

/// The same on bare memory.
#[pyfunction]
#[pyo3(signature = (
    rewards, strides, shape, code, ids, mask, mask_strides, mask_code,
    tokens, token_strides, token_code, width, out, leave_one_out, scale, ddof, eps, least, /
))]
pub(super) fn group_advantages_raw(
    py: Python<'_>,
    rewards: usize,
    strides: [isize; 2],
    shape: [usize; 2],
    code: usize,
    ids: usize,
    mask: usize,
    mask_strides: [isize; 2],
    mask_code: usize,
    tokens: usize,
    token_strides: [isize; 2],
    token_code: usize,
    width: usize,
    out: usize,
    leave_one_out: bool,
    scale: usize,
    ddof: f64,
    eps: f64,
    least: f64,
) -> PyResult<()> {
    let [groups, size] = shape;
    let code = type_code("code", code)?;
    if !code.is_float() {
        return Err(PyValueError::new_err(
            "code: expected that of a floating-point type",
        ));
    }
    let optional = |address, strides, shape, code| -> PyResult<_> {
        let code = type_code("code of flags", code)?;
        Ok((address != 0).then(|| (placed(address, strides, shape, code), code)))
    };
    let rows = groups * size;
    let out_shape = if tokens == 0 { shape } else { [rows, width] };
    let call = Call {
        code,
        groups,
        size,
        rewards: placed(rewards, strides, shape, code),
        mask: optional(mask, mask_strides, shape, mask_code)?,
        ids: (ids != 0).then_some(ids),
        tokens: optional(tokens, token_strides, [rows, width], token_code)?,
        out: placed(out, [out_shape[1] as isize, 1], out_shape, code),
        rule: rule(leave_one_out, scale, ddof, eps, least)?,
    };
    // SAFETY: the caller vouches for the memory.
    unsafe { call.run(py) }
}

fn type_code(name: &str, code: usize) -> PyResult<Code> {
    Code::from_int(code).ok_or_else(|| {
        PyValueError::new_err(format!("{name}: expected a number below 8, got {code}"))
    })
}

fn rule(leave_one_out: bool, scale: usize, ddof: f64, eps: f64, least: f64) -> PyResult<Rule> {
    let scale = [Scale::Off, Scale::Group, Scale::Batch]
        .get(scale)
        .copied()
        .ok_or_else(|| {
            PyValueError::new_err(format!("scale: expected a number below 3, got {scale}"))
        })?;
    Ok(Rule {
        leave_one_out,
        scale,
        ddof,
        eps,
        least,
    })
}

/// `[groups, size]`; with ids all rewards are one row.
fn shape_of_groups(shape: &[usize], group_size: Option<usize>, ids: bool) -> PyResult<[usize; 2]> {
    let count = shape.iter().product();
    match (shape, group_size) {
        ([_] | [_, _], None) if ids => Ok([1, count]),
        ([_], Some(size)) if size > 0 && count % size == 0 => Ok([count / size, size]),
        ([_], Some(size)) => Err(PyValueError::new_err(format!(
            "group_size: expected a number that divides the {count} rewards, got {size}"
        ))),
        ([_], None) => Err(PyValueError::new_err(
            "group_size: expected it or group_ids with rewards of one dimension, got neither",
        )),
        (&[groups, size], given) if given.is_none_or(|given| given == size) => Ok([groups, size]),
        (&[_, size], _) => Err(PyValueError::new_err(format!(
            "group_size: expected the length of a row, {size}, got {}",
            group_size.unwrap_or_default()
        ))),
        _ => Err(PyValueError::new_err(format!(
            "rewards: expected 1 or 2 dimensions, got shape {}",
            arrays::show_shape(shape)
        ))),
    }
}

fn flags(name: &str, object: &Bound<'_, PyAny>, shape: &[usize]) -> PyResult<(ArrayRef, Code)> {
    let array = ArrayRef::new(name, object)?;
    if array.shape() != shape {
        return Err(PyValueError::new_err(format!(
            "{name}: expected shape {}, got {}",
            arrays::show_shape(shape),
            arrays::show_shape(array.shape())
        )));
    }
    let code = array.code.ok_or_else(|| {
        PyTypeError::new_err(format!(
            "{name}: expected bool, integer or float flags, got {}",
            arrays::dtype_of(object)
        ))
    })?;
    Ok((array, code))
}

/// An array of one or two dimensions as `[rows, lanes]`.
fn folded(array: &ArrayRef, code: Code, rows: usize, lanes: usize) -> Layout {
    let [first, second] = array.strides;
    let (row_stride, lane_stride) = match array.ndim {
        1 => (first * lanes as isize, first),
        _ if array.shape == [rows, lanes] => (first, second),
        // All in one row; the caller gives such an array without gaps.
        _ => (0, code.size()),
    };
    Layout {
        base: array.data,
        row_stride,
        lane_stride,
        rows,
        lanes,
    }
}

/// Strides in elements.
fn placed(address: usize, strides: [isize; 2], shape: [usize; 2], code: Code) -> Layout {
    Layout {
        base: address as *mut u8,
        row_stride: strides[0] * code.size(),
        lane_stride: strides[1] * code.size(),
        rows: shape[0],
        lanes: shape[1],
    }
}

/// A checked call.
struct Call {
    code: Code,
    groups: usize,
    size: usize,
    rewards: Layout,
    mask: Option<(Layout, Code)>,
    /// Address of as many int64 as there are rewards.
    ids: Option<usize>,
    tokens: Option<(Layout, Code)>,
    out: Layout,
    rule: Rule,
}

impl Call {
    /// # Safety
    /// Inputs can be read, the output can be written and overlaps nothing, for arrays of the
    /// types that the codes say.
    unsafe fn run(&self, py: Python<'_>) -> PyResult<()> {
        // SAFETY: the caller's promise.
        unsafe {
            match self.code {
                Code::F16 => self.run_as::<f16>(py),
                Code::Bf16 => self.run_as::<bf16>(py),
                Code::F32 => self.run_as::<f32>(py),
                _ => self.run_as::<f64>(py),
            }
        }
    }

    /// # Safety
    /// As for [`Call::run`]; rewards are of type `V`.
    unsafe fn run_as<V: Element>(&self, py: Python<'_>) -> PyResult<()> {
        if self.out.rows * self.out.lanes == 0 {
            return Ok(());
        }
        let flags = |(layout, code): (Layout, Code)| {
            // SAFETY: the caller's promise.
            unsafe { FlagSource::new(layout, code.flag_kind()) }
        };
        let ids = self.ids.map(|address| {
            // SAFETY: the caller's promise.
            unsafe { std::slice::from_raw_parts(address as *const i64, self.groups * self.size) }
        });
        // SAFETY: the caller's promise.
        let out = unsafe { Sink::new::<V>(self.out) };
        let inputs = Inputs {
            groups: self.groups,
            size: self.size,
            // SAFETY: the caller's promise.
            rewards: unsafe { Source::new::<V>(self.rewards) },
            mask: self.mask.map(flags),
            ids,
            tokens: self.tokens.map(flags),
        };
        let rule = self.rule;
        let work = || core::group_advantages(&inputs, out, &rule);
        let done = if self.out.rows * self.out.lanes < DETACH_FROM {
            work()
        } else {
            py.detach(work)
        };
        done.map_err(|error| PyValueError::new_err(error.to_string()))
    }
}
