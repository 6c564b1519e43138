//! Random numbers of other shapes than the uniform, from words of Philox.
//!
//! Number `4 q + k` of a draw is made of the four words at index `q`. All arithmetic is additions,
//! multiplications, divisions and square roots in f32, in one fixed order and without fused
//! operations, so that every device gives the same bits.

use super::element::each;
use super::transcendental::Transcendental;
use crate::philox::{philox_lanes, stream};

/// Which numbers to draw: the seed is the key, the step a word of the counter.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    pub seed: u64,
    pub step: u32,
}

/// Indices whose words are computed side by side.
const LANES: usize = 16;

/// Standard Gumbel numbers; the first four are those of index `first`, and so on.
#[inline(always)]
pub fn gumbels(draw: Draw, first: u64, out: &mut [f32]) {
    for (block, chunk) in out.chunks_mut(4 * LANES).enumerate() {
        let words = words(draw, stream::CATEGORICAL, first + (block * LANES) as u64);
        let numbers: [f32; 4 * LANES] = each(|i| gumbel(words[i]));
        chunk.copy_from_slice(&numbers[..chunk.len()]);
    }
}

/// The words of `LANES` indices from `first` on, one index after the other.
#[inline(always)]
fn words(draw: Draw, stream: u32, first: u64) -> [u32; 4 * LANES] {
    let index = each(|lane| first.wrapping_add(lane as u64));
    let words = philox_lanes(&[draw.seed; LANES], &index, &[draw.step; LANES], stream);
    let mut ordered = [0; 4 * LANES];
    for lane in 0..LANES {
        for (k, word) in words.iter().enumerate() {
            ordered[4 * lane + k] = word[lane];
        }
    }
    ordered
}

/// A standard Gumbel number: `-ln` of an exponential one.
#[inline(always)]
fn gumbel(word: u32) -> f32 {
    -f32::ln_of(exponential(word))
}

/// An exponential number of mean one, between 2^-33 and 17: `-ln(1 - w)`, where `w` is the middle
/// of the word's cell among 2^32 in the unit interval.
///
/// Small numbers, which decide who wins a race of exponentials, keep all 32 bits of the word.
#[inline(always)]
fn exponential(word: u32) -> f32 {
    const CELL: f32 = 1.0 / 4_294_967_296.0;
    const BELOW_ONE: f32 = 1.0 - 1.0 / 16_777_216.0;
    let middle = (word as f32 + 0.5) * CELL;
    let w = if middle < BELOW_ONE {
        middle
    } else {
        BELOW_ONE
    };
    let rest = 1.0 - w;
    // What rounding took from `rest` is what matters where `rest` is close to one.
    (w - (1.0 - rest)) - f32::ln_of(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::philox;

    #[test]
    fn numbers_depend_on_their_index_alone() {
        let draw = Draw { seed: 9, step: 4 };
        let mut all = [0.0; 300];
        gumbels(draw, 7, &mut all);
        for (i, &number) in all.iter().enumerate() {
            let words = philox(9, 7 + i as u64 / 4, 4, stream::CATEGORICAL);
            assert_eq!(number, gumbel(words[i % 4]));
        }
    }

    #[test]
    fn exponentials_are_accurate_from_the_first_word_to_the_last() {
        let near = (0..1000).chain((0..1000).map(|i| u32::MAX - i));
        for word in near.chain((0..u32::MAX).step_by(65_537)) {
            let w = ((f64::from(word) + 0.5) / 4_294_967_296.0).min(1.0 - 2.0_f64.powi(-24));
            let exact = -(-w).ln_1p();
            let error = (f64::from(exponential(word)) - exact).abs() / exact;
            // The word itself is rounded to f32, which the far tail magnifies.
            let rounding = 1e-6 + 2.0_f64.powi(-24) / ((1.0 - w) * exact);
            assert!(error < rounding, "word {word}: off by {error}");
            assert!(gumbel(word).is_finite());
        }
    }
}
