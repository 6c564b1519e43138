//! `gae` for NumPy arrays and for bare memory.

#![allow(unsafe_code)]

use std::ops::Range;

use half::{bf16, f16};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::arrays::{self, ArrayRef, Code};
use crate::ops::element::Element;
use crate::ops::gae::{self as core, Discounts, Inputs, Outputs, Truncation};
use crate::ops::strided::{FlagSource, Layout, Sink, Source};

/// Elements from which releasing the GIL costs less than it gives.
const DETACH_FROM: usize = 4096;

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
    let discounts = discounts(
        plain("gamma", "a number", gamma)?,
        plain("gae_lambda", "a number", gae_lambda)?,
    )?;
    let time_dim = plain("time_dim", "an integer", time_dim)?;
    let template = Template::new(rewards, time_dim)?;
    let mut scalar = [0; 8];
    let mut call = Call {
        code: template.code,
        rewards: template.rewards,
        values: template.values("values", values)?,
        terminated: template.flags("terminated", terminated)?,
        last_values: template.last_values(last_values, &mut scalar)?,
        truncation: template.truncation(truncated, final_values)?,
        outputs: [template.rewards; 2],
        discounts,
    };
    let results = match out {
        None => {
            let (advantages, first) = template.empty(py)?;
            let (returns, second) = template.empty(py)?;
            call.outputs = [first, second];
            [advantages, returns]
        }
        Some(out) => {
            let pair = pair(out)?;
            call.outputs = [
                template.output("out[0]", &pair[0])?,
                template.output("out[1]", &pair[1])?,
            ];
            let inputs = [
                Some(("rewards", rewards)),
                Some(("values", values)),
                Some(("terminated", terminated)),
                Some(("last_values", last_values)),
                truncated.map(|array| ("truncated", array)),
                final_values.map(|array| ("final_values", array)),
            ];
            call.refuse_overlap(&pair, inputs)?;
            pair
        }
    };
    // SAFETY: every layout was taken from a live array of the checked shape and dtype; results
    // are fresh, or were found to be writeable and apart from everything else.
    unsafe { call.run(py)? };
    PyTuple::new(py, results)
}

/// Advantages and returns of arrays given by address, strides in elements, and type code.
#[pyfunction]
#[pyo3(signature = (
    rewards, rewards_strides, values, values_strides, terminated, terminated_strides,
    last_values, last_values_strides, truncated, truncated_strides,
    final_values, final_values_strides, advantages, advantages_strides, returns, returns_strides,
    shape, time_dim, value_code, terminated_code, truncated_code, gamma, gae_lambda, /
))]
pub(super) fn gae_raw(
    py: Python<'_>,
    rewards: usize,
    rewards_strides: &Bound<'_, PyTuple>,
    values: usize,
    values_strides: &Bound<'_, PyTuple>,
    terminated: usize,
    terminated_strides: &Bound<'_, PyTuple>,
    last_values: usize,
    last_values_strides: &Bound<'_, PyTuple>,
    truncated: usize,
    truncated_strides: &Bound<'_, PyTuple>,
    final_values: usize,
    final_values_strides: &Bound<'_, PyTuple>,
    advantages: usize,
    advantages_strides: &Bound<'_, PyTuple>,
    returns: usize,
    returns_strides: &Bound<'_, PyTuple>,
    shape: &Bound<'_, PyTuple>,
    time_dim: isize,
    value_code: usize,
    terminated_code: usize,
    truncated_code: usize,
    gamma: f64,
    gae_lambda: f64,
) -> PyResult<()> {
    let discounts = discounts(gamma, gae_lambda)?;
    let code = type_code("value_code", value_code)?;
    if !code.is_float() {
        return Err(PyValueError::new_err(format!(
            "value_code must be that of a floating-point type, not {value_code}"
        )));
    }
    let terminated_code = type_code("terminated_code", terminated_code)?;
    let frame = Frame::new(&shape.extract::<Vec<usize>>()?, time_dim)?;
    let place = |name, address, strides, code| raw_layout(frame, name, address, strides, code);
    if (truncated == 0) != (final_values == 0) {
        return Err(truncation_error(truncated != 0));
    }
    let truncation = if truncated == 0 {
        None
    } else {
        let kind = type_code("truncated_code", truncated_code)?;
        Some((
            (
                place("truncated", truncated, truncated_strides, kind)?,
                kind,
            ),
            place("final_values", final_values, final_values_strides, code)?,
        ))
    };
    let call = Call {
        code,
        rewards: place("rewards", rewards, rewards_strides, code)?,
        values: place("values", values, values_strides, code)?,
        terminated: (
            place(
                "terminated",
                terminated,
                terminated_strides,
                terminated_code,
            )?,
            terminated_code,
        ),
        last_values: raw_layout(
            frame.last(),
            "last_values",
            last_values,
            last_values_strides,
            code,
        )?,
        truncation,
        outputs: [
            place("advantages", advantages, advantages_strides, code)?,
            place("returns", returns, returns_strides, code)?,
        ],
        discounts,
    };
    // SAFETY: the caller vouches for the memory.
    unsafe { call.run(py) }
}

