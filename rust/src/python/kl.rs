//! The divergence of token log-probabilities, on bare memory.

#![allow(unsafe_code)]

use half::{bf16, f16};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::arrays::{Code, Contiguous};
use super::fresh;
use crate::ops::element::{Element, Real};
use crate::ops::kl::{self as core, Inputs, Kind, Upstream, Want};
use crate::ops::strided::{FlagSource, Layout, Sink, Source};
use crate::ops::transcendental::Transcendental;
use crate::pool::PoolError;

/// Elements from which releasing the GIL costs less than it gives.
const DETACH_FROM: usize = 4096;

/// Address, and the strides of rows and lanes in elements.
type Strided = (usize, isize, isize);

/// The estimates of contiguous NumPy arrays alike; `None` for arrays that are not.
#[pyfunction]
#[pyo3(signature = (logprobs, ref_logprobs, kind, /))]
pub(super) fn token_kl_of_arrays<'py>(
    logprobs: &Bound<'py, PyAny>,
    ref_logprobs: &Bound<'py, PyAny>,
    kind: usize,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = logprobs.py();
    let (Some(first), Some(second)) = (Contiguous::new(logprobs), Contiguous::new(ref_logprobs))
    else {
        return Ok(None);
    };
    if first.code != second.code || first.shape != second.shape {
        return Ok(None);
    }
    let shape: Vec<_> = first.shape.iter().map(|&size| size as usize).collect();
    let inputs = [first.data.cast_const(), second.data.cast_const()];
    let (array, out) = fresh::empty_in_order(py, &shape, first.code, &inputs)?;
    let places = [first.data, second.data, out].map(|data| data as usize);
    contiguous(py, places, first.len(), first.code as usize, kind)?;
    Ok(Some(array))
}

/// The estimates of as many tokens, all of whose arrays are contiguous.
#[pyfunction]
#[pyo3(signature = (logprobs, ref_logprobs, out, count, code, kind, /))]
pub(super) fn token_kl_contiguous(
    py: Python<'_>,
    logprobs: usize,
    ref_logprobs: usize,
    out: usize,
    count: usize,
    code: usize,
    kind: usize,
) -> PyResult<()> {
    contiguous(py, [logprobs, ref_logprobs, out], count, code, kind)
}

fn contiguous(
    py: Python<'_>,
    [logprobs, ref_logprobs, out]: [usize; 3],
    count: usize,
    code: usize,
    kind: usize,
) -> PyResult<()> {
    let place = |address| (address, 0, 1);
    let (first, second) = (place(logprobs), place(ref_logprobs));
    let call = Call::new(first, second, None, None, (1, count), (code, 0), kind)?;
    // SAFETY: the arrays are alive and alike, or the caller vouches for them.
    unsafe { call.estimate(py, out, 0) }.map(drop)
}

/// The estimate of every token, or their sums; gives the number of tokens that count.
#[pyfunction]
#[pyo3(signature = (
    logprobs, ref_logprobs, ratio, mask, out, shape, codes, kind, reduction, /
))]
pub(super) fn token_kl_raw(
    py: Python<'_>,
    logprobs: Strided,
    ref_logprobs: Strided,
    ratio: Option<Strided>,
    mask: Option<Strided>,
    out: usize,
    shape: (usize, usize),
    codes: (usize, usize),
    kind: usize,
    reduction: usize,
) -> PyResult<usize> {
    let call = Call::new(logprobs, ref_logprobs, ratio, mask, shape, codes, kind)?;
    if reduction > 3 {
        return Err(PyValueError::new_err(format!(
            "reduction must be a code from 0 to 3, not {reduction}"
        )));
    }
    // SAFETY: the caller vouches for all arrays.
    unsafe { call.estimate(py, out, reduction) }
}

/// The gradients, where their addresses are not zero.
#[pyfunction]
#[pyo3(signature = (
    grad, divisor, logprobs, ref_logprobs, ratio, mask, gradients, shape, codes, kind, /
))]
pub(super) fn token_kl_backward_raw(
    py: Python<'_>,
    grad: Strided,
    divisor: f64,
    logprobs: Strided,
    ref_logprobs: Strided,
    ratio: Option<Strided>,
    mask: Option<Strided>,
    gradients: [usize; 3],
    shape: (usize, usize),
    codes: (usize, usize),
    kind: usize,
) -> PyResult<()> {
    let call = Call::new(logprobs, ref_logprobs, ratio, mask, shape, codes, kind)?;
    // SAFETY: the caller vouches for all arrays.
    call.dispatch(py, |code| unsafe {
        match code {
            Code::F16 => call.backward::<f16>(grad, divisor, gradients),
            Code::Bf16 => call.backward::<bf16>(grad, divisor, gradients),
            Code::F32 => call.backward::<f32>(grad, divisor, gradients),
            _ => call.backward::<f64>(grad, divisor, gradients),
        }
    })
}

/// A checked call.
struct Call {
    logprobs: Strided,
    ref_logprobs: Strided,
    ratio: Option<Strided>,
    mask: Option<(Strided, Code)>,
    shape: (usize, usize),
    code: Code,
    kind: Kind,
}

