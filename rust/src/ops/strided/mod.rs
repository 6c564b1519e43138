//! Arrays in foreign memory with any strides: the one place that reads and writes raw addresses.
//!
//! Whoever builds a [`Source`], [`FlagSource`] or [`Sink`] vouches for the memory; from then on all
//! access is checked against the shape, and two sinks never reach the same element.

#![allow(unsafe_code)]

mod flags;
mod rows;
mod values;

use std::ops::Range;
use std::ptr;

pub use flags::{FlagKind, FlagSource};
pub use rows::{Rows, RowsMut};
pub use values::{Sink, Source};

/// Where the elements of an array `[rows, lanes]` lie: address and strides in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub base: *mut u8,
    pub row_stride: isize,
    pub lane_stride: isize,
    pub rows: usize,
    pub lanes: usize,
}

impl Layout {
    #[inline]
    fn part(self, rows: Range<usize>, lanes: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        assert!(lanes.start <= lanes.end && lanes.end <= self.lanes);
        Self {
            base: self.address(rows.start, lanes.start),
            rows: rows.len(),
            lanes: lanes.len(),
            ..self
        }
    }

    /// One number in all places.
    pub fn constant<T>(number: &T, rows: usize, lanes: usize) -> Self {
        Self {
            base: ptr::from_ref(number).cast_mut().cast(),
            row_stride: 0,
            lane_stride: 0,
            rows,
            lanes,
        }
    }

    /// The last row first.
    pub fn reversed(self) -> Self {
        Self {
            base: self.address(self.rows.max(1) - 1, 0),
            row_stride: -self.row_stride,
            ..self
        }
    }

    pub fn transposed(self) -> Self {
        Self {
            row_stride: self.lane_stride,
            lane_stride: self.row_stride,
            rows: self.lanes,
            lanes: self.rows,
            ..self
        }
    }

    /// Whether two elements of `size` bytes may share memory; true also for some strange strides
    /// with which none do.
    pub fn overlaps_itself(&self, size: isize) -> bool {
        let mut axes = [(self.row_stride, self.rows), (self.lane_stride, self.lanes)]
            .map(|(stride, count)| (stride.abs(), count as isize));
        axes.sort_unstable();
        let mut extent = size;
        for (stride, count) in axes.into_iter().filter(|&(_, count)| count != 1) {
            if count > 0 && stride < extent {
                return true;
            }
            extent += stride * (count - 1);
        }
        false
    }

    /// The addresses from the first byte of any element to behind the last one of any.
    pub fn span(&self, size: isize) -> Range<isize> {
        let (mut start, mut end) = (self.base as isize, self.base as isize + size);
        for (stride, count) in [(self.row_stride, self.rows), (self.lane_stride, self.lanes)] {
            let reach = stride * (count as isize - 1).max(0);
            start += reach.min(0);
            end += reach.max(0);
        }
        start..end
    }

    /// Where an element lies.
    #[inline(always)]
    pub fn address(&self, row: usize, lane: usize) -> *mut u8 {
        let offset = row as isize * self.row_stride + lane as isize * self.lane_stride;
        self.base.wrapping_offset(offset)
    }

    /// Whether the elements of a row, of `size` bytes, lie side by side.
    #[inline(always)]
    fn is_dense(&self, size: usize) -> bool {
        self.lanes <= 1 || self.lane_stride == size as isize
    }

    /// Whether each row of dense elements of `size` bytes starts where the one before ends.
    #[inline(always)]
    fn is_flat(&self, size: usize) -> bool {
        self.rows <= 1 || self.row_stride == (self.lanes * size) as isize
    }

    /// Whether every row can be used as a slice of elements of `size` bytes.
    #[inline(always)]
    fn has_slices(&self, size: usize, align: usize) -> bool {
        self.is_dense(size)
            && (self.base as usize).is_multiple_of(align)
            && (self.rows <= 1 || self.row_stride.unsigned_abs().is_multiple_of(align))
    }
}
