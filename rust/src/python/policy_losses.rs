//! The policy losses on bare memory.

#![allow(unsafe_code)]

use std::iter;

use half::{bf16, f16};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::arrays::Code;
use super::ops::{slice_at, slice_of};
use crate::ops::element::{Element, Real};
use crate::ops::grpo_loss::{self as grpo, Aggregation, Kind, Rules, Tokens};
use crate::ops::ppo_loss::{
    Categorical, Coefficients, Columns, Gaussian, Gradient, Policy, Terms, ppo_loss,
};
use crate::ops::surrogate;
use crate::ops::transcendental::Transcendental;

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(ppo_loss_raw, module)?)?;
    module.add_function(wrap_pyfunction!(gaussian_ppo_loss_raw, module)?)?;
    module.add_function(wrap_pyfunction!(grpo_loss_raw, module)?)?;
    module.add_function(wrap_pyfunction!(scaled_raw, module)?)
}

/// Run a generic function for the element type that a code of values names.
macro_rules! with_float {
    ($code:expr, $call:ident($($argument:expr),* $(,)?)) => {
        match float_code($code)? {
            Code::F16 => $call::<f16>($($argument),*),
            Code::Bf16 => $call::<bf16>($($argument),*),
            Code::F32 => $call::<f32>($($argument),*),
            _ => $call::<f64>($($argument),*),
        }
    };
}

/// The six columns `[N]` that every policy is trained on: addresses, 0 where absent.
type ColumnAddresses = (usize, usize, usize, usize, usize, usize);
/// Where loss, parts and scale go.
type TermAddresses = (usize, usize, usize);

/// PPO's loss of contiguous memory.
#[pyfunction]
#[pyo3(signature = (
    logits, actions, columns, gradient, terms, count, classes, code, coefficients, /
))]
fn ppo_loss_raw(
    py: Python<'_>,
    logits: usize,
    actions: usize,
    columns: ColumnAddresses,
    gradient: usize,
    terms: TermAddresses,
    count: usize,
    classes: usize,
    code: usize,
    coefficients: (f64, f64, f64),
) -> PyResult<()> {
    let size = (count, classes);
    with_float!(
        code,
        categorical(
            py,
            logits,
            actions,
            columns,
            gradient,
            terms,
            size,
            coefficients
        )
    )
}

fn categorical<V: Element<Real: Transcendental>>(
    py: Python<'_>,
    logits: usize,
    actions: usize,
    columns: ColumnAddresses,
    gradient: usize,
    terms: TermAddresses,
    (count, classes): (usize, usize),
    coefficients: (f64, f64, f64),
) -> PyResult<()> {
    // SAFETY: the caller vouches for `[N, A]`, `[N]` and `[N (A + 1)]` aligned elements, those of
    // the gradient nobody else's, and for the places of the results.
    unsafe {
        let policy = Categorical::<V> {
            logits: slice_of(logits, count * classes),
            actions: slice_of(actions, count),
            classes,
        };
        let gradient = gradient_at(gradient, [count * classes, 0], count);
        let found = loss_of(py, policy, columns, coefficients, gradient)?;
        write_terms::<V::Real>(&found, terms);
    }
    Ok(())
}

/// Mean, `log_std` and actions.
type GaussianAddresses = (usize, usize, usize);

/// PPO's loss of a Gaussian policy, of contiguous memory.
#[pyfunction]
#[pyo3(signature = (
    policy, shared, columns, gradients, terms, count, dimensions, code, coefficients, /
))]
fn gaussian_ppo_loss_raw(
    py: Python<'_>,
    policy: GaussianAddresses,
    shared: bool,
    columns: ColumnAddresses,
    gradients: (usize, usize),
    terms: TermAddresses,
    count: usize,
    dimensions: usize,
    code: usize,
    coefficients: (f64, f64, f64),
) -> PyResult<()> {
    let size = (count, dimensions);
    with_float!(
        code,
        gaussian(
            py,
            policy,
            shared,
            columns,
            gradients,
            terms,
            size,
            coefficients
        )
    )
}

