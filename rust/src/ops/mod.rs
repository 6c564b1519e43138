//! Array operations on strided arrays in memory.

pub(crate) mod categorical;
pub(crate) mod element;
pub(crate) mod estimators;
pub(crate) mod full_kl;
pub(crate) mod gaussian;
pub(crate) mod groups;
pub(crate) mod grpo_loss;
pub(crate) mod kl;
mod line;
pub(crate) mod logprobs;
mod model;
pub(crate) mod moments;
pub(crate) mod n_step;
pub(crate) mod noise;
pub(crate) mod ppo_loss;
pub(crate) mod preferences;
pub mod random;
pub(crate) mod registers;
pub(crate) mod rollout;
mod scan;
pub(crate) mod statistics;
pub(crate) mod strided;
pub(crate) mod surrogate;
mod tiles;
pub mod transcendental;
mod vocabulary;
pub(crate) mod walk;
