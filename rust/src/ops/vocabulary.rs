//! Rows of a vocabulary: worked on block by block, and shared among threads.
//!
//! The maximum of a row is not known before its end: sums are formed block by block against the
//! largest logit so far and scaled down when a block brings a larger one (Milakov and Gimelshein,
//! "Online normalizer calculation for softmax", 2018, arXiv 1805.02867). A block stays in the
//! first-level cache between the search for its maximum and its sums, so that memory is read once.

use super::element::{Real, each, lanes};
use super::registers::{self, Task};
use crate::pool::{self, PoolError};

/// Logits of a block: 8 KiB of `f32`.
pub const BLOCK: usize = 2048;
/// Independent sums, the same for all instruction sets so that they give the same bits.
pub const LANES: usize = 32;
/// Logits from which the rows are shared among threads.
const SHARE_FROM: usize = 1 << 16;
/// `e` to this is zero in every type, and unlike negative infinity it can be multiplied by zero.
pub const FLOOR: f64 = -1e4;

/// How many rows a thread takes at once.
///
/// # Errors
/// Those of [`pool::current`], for work that is shared among threads.
pub fn rows_per_share(rows: usize, vocabulary: usize) -> Result<usize, PoolError> {
    if rows * vocabulary < SHARE_FROM {
        return Ok(rows.max(1));
    }
    // Several shares for each thread: rows are not all equally far away.
    Ok(rows.div_ceil(4 * pool::current()?.num_threads()).max(1))
}

/// Run all shares, several on as many threads as there are.
///
/// # Errors
/// As [`rows_per_share`].
pub fn share_out<T: Task + Send>(mut shares: Vec<T>) -> Result<(), PoolError> {
    match shares.len() {
        0 => {}
        1 => registers::run(shares.remove(0)),
        _ => pool::current()?.for_each_item(shares, registers::run),
    }
    Ok(())
}

/// The whole lanes of a block, and the rest of it filled up with excluded tokens.
#[inline(always)]
pub fn padded<R: Real>(block: &[R]) -> (&[R], [R; LANES]) {
    let (whole, rest) = block.split_at(block.len() / LANES * LANES);
    let mut padded = [R::NEG_INFINITY; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    (whole, padded)
}

/// The largest number; NaN is passed over, the sums show it.
#[inline(always)]
pub fn largest<R: Real>(whole: &[R], mut found: [R; LANES]) -> R {
    for start in (0..whole.len()).step_by(LANES) {
        let block = lanes::<R, LANES>(whole, start);
        found = each(|lane| larger(block[lane], found[lane]));
    }
    found.into_iter().fold(R::NEG_INFINITY, |a, b| larger(b, a))
}

/// The larger number, `b` if there is a NaN.
#[inline(always)]
pub fn larger<R: Real>(a: R, b: R) -> R {
    if a > b { a } else { b }
}

/// What exponentials are taken against; while all is negative infinity any number will do.
#[inline(always)]
pub fn origin<R: Real>(max: R) -> R {
    if max > R::NEG_INFINITY { max } else { R::ZERO }
}

/// The sum, by halves.
#[inline(always)]
pub fn total<R: Real>(mut lanes: [R; LANES]) -> R {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] = lanes[lane] + lanes[lane + width];
        }
    }
    lanes[0]
}
