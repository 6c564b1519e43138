//! `gae` without detours, as small calls are many: of NumPy arrays, and of contiguous memory.

#![allow(unsafe_code)]

use std::ops::Range;

use half::f16;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::arrays::{self, ArrayRef, Code};
use super::call::{Call, Extras, Flags, Op};
use super::frame::Frame;
use super::fresh;
use super::overlap::shared;
use crate::ops::estimators::Rates;
use crate::ops::strided::Layout;

/// Advantages and returns of NumPy arrays.
#[pyfunction]
#[pyo3(signature = (
    rewards, values, terminated, last_values, truncated, final_values, gamma, gae_lambda, time_dim,
    out, /
))]
pub(super) fn gae<'py>(
    rewards: &Bound<'py, PyAny>,
    values: &Bound<'py, PyAny>,
    terminated: &Bound<'py, PyAny>,
    last_values: &Bound<'py, PyAny>,
    truncated: Option<&Bound<'py, PyAny>>,
    final_values: Option<&Bound<'py, PyAny>>,
    gamma: &Bound<'py, PyAny>,
    gae_lambda: &Bound<'py, PyAny>,
    time_dim: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let py = rewards.py();
    let rates = rates(
        plain("gamma", "a number", gamma)?,
        plain("gae_lambda", "a number", gae_lambda)?,
    )?;
    let time_dim = plain("time_dim", "an integer", time_dim)?;
    let template = Template::new(rewards, time_dim)?;
    let mut scalar = [0; 8];
    if truncated.is_some() != final_values.is_some() {
        return Err(truncation_error(truncated.is_some()));
    }
    let flags = |array| template.flags("truncated", array);
    let values_there = |array| template.values("final_values", array);
    let mut call = Call {
        op: Op::Gae,
        code: template.code,
        steps: [
            Some(template.rewards),
            Some(template.values("values", values)?),
            None,
            None,
        ],
        terminated: template.flags("terminated", terminated)?,
        last_values: Some(template.last_values(last_values, &mut scalar)?),
        truncated: truncated.map(flags).transpose()?,
        final_values: final_values.map(values_there).transpose()?,
        extras: Extras::default(),
        outputs: [None; 2],
        moments: None,
        rates,
        n: 1,
    };
    let results = match out {
        None => {
            let inputs = [call.steps[0], call.steps[1], call.final_values];
            let inputs: Vec<_> = inputs
                .into_iter()
                .flatten()
                .map(|layout| layout.base.cast_const())
                .collect();
            let fresh = fresh::empty_pair(py, template.frame.shape(), template.code, &inputs)?;
            let place = |data| Some(template.frame.contiguous(data, template.code));
            call.outputs = [place(fresh[0].1), place(fresh[1].1)];
            fresh.map(|(array, _)| array)
        }
        Some(out) => {
            let pair = pair(out)?;
            call.outputs = [
                Some(template.output("out[0]", &pair[0])?),
                Some(template.output("out[1]", &pair[1])?),
            ];
            let inputs = [
                Some(("rewards", rewards)),
                Some(("values", values)),
                Some(("terminated", terminated)),
                Some(("last_values", last_values)),
                truncated.map(|array| ("truncated", array)),
                final_values.map(|array| ("final_values", array)),
            ];
            refuse_overlap(&call, &pair, inputs)?;
            pair
        }
    };
    // SAFETY: every layout was taken from a live array of the checked shape and dtype; results
    // are fresh, or were found to be writeable and apart from everything else.
    unsafe { call.run(py)? };
    PyTuple::new(py, results)
}

