//! Rows of equal width in one piece of memory.

#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
use std::ffi::{c_int, c_void};

use super::gather::{Slots, fetch_first, gather};

/// `rows` rows of `width` bytes, zero at first.
pub struct Column {
    width: usize,
    rows: usize,
    /// Words, which the allocator hands out zeroed without touching them.
    memory: Vec<u64>,
    /// The first word that is used.
    start: usize,
}

impl Column {
    /// # Panics
    /// If the size is not addressable or there is no memory.
    #[must_use]
    pub fn new(rows: usize, width: usize) -> Self {
        let bytes = rows.checked_mul(width).expect("an addressable size");
        let (memory, start) = zeros(bytes);
        Self {
            width,
            rows,
            memory,
            start,
        }
    }

    /// Bytes of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// All rows, one after the other.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let first = self.memory[self.start..].as_ptr();
        // SAFETY: the words from there on hold at least this many initialised bytes.
        unsafe { std::slice::from_raw_parts(first.cast(), self.rows * self.width) }
    }

    /// All rows, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.rows * self.width;
        let first = self.memory[self.start..].as_mut_ptr();
        // SAFETY: as above, and any bytes make words.
        unsafe { std::slice::from_raw_parts_mut(first.cast(), bytes) }
    }

    #[inline]
    #[must_use]
    pub fn row(&self, index: u32) -> &[u8] {
        &self.bytes()[index as usize * self.width..][..self.width]
    }

    #[inline]
    pub(super) fn row_mut(&mut self, index: usize) -> &mut [u8] {
        let width = self.width;
        &mut self.bytes_mut()[index * width..][..width]
    }

    /// Write `rows` from `slot` on, and what does not fit there from the first row on.
    pub(super) fn write(&mut self, slot: usize, rows: &[u8]) {
        let at = slot * self.width;
        let bytes = self.bytes_mut();
        let (here, wrapped) = rows.split_at(rows.len().min(bytes.len() - at));
        bytes[at..at + here.len()].copy_from_slice(here);
        bytes[..wrapped.len()].copy_from_slice(wrapped);
    }

    /// Write zeros in the same way.
    pub(super) fn clear(&mut self, slot: usize, count: usize) {
        let (at, length) = (slot * self.width, count * self.width);
        let bytes = self.bytes_mut();
        let here = length.min(bytes.len() - at);
        bytes[at..at + here].fill(0);
        bytes[..length - here].fill(0);
    }

    /// Ask for the first of the rows that will be gathered.
    pub(super) fn fetch_first(&self, slots: Slots) {
        fetch_first(slots.len(), self.width, self.row_at(slots));
    }

    /// Write the rows at `slots` to `out`, one after the other.
    ///
    /// # Panics
    /// If there may be no such row, or `out` has room for another number of them.
    pub(super) fn gather(&self, slots: Slots, out: &mut [u8]) {
        slots.check(self.rows);
        // SAFETY: rows of the column.
        unsafe { gather(slots.len(), self.width, self.row_at(slots), out) };
    }

    /// Where the row of each slot begins.
    fn row_at(&self, slots: Slots) -> impl Fn(usize) -> *const u8 {
        let (rows, width) = (self.bytes().as_ptr(), self.width);
        // SAFETY: `gather` and `fetch_first` ask for no more than there are.
        move |i| rows.wrapping_add(unsafe { slots.at(i) } * width)
    }
}

/// Words for so many bytes, zero, and which of them is the first one.
///
/// Rows at random places miss the table of small pages more often than the caches. So long memory
/// begins and ends with pages of two megabytes, if Linux grants them.
fn zeros(bytes: usize) -> (Vec<u64>, usize) {
    const WORD: usize = size_of::<u64>();
    const HUGE_PAGE: usize = 1 << 21;
    if bytes < 2 * HUGE_PAGE {
        return (vec![0; bytes.div_ceil(WORD)], 0);
    }
    let pages = bytes.div_ceil(HUGE_PAGE) * HUGE_PAGE;
    let mut memory = vec![0_u64; (pages + HUGE_PAGE) / WORD];
    let skipped = memory.as_ptr().align_offset(HUGE_PAGE);
    ask_for_huge_pages(&mut memory[skipped..skipped + pages / WORD]);
    (memory, skipped)
}

/// Of memory that consists of whole ones.
fn ask_for_huge_pages(memory: &mut [u64]) {
    #[cfg(target_os = "linux")]
    {
        const MADV_HUGEPAGE: c_int = 14;
        unsafe extern "C" {
            fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
        }
        // SAFETY: whole pages of this memory; the advice does not change their contents.
        unsafe {
            madvise(
                memory.as_mut_ptr().cast(),
                size_of_val(memory),
                MADV_HUGEPAGE,
            )
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_memory_is_whole() {
        let (rows, width) = (100_003, 84);
        let mut column = Column::new(rows, width);
        assert_eq!(column.bytes().len(), rows * width);
        assert!(column.bytes().iter().all(|&x| x == 0));
        column.bytes_mut().fill(3);
        assert_eq!(column.row(100_002), [3; 84]);
    }

    #[test]
    fn writes_wrap_around() {
        let mut column = Column::new(5, 3);
        column.write(3, b"aaabbbcccddd");
        assert_eq!(column.bytes(), b"cccddd\0\0\0aaabbb");
        column.clear(4, 2);
        assert_eq!(column.bytes(), b"\0\0\0ddd\0\0\0aaa\0\0\0");
        let mut out = [9; 6];
        column.gather(Slots::new(&[3, 1], 4), &mut out);
        assert_eq!(&out, b"aaaddd");
    }
}
