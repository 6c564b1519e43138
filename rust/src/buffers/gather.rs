//! Copies of rows at random places: what the processor does while it waits for memory.

#![allow(unsafe_code)]

/// Rows ahead of the copy that are being fetched into the cache.
const AHEAD: usize = 128;
/// How many rows of every column `fetch_first` asks for.
const FIRST: usize = 32;
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

    /// Number `i`.
    ///
    /// # Safety
    /// There are more than `i`.
    #[inline(always)]
    pub(super) unsafe fn at(self, i: usize) -> usize {
        // SAFETY: the caller's.
        unsafe { *self.numbers.get_unchecked(i) as usize }
    }

    /// # Panics
    /// If there may be a number that is not below `rows`.
    pub(super) fn check(self, rows: usize) {
        assert!(self.bound <= rows, "rows for the slots");
    }
}

/// [`fetch_first`] for [`gather_numbers`].
pub(super) fn fetch_first_numbers<T>(from: &[T], slots: Slots) {
    // SAFETY: no more are asked for than there are.
    let item = |i: usize| from.as_ptr().wrapping_add(unsafe { slots.at(i) });
    fetch_first(slots.len(), size_of::<T>(), |i| item(i).cast());
}

/// Write `from[slots[i]]` to `to[i]`, for all of them.
///
/// # Panics
/// If there is no such item, or `to` has another length than `slots`.
pub(super) fn gather_numbers<T: Copy>(from: &[T], slots: Slots, to: &mut [T]) {
    slots.check(from.len());
    assert_eq!(to.len(), slots.len(), "room for the numbers");
    let bytes = size_of_val(to);
    // SAFETY: the same memory; what is copied there are whole items.
    let out = unsafe { std::slice::from_raw_parts_mut(to.as_mut_ptr().cast(), bytes) };
    // SAFETY: items of the slice.
    let item = |i: usize| unsafe { from.as_ptr().add(slots.at(i)).cast() };
    // SAFETY: as above.
    unsafe { gather(slots.len(), size_of::<T>(), item, out) }
}

/// Ask for the first of the rows that `gather` is about to copy, so that the first rows of several
/// columns are on their way at once.
#[inline]
pub(super) fn fetch_first(count: usize, width: usize, row_at: impl Fn(usize) -> *const u8) {
    for i in 0..count.min(FIRST) {
        fetch(row_at(i), width);
    }
}

/// Write the `width` bytes at `row_at(i)` to the i-th `width` bytes of `out`, for all `count` of
/// them. The first of them should have been fetched.
///
/// # Panics
/// If `out` has another length than `count` rows.
///
/// # Safety
/// There are `width` bytes at `row_at(i)`.
#[inline]
pub(super) unsafe fn gather(
    count: usize,
    width: usize,
    row_at: impl Fn(usize) -> *const u8,
    out: &mut [u8],
) {
    assert_eq!(out.len(), count * width, "room for the rows");
    let to = out.as_mut_ptr();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") {
        // SAFETY: the processor has it, and there is room; the caller vouches for the rows.
        return unsafe { gather_by_avx(count, width, row_at, to) };
    }
    // SAFETY: as above.
    unsafe { by_width!(width, walk(count, width, row_at, to)) }
}

/// With registers of twice the size.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn gather_by_avx(
    count: usize,
    width: usize,
    row_at: impl Fn(usize) -> *const u8,
    to: *mut u8,
) {
    // SAFETY: the caller's.
    unsafe { by_width!(width, walk(count, width, row_at, to)) }
}

#[inline(always)]
unsafe fn walk(
    count: usize,
    width: usize,
    row_at: impl Fn(usize) -> *const u8,
    to: *mut u8,
    copy: impl Fn(*mut u8, *const u8, usize),
) {
    for i in FIRST..count.min(AHEAD) {
        fetch(row_at(i), width);
    }
    for i in 0..count {
        if i + AHEAD < count {
            fetch(row_at(i + AHEAD), width);
        }
        // SAFETY: `gather` has found room for all rows.
        copy(unsafe { to.add(i * width) }, row_at(i), width);
    }
}

/// Ask for the lines of `bytes` from an address on.
#[inline(always)]
fn fetch(address: *const u8, bytes: usize) {
    if matches!(bytes, 1 | 2 | 4 | 8) {
        return prefetch(address); // numbers lie in one line
    }
    let bytes = bytes.min(FETCHED);
    let mut offset = 0;
    while offset < bytes {
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
            for count in [0, 1, 31, 32, 33, 127, 128, 129, 200] {
                let mut out = vec![0; count * width];
                fetch_first(count, width, |i| row(i).as_ptr());
                // SAFETY: rows of that width.
                unsafe { gather(count, width, |i| row(i).as_ptr(), &mut out) };
                for (i, found) in out.chunks_exact(width).enumerate() {
                    assert_eq!(found, row(i), "width {width}, row {i} of {count}");
                }
            }
        }
    }
}