/// Advantages and returns of contiguous arrays given by their addresses.
#[pyfunction]
#[pyo3(signature = (
    rewards, values, terminated, last_values, advantages, returns, shape, time_dim, value_code,
    flag_code, gamma, gae_lambda, /
))]
pub(super) fn gae_contiguous(
    py: Python<'_>,
    rewards: usize,
    values: usize,
    terminated: usize,
    last_values: usize,
    advantages: usize,
    returns: usize,
    shape: (usize, usize),
    time_dim: isize,
    value_code: usize,
    flag_code: usize,
    gamma: f64,
    gae_lambda: f64,
) -> PyResult<()> {
    let frame = Frame::new(&[shape.0, shape.1], time_dim)?;
    let code = |name: &str, code| {
        Code::from_int(code)
            .ok_or_else(|| PyValueError::new_err(format!("{name} must be between 0 and 7")))
    };
    let (values_code, flags_code) = (
        code("value_code", value_code)?,
        code("flag_code", flag_code)?,
    );
    let place = |address: usize| Some(frame.contiguous(address as *mut u8, values_code));
    let call = Call {
        op: Op::Gae,
        code: values_code,
        steps: [place(rewards), place(values), None, None],
        terminated: (
            frame.contiguous(terminated as *mut u8, flags_code),
            flags_code,
        ),
        last_values: Some(frame.last().contiguous(last_values as *mut u8, values_code)),
        truncated: None,
        final_values: None,
        extras: Extras::default(),
        outputs: [place(advantages), place(returns)],
        moments: None,
        rates: rates(gamma, gae_lambda)?,
        n: 1,
    };
    // SAFETY: the caller vouches for the memory.
    unsafe { call.run(py) }
}

/// The rewards of a call, which every other array is held against.
struct Template {
    frame: Frame,
    code: Code,
    rewards: Layout,
}

impl Template {
    fn new(rewards: &Bound<'_, PyAny>, time_dim: isize) -> PyResult<Self> {
        let array = ArrayRef::new("rewards", rewards)?;
        let code = array.code.filter(|code| code.is_float()).ok_or_else(|| {
            PyTypeError::new_err(format!(
                "rewards must be float16, float32 or float64, not {}",
                arrays::dtype_of(rewards)
            ))
        })?;
        let frame = Frame::new(array.shape(), time_dim)?;
        Ok(Self {
            frame,
            code,
            rewards: frame.place(array.data, array.strides, code),
        })
    }

    fn values(&self, name: &str, object: &Bound<'_, PyAny>) -> PyResult<Layout> {
        let array = ArrayRef::new(name, object)?;
        self.check_code(name, array.code, object)?;
        self.check_shape(name, &array)?;
        Ok(self.frame.place(array.data, array.strides, self.code))
    }

    fn flags(&self, name: &str, object: &Bound<'_, PyAny>) -> PyResult<(Layout, Code)> {
        let array = ArrayRef::new(name, object)?;
        let code = array.code.ok_or_else(|| {
            PyTypeError::new_err(format!(
                "{name} must be bool, an integer type, float16, float32 or float64, not {}",
                arrays::dtype_of(object)
            ))
        })?;
        self.check_shape(name, &array)?;
        Ok((self.frame.place(array.data, array.strides, code), code))
    }

    /// `last_values`, an array `[N]` or, for one trajectory, a number put into `scalar`.
    fn last_values(&self, object: &Bound<'_, PyAny>, scalar: &mut [u8; 8]) -> PyResult<Layout> {
        let name = "last_values";
        let frame = self.frame.last();
        if frame.ndim == 0
            && let Ok(number) = object.extract::<f64>()
        {
            write_scalar(scalar, number, self.code);
            return Ok(frame.place(scalar.as_mut_ptr(), [0; 2], self.code));
        }
        if frame.ndim == 0 && !arrays::is_array(object) {
            return Err(PyTypeError::new_err(format!(
                "{name} must be a number, not {}",
                arrays::kind_of(object)
            )));
        }
        let array = ArrayRef::new(name, object)?;
        self.check_code(name, array.code, object)?;
        if array.shape() != frame.shape() {
            return Err(PyValueError::new_err(format!(
                "{name} must have shape {}, one value per trajectory, not {}",
                arrays::show_shape(frame.shape()),
                arrays::show_shape(array.shape())
            )));
        }
        Ok(frame.place(array.data, array.strides, self.code))
    }

    fn output(&self, name: &str, object: &Bound<'_, PyAny>) -> PyResult<Layout> {
        let layout = self.values(name, object)?;
        let array = ArrayRef::new(name, object)?;
        if !array.writeable {
            return Err(PyValueError::new_err(format!("{name} must be writeable")));
        }
        if layout.overlaps_itself(self.code.size()) {
            return Err(PyValueError::new_err(format!(
                "{name} must not have elements that share memory"
            )));
        }
        Ok(layout)
    }

    fn check_code(
        &self,
        name: &str,
        code: Option<Code>,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if code == Some(self.code) {
            return Ok(());
        }
        let expected = match self.code {
            Code::F16 => "float16",
            Code::F32 => "float32",
            _ => "float64",
        };
        Err(PyTypeError::new_err(format!(
            "{name} must be {expected} like rewards, not {}",
            arrays::dtype_of(object)
        )))
    }

