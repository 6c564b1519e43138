//! The pyo3 boundary: borrow buffers, check them, release the GIL, call the core, map errors.

mod arrays;
mod buffers;
mod call;
mod envs;
mod estimate;
mod frame;
mod fresh;
mod full_kl;
mod gae;
mod groups;
mod kl;
mod logprobs;
mod ops;
mod overlap;
mod policy_losses;
mod preferences;
mod sampling;
mod statistics;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _rust(module: &Bound<'_, PyModule>) -> PyResult<()> {
    ops::register(module)?;
    sampling::register(module)?;
    envs::register(module)?;
    buffers::register(module)?;
    Ok(())
}
