//! The CPU core of rlox-gpu: estimators and vector environments on plain slices.
//!
//! `ops` and `envs` know nothing of Python; `python` is the only boundary.

pub mod envs;
pub mod ops;
pub mod philox;
pub mod pool;

#[cfg(feature = "python")]
mod python;
