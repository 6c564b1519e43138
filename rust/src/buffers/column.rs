//! Rows of equal width in one piece of memory.

#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
use std::ffi::{c_int, c_void};

use super::gather::gather;

/// `rows` rows of `width` bytes, zero at first.
pub struct Column {
    width: usize,
    rows: usize,
    /// Words, which the allocator hands out zeroed without touching them.
    memory: Vec<u64>,
}

impl Column {
    /// # Panics
    /// If the size is not addressable or there is no memory.
    #[must_use]
    pub fn new(rows: usize, width: usize) -> Self {
        let bytes = rows.checked_mul(width).expect("an addressable size");
        let mut memory = vec![0; bytes.div_ceil(size_of::<u64>())];
        ask_for_huge_pages(&mut memory);
        Self {
            width,
            rows,
            memory,
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
        // SAFETY: the words hold at least this many initialised bytes.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.rows * self.width) }
    }

    /// All rows, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.rows * self.width;
        // SAFETY: as above, and any bytes make words.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), bytes) }
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

    /// Write the rows at `slots` to `out`, one after the other.
    ///
    /// # Panics
    /// If there is no such row, or `out` has room for another number of them.
    pub(super) fn gather(&self, slots: &[u32], out: &mut [u8]) {
        let (rows, width) = (self.bytes().as_ptr(), self.width);
        let largest = slots.iter().copied().max();
        assert!(
            largest.is_none_or(|slot| (slot as usize) < self.rows),
            "rows of the column"
        );
        // SAFETY: rows of the column.
        unsafe {
            let row_at = |i: usize| rows.add(*slots.get_unchecked(i) as usize * width);
            gather(slots.len(), width, row_at, out);
        }
    }
}

/// Rows at random places miss the table of small pages more often than the caches: ask for pages
/// of two megabytes, which Linux may refuse.
fn ask_for_huge_pages(memory: &mut [u64]) {
    #[cfg(target_os = "linux")]
    {
        const HUGE_PAGE: usize = 1 << 21;
        const PAGE: usize = 1 << 12;
        const MADV_HUGEPAGE: c_int = 14;
        unsafe extern "C" {
            fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
        }
        let bytes = size_of_val(memory);
        if bytes >= 2 * HUGE_PAGE {
            let address = memory.as_mut_ptr() as usize;
            let start = address.next_multiple_of(PAGE);
            let length = (address + bytes - start) & !(PAGE - 1);
            // SAFETY: whole pages of this memory; the advice does not change their contents.
            unsafe { madvise(start as *mut c_void, length, MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_wrap_around() {
        let mut column = Column::new(5, 3);
        column.write(3, b"aaabbbcccddd");
        assert_eq!(column.bytes(), b"cccddd\0\0\0aaabbb");
        column.clear(4, 2);
        assert_eq!(column.bytes(), b"\0\0\0ddd\0\0\0aaa\0\0\0");
        let mut out = [9; 6];
        column.gather(&[3, 1], &mut out);
        assert_eq!(&out, b"aaaddd");
    }
}
