//! Counter-based random arrays: uniform numbers and permutations.
//!
//! # The permutation
//!
//! `p` is a balanced Feistel network over `2h` bits, `h` the smallest number of at least 1 with
//! `2^(2h) >= n`, made a permutation of `0..n` by cycle walking (Black and Rogaway, "Ciphers with
//! arbitrary finite domains", CT-RSA 2002). All arithmetic is on 32-bit words:
//!
//! ```text
//! key[r]     = word r % 4 of philox(seed, r / 4, step, PERMUTATION)         r = 0 .. ROUNDS - 1
//! mix(x)     : x ^= x >> 16;  x *= 0x7FEB352D;  x ^= x >> 15;  x *= 0x846CA68B;  x ^= x >> 16
//! network(x) : left = x >> h;  right = x & (2^h - 1)
//!              for r in 0 .. ROUNDS:
//!                  (left, right) = (right, left ^ (mix(right ^ key[r]) & (2^h - 1)))
//!              left << h | right
//! p(i)       : x = network(i);  while x >= n: x = network(x);  x
//! ```
//!
//! Philox gives only the keys: its ten rounds of wide multiplications for each of the eight
//! Feistel rounds would cost ten times as much, and `mix` already flips every output bit with
//! probability one half, to a few parts in a thousand, when any input bit flips ("lowbias32" of
//! C. Wellons, "Prospecting for hash functions", 2018).

use crate::philox::{philox, stream, unit_f32};

/// Feistel rounds of [`permutation`].
pub const ROUNDS: usize = 8;

/// Fill `out` with uniform numbers in [0, 1): element i is word `i % 4` of
/// `philox(seed, i / 4, step, stream)`.
pub fn uniform(out: &mut [f32], seed: u64, step: u32, stream: u32) {
    for (index, chunk) in out.chunks_mut(4).enumerate() {
        let words = philox(seed, index as u64, step, stream);
        for (slot, word) in chunk.iter_mut().zip(words) {
            *slot = unit_f32(word);
        }
    }
}

/// A permutation of `0..count`, a pure function of (count, seed, step).
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    last: u32,
    half_bits: u32,
    keys: [u32; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..count` for `(seed, step)`.
    ///
    /// # Panics
    /// If `count` is 0 or above 2^32.
    #[must_use]
    pub fn new(count: u64, seed: u64, step: u32) -> Self {
        assert!((1..=1 << 32).contains(&count), "count out of range");
        let last = (count - 1) as u32;
        let bits = u32::BITS - last.leading_zeros();
        let mut keys = [0; ROUNDS];
        for (index, quad) in keys.chunks_mut(4).enumerate() {
            quad.copy_from_slice(&philox(seed, index as u64, step, stream::PERMUTATION));
        }
        Self {
            last,
            half_bits: bits.div_ceil(2).max(1),
            keys,
        }
    }

    /// Where index `i` goes.
    #[inline]
    #[must_use]
    pub fn at(&self, i: u32) -> u32 {
        let mut x = self.network(i);
        while x > self.last {
            x = self.network(x);
        }
        x
    }

    #[inline]
    fn network(&self, x: u32) -> u32 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

#[inline]
fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7FEB_352D);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846C_A68B);
    x ^ x >> 16
}

/// Fill `out` with the permutation of `0..out.len()` for `(seed, step)`.
///
/// # Panics
/// If `out` is longer than 2^32.
pub fn permutation(out: &mut [i64], seed: u64, step: u32) {
    if out.is_empty() {
        return;
    }
    let permutation = Permutation::new(out.len() as u64, seed, step);
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = i64::from(permutation.at(i as u32));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permuted(count: usize, step: u32) -> Vec<i64> {
        let mut out = vec![-1; count];
        permutation(&mut out, 7, step);
        out
    }

    #[test]
    fn uniform_is_philox_word_by_word() {
        let mut out = [0.0; 11];
        uniform(&mut out, 3, 5, stream::ACTION);
        for (i, &u) in out.iter().enumerate() {
            let words = philox(3, i as u64 / 4, 5, stream::ACTION);
            assert_eq!(u, unit_f32(words[i % 4]));
        }
    }

    #[test]
    fn permutation_hits_every_index_once() {
        for count in [
            0, 1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 1000, 4096, 4097, 100_003,
        ] {
            let mut out = permuted(count, 1);
            out.sort_unstable();
            assert!(out.iter().copied().eq(0..count as i64), "count {count}");
        }
    }

    #[test]
    fn permutation_of_the_largest_count_is_defined() {
        let largest = Permutation::new(1 << 32, 0, 0);
        assert_eq!(largest.half_bits, 16);
        assert_ne!(largest.at(0), largest.at(u32::MAX));
    }

    // Where an index goes, over many steps, is uniform: chi-square below the 1e-6 quantile.
    #[test]
    fn positions_are_uniform_over_steps() {
        for (count, bound) in [
            (2_usize, 24.0),
            (3, 27.7),
            (5, 33.4),
            (16, 60.0),
            (100, 177.0),
        ] {
            let steps = 200 * count as u32;
            let mut counts = vec![vec![0.0_f64; count]; count];
            for step in 0..steps {
                for (i, &p) in permuted(count, step).iter().enumerate() {
                    counts[i][p as usize] += 1.0;
                }
            }
            for (i, row) in counts.iter().enumerate() {
                let chi2: f64 = row.iter().map(|c| (c - 200.0).powi(2) / 200.0).sum();
                assert!(chi2 < bound, "count {count}, index {i}: chi2 {chi2}");
            }
        }
    }

    // Neighbours stay neighbours no more often than in a random permutation: 2 (n - 1) / n times.
    #[test]
    fn neighbours_part() {
        let total: usize = (0..2000)
            .map(|step| {
                let pairs = permuted(100, step);
                pairs
                    .windows(2)
                    .filter(|w| (w[0] - w[1]).abs() == 1)
                    .count()
            })
            .sum();
        let mean = total as f64 / 2000.0;
        assert!((mean - 1.98).abs() < 0.2, "mean {mean}");
    }

    #[test]
    fn all_orders_of_three_are_equally_frequent() {
        let mut counts = std::collections::HashMap::new();
        for step in 0..6000 {
            *counts.entry(permuted(3, step)).or_insert(0.0_f64) += 1.0;
        }
        assert_eq!(counts.len(), 6);
        let chi2: f64 = counts.values().map(|c| (c - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi2 < 35.9, "chi2 {chi2}");
    }
}
