//! Rows of equal width in one piece of memory.

#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
use std::ffi::{c_int, c_void};

/// `rows` rows of `width` bytes, zero at first.
pub(super) struct Table {
    width: usize,
    rows: usize,
    /// Words, which the allocator hands out zeroed without touching them.
    memory: Vec<u64>,
    /// The first word that is used.
    start: usize,
}

impl Table {
    /// # Panics
    /// If the size is not addressable or there is no memory.
    pub(super) fn new(rows: usize, width: usize) -> Self {
        let bytes = rows.checked_mul(width).expect("an addressable size");
        let (memory, start) = zeros(bytes);
        Self {
            width,
            rows,
            memory,
            start,
        }
    }

    /// How many there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// All rows, one after the other.
    pub(super) fn bytes(&self) -> &[u8] {
        let first = self.memory[self.start..].as_ptr();
        // SAFETY: the words from there on hold at least this many initialised bytes.
        unsafe { std::slice::from_raw_parts(first.cast(), self.rows * self.width) }
    }

    /// All rows, to be written.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.rows * self.width;
        let first = self.memory[self.start..].as_mut_ptr();
        // SAFETY: as above, and any bytes make words.
        unsafe { std::slice::from_raw_parts_mut(first.cast(), bytes) }
    }

    #[inline]
    pub(super) fn row(&self, index: u32) -> &[u8] {
        &self.bytes()[index as usize * self.width..][..self.width]
    }

    #[inline]
    pub(super) fn row_mut(&mut self, index: usize) -> &mut [u8] {
        let width = self.width;
        &mut self.bytes_mut()[index * width..][..width]
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
        let mut table = Table::new(rows, width);
        assert_eq!(table.bytes().len(), rows * width);
        assert!(table.bytes().iter().all(|&x| x == 0));
        table.bytes_mut().fill(3);
        assert_eq!(table.row(100_002), [3; 84]);
    }
}
