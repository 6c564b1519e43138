//! Which transitions a sample consists of: pure functions of `(seed, step)`, the same on every
//! device.
//!
//! ```text
//! uniform:    draw i = high 64 bits of x n,  x = words 2 (i % 2) and 2 (i % 2) + 1 (the low half
//!             first) of philox(seed, i / 2, step, REPLAY)
//! stratified: target i = (i + u) (total / count),  u = ((w0 >> 5) 2^26 + (w1 >> 6)) 2^-53,
//!             w = philox(seed, i, step, REPLAY_PRIORITY)
//! sequence:   attempt a of element i = high 64 bits of x n,  x = words 0 and 1 of
//!             philox(seed, i + a 2^32, step, REPLAY_SEQUENCE)
//! hindsight:  place among n = high 64 bits of x n,  x = words 0 and 1 of
//!             philox(seed, i, step, REPLAY_HINDSIGHT), chosen if its word 2 is below the share
//! ```
//! A uniform draw favours no slot by more than one part in 2^32 even in the largest buffer.

use crate::ops::registers::{Arch, Task, run};
use crate::philox::{philox, philox_lanes, stream, unit_f32};

/// The key and the counter of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    pub seed: u64,
    pub step: u32,
}

/// Counters that are turned into random words together.
const LANES: usize = 16;

/// Fill `out` with numbers below `n`, each as likely as the others.
///
/// # Panics
/// If `n` is 0 or above 2^32.
pub fn uniform(out: &mut [u32], n: u64, draw: Draw) {
    assert!((1..=1 << 32).contains(&n), "n out of range");
    run(Uniform { out, n, draw });
}

struct Uniform<'a> {
    out: &'a mut [u32],
    n: u64,
    draw: Draw,
}

impl Task for Uniform<'_> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Self { out, n, draw } = self;
        for (block, chunk) in out.chunks_mut(2 * LANES).enumerate() {
            let index = std::array::from_fn(|lane| (block * LANES + lane) as u64);
            let words = philox_lanes(
                &[draw.seed; LANES],
                &index,
                &[draw.step; LANES],
                stream::REPLAY,
            );
            let mut drawn = [0; 2 * LANES];
            for lane in 0..LANES {
                drawn[2 * lane] = below(n, words[0][lane], words[1][lane]);
                drawn[2 * lane + 1] = below(n, words[2][lane], words[3][lane]);
            }
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }
}

/// The high 64 bits of `n` times the number of two words, for `n` up to 2^32.
#[inline(always)]
fn below(n: u64, low: u32, high: u32) -> u32 {
    ((u64::from(high) * n + ((u64::from(low) * n) >> 32)) >> 32) as u32
}

/// Fill `out` with one number of each of its equal strata of `[0, total)`.
pub fn stratified(out: &mut [f64], total: f64, draw: Draw) {
    let stratum = total / out.len() as f64;
    run(Stratified { out, stratum, draw });
}

struct Stratified<'a> {
    out: &'a mut [f64],
    stratum: f64,
    draw: Draw,
}

impl Task for Stratified<'_> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Self { out, stratum, draw } = self;
        for (block, chunk) in out.chunks_mut(LANES).enumerate() {
            let index: [u64; LANES] = std::array::from_fn(|lane| (block * LANES + lane) as u64);
            let words = philox_lanes(
                &[draw.seed; LANES],
                &index,
                &[draw.step; LANES],
                stream::REPLAY_PRIORITY,
            );
            let mut targets = [0.0; LANES];
            for lane in 0..LANES {
                let u = unit_f64(words[0][lane], words[1][lane]);
                targets[lane] = (index[lane] as f64 + u) * stratum;
            }
            chunk.copy_from_slice(&targets[..chunk.len()]);
        }
    }
}

/// 53 bits as a number in [0, 1).
#[inline(always)]
fn unit_f64(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high >> 5) << 26) | u64::from(low >> 6);
    bits as f64 * (1.0 / 9_007_199_254_740_992.0)
}

/// Attempt `attempt` at element `i` of a sample of sequences, below `n`.
pub(super) fn attempt(i: usize, attempt: u32, n: u64, draw: Draw) -> u32 {
    let index = i as u64 | u64::from(attempt) << 32;
    let words = philox(draw.seed, index, draw.step, stream::REPLAY_SEQUENCE);
    below(n, words[0], words[1])
}

/// A number in [0, 1), and a place among any number of them, for element `i`.
pub(super) fn hindsight(i: usize, draw: Draw) -> (f32, impl Fn(u64) -> u32) {
    let words = philox(draw.seed, i as u64, draw.step, stream::REPLAY_HINDSIGHT);
    (unit_f32(words[2]), move |n| below(n, words[0], words[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAW: Draw = Draw { seed: 7, step: 3 };

    #[test]
    fn uniform_draws_are_what_the_module_says() {
        let mut out = [0; 37];
        uniform(&mut out, 1_000_003, DRAW);
        for (i, &found) in out.iter().enumerate() {
            let words = philox(7, i as u64 / 2, 3, stream::REPLAY);
            let (low, high) = (words[i % 2 * 2], words[i % 2 * 2 + 1]);
            let x = u128::from(u64::from(low) | u64::from(high) << 32);
            assert_eq!(u128::from(found), (x * 1_000_003) >> 64);
        }
    }

    #[test]
    fn the_largest_buffer_is_drawn_from() {
        assert_eq!(below(1 << 32, u32::MAX, u32::MAX), u32::MAX);
        assert_eq!(below(1, u32::MAX, u32::MAX), 0);
    }

    #[test]
    fn a_longer_sample_begins_with_the_shorter_one() {
        let (mut short, mut long) = ([0; 5], [0; 50]);
        uniform(&mut short, 999, DRAW);
        uniform(&mut long, 999, DRAW);
        assert_eq!(short, long[..5]);
    }

    // A million draws from a thousand slots: chi-square below the 1e-6 quantile for 999 degrees.
    #[test]
    fn uniform_draws_are_uniform() {
        let mut drawn = vec![0; 1_000_000];
        uniform(&mut drawn, 1000, DRAW);
        let mut counts = [0.0_f64; 1000];
        for i in drawn {
            counts[i as usize] += 1.0;
        }
        let chi2: f64 = counts.iter().map(|c| (c - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi2 < 1226.0, "chi2 {chi2}");
    }

    #[test]
    fn each_stratum_has_one_target() {
        let mut targets = [0.0; 100];
        stratified(&mut targets, 50.0, DRAW);
        for (i, &target) in targets.iter().enumerate() {
            assert!((i as f64..(i + 1) as f64).contains(&(target * 2.0)));
        }
        assert!(unit_f64(u32::MAX, u32::MAX) < 1.0);
    }
}
