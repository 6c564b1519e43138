//! Array operations on slices.
