//! Numbers of Python; messages name the argument.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::buffers::Replay;
use crate::python::arrays;

pub(super) fn check_not_empty(replay: &Replay) -> PyResult<()> {
    if replay.is_empty() {
        return Err(PyValueError::new_err(
            "batch_size: the buffer is empty; push at least one transition before a sample",
        ));
    }
    Ok(())
}
pub(super) fn positive(name: &str, object: &Bound<'_, PyAny>) -> PyResult<usize> {
    match object.extract::<i64>() {
        Ok(number) if number > 0 => Ok(number as usize),
        Ok(number) => Err(PyValueError::new_err(format!(
            "{name}: expected an integer >= 1, got {number}"
        ))),
        Err(_) => Err(PyTypeError::new_err(format!(
            "{name}: expected an integer >= 1, got {}",
            arrays::kind_of(object)
        ))),
    }
}

pub(super) fn as_seed(object: &Bound<'_, PyAny>) -> PyResult<u64> {
    object.extract::<u64>().map_err(|error| {
        let shown = object
            .repr()
            .map_or_else(|_| arrays::kind_of(object), |x| x.to_string());
        let message = format!("seed: expected an integer in [0, 2**64), got {shown}");
        if error.is_instance_of::<PyTypeError>(object.py()) {
            PyTypeError::new_err(message)
        } else {
            PyValueError::new_err(message)
        }
    })
}

pub(super) fn as_number(name: &str, object: &Bound<'_, PyAny>) -> PyResult<f64> {
    object.extract::<f64>().map_err(|_| {
        PyTypeError::new_err(format!(
            "{name}: expected a number, got {}",
            arrays::kind_of(object)
        ))
    })
}

/// A bool of Python or NumPy, or a number.
pub(super) fn as_flag(name: &str, object: &Bound<'_, PyAny>) -> PyResult<bool> {
    match object.extract::<bool>() {
        Ok(flag) => Ok(flag),
        Err(_) => as_number(name, object)
            .map(|number| number != 0.0)
            .map_err(|_| {
                PyTypeError::new_err(format!(
                    "{name}: expected a bool, got {}",
                    arrays::kind_of(object)
                ))
            }),
    }
}
