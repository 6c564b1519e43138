//! Array operations on strided arrays in memory.

pub(crate) mod element;
pub(crate) mod gae;
pub mod random;
pub(crate) mod scan;
pub(crate) mod strided;
mod tiles;
