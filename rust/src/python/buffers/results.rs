//! The dicts of arrays that samples are.

use std::fmt::{self, Display};
use std::ops::Range;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::ReplayStore;
use super::fields::Field;
use crate::buffers::Batch;
use crate::python::arrays;

/// A sample's dict, either a fresh one or that which the caller gave, arrays included.
pub(super) struct Results<'a, 'py> {
    pub(super) dict: Bound<'py, PyDict>,
    leading: &'a [usize],
    given: bool,
    held: Vec<Held<'py>>,
}

/// A caller's array. Its owner may take it out of the dict while it is written without the GIL, hence
/// the reference.
struct Held<'py> {
    key: Key<'py>,
    _array: Bound<'py, PyAny>,
    span: Range<usize>,
}

/// Where an array is in a sample: under a key, in a dict of observations under the part's too.
struct Key<'py>(Bound<'py, PyString>, Option<Bound<'py, PyString>>);

impl Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out[\"{}\"]", self.0)?;
        self.1
            .as_ref()
            .map_or(Ok(()), |part| write!(f, "[\"{part}\"]"))
    }
}

impl<'a, 'py> Results<'a, 'py> {
    /// Arrays with these leading dimensions, those of `out` if it is given.
    pub(super) fn new(
        py: Python<'py>,
        leading: &'a [usize],
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let dict = match out {
            None => PyDict::new(py),
            Some(out) => as_dict("out", out)?.clone(),
        };
        Ok(Self {
            dict,
            leading,
            given: out.is_some(),
            held: Vec::new(),
        })
    }

    /// The memory of the array at `key`; of the parts of an observation, each has its own array.
    pub(super) fn array<T>(
        &mut self,
        field: &Field,
        key: &Bound<'py, PyString>,
    ) -> PyResult<&'static mut [T]> {
        let py = key.py();
        if self.given {
            let part = field.key.as_ref().map(|part| part.bind(py).clone());
            return self.given_array(field, Key(key.clone(), part));
        }
        let (array, memory) = field.empty(py, self.leading)?;
        match &field.key {
            None => self.dict.set_item(key, array)?,
            Some(part) => match self.dict.get_item(key)? {
                Some(parts) => parts.set_item(part, array)?,
                None => {
                    let parts = PyDict::new(py);
                    parts.set_item(part, array)?;
                    self.dict.set_item(key, parts)?;
                }
            },
        }
        Ok(memory)
    }

    fn given_array<T>(&mut self, field: &Field, key: Key<'py>) -> PyResult<&'static mut [T]> {
        let mut array = self.dict.get_item(&key.0)?;
        if let (Some(parts), Some(part)) = (&array, &key.1) {
            array = as_dict(Key(key.0.clone(), None), parts)?.get_item(part)?;
        }
        let array = array.ok_or_else(|| {
            PyValueError::new_err(format!("{key}: expected an array, the key is missing"))
        })?;
        let memory = field.given(&key, &array, self.leading)?;
        let start = memory.as_ptr() as usize;
        let span = start..start + size_of_val(memory);
        for held in &self.held {
            if span.start < held.span.end && held.span.start < span.end {
                return Err(PyValueError::new_err(format!(
                    "{key}: expected memory of its own, got some that is {}'s too",
                    held.key
                )));
            }
        }
        self.held.push(Held {
            key,
            _array: array,
            span,
        });
        Ok(memory)
    }
}

fn as_dict<'a, 'py>(
    name: impl Display,
    object: &'a Bound<'py, PyAny>,
) -> PyResult<&'a Bound<'py, PyDict>> {
    object.cast::<PyDict>().map_err(|_| {
        PyTypeError::new_err(format!(
            "{name}: expected a dict of arrays, got {}",
            arrays::kind_of(object)
        ))
    })
}

impl ReplayStore {
    /// The memory of a sample.
    pub(super) fn allocate<'py>(
        &self,
        py: Python<'py>,
        results: &mut Results<'_, 'py>,
        discounts: bool,
    ) -> PyResult<Batch<'static>> {
        let (now, next) = (intern!(py, "obs"), intern!(py, "next_obs"));
        let mut obs = Vec::with_capacity(self.obs.len());
        for field in &self.obs {
            obs.push([results.array(field, now)?, results.array(field, next)?]);
        }
        Ok(Batch {
            obs,
            actions: results.array(&self.action, intern!(py, "actions"))?,
            rewards: results.array(&self.reward, intern!(py, "rewards"))?,
            terminated: results.array(&self.flag, intern!(py, "terminated"))?,
            truncated: results.array(&self.flag, intern!(py, "truncated"))?,
            discounts: discounts
                .then(|| results.array(&self.reward, intern!(py, "discounts")))
                .transpose()?,
        })
    }
}
