//! The sampling operations on bare memory.

#![allow(unsafe_code)]

use half::{bf16, f16};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::arrays::Code;
use super::ops::{slice_at, slice_of};
use crate::ops::categorical::{self, Drawn, Samples};
use crate::ops::element::Element;
use crate::ops::gaussian::{self, Gaussians, Pass};
use crate::ops::noise::Draw;
use crate::ops::strided::{Layout, Sink, Source};
use crate::ops::transcendental::Transcendental;
use crate::pool::PoolError;

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sample_categorical_raw, module)?)?;
    module.add_function(wrap_pyfunction!(sample_categorical_backward_raw, module)?)?;
    module.add_function(wrap_pyfunction!(sample_gaussian_raw, module)?)?;
    module.add_function(wrap_pyfunction!(sample_gaussian_backward_raw, module)?)
}

/// Elements from which releasing the GIL costs less than it gives.
const DETACH_FROM: usize = 4096;

/// An address, and the strides of rows and lanes in elements.
pub(super) type Place = (usize, isize, isize);

/// Draw from rows of logits.
#[pyfunction]
#[pyo3(signature = (
    logits, rows, classes, code, log_prob, entropy, actions, seed, step, /
))]
fn sample_categorical_raw(
    py: Python<'_>,
    logits: Place,
    rows: usize,
    classes: usize,
    code: usize,
    log_prob: usize,
    entropy: usize,
    actions: usize,
    seed: u64,
    step: u32,
) -> PyResult<()> {
    let call = Categorical {
        logits,
        rows,
        classes,
        actions,
        floats: [log_prob, entropy],
        draw: Draw { seed, step },
    };
    let work = match float(code)? {
        Code::F16 => Categorical::run::<f16>,
        Code::Bf16 => Categorical::run::<bf16>,
        Code::F32 => Categorical::run::<f32>,
        _ => Categorical::run::<f64>,
    };
    detached(py, rows * classes, || work(&call))
}

struct Categorical {
    logits: Place,
    rows: usize,
    classes: usize,
    actions: usize,
    floats: [usize; 2],
    draw: Draw,
}

impl Categorical {
    fn run<V: Element<Real: Transcendental>>(&self) -> Result<(), PoolError> {
        let layout = layout::<V>(self.logits, self.rows, self.classes);
        // SAFETY: the caller vouches for the logits.
        let source = unsafe { Source::new::<V>(layout) };
        let [log_prob, entropy] = self
            .floats
            // SAFETY: the caller vouches for `rows` aligned numbers that nobody else uses.
            .map(|address| unsafe { slice_at(address, self.rows) });
        let samples = Samples {
            // SAFETY: as above.
            actions: unsafe { slice_at(self.actions, self.rows) },
            log_prob,
            entropy,
        };
        categorical::sample(source, samples, self.draw)
    }
}

/// Gradient of the logits.
#[pyfunction]
#[pyo3(signature = (
    logits, out, rows, classes, code, log_prob, entropy, actions, log_prob_gradients,
    entropy_gradients, /
))]
fn sample_categorical_backward_raw(
    py: Python<'_>,
    logits: Place,
    out: Place,
    rows: usize,
    classes: usize,
    code: usize,
    log_prob: usize,
    entropy: usize,
    actions: usize,
    log_prob_gradients: usize,
    entropy_gradients: usize,
) -> PyResult<()> {
    let call = CategoricalBackward {
        logits,
        out,
        rows,
        classes,
        actions,
        floats: [log_prob, entropy, log_prob_gradients, entropy_gradients],
    };
    let work = match float(code)? {
        Code::F16 => CategoricalBackward::run::<f16>,
        Code::Bf16 => CategoricalBackward::run::<bf16>,
        Code::F32 => CategoricalBackward::run::<f32>,
        _ => CategoricalBackward::run::<f64>,
    };
    detached(py, rows * classes, || work(&call))
}

struct CategoricalBackward {
    logits: Place,
    out: Place,
    rows: usize,
    classes: usize,
    actions: usize,
    floats: [usize; 4],
}

impl CategoricalBackward {
    fn run<V: Element<Real: Transcendental>>(&self) -> Result<(), PoolError> {
        let [logits, out] =
            [self.logits, self.out].map(|at| layout::<V>(at, self.rows, self.classes));
        // SAFETY: the caller vouches for both arrays, and that nobody else uses the second.
        let (source, sink) = unsafe { (Source::new::<V>(logits), Sink::new::<V>(out)) };
        let [log_prob, entropy, log_prob_gradients, entropy_gradients] = self
            .floats
            // SAFETY: the caller vouches for `rows` aligned numbers.
            .map(|address| unsafe { slice_of(address, self.rows) });
        let drawn = Drawn {
            // SAFETY: as above.
            actions: unsafe { slice_of(self.actions, self.rows) },
            log_prob,
            entropy,
            log_prob_gradients,
            entropy_gradients,
        };
        categorical::backward(source, drawn, sink)
    }
}