fn gaussian<V: Element<Real: Transcendental>>(
    py: Python<'_>,
    (mean, log_std, actions): GaussianAddresses,
    shared: bool,
    columns: ColumnAddresses,
    (gradient, shared_gradient): (usize, usize),
    terms: TermAddresses,
    (count, dimensions): (usize, usize),
    coefficients: (f64, f64, f64),
) -> PyResult<()> {
    let numbers = count * dimensions;
    // SAFETY: the caller vouches for `[N, A]`, `[A]`, `[N]` and `[N (A + 1)]` or `[N (2 A + 1)]`
    // aligned elements, those of the gradients nobody else's, and for the places of the results.
    unsafe {
        let policy = Gaussian::<V> {
            mean: slice_of(mean, numbers),
            log_std: slice_of(log_std, if shared { dimensions } else { numbers }),
            actions: slice_of(actions, numbers),
            samples: count,
            dimensions,
            shared,
        };
        let own = if shared { 0 } else { numbers };
        let gradient = gradient_at(gradient, [numbers, own], count);
        let found = loss_of(py, policy, columns, coefficients, gradient)?;
        write_terms::<V::Real>(&found, terms);
        let room = if shared_gradient == 0 { 0 } else { dimensions };
        // Without samples there is no gradient, and the deviations have one all the same.
        let numbers = found.shared.iter().chain(iter::repeat(&0.0));
        for (slot, &x) in slice_at(shared_gradient, room).iter_mut().zip(numbers) {
            *slot = V::Real::from_f64(x);
        }
    }
    Ok(())
}

/// # Safety
/// As for [`columns_at`].
unsafe fn loss_of<P: Policy>(
    py: Python<'_>,
    policy: P,
    columns: ColumnAddresses,
    (clip_eps, vf_coef, ent_coef): (f64, f64, f64),
    gradient: Option<Gradient<'static, P::Value>>,
) -> PyResult<Terms> {
    // SAFETY: the caller's promise.
    let columns = unsafe { columns_at(columns, policy.samples()) };
    let coefficients = Coefficients {
        clip_eps,
        vf_coef,
        ent_coef,
    };
    py.detach(|| ppo_loss(policy, columns, coefficients, gradient))
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

/// The five arrays of [`grpo_loss_raw`]: addresses, 0 where absent.
type TokenAddresses = (usize, usize, usize, usize, usize);

/// The losses of the GRPO family, of contiguous memory.
#[pyfunction]
#[pyo3(signature = (
    tokens, per_token, gradient, terms, size, code, interval, kl, per_sequence, aggregation, /
))]
fn grpo_loss_raw(
    py: Python<'_>,
    tokens: TokenAddresses,
    per_token: bool,
    gradient: usize,
    terms: TermAddresses,
    size: (usize, usize),
    code: usize,
    interval: (f64, f64),
    kl: (f64, usize),
    per_sequence: bool,
    aggregation: (usize, f64),
) -> PyResult<()> {
    let rules = rules(interval, kl, per_sequence, aggregation)?;
    with_float!(
        code,
        grpo_loss(py, tokens, per_token, gradient, terms, size, rules)
    )
}

fn grpo_loss<V: Element<Real: Transcendental>>(
    py: Python<'_>,
    (logprobs, old_logprobs, advantages, ref_logprobs, mask): TokenAddresses,
    per_token: bool,
    gradient: usize,
    (loss, parts, scale): TermAddresses,
    (rows, length): (usize, usize),
    rules: Rules,
) -> PyResult<()> {
    let count = rows * length;
    // SAFETY: the caller vouches for `[B, T]` aligned elements, or `[B]` advantages, and for the
    // places of the results.
    let (tokens, gradient, scale) = unsafe {
        let tokens = Tokens::<V> {
            logprobs: slice_at(logprobs, count),
            old_logprobs: slice_at(old_logprobs, count),
            advantages: slice_at(advantages, if per_token { count } else { rows }),
            ref_logprobs: (ref_logprobs != 0).then(|| &*slice_at(ref_logprobs, count)),
            mask: (mask != 0).then(|| &*slice_at(mask, count)),
            rows,
            length,
        };
        let gradient = (gradient != 0).then(|| slice_at(gradient, count));
        (tokens, gradient, slice_at(scale, rows))
    };
    let found = py
        .detach(|| grpo::grpo_loss(tokens, rules, gradient, scale))
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    let found = found.map(V::Real::from_f64);
    // SAFETY: as above.
    unsafe {
        slice_at(loss, 1)[0] = found[0];
        slice_at(parts, 3).copy_from_slice(&found[1..]);
    }
    Ok(())
}

