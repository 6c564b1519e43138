//! Copies of rows at random places: what the processor does while it waits for memory.

#![allow(unsafe_code)]

/// Rows ahead of the copy that are being fetched into the cache.
const AHEAD: usize = 16;
/// Bytes of a row that are fetched ahead; the processor follows longer rows by itself.
const FETCHED: usize = 512;
const LINE: usize = 64;

/// Write row `row_at(i)` to the i-th `width` bytes of `out`, for all `count` of them.
///
/// # Panics
/// If `out` has another length than `count` rows, or a row another one than `width`.
pub(super) fn gather<'a>(
    count: usize,
    width: usize,
    row_at: impl Fn(usize) -> &'a [u8],
    out: &mut [u8],
) {
    assert_eq!(out.len(), count * width, "room for the rows");
    match width {
        1 => walk(count, width, row_at, out, |to, from| to[0] = from[0]),
        4 => walk(count, width, row_at, out, copy_exactly::<4>),
        8 => walk(count, width, row_at, out, copy_exactly::<8>),
        16..=256 => walk(count, width, row_at, out, copy_by_sixteens),
        _ => walk(count, width, row_at, out, <[u8]>::copy_from_slice),
    }
}

#[inline(always)]
fn walk<'a>(
    count: usize,
    width: usize,
    row_at: impl Fn(usize) -> &'a [u8],
    out: &mut [u8],
    copy: impl Fn(&mut [u8], &[u8]),
) {
    for i in 0..count.min(AHEAD) {
        fetch(row_at(i));
    }
    for (i, to) in out.chunks_exact_mut(width).enumerate() {
        if i + AHEAD < count {
            fetch(row_at(i + AHEAD));
        }
        copy(to, row_at(i));
    }
}

/// Ask for the lines of a row.
#[inline(always)]
fn fetch(row: &[u8]) {
    let mut offset = 0;
    while offset < row.len().min(FETCHED) {
        prefetch(&raw const row[offset]);
        offset += LINE;
    }
    if let Some(last) = row.get(..row.len().min(FETCHED)).and_then(<[u8]>::last) {
        prefetch(last);
    }
}

#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[inline(always)]
fn copy_exactly<const N: usize>(to: &mut [u8], from: &[u8]) {
    let row: &[u8; N] = from.try_into().expect("a row of the width");
    to.copy_from_slice(row);
}

/// A copy of at least 16 bytes without the call and the branches of `memcpy`: the last 16 bytes
/// may overlap those before them.
#[inline(always)]
fn copy_by_sixteens(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len(), "a row of the width");
    let blocks = from.as_chunks::<16>().0;
    for (to, block) in to.as_chunks_mut::<16>().0.iter_mut().zip(blocks) {
        *to = *block;
    }
    if let (Some(to), Some(last)) = (to.last_chunk_mut::<16>(), from.last_chunk::<16>()) {
        *to = *last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_width_arrive() {
        for width in (1..=40).chain([63, 64, 65, 255, 256, 257, 511, 513, 3000]) {
            let source: Vec<u8> = (0..width * 50).map(|i| (i * 7 % 251) as u8).collect();
            for count in [0, 1, 15, 16, 17, 40] {
                let row = |i: usize| i * 13 % 50;
                let mut out = vec![0; count * width];
                let row_at = |i| &source[row(i) * width..][..width];
                gather(count, width, row_at, &mut out);
                for (i, found) in out.chunks_exact(width).enumerate() {
                    assert_eq!(found, row_at(i), "width {width}, row {i} of {count}");
                }
            }
        }
    }
}
