//! Whether arrays share memory.

use std::ops::Range;

use numpy::PyUntypedArray;
use pyo3::prelude::*;

use super::arrays::ArrayRef;

/// Where the memory around two arrays meets, NumPy decides whether elements do.
pub(super) fn shared(
    first: (&Bound<'_, PyAny>, &Range<isize>),
    second: (&Bound<'_, PyAny>, &Range<isize>),
) -> PyResult<bool> {
    if first.1.end <= second.1.start || second.1.end <= first.1.start {
        return Ok(false);
    }
    let numpy = first.0.py().import("numpy")?;
    numpy
        .call_method1("shares_memory", (first.0, second.0))?
        .extract()
}

/// Whether two arrays of at most two dimensions have an element in common.
#[pyfunction]
#[pyo3(signature = (first, second, /))]
pub(super) fn share_memory(
    first: &Bound<'_, PyUntypedArray>,
    second: &Bound<'_, PyUntypedArray>,
) -> PyResult<bool> {
    let span = |array| ArrayRef::new("array", array).map(|array| array.span());
    shared((first, &span(first)?), (second, &span(second)?))
}
