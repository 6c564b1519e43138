//! Arrays for results, in memory that does not get in the way of what they are computed from.
//!
//! A processor tells loads and earlier stores apart by the lowest twelve bits of their addresses.
//! A result that is written a little behind where an input is read, but for whole pages, makes the
//! loads wait for stores that are none of theirs, which can double the time of an operation. So
//! long results have their place in a page chosen, away from the places of the inputs.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr;

use numpy::npyffi::{self, NPY_ARRAY_CARRAY, NPY_TYPES, PY_ARRAY_API, npy_intp};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::arrays::{Code, data_of};

const PAGE: usize = 4096;
/// Places that are tried; a multiple of a cache line.
const STEP: usize = 256;
/// Bytes by which loads run ahead of stores, at most.
const FETCHED: usize = 2048;
/// Bytes of a result from which its place is chosen.
const PLACED_FROM: usize = 4 * PAGE;

/// An array and the address of its first element.
pub(super) type Fresh<'py> = (Bound<'py, PyAny>, *mut u8);

/// A C-contiguous array whose elements are still to be written, away from what lies at `inputs`.
pub(super) fn empty<'py>(
    py: Python<'py>,
    shape: &[usize],
    code: Code,
    inputs: &[*const u8],
) -> PyResult<Fresh<'py>> {
    if bytes_of(shape, code) < PLACED_FROM {
        return anywhere(py, shape, code);
    }
    let block = Block::new(py, 1, shape, code, inputs)?;
    block.array(0, &mut dims_of(shape), code)
}

/// As [`empty`], for what is computed from front to back: a result that begins in its page where an
/// input does then waits for nothing, and arrays that come straight from the allocator often do.
pub(super) fn empty_in_order<'py>(
    py: Python<'py>,
    shape: &[usize],
    code: Code,
    inputs: &[*const u8],
) -> PyResult<Fresh<'py>> {
    let fresh = anywhere(py, shape, code)?;
    let waits = |input: &*const u8| {
        let ahead = (fresh.1 as usize).wrapping_sub(*input as usize) % PAGE;
        ahead != 0 && ahead <= FETCHED
    };
    if bytes_of(shape, code) >= PLACED_FROM && inputs.iter().any(waits) {
        drop(fresh);
        return empty(py, shape, code, inputs);
    }
    Ok(fresh)
}

/// Where the allocator puts it.
fn anywhere<'py>(py: Python<'py>, shape: &[usize], code: Code) -> PyResult<Fresh<'py>> {
    // SAFETY: fresh memory.
    let array = unsafe { new_array(py, &mut dims_of(shape), code, ptr::null_mut())? };
    let data = data_of(&array);
    Ok((array, data))
}

/// Two arrays as [`empty`] makes one, in one allocation.
///
/// Allocators give the end of their memory back to the system when two large blocks there have
/// been freed one after the other; the page faults of the next call can cost as much as its work.
pub(super) fn empty_pair<'py>(
    py: Python<'py>,
    shape: &[usize],
    code: Code,
    inputs: &[*const u8],
) -> PyResult<[Fresh<'py>; 2]> {
    let dims = &mut dims_of(shape);
    let block = Block::new(py, 2, shape, code, inputs)?;
    Ok([block.array(0, dims, code)?, block.array(1, dims, code)?])
}

/// One or two arrays of a shape and a type of values (of bfloat16 in the name of float16), away
/// from what lies at the addresses `inputs`.
#[pyfunction]
#[pyo3(signature = (count, shape, code, inputs, /))]
pub(super) fn empty_results<'py>(
    count: usize,
    shape: &Bound<'py, PyTuple>,
    code: usize,
    inputs: &Bound<'py, PyList>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let py = shape.py();
    let shape: Vec<usize> = shape.extract()?;
    let code = match Code::from_int(code) {
        Some(Code::Bf16) => Code::F16,
        Some(code) if code.is_float() => code,
        _ => {
            return Err(PyValueError::new_err(format!(
                "code must be 0 to 3, not {code}"
            )));
        }
    };
    let places = inputs
        .iter()
        .map(|place| Ok(place.extract::<usize>()? as *const u8));
    let places = places.collect::<PyResult<Vec<_>>>()?;
    match count {
        1 => Ok(vec![empty(py, &shape, code, &places)?.0]),
        2 => Ok(empty_pair(py, &shape, code, &places)?
            .map(|(array, _)| array)
            .into()),
        _ => Err(PyValueError::new_err(format!(
            "count must be 1 or 2, not {count}"
        ))),
    }
}

