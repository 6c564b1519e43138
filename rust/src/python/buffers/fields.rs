//! What the rows of a buffer's columns are to Python: arrays of a dtype and a shape.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fmt::Display;

use numpy::npyffi::{self, PY_ARRAY_API, npy_intp};
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString};

use crate::python::arrays;
use crate::python::ops::{slice_at, slice_of};

/// The most dimensions that a row may have; a sample of sequences adds two.
const MAX_DIMENSIONS: usize = 8;

/// A column's rows.
pub(super) struct Field {
    /// What messages call it.
    pub(super) name: String,
    /// What it is called in a dict of observations.
    pub(super) key: Option<Py<PyString>>,
    dtype: Py<PyAny>,
    /// The address of NumPy's array type: asking for it takes longer than a comparison.
    array_type: usize,
    /// NumPy's number of the dtype, the same for names of the same type.
    type_num: c_int,
    shape: Vec<usize>,
    /// Bytes of a row.
    pub(super) width: usize,
}

/// The memory of an argument.
pub(super) enum Input<'py> {
    /// That of an array which is the argument, or made of it.
    Array {
        /// Keeps the memory alive where the argument does not.
        _made: Option<Bound<'py, PyAny>>,
        address: usize,
        bytes: usize,
    },
    /// One number.
    Number { contents: [u8; 8], bytes: usize },
}

impl Input<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            // SAFETY: the array is alive and C-contiguous.
            Self::Array { address, bytes, .. } => unsafe { slice_of(*address, *bytes) },
            Self::Number { contents, bytes } => &contents[..*bytes],
        }
    }

    /// The elements of an aligned array.
    pub(super) fn elements<T: Copy + 'static>(&self) -> &[T] {
        match self {
            // SAFETY: as above; arrays are aligned, and any bytes make a number.
            Self::Array { address, bytes, .. } => unsafe {
                slice_of(*address, bytes / size_of::<T>())
            },
            Self::Number { .. } => &[],
        }
    }
}

/// How many rows an argument holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// One, without the dimension of rows.
    Single,
    Rows(usize),
    /// As many as there are.
    Any,
}

impl Field {
    pub(super) fn new(name: &str, dtype: &Bound<'_, PyAny>, shape: &[usize]) -> PyResult<Self> {
        let dtype = dtype
            .py()
            .import("numpy")?
            .call_method1("dtype", (dtype,))?;
        let number: c_int = dtype.getattr("num")?.extract()?;
        let size: usize = dtype.getattr("itemsize")?.extract()?;
        if shape.len() > MAX_DIMENSIONS {
            return Err(PyValueError::new_err(format!(
                "{name}: expected at most {MAX_DIMENSIONS} dimensions, got {}",
                shape.len()
            )));
        }
        let type_num = canonical(number)
            .filter(|_| {
                dtype
                    .getattr("isnative")
                    .is_ok_and(|x| x.is_truthy().unwrap_or(false))
            })
            .ok_or_else(|| {
                PyTypeError::new_err(format!(
                    "{name}: expected a dtype of numbers or bool in native byte order, got {dtype}"
                ))
            })?;
        let width = shape
            .iter()
            .try_fold(size, |bytes, &n| bytes.checked_mul(n))
            .filter(|&width| width > 0)
            .ok_or_else(|| {
                PyValueError::new_err(format!(
                    "{name}: expected a shape of positive sizes, got {}",
                    arrays::show_shape(shape)
                ))
            })?;
        Ok(Self {
            name: name.to_owned(),
            key: None,
            array_type: PyUntypedArray::type_object(dtype.py()).as_ptr() as usize,
            dtype: dtype.unbind(),
            type_num,
            shape: shape.to_vec(),
            width,
        })
    }

    pub(super) fn with_key(self, key: Option<Bound<'_, PyString>>) -> Self {
        let key = key.map(Bound::unbind);
        Self { key, ..self }
    }

