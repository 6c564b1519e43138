//! The CPU core of rlox-gpu: estimators, vector environments and replay buffers on plain slices.
//!
//! `ops`, `envs` and `buffers` know nothing of Python; `python` is the only boundary.

pub mod buffers;
pub mod envs;
pub mod ops;
pub mod philox;
pub mod pool;

#[cfg(feature = "python")]
mod python;
