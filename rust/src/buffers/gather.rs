//! Copies of rows at random places, and what the processor does while it waits for memory.

#![allow(unsafe_code)]

use std::ops::Range;

/// Rows that are on their way while those before them are copied: few enough to stay in the cache,
/// many enough to wait for memory together.
pub(super) const BLOCK: usize = 64;
/// Bytes of a row that are fetched ahead; the processor follows longer rows by itself.
const FETCHED: usize = 512;
const LINE: usize = 64;

/// Call a function with what copies rows of `width` bytes as its last argument.
macro_rules! by_width {
    ($width:expr, $walk:ident($($argument:expr),*)) => {
        match ($width, $width / 16) {
            (1, _) => $walk($($argument,)* copy_exactly::<1>),
            (4, _) => $walk($($argument,)* copy_exactly::<4>),
            (8, _) => $walk($($argument,)* copy_exactly::<8>),
            (_, 1) => $walk($($argument,)* copy_sixteens::<1>),
            (_, 2) => $walk($($argument,)* copy_sixteens::<2>),
            (_, 3) => $walk($($argument,)* copy_sixteens::<3>),
            (_, 4) => $walk($($argument,)* copy_sixteens::<4>),
            (_, 5) => $walk($($argument,)* copy_sixteens::<5>),
            (_, 6) => $walk($($argument,)* copy_sixteens::<6>),
            (_, 7) => $walk($($argument,)* copy_sixteens::<7>),
            (_, 8..=16) => $walk($($argument,)* copy_by_sixteens),
            _ => $walk($($argument,)* copy_any),
        }
    };
}

/// Numbers of rows, each found to be below `bound`.
#[derive(Clone, Copy)]
pub(super) struct Slots<'a> {
    numbers: &'a [u32],
    bound: usize,
}

impl<'a> Slots<'a> {
    /// # Panics
    /// If a number is not below `bound`.
    pub(super) fn new(numbers: &'a [u32], bound: usize) -> Self {
        let largest = numbers.iter().copied().max();
        assert!(largest.is_none_or(|x| (x as usize) < bound), "a slot");
        Self { numbers, bound }
    }

    pub(super) fn len(self) -> usize {
        self.numbers.len()
    }

    /// Some of the numbers.
    ///
    /// # Panics
    /// If there are no such ones.
    pub(super) fn part(self, range: Range<usize>) -> Self {
        Self {
            numbers: &self.numbers[range],
            bound: self.bound,
        }
    }

    /// Number `i`.
    #[inline(always)]
    pub(super) fn at(self, i: usize) -> usize {
        self.numbers[i] as usize
    }

    /// # Panics
    /// If there may be a number that is not below `rows`.
    pub(super) fn check(self, rows: usize) {
        assert!(self.bound <= rows, "rows for the slots");
    }
}

/// Copy the `width` bytes at `from(i)` to `to(i)`, for all `count` of them.
///
/// # Safety
/// There are `width` bytes at both, and none of those that are written is another row's.
#[inline]
pub(super) unsafe fn copy_rows(
    count: usize,
    width: usize,
    from: impl Fn(usize) -> *const u8,
    to: impl Fn(usize) -> *mut u8,
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") {
        // SAFETY: the processor has it; the caller vouches for the rows.
        return unsafe { copy_by_avx(count, width, from, to) };
    }
    by_width!(width, walk(count, width, from, to));
}

/// With registers of twice the size.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn copy_by_avx(
    count: usize,
    width: usize,
    from: impl Fn(usize) -> *const u8,
    to: impl Fn(usize) -> *mut u8,
) {
    by_width!(width, walk(count, width, from, to));
}

#[inline(always)]
fn walk(
    count: usize,
    width: usize,
    from: impl Fn(usize) -> *const u8,
    to: impl Fn(usize) -> *mut u8,
    copy: impl Fn(*mut u8, *const u8, usize),
) {
    for i in 0..count {
        copy(to(i), from(i), width);
    }
}

/// Ask for the lines of `bytes` from an address on.
#[inline(always)]
pub(super) fn fetch(address: *const u8, bytes: usize) {
    // The last byte's line holds its word's other bytes too.
    const WORD: usize = 4;
    let bytes = bytes.min(FETCHED);
    let mut offset = 0;
    while offset + WORD < bytes {
        prefetch(address.wrapping_add(offset));
        offset += LINE;
    }
    prefetch(address.wrapping_add(bytes.saturating_sub(1)));
}

/// Into the second cache, not the first, which waits for few lines at a time.
#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[inline(always)]
fn copy_exactly<const N: usize>(to: *mut u8, from: *const u8, _: usize) {
    // SAFETY: `by_width` calls this for rows of `N` bytes.
    unsafe { to.copy_from_nonoverlapping(from, N) };
}

/// A copy of `N` times 16 bytes and up to 15 more, without a branch: the last 16 bytes may overlap
/// those before them.
#[inline(always)]
fn copy_sixteens<const N: usize>(to: *mut u8, from: *const u8, width: usize) {
    // SAFETY: `by_width` calls this for rows of `16 * N` to `16 * N + 15` bytes.
    unsafe {
        to.cast::<[u8; 16]>()
            .copy_from_nonoverlapping(from.cast(), N);
        copy_exactly::<16>(to.add(width - 16), from.add(width - 16), 16);
    }
}

/// The same for more of them, without the call and the branches of `memcpy`.
#[inline(always)]
fn copy_by_sixteens(to: *mut u8, from: *const u8, width: usize) {
    for offset in (0..width - 15).step_by(16) {
        // SAFETY: `by_width` calls this for rows of at least 16 bytes.
        unsafe { copy_exactly::<16>(to.add(offset), from.add(offset), 16) };
    }
    // SAFETY: as above.
    unsafe { copy_exactly::<16>(to.add(width - 16), from.add(width - 16), 16) };
}

#[inline(always)]
fn copy_any(to: *mut u8, from: *const u8, width: usize) {
    // SAFETY: rows of `width` bytes.
    unsafe { to.copy_from_nonoverlapping(from, width) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_width_arrive() {
        for width in (1..=40).chain([63, 64, 65, 127, 128, 255, 256, 257, 511, 513, 3000]) {
            let source: Vec<u8> = (0..width * 50).map(|i| (i * 7 % 251) as u8).collect();
            let row = |i: usize| &source[i * 13 % 50 * width..][..width];
            // What lies between the rows stays.
            let stride = width + 3;
            for count in [0, 1, 31, 200] {
                let mut out = vec![255; count * stride];
                let to = out.as_mut_ptr();
                (0..count).for_each(|i| fetch(row(i).as_ptr(), width));
                // SAFETY: rows of that width, and room for them.
                unsafe {
                    copy_rows(
                        count,
                        width,
                        |i| row(i).as_ptr(),
                        |i| to.wrapping_add(i * stride),
                    );
                }
                for (i, found) in out.chunks_exact(stride).enumerate() {
                    assert_eq!(found[..width], *row(i), "width {width}, row {i} of {count}");
                    assert_eq!(found[width..], [255; 3]);
                }
            }
        }
    }
}