    /// The memory of the argument `name`.
    pub(super) fn read<'py>(
        &self,
        name: &str,
        object: &Bound<'py, PyAny>,
        count: Count,
    ) -> PyResult<Input<'py>> {
        if let Some(address) = self.address(object, count) {
            let rows = match count {
                Count::Single => 1,
                Count::Rows(rows) => rows,
                Count::Any => object.len()?,
            };
            let bytes = rows * self.width;
            return Ok(Input::Array {
                _made: None,
                address,
                bytes,
            });
        }
        if count == Count::Single
            && let Some(contents) = self.number(object)
        {
            let bytes = self.width;
            return Ok(Input::Number { contents, bytes });
        }
        self.converted(name, object, count)
    }

    /// Where the rows are, if the argument is an array that can be read as it stands.
    fn address(&self, object: &Bound<'_, PyAny>, count: Count) -> Option<usize> {
        const NEEDED: c_int = npyffi::NPY_ARRAY_C_CONTIGUOUS | npyffi::NPY_ARRAY_ALIGNED;
        if object.get_type_ptr() as usize != self.array_type {
            return None;
        }
        // SAFETY: a live array object, whose fields the caller keeps still.
        let (fields, descr) = unsafe {
            let fields = &(*object.as_ptr().cast::<npyffi::PyArrayObject>()).fields;
            (fields, &(*fields.descr).fields)
        };
        let same_type = canonical(descr.type_num) == Some(self.type_num)
            // Bytes are flags as they are.
            || (self.type_num == 0 && matches!(descr.type_num, 1 | 2));
        if !same_type || arrays::is_swapped(descr.byteorder) || fields.flags & NEEDED != NEEDED {
            return None;
        }
        let leading = usize::from(count != Count::Single);
        if fields.nd as usize != self.shape.len() + leading {
            return None;
        }
        // SAFETY: `nd` numbers; zero dimensions may have none.
        let shape: &[npy_intp] =
            unsafe { slice_of(fields.dimensions as usize, fields.nd as usize) };
        if let Count::Rows(rows) = count
            && shape[0] as usize != rows
        {
            return None;
        }
        let same_shape = (shape[leading..].iter().zip(&self.shape)).all(|(&a, &b)| a as usize == b);
        same_shape.then_some(fields.data as usize)
    }

    /// A Python number as the one element of a row; others and what does not fit are left to
    /// [`Field::converted`].
    fn number(&self, object: &Bound<'_, PyAny>) -> Option<[u8; 8]> {
        let mut contents = [0; 8];
        let mut put = |bytes: &[u8]| contents[..bytes.len()].copy_from_slice(bytes);
        if self.shape.iter().any(|&n| n != 1) || object.is_instance_of::<PyBool>() {
            return None;
        }
        let exact = object.is_exact_instance_of::<PyInt>();
        match self.type_num {
            11 if exact || object.is_exact_instance_of::<PyFloat>() => {
                put(&(object.extract::<f64>().ok()? as f32).to_ne_bytes());
            }
            12 if exact || object.is_exact_instance_of::<PyFloat>() => {
                put(&object.extract::<f64>().ok()?.to_ne_bytes());
            }
            5 if exact => put(&object.extract::<i32>().ok()?.to_ne_bytes()),
            9 if exact => put(&object.extract::<i64>().ok()?.to_ne_bytes()),
            _ => return None,
        }
        Some(contents)
    }

    /// Whatever else is an array, or can be made one; the error says why it cannot.
    #[cold]
    fn converted<'py>(
        &self,
        name: &str,
        object: &Bound<'py, PyAny>,
        count: Count,
    ) -> PyResult<Input<'py>> {
        static CONVERT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = object.py();
        let convert = CONVERT.get_or_try_init(py, || {
            let module = py.import("rlox_gpu.buffers._arrays")?;
            module.getattr("as_rows").map(Bound::unbind)
        })?;
        let rows = match count {
            Count::Single => None,
            Count::Rows(rows) => Some(rows as isize),
            Count::Any => Some(-1),
        };
        let made = convert.bind(py).call1((
            name,
            object,
            self.dtype.bind(py),
            self.shape.as_slice(),
            rows,
        ))?;
        let array = made.cast::<PyUntypedArray>()?;
        let bytes = array.len() * self.width / self.shape.iter().product::<usize>();
        // SAFETY: a live array object.
        let address = unsafe { (*array.as_array_ptr()).fields.data as usize };
        Ok(Input::Array {
            _made: Some(made),
            address,
            bytes,
        })
    }

    /// A fresh array of rows, and its memory, yet to be written.
    pub(super) fn empty<'py, T>(
        &self,
        py: Python<'py>,
        leading: &[usize],
    ) -> PyResult<(Bound<'py, PyAny>, &'static mut [T])> {
        let mut sizes = [0 as npy_intp; MAX_DIMENSIONS + 2];
        let shape = leading.iter().chain(&self.shape);
        for (to, &size) in sizes.iter_mut().zip(shape) {
            *to = size as npy_intp;
        }
        let bytes = leading
            .iter()
            .try_fold(self.width, |bytes, &n| bytes.checked_mul(n))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(|| PyValueError::new_err("the sample is too large for memory"))?;
        // SAFETY: as many sizes as announced; the reference to the dtype is taken over; null comes
        // back with an exception set.
        unsafe {
            let array = PY_ARRAY_API.PyArray_Empty(
                py,
                (leading.len() + self.shape.len()) as c_int,
                sizes.as_mut_ptr(),
                self.dtype.clone_ref(py).into_ptr().cast(),
                0,
            );
            let array = Bound::from_owned_ptr_or_err(py, array)?;
            let data = (*array.as_ptr().cast::<npyffi::PyArrayObject>())
                .fields
                .data;
            // The array outlives the call that writes it, and nobody else has it before.
            Ok((array, slice_at(data as usize, bytes / size_of::<T>())))
        }
    }

    /// The memory of the caller's array `name`, to be written; it has to be as [`Field::empty`]
    /// would make it.
    pub(super) fn given<T>(
        &self,
        name: &impl Display,
        object: &Bound<'_, PyAny>,
        leading: &[usize],
    ) -> PyResult<&'static mut [T]> {
        let array = object.cast::<PyUntypedArray>().map_err(|_| {
            let kind = arrays::kind_of(object);
            PyTypeError::new_err(format!("{name}: expected a NumPy array, got {kind}"))
        })?;
        // SAFETY: a live array object, whose fields the caller keeps still.
        let (fields, descr) = unsafe {
            let fields = &(*array.as_array_ptr()).fields;
            (fields, &(*fields.descr).fields)
        };
        if canonical(descr.type_num) != Some(self.type_num) || arrays::is_swapped(descr.byteorder) {
            return Err(PyTypeError::new_err(format!(
                "{name}: expected dtype {}, got {}",
                self.dtype,
                arrays::dtype_of(object)
            )));
        }
        if !array.shape().iter().eq(leading.iter().chain(&self.shape)) {
            return Err(PyValueError::new_err(format!(
                "{name}: expected shape {}, got {}",
                arrays::show_shape(&[leading, &self.shape].concat()),
                arrays::shape_of(object)
            )));
        }
        for (flag, kind) in [
            (npyffi::NPY_ARRAY_WRITEABLE, "a writable"),
            (npyffi::NPY_ARRAY_C_CONTIGUOUS, "a C-contiguous"),
            (npyffi::NPY_ARRAY_ALIGNED, "an aligned"),
        ] {
            if fields.flags & flag == 0 {
                return Err(PyValueError::new_err(format!(
                    "{name}: expected {kind} array, got one that is not"
                )));
            }
        }
        let bytes = leading.iter().product::<usize>() * self.width;
        // SAFETY: an aligned array of so many bytes, which the caller keeps alive and lends to
        // nobody else.
        Ok(unsafe { slice_at(fields.data as usize, bytes / size_of::<T>()) })
    }
}

/// One number for all names of a dtype; none for what is no number.
fn canonical(type_num: c_int) -> Option<c_int> {
    let long = if size_of::<std::ffi::c_long>() == 8 {
        9
    } else {
        5
    };
    match type_num {
        0..=6 | 9..=12 | 23 => Some(type_num),
        7 => Some(long),
        8 => Some(long + 1),
        _ => None,
    }
}