fn type_code(name: &str, code: usize) -> PyResult<Code> {
    Code::from_int(code)
        .ok_or_else(|| PyValueError::new_err(format!("{name} must be between 0 and 7, not {code}")))
}

fn raw_layout(
    frame: Frame,
    name: &str,
    address: usize,
    strides: &Bound<'_, PyTuple>,
    code: Code,
) -> PyResult<Layout> {
    if strides.len() != frame.ndim {
        return Err(PyValueError::new_err(format!(
            "{name} must have {} strides, not {}",
            frame.ndim,
            strides.len()
        )));
    }
    let mut bytes = [0; 2];
    for (axis, stride) in bytes.iter_mut().take(frame.ndim).enumerate() {
        *stride = strides.get_item(axis)?.extract::<isize>()? * code.size();
    }
    Ok(frame.place(address as *mut u8, bytes, code))
}

/// The shape that all arrays share, and which axis of it is time.
#[derive(Clone, Copy)]
struct Frame {
    ndim: usize,
    shape: [usize; 2],
    row_major: bool,
}

impl Frame {
    fn new(shape: &[usize], time_dim: isize) -> PyResult<Self> {
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

    fn shape(&self) -> &[usize] {
        &self.shape[..self.ndim]
    }

    fn envs(&self) -> usize {
        if self.row_major {
            self.shape[0]
        } else {
            self.shape[1]
        }
    }

    /// The frame of `last_values`.
    fn last(&self) -> Self {
        Self {
            ndim: self.ndim - 1,
            shape: [self.envs(), 1],
            row_major: true,
        }
    }

    /// An array of this shape; strides in bytes.
    fn place(&self, base: *mut u8, strides: [isize; 2], code: Code) -> Layout {
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

    fn empty<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Layout)> {
        let (array, data) = arrays::empty(py, self.frame.shape(), self.code)?;
        let size = self.code.size();
        let strides = match self.frame.ndim {
            1 => [size, 0],
            _ => [size * self.frame.shape[1] as isize, size],
        };
        Ok((array, self.frame.place(data, strides, self.code)))
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

    fn truncation(
        &self,
        truncated: Option<&Bound<'_, PyAny>>,
        final_values: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<((Layout, Code), Layout)>> {
        match (truncated, final_values) {
            (None, None) => Ok(None),
            (Some(truncated), Some(final_values)) => Ok(Some((
                self.flags("truncated", truncated)?,
                self.values("final_values", final_values)?,
            ))),
            (truncated, _) => Err(truncation_error(truncated.is_some())),
        }
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

fn discounts(gamma: f64, gae_lambda: f64) -> PyResult<Discounts> {
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
    Ok(Discounts {
        gamma,
        lambda: gae_lambda,
    })
}

/// An argument: its name, the array, and the memory that it lies in.
type Argument<'a, 'py> = (&'a str, &'a Bound<'py, PyAny>, &'a Range<isize>);

/// Where the memory around two arrays meets, NumPy decides whether elements do.
fn refuse_shared(output: Argument<'_, '_>, other: Argument<'_, '_>) -> PyResult<()> {
    if output.2.end <= other.2.start || other.2.end <= output.2.start {
        return Ok(());
    }
    let numpy = output.1.py().import("numpy")?;
    if numpy
        .call_method1("shares_memory", (output.1, other.1))?
        .extract()?
    {
        return Err(PyValueError::new_err(format!(
            "{} must not share memory with {}",
            output.0, other.0
        )));
    }
    Ok(())
}

/// A checked call.
struct Call {
    code: Code,
    rewards: Layout,
    values: Layout,
    terminated: (Layout, Code),
    last_values: Layout,
    truncation: Option<((Layout, Code), Layout)>,
    outputs: [Layout; 2],
    discounts: Discounts,
}

impl Call {
    /// Results must not share memory with anything else; `inputs` are in the order of
    /// [`Call::spans`].
    fn refuse_overlap(
        &self,
        outputs: &[Bound<'_, PyAny>; 2],
        inputs: [Option<(&str, &Bound<'_, PyAny>)>; 6],
    ) -> PyResult<()> {
        let size = self.code.size();
        let [first, second] = self.outputs.map(|layout| layout.span(size));
        refuse_shared(
            ("out[0]", &outputs[0], &first),
            ("out[1]", &outputs[1], &second),
        )?;
        for ((name, input), span) in inputs
            .into_iter()
            .zip(self.spans())
            .filter_map(|(a, b)| a.zip(b))
        {
            refuse_shared(("out[0]", &outputs[0], &first), (name, input, &span))?;
            refuse_shared(("out[1]", &outputs[1], &second), (name, input, &span))?;
        }
        Ok(())
    }

    fn spans(&self) -> [Option<Range<isize>>; 6] {
        let size = self.code.size();
        let flags = |(layout, code): (Layout, Code)| layout.span(code.size());
        [
            Some(self.rewards.span(size)),
            Some(self.values.span(size)),
            Some(flags(self.terminated)),
            Some(self.last_values.span(size)),
            self.truncation.map(|(truncated, _)| flags(truncated)),
            self.truncation
                .map(|(_, final_values)| final_values.span(size)),
        ]
    }

    /// # Safety
    /// Inputs can be read, outputs can be written and overlap nothing, for arrays of the types
    /// that the codes say.
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
    /// As for [`Call::run`]; values are of type `V`.
    unsafe fn run_as<V: Element>(&self, py: Python<'_>) -> PyResult<()> {
        // SAFETY: the caller's promise, for all of these.
        let source = |layout| unsafe { Source::new::<V>(layout) };
        let flags =
            |(layout, code): (Layout, Code)| unsafe { FlagSource::new(layout, code.flag_kind()) };
        let sink = |layout| unsafe { Sink::new::<V>(layout) };
        let inputs = Inputs {
            times: self.rewards.rows,
            envs: self.rewards.lanes,
            rewards: source(self.rewards),
            values: source(self.values),
            terminated: flags(self.terminated),
            last_values: source(self.last_values),
            truncation: self.truncation.map(|(truncated, final_values)| Truncation {
                truncated: flags(truncated),
                final_values: source(final_values),
            }),
        };
        let outputs = Outputs {
            advantages: sink(self.outputs[0]),
            returns: sink(self.outputs[1]),
        };
        let discounts = self.discounts;
        let done = if inputs.times * inputs.envs < DETACH_FROM {
            core::gae(&inputs, outputs, discounts)
        } else {
            py.detach(|| core::gae(&inputs, outputs, discounts))
        };
        done.map_err(|error| PyValueError::new_err(error.to_string()))
    }
}
