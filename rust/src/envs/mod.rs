//! Vector environments on slices.