impl Call {
    fn new(
        logprobs: Strided,
        ref_logprobs: Strided,
        ratio: Option<Strided>,
        mask: Option<Strided>,
        shape: (usize, usize),
        codes: (usize, usize),
        kind: usize,
    ) -> PyResult<Self> {
        let code_of = |name: &str, code| {
            Code::from_int(code).ok_or_else(|| {
                PyValueError::new_err(format!("{name} must be a code from 0 to 7, not {code}"))
            })
        };
        let code = code_of("the values' type", codes.0)?;
        if !code.is_float() {
            return Err(PyValueError::new_err(format!(
                "the values' type must be a code from 0 to 3, not {}",
                codes.0
            )));
        }
        let kind = *[Kind::K1, Kind::K2, Kind::K3].get(kind).ok_or_else(|| {
            PyValueError::new_err(format!("kind must be a code from 0 to 2, not {kind}"))
        })?;
        let mask = match mask {
            Some(mask) => Some((mask, code_of("the mask's type", codes.1)?)),
            None => None,
        };
        Ok(Self {
            logprobs,
            ref_logprobs,
            ratio,
            mask,
            shape,
            code,
            kind,
        })
    }

    /// # Safety
    /// As for [`Self::forward`].
    unsafe fn estimate(&self, py: Python<'_>, out: usize, reduction: usize) -> PyResult<usize> {
        // SAFETY: the caller's promise.
        self.dispatch(py, |code| unsafe {
            match code {
                Code::F16 => self.forward::<f16>(out, reduction),
                Code::Bf16 => self.forward::<bf16>(out, reduction),
                Code::F32 => self.forward::<f32>(out, reduction),
                _ => self.forward::<f64>(out, reduction),
            }
        })
    }

    fn dispatch<T: Send>(
        &self,
        py: Python<'_>,
        run: impl Fn(Code) -> Result<T, PoolError> + Send + Sync,
    ) -> PyResult<T> {
        let done = if self.shape.0 * self.shape.1 < DETACH_FROM {
            run(self.code)
        } else {
            py.detach(|| run(self.code))
        };
        done.map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn layout(&self, (address, row_stride, lane_stride): Strided, size: isize) -> Layout {
        Layout {
            base: address as *mut u8,
            row_stride: row_stride * size,
            lane_stride: lane_stride * size,
            rows: self.shape.0,
            lanes: self.shape.1,
        }
    }

    /// # Safety
    /// The arrays of the call can be read, with values of type `V`.
    unsafe fn inputs<V: Element>(&self) -> Inputs<V::Real> {
        let size = self.code.size();
        // SAFETY: the caller's promise, here and below.
        let source = |x| unsafe { Source::new::<V>(self.layout(x, size)) };
        Inputs {
            rows: self.shape.0,
            lanes: self.shape.1,
            logprobs: source(self.logprobs),
            ref_logprobs: source(self.ref_logprobs),
            ratio: self.ratio.map(source),
            mask: self.mask.map(|(x, code)| unsafe {
                FlagSource::new(self.layout(x, code.size()), code.flag_kind())
            }),
        }
    }

    /// # Safety
    /// As for [`Self::inputs`]; at `address` lies a contiguous array of the call's shape that
    /// nobody else uses.
    unsafe fn sink<V: Element>(&self, address: usize) -> Sink<'static, V::Real> {
        let strided = (address, self.shape.1 as isize, 1);
        // SAFETY: the caller's promise.
        unsafe { Sink::new::<V>(self.layout(strided, self.code.size())) }
    }

    /// # Safety
    /// As for [`Self::inputs`]; at `out` lies contiguous memory for the results, which nobody
    /// else uses.
    unsafe fn forward<V: Element<Real: Transcendental>>(
        &self,
        out: usize,
        reduction: usize,
    ) -> Result<usize, PoolError> {
        // SAFETY: the caller's promise.
        let inputs = unsafe { self.inputs::<V>() };
        if reduction == 0 {
            let sink = unsafe { self.sink::<V>(out) };
            core::estimates(&inputs, self.kind, sink)?;
            return Ok(0);
        }
        let (mut sums, count) = core::row_sums(&inputs, self.kind)?;
        if reduction < 3 {
            let divisor = if reduction == 2 { count.max(1) } else { 1 };
            sums = vec![sums.iter().sum::<f64>() / divisor as f64];
        }
        for (index, &sum) in sums.iter().enumerate() {
            let value = V::narrow(V::Real::from_f64(sum));
            // SAFETY: the caller's promise: one element, or one for each row.
            unsafe { (out as *mut V).add(index).write(value) };
        }
        Ok(count)
    }

    /// # Safety
    /// As for [`Self::inputs`], `grad` like the inputs; each address in `gradients` is zero or
    /// as for [`Self::sink`].
    unsafe fn backward<V: Element<Real: Transcendental>>(
        &self,
        grad: Strided,
        divisor: f64,
        gradients: [usize; 3],
    ) -> Result<(), PoolError> {
        // SAFETY: the caller's promise, here and below.
        let inputs = unsafe { self.inputs::<V>() };
        let layout = self.layout(grad, self.code.size());
        let upstream = Upstream {
            grad: unsafe { Source::new::<V>(layout) },
            divisor,
        };
        let outputs = [Want::Logprobs, Want::RefLogprobs, Want::Ratio]
            .into_iter()
            .zip(gradients)
            .filter(|&(_, address)| address != 0)
            .map(|(want, address)| (want, unsafe { self.sink::<V>(address) }))
            .collect();
        core::each_token(&inputs, self.kind, Some(upstream), outputs)
    }
}