/// The memory of several arrays alike, which keep it alive.
struct Block<'py> {
    memory: Bound<'py, PyAny>,
    first: *mut u8,
    /// Bytes from one array to the next.
    stride: usize,
}

impl<'py> Block<'py> {
    fn new(
        py: Python<'py>,
        count: usize,
        shape: &[usize],
        code: Code,
        inputs: &[*const u8],
    ) -> PyResult<Self> {
        let bytes = bytes_of(shape, code);
        // Arrays whole pages apart have the same place in theirs.
        let (stride, slack) = if bytes < PLACED_FROM {
            (bytes, 0)
        } else {
            (bytes.next_multiple_of(PAGE), PAGE)
        };
        let elements = (count * stride + slack) / code.size() as usize;
        // SAFETY: fresh memory.
        let memory = unsafe { new_array(py, &mut [elements as npy_intp], code, ptr::null_mut())? };
        let start = data_of(&memory);
        let skipped = if slack == 0 {
            0
        } else {
            (place_beside(inputs) + PAGE - start as usize % PAGE) % PAGE
        };
        Ok(Self {
            memory,
            first: start.wrapping_add(skipped),
            stride,
        })
    }

    fn array(&self, index: usize, dims: &mut [npy_intp], code: Code) -> PyResult<Fresh<'py>> {
        let py = self.memory.py();
        let data = self.first.wrapping_add(index * self.stride);
        // SAFETY: the elements lie in `memory`, which the new array keeps alive; the call takes
        // over a reference to it.
        unsafe {
            let array = new_array(py, dims, code, data)?;
            let base = self.memory.clone().into_ptr();
            if PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_ptr().cast(), base) < 0 {
                return Err(PyErr::fetch(py));
            }
            Ok((array, data))
        }
    }
}

/// The place in a page, of those tried, that is the furthest from those of all inputs.
fn place_beside(inputs: &[*const u8]) -> usize {
    let room = |place: usize| {
        let apart = inputs.iter().map(|&input| {
            let ahead = (place + PAGE - input as usize % PAGE) % PAGE;
            ahead.min(PAGE - ahead)
        });
        apart.min()
    };
    (0..PAGE)
        .step_by(STEP)
        .max_by_key(|&place| room(place))
        .unwrap_or(0)
}

fn bytes_of(shape: &[usize], code: Code) -> usize {
    shape.iter().product::<usize>() * code.size() as usize
}

fn dims_of(shape: &[usize]) -> Vec<npy_intp> {
    shape.iter().map(|&size| size as npy_intp).collect()
}

/// A C-contiguous array over `data`, or over fresh memory if that is null.
///
/// # Safety
/// `data` is null or holds the elements for as long as the array lives.
unsafe fn new_array<'py>(
    py: Python<'py>,
    dims: &mut [npy_intp],
    code: Code,
    data: *mut u8,
) -> PyResult<Bound<'py, PyAny>> {
    let type_num = match code {
        Code::F16 => NPY_TYPES::NPY_HALF,
        Code::F32 => NPY_TYPES::NPY_FLOAT,
        _ => NPY_TYPES::NPY_DOUBLE,
    };
    // Of fresh memory any flag asks for Fortran's order.
    let flags = if data.is_null() { 0 } else { NPY_ARRAY_CARRAY };
    // SAFETY: `dims` holds as many sizes as are announced; a null pointer comes back with an
    // exception set.
    unsafe {
        let array = PY_ARRAY_API.PyArray_New(
            py,
            npyffi::get_type_object(py, npyffi::NpyTypes::PyArray_Type),
            dims.len() as c_int,
            dims.as_mut_ptr(),
            type_num as c_int,
            ptr::null_mut(),
            data.cast(),
            0,
            flags,
            ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(py, array)
    }
}
