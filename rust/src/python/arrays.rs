//! NumPy arrays as addresses, strides and type codes.
//!
//! The arrays' own structure is read directly: typed borrows of the numpy crate keep a table of
//! them, which costs more than a small call computes, and refuse mixed dtypes wholesale.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::ops::Range;
use std::slice;

use numpy::npyffi::{self, PyArrayObject, npy_intp};
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::ops::strided::{FlagKind, Layout};

/// Type codes of the boundary; the first four are types of values, all are types of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    F16 = 0,
    Bf16 = 1,
    F32 = 2,
    F64 = 3,
    Byte = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
}

impl Code {
    pub(super) fn from_int(code: usize) -> Option<Self> {
        use Code::{Bf16, Byte, F16, F32, F64, I16, I32, I64};
        [F16, Bf16, F32, F64, Byte, I16, I32, I64]
            .get(code)
            .copied()
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    pub(super) fn size(self) -> isize {
        match self {
            Self::Byte => 1,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Negative zero is not set, hence the masks without a sign bit.
    pub(super) fn flag_kind(self) -> FlagKind {
        match self {
            Self::Byte => FlagKind::Byte,
            Self::I16 => FlagKind::Two { mask: u16::MAX },
            Self::F16 | Self::Bf16 => FlagKind::Two {
                mask: i16::MAX as u16,
            },
            Self::I32 => FlagKind::Four { mask: u32::MAX },
            Self::F32 => FlagKind::Four {
                mask: i32::MAX as u32,
            },
            Self::I64 => FlagKind::Eight { mask: u64::MAX },
            Self::F64 => FlagKind::Eight {
                mask: i64::MAX as u64,
            },
        }
    }
}

/// A NumPy array of at most two dimensions; strides in bytes.
#[derive(Clone, Copy)]
pub(super) struct ArrayRef {
    /// `None` for a dtype that has none.
    pub(super) code: Option<Code>,
    pub(super) data: *mut u8,
    pub(super) ndim: usize,
    pub(super) shape: [usize; 2],
    pub(super) strides: [isize; 2],
    pub(super) writeable: bool,
}

impl ArrayRef {
    /// Look into the argument `name`.
    pub(super) fn new(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let array = object.cast::<PyUntypedArray>().map_err(|_| {
            let kind = kind_of(object);
            PyTypeError::new_err(format!("{name} must be a NumPy array, not {kind}"))
        })?;
        // SAFETY: a live array object, whose fields the GIL keeps still.
        let (fields, descr) = unsafe {
            let fields = &(*array.as_array_ptr()).fields;
            (fields, &(*fields.descr).fields)
        };
        if is_swapped(descr.byteorder) {
            return Err(PyTypeError::new_err(format!(
                "{name} must be in native byte order, not {}",
                dtype_of(object)
            )));
        }
        let ndim = fields.nd as usize;
        if ndim > 2 {
            return Err(PyValueError::new_err(format!(
                "{name} must have at most two dimensions, not shape {}",
                shape_of(object)
            )));
        }
        let (mut shape, mut strides) = ([1; 2], [0; 2]);
        for axis in 0..ndim {
            // SAFETY: both arrays hold `nd` numbers.
            unsafe {
                shape[axis] = *fields.dimensions.add(axis) as usize;
                strides[axis] = *fields.strides.add(axis);
            }
        }
        Ok(Self {
            code: code_of(descr.type_num),
            data: fields.data.cast(),
            ndim,
            shape,
            strides,
            writeable: fields.flags & npyffi::NPY_ARRAY_WRITEABLE != 0,
        })
    }

    /// The memory from the first to the last of the elements.
    pub(super) fn span(&self) -> Range<isize> {
        let layout = Layout {
            base: self.data,
            row_stride: self.strides[0],
            lane_stride: self.strides[1],
            rows: self.shape[0],
            lanes: self.shape[1],
        };
        // Other types have elements of at most so many bytes.
        layout.span(self.code.map_or(32, Code::size))
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape[..self.ndim]
    }
}

pub(super) fn is_swapped(byteorder: c_char) -> bool {
    let swapped = if cfg!(target_endian = "little") {
        b'>'
    } else {
        b'<'
    };
    byteorder as u8 == swapped
}

fn code_of(type_num: c_int) -> Option<Code> {
    const LONG: Code = if size_of::<std::ffi::c_long>() == 8 {
        Code::I64
    } else {
        Code::I32
    };
    match type_num {
        0..=2 => Some(Code::Byte),
        3 | 4 => Some(Code::I16),
        5 | 6 => Some(Code::I32),
        7 | 8 => Some(LONG),
        9 | 10 => Some(Code::I64),
        11 => Some(Code::F32),
        12 => Some(Code::F64),
        23 => Some(Code::F16),
        _ => None,
    }
}

/// Where the elements of an array begin; `__array_interface__` takes a microsecond to say it.
#[pyfunction]
#[pyo3(signature = (array, /))]
pub(super) fn array_address(array: &Bound<'_, PyUntypedArray>) -> usize {
    data_of(array) as usize
}

pub(super) fn data_of<T>(array: &Bound<'_, T>) -> *mut u8 {
    // SAFETY: a live array object, whose fields the GIL keeps still.
    unsafe { (*array.as_ptr().cast::<PyArrayObject>()).fields.data }.cast()
}

/// A C-contiguous array of any number of dimensions.
pub(super) struct Contiguous<'a> {
    pub(super) code: Code,
    pub(super) data: *mut u8,
    pub(super) shape: &'a [npy_intp],
}

impl<'a> Contiguous<'a> {
    /// Look into `object`; `None` unless it is an array of floats that arithmetic can run on.
    pub(super) fn new(object: &'a Bound<'_, PyAny>) -> Option<Self> {
        const NEEDED: c_int = npyffi::NPY_ARRAY_C_CONTIGUOUS | npyffi::NPY_ARRAY_ALIGNED;
        let array = object.cast::<PyUntypedArray>().ok()?;
        // SAFETY: a live array object, whose fields the GIL keeps still.
        let (fields, descr) = unsafe {
            let fields = &(*array.as_array_ptr()).fields;
            (fields, &(*fields.descr).fields)
        };
        let code = code_of(descr.type_num).filter(|code| code.is_float())?;
        let ndim = fields.nd as usize;
        if fields.flags & NEEDED != NEEDED || is_swapped(descr.byteorder) {
            return None;
        }
        let shape = if ndim == 0 {
            &[]
        } else {
            // SAFETY: as above; the array holds `nd` numbers.
            unsafe { slice::from_raw_parts(fields.dimensions, ndim) }
        };
        Some(Self {
            code,
            data: fields.data.cast(),
            shape,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.shape.iter().map(|&size| size as usize).product()
    }
}

/// `(5, 3)`, as Python writes it.
pub(super) fn show_shape(shape: &[usize]) -> String {
    match shape {
        [single] => format!("({single},)"),
        _ => format!("{shape:?}").replace('[', "(").replace(']', ")"),
    }
}

pub(super) fn shape_of(array: &Bound<'_, PyAny>) -> String {
    attribute(array, "shape")
}

pub(super) fn dtype_of(array: &Bound<'_, PyAny>) -> String {
    attribute(array, "dtype")
}

fn attribute(object: &Bound<'_, PyAny>, name: &str) -> String {
    object
        .getattr(name)
        .map_or_else(|_| "unknown".to_owned(), |value| value.to_string())
}

pub(super) fn is_array(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<PyUntypedArray>()
}

pub(super) fn kind_of(object: &Bound<'_, PyAny>) -> String {
    let name = object.get_type().name();
    name.map_or_else(|_| "this object".to_owned(), |name| name.to_string())
}
