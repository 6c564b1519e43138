//! Rows of memory as slices.

use std::marker::PhantomData;
use std::slice;

use super::Layout;

/// Rows that can be read as slices.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    pub(super) layout: Layout,
    pub(super) lifetime: PhantomData<&'a [T]>,
}

impl<'a, T> Rows<'a, T> {
    /// The rows of a buffer in which each takes `width` elements.
    pub fn of_buffer(buffer: &'a [T], width: usize) -> Self {
        Self {
            layout: buffer_layout(buffer.as_ptr(), buffer.len(), width),
            lifetime: PhantomData,
        }
    }

    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [T] {
        assert!(row < self.layout.rows);
        // SAFETY: the layout covers memory that may be read for 'a, its rows are slices of
        // aligned elements, and `row` is in range.
        unsafe { slice::from_raw_parts(self.layout.address(row, 0).cast(), self.layout.lanes) }
    }
}

impl<'a, T> Rows<'a, T> {
    /// All elements, where one row follows the other.
    #[inline(always)]
    pub fn flat(&self) -> Option<&'a [T]> {
        let Layout { rows, lanes, .. } = self.layout;
        // SAFETY: as in `row`, and nothing lies between the rows.
        self.layout.is_flat(size_of::<T>()).then(|| unsafe {
            slice::from_raw_parts(self.layout.address(0, 0).cast(), rows * lanes)
        })
    }
}

/// Rows that can be written as slices.
pub struct RowsMut<'a, T> {
    pub(super) layout: Layout,
    pub(super) lifetime: PhantomData<&'a mut [T]>,
}

impl<'a, T> RowsMut<'a, T> {
    /// The rows of a buffer in which each takes `width` elements.
    pub fn of_buffer(buffer: &'a mut [T], width: usize) -> Self {
        Self {
            layout: buffer_layout(buffer.as_mut_ptr(), buffer.len(), width),
            lifetime: PhantomData,
        }
    }

    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.layout.rows);
        // SAFETY: as in `Rows::row`; the memory is borrowed mutably for 'a, and the result
        // borrows `self`, so that one row exists at a time.
        unsafe { slice::from_raw_parts_mut(self.layout.address(row, 0).cast(), self.layout.lanes) }
    }
}

impl<T> RowsMut<'_, T> {
    /// All elements, where one row follows the other.
    #[inline(always)]
    pub fn flat(&mut self) -> Option<&mut [T]> {
        let Layout { rows, lanes, .. } = self.layout;
        // SAFETY: as in `row`, and nothing lies between the rows.
        self.layout.is_flat(size_of::<T>()).then(|| unsafe {
            slice::from_raw_parts_mut(self.layout.address(0, 0).cast(), rows * lanes)
        })
    }
}

pub(super) fn buffer_layout<T>(base: *const T, length: usize, width: usize) -> Layout {
    Layout {
        base: base.cast_mut().cast(),
        row_stride: (width * size_of::<T>()) as isize,
        lane_stride: size_of::<T>() as isize,
        rows: length / width,
        lanes: width,
    }
}
