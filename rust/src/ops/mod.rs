//! Array operations on slices and strided views.

pub mod random;