fn rules(
    (low, high): (f64, f64),
    (kl_coef, kind): (f64, usize),
    per_sequence: bool,
    (aggregation, tokens): (usize, f64),
) -> PyResult<Rules> {
    let kinds = [Kind::K1, Kind::K2, Kind::K3];
    let ways = [
        Aggregation::Sequence,
        Aggregation::Constant(tokens),
        Aggregation::Token,
    ];
    match (kinds.get(kind), ways.get(aggregation)) {
        (Some(&kind), Some(&aggregation)) => Ok(Rules {
            low,
            high,
            kl_coef,
            kind,
            per_sequence,
            aggregation,
        }),
        _ => Err(PyValueError::new_err(format!(
            "kind and aggregation must be between 0 and 2, not {kind} and {aggregation}"
        ))),
    }
}

/// `out[r, c] = gradient[r, c] * scale[r] * factor`.
#[pyfunction]
#[pyo3(signature = (gradient, scale, factor, out, rows, columns, code, /))]
fn scaled_raw(
    py: Python<'_>,
    gradient: usize,
    scale: usize,
    factor: usize,
    out: usize,
    rows: usize,
    columns: usize,
    code: usize,
) -> PyResult<()> {
    with_float!(
        code,
        scaled(py, gradient, scale, factor, out, (rows, columns))
    );
    Ok(())
}

fn scaled<V: Element>(
    py: Python<'_>,
    gradient: usize,
    scale: usize,
    factor: usize,
    out: usize,
    (rows, columns): (usize, usize),
) {
    // SAFETY: the caller vouches for `[R, C]`, `[R]` and one aligned elements, and for `out`.
    let (gradient, scale, factor, out) = unsafe {
        (
            &*slice_at::<V>(gradient, rows * columns),
            &*slice_at::<V::Real>(scale, rows),
            slice_at::<V::Real>(factor, 1)[0],
            slice_at::<V>(out, rows * columns),
        )
    };
    py.detach(|| surrogate::scaled(gradient, scale, factor, out));
}

fn float_code(code: usize) -> PyResult<Code> {
    Code::from_int(code)
        .filter(|code| code.is_float())
        .ok_or_else(|| PyValueError::new_err(format!("code must be between 0 and 3, not {code}")))
}

/// # Safety
/// As for [`slice_at`], for `count` elements at every address that is not 0.
unsafe fn columns_at<V>(addresses: ColumnAddresses, count: usize) -> Columns<'static, V> {
    let (old_log_probs, advantages, returns, values, old_values, mask) = addresses;
    // SAFETY: the caller's promise.
    unsafe {
        Columns {
            old_log_probs: slice_at(old_log_probs, count),
            advantages: slice_at(advantages, count),
            returns: slice_at(returns, count),
            values: slice_at(values, count),
            old_values: (old_values != 0).then(|| &*slice_at(old_values, count)),
            mask: (mask != 0).then(|| &*slice_at(mask, count)),
        }
    }
}

/// The gradients of the policy's arrays, then that of the values, in one piece of memory.
///
/// # Safety
/// As for [`slice_at`], if the address is not 0.
unsafe fn gradient_at<V>(
    address: usize,
    policy: [usize; 2],
    count: usize,
) -> Option<Gradient<'static, V>> {
    if address == 0 {
        return None;
    }
    let [first, second] = policy;
    // SAFETY: the caller's promise.
    let all = unsafe { slice_at(address, first + second + count) };
    let (policy, values) = all.split_at_mut(first + second);
    let (first, second) = policy.split_at_mut(first);
    Some(Gradient {
        policy: [first, second],
        values,
    })
}

/// # Safety
/// The addresses are those of one, five and one `R` that can be written.
unsafe fn write_terms<R: Real>(found: &Terms, (loss, parts, scale): TermAddresses) {
    // SAFETY: the caller's promise.
    unsafe {
        slice_at(loss, 1)[0] = R::from_f64(found.loss);
        for (slot, part) in slice_at(parts, 5).iter_mut().zip(found.parts) {
            *slot = R::from_f64(part);
        }
        slice_at(scale, 1)[0] = R::from_f64(found.scale);
    }
}
