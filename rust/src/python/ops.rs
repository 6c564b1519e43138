//! Array operations: what Python calls.

#![allow(unsafe_code)]

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::{
    arrays, estimate, fresh, full_kl, gae, groups, kl, logprobs, overlap, policy_losses,
    preferences, statistics,
};
use crate::ops::random;

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(arrays::array_address, module)?)?;
    module.add_function(wrap_pyfunction!(overlap::share_memory, module)?)?;
    module.add_function(wrap_pyfunction!(fresh::empty_results, module)?)?;
    module.add_function(wrap_pyfunction!(gae::gae, module)?)?;
    module.add_function(wrap_pyfunction!(gae::gae_contiguous, module)?)?;
    module.add_function(wrap_pyfunction!(groups::group_advantages, module)?)?;
    module.add_function(wrap_pyfunction!(groups::group_advantages_raw, module)?)?;
    module.add_function(wrap_pyfunction!(estimate::estimate_raw, module)?)?;
    policy_losses::register(module)?;
    statistics::register(module)?;
    module.add_function(wrap_pyfunction!(logprobs::token_logprobs_raw, module)?)?;
    module.add_function(wrap_pyfunction!(
        logprobs::token_logprobs_backward_raw,
        module
    )?)?;
    module.add_function(wrap_pyfunction!(kl::token_kl_of_arrays, module)?)?;
    module.add_function(wrap_pyfunction!(kl::token_kl_contiguous, module)?)?;
    module.add_function(wrap_pyfunction!(kl::token_kl_raw, module)?)?;
    module.add_function(wrap_pyfunction!(kl::token_kl_backward_raw, module)?)?;
    module.add_function(wrap_pyfunction!(full_kl::full_kl_raw, module)?)?;
    module.add_function(wrap_pyfunction!(full_kl::full_kl_backward_raw, module)?)?;
    module.add_function(wrap_pyfunction!(preferences::dpo_loss_raw, module)?)?;
    module.add_function(wrap_pyfunction!(uniform_raw, module)?)?;
    module.add_function(wrap_pyfunction!(permutation_raw, module)?)
}

/// Fill float32 memory with uniform numbers in [0, 1).
#[pyfunction]
#[pyo3(signature = (out, count, seed, step, stream, /))]
fn uniform_raw(py: Python<'_>, out: usize, count: usize, seed: u64, step: u32, stream: u32) {
    // SAFETY: the caller vouches for `count` aligned float32 that nobody else uses.
    let out = unsafe { slice_at(out, count) };
    py.detach(|| random::uniform(out, seed, step, stream));
}

/// Fill int64 memory with a permutation.
#[pyfunction]
#[pyo3(signature = (out, count, seed, step, /))]
fn permutation_raw(py: Python<'_>, out: usize, count: usize, seed: u64, step: u32) -> PyResult<()> {
    if count > 1 << 32 {
        return Err(PyValueError::new_err(format!(
            "count must be at most 2**32, not {count}"
        )));
    }
    // SAFETY: the caller vouches for `count` aligned int64 that nobody else uses.
    let out = unsafe { slice_at(out, count) };
    py.detach(|| random::permutation(out, seed, step));
    Ok(())
}

/// Memory named by its address.
///
/// # Safety
/// As for [`std::slice::from_raw_parts_mut`], except that an empty slice may have any address.
pub(super) unsafe fn slice_at<T>(address: usize, count: usize) -> &'static mut [T] {
    if count == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(address as *mut T, count) }
}

/// Memory named by its address, to be read.
///
/// # Safety
/// As for [`std::slice::from_raw_parts`], except that an empty slice may have any address.
pub(super) unsafe fn slice_of<T>(address: usize, count: usize) -> &'static [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(address as *const T, count) }
}
