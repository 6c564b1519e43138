//! The CPU core of rlox-gpu: estimators, vector environments and replay buffers on plain slices.
//!
//! `ops`, `envs` and `buffers` know nothing of Python; `python` is the only boundary.

// Without the boundary much of the core has no caller.
#![cfg_attr(not(feature = "python"), allow(dead_code, unused_imports))]

pub mod buffers;
pub mod envs;
pub mod ops;
pub mod philox;
pub mod pool;

#[cfg(feature = "python")]
mod python;