    fn check_shape(&self, name: &str, array: &ArrayRef) -> PyResult<()> {
        if array.shape() == self.frame.shape() {
            return Ok(());
        }
        Err(PyValueError::new_err(format!(
            "{name} must have the shape of rewards, {}, not {}",
            arrays::show_shape(self.frame.shape()),
            arrays::show_shape(array.shape())
        )))
    }
}

fn write_scalar(scalar: &mut [u8; 8], number: f64, code: Code) {
    match code {
        Code::F16 => scalar[..2].copy_from_slice(&f16::from_f64(number).to_ne_bytes()),
        Code::F32 => scalar[..4].copy_from_slice(&(number as f32).to_ne_bytes()),
        _ => scalar.copy_from_slice(&number.to_ne_bytes()),
    }
}

fn pair<'py>(out: &Bound<'py, PyAny>) -> PyResult<[Bound<'py, PyAny>; 2]> {
    out.extract().map_err(|_| {
        PyTypeError::new_err(format!(
            "out must be a pair of arrays (advantages, returns), not {}",
            arrays::kind_of(out)
        ))
    })
}

fn truncation_error(truncated: bool) -> PyErr {
    PyValueError::new_err(if truncated {
        "truncated needs final_values, the values of the observations at which episodes were cut \
         off (of values[t + 1] the one after a truncation belongs to the next episode)"
    } else {
        "final_values needs truncated, the flags of the steps that it belongs to"
    })
}

/// A plain number; before Python 3.11 the error of a failed conversion names no argument.
fn plain<'py, T: for<'a> FromPyObject<'a, 'py>>(
    name: &str,
    kind: &str,
    object: &Bound<'py, PyAny>,
) -> PyResult<T> {
    object.extract().map_err(|_| {
        let found = object
            .get_type()
            .name()
            .map_or_else(|_| "another type".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("{name} must be {kind}, not {found}"))
    })
}

fn rates(gamma: f64, gae_lambda: f64) -> PyResult<Rates> {
    for (name, number) in [("gamma", gamma), ("gae_lambda", gae_lambda)] {
        if !(0.0..=1.0).contains(&number) {
            return Err(PyValueError::new_err(format!(
                "{name} must be a number between 0 and 1, not {}",
                if number.is_nan() {
                    "nan".to_owned()
                } else {
                    number.to_string()
                }
            )));
        }
    }
    Ok(Rates {
        gamma,
        lambda: gae_lambda,
        bars: [1.0; 2],
    })
}

/// An argument: its name, the array, and the memory that it lies in.
type Argument<'a, 'py> = (&'a str, &'a Bound<'py, PyAny>, &'a Range<isize>);

fn refuse_shared(output: Argument<'_, '_>, other: Argument<'_, '_>) -> PyResult<()> {
    if shared((output.1, output.2), (other.1, other.2))? {
        return Err(PyValueError::new_err(format!(
            "{} must not share memory with {}",
            output.0, other.0
        )));
    }
    Ok(())
}

/// Results must not share memory with anything else.
fn refuse_overlap(
    call: &Call,
    outputs: &[Bound<'_, PyAny>; 2],
    inputs: [Option<(&str, &Bound<'_, PyAny>)>; 6],
) -> PyResult<()> {
    let size = call.code.size();
    let flags = |(layout, code): Flags| layout.span(code.size());
    let values = |layout: Layout| layout.span(size);
    let spans = [
        call.steps[0].map(values),
        call.steps[1].map(values),
        Some(flags(call.terminated)),
        call.last_values.map(values),
        call.truncated.map(flags),
        call.final_values.map(values),
    ];
    let [first, second] = call.outputs.map(|layout| layout.map_or(0..0, values));
    let (first, second) = (
        ("out[0]", &outputs[0], &first),
        ("out[1]", &outputs[1], &second),
    );
    refuse_shared(first, second)?;
    for (input, span) in inputs.into_iter().zip(&spans) {
        if let (Some((name, array)), Some(span)) = (input, span) {
            refuse_shared(first, (name, array, span))?;
            refuse_shared(second, (name, array, span))?;
        }
    }
    Ok(())
}