/// Draw from rows of Gaussians.
#[pyfunction]
#[pyo3(signature = (
    mean, log_std, actions, rows, dimensions, code, log_prob, seed, step, squash, /
))]
fn sample_gaussian_raw(
    py: Python<'_>,
    mean: Place,
    log_std: Place,
    actions: Place,
    rows: usize,
    dimensions: usize,
    code: usize,
    log_prob: usize,
    seed: u64,
    step: u32,
    squash: bool,
) -> PyResult<()> {
    let call = Gaussian {
        distributions: [mean, log_std],
        rows,
        dimensions,
        log_prob,
        draw: Draw { seed, step },
        squash,
    };
    let work = match float(code)? {
        Code::F16 => Gaussian::forward::<f16>,
        Code::Bf16 => Gaussian::forward::<bf16>,
        Code::F32 => Gaussian::forward::<f32>,
        _ => Gaussian::forward::<f64>,
    };
    detached(py, rows * dimensions, || work(&call, actions))
}

/// Gradients of mean and `log_std`.
#[pyfunction]
#[pyo3(signature = (
    mean, log_std, action_gradients, mean_gradients, log_std_gradients, rows, dimensions, code,
    log_prob_gradients, seed, step, squash, /
))]
fn sample_gaussian_backward_raw(
    py: Python<'_>,
    mean: Place,
    log_std: Place,
    action_gradients: Place,
    mean_gradients: Place,
    log_std_gradients: Place,
    rows: usize,
    dimensions: usize,
    code: usize,
    log_prob_gradients: usize,
    seed: u64,
    step: u32,
    squash: bool,
) -> PyResult<()> {
    let call = Gaussian {
        distributions: [mean, log_std],
        rows,
        dimensions,
        log_prob: log_prob_gradients,
        draw: Draw { seed, step },
        squash,
    };
    let work = match float(code)? {
        Code::F16 => Gaussian::backward::<f16>,
        Code::Bf16 => Gaussian::backward::<bf16>,
        Code::F32 => Gaussian::backward::<f32>,
        _ => Gaussian::backward::<f64>,
    };
    let results = [mean_gradients, log_std_gradients];
    detached(py, rows * dimensions, || {
        work(&call, action_gradients, results)
    })
}

/// `log_prob` is the address of the log-probabilities, or of their gradients.
struct Gaussian {
    distributions: [Place; 2],
    rows: usize,
    dimensions: usize,
    log_prob: usize,
    draw: Draw,
    squash: bool,
}

impl Gaussian {
    fn forward<V: Element<Real: Transcendental>>(&self, actions: Place) -> Result<(), PoolError> {
        let pass = Pass::Forward {
            // SAFETY: the caller vouches for the results, and that nobody else uses them.
            actions: unsafe { Sink::new::<V>(self.layout::<V>(actions)) },
            // SAFETY: as above.
            log_prob: unsafe { slice_at(self.log_prob, self.rows) },
        };
        gaussian::run(self.gaussians::<V>(), self.rows, pass)
    }

    fn backward<V: Element<Real: Transcendental>>(
        &self,
        action_gradients: Place,
        results: [Place; 2],
    ) -> Result<(), PoolError> {
        // SAFETY: the caller vouches for the results, and that nobody else uses them.
        let [mean, log_std] = results.map(|at| unsafe { Sink::new::<V>(self.layout::<V>(at)) });
        let pass = Pass::Backward {
            // SAFETY: the caller vouches for the gradients.
            action_gradients: unsafe { Source::new::<V>(self.layout::<V>(action_gradients)) },
            // SAFETY: as above.
            log_prob_gradients: unsafe { slice_of(self.log_prob, self.rows) },
            mean,
            log_std,
        };
        gaussian::run(self.gaussians::<V>(), self.rows, pass)
    }

    fn gaussians<V: Element>(&self) -> Gaussians<V::Real> {
        let [mean, log_std] = self
            .distributions
            // SAFETY: the caller vouches for both arrays.
            .map(|at| unsafe { Source::new::<V>(self.layout::<V>(at)) });
        Gaussians {
            mean,
            log_std,
            draw: self.draw,
            squash: self.squash,
        }
    }

    fn layout<V>(&self, at: Place) -> Layout {
        layout::<V>(at, self.rows, self.dimensions)
    }
}

/// Strides in bytes, from strides in elements.
pub(super) fn layout<V>(
    (address, row_stride, lane_stride): Place,
    rows: usize,
    lanes: usize,
) -> Layout {
    let size = size_of::<V>() as isize;
    Layout {
        base: address as *mut u8,
        row_stride: row_stride * size,
        lane_stride: lane_stride * size,
        rows,
        lanes,
    }
}

pub(super) fn float(code: usize) -> PyResult<Code> {
    Code::from_int(code)
        .filter(|code| code.is_float())
        .ok_or_else(|| PyValueError::new_err(format!("no floating dtype has the code {code}")))
}

/// Release the GIL for large work.
pub(super) fn detached(
    py: Python<'_>,
    elements: usize,
    work: impl FnOnce() -> Result<(), PoolError> + Send,
) -> PyResult<()> {
    let done = if elements < DETACH_FROM {
        work()
    } else {
        py.detach(work)
    };
    done.map_err(|error| PyValueError::new_err(error.to_string()))
}
