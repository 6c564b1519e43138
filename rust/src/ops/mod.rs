//! Array operations on strided arrays in memory.

pub(crate) mod categorical;
pub(crate) mod element;
pub(crate) mod gae;
pub(crate) mod groups;
pub(crate) mod grpo_loss;
pub(crate) mod kl;
mod line;
pub(crate) mod logprobs;
pub(crate) mod noise;
pub(crate) mod ppo_loss;
pub mod random;
mod registers;
mod scan;
pub(crate) mod strided;
pub(crate) mod surrogate;
mod tiles;
pub mod transcendental;
