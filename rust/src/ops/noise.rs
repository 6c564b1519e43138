//! Random numbers of other shapes than the uniform, from words of Philox.
//!
//! Number `4 q + k` of a draw is made of the four words at index `q`. All arithmetic is additions,
//! multiplications, divisions and square roots in f32, in one fixed order and without fused
//! operations, so that every device gives the same bits.

use super::element::each;
use super::transcendental::Transcendental;
use crate::envs::trigonometry::sin_cos_near;
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

/// Standard normal numbers; the first four are those of index `first`, and so on.
#[inline(always)]
pub fn normals(draw: Draw, first: u64, out: &mut [f32]) {
    for (block, chunk) in out.chunks_mut(4 * LANES).enumerate() {
        let words = words(draw, stream::GAUSSIAN, first + (block * LANES) as u64);
        let mut numbers = [0.0; 4 * LANES];
        for pair in 0..2 * LANES {
            let [a, b] = normal_pair(words[2 * pair], words[2 * pair + 1]);
            (numbers[2 * pair], numbers[2 * pair + 1]) = (a, b);
        }
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

/// Two independent standard normal numbers, at most 6.8 in size (Box and Muller, "A note on the
/// generation of random normal deviates", Annals of Mathematical Statistics 29, 1958).
///
/// The two upper bits of `turn` choose a quarter of the circle, the others an angle within an
/// eighth of a turn of its middle.
#[inline(always)]
fn normal_pair(length: u32, turn: u32) -> [f32; 2] {
    const STEP: f32 = std::f32::consts::FRAC_PI_2 / 1_073_741_824.0;
    let radius = (2.0 * exponential(length)).sqrt();
    let place = (turn & 0x3FFF_FFFF) as i32 - (1 << 29);
    let [sin, cos] = sin_cos_near(place as f32 * STEP);
    let quarter = turn >> 30;
    let (a, b) = if quarter & 1 == 0 {
        (cos, sin)
    } else {
        (sin, cos)
    };
    let a = if quarter == 1 || quarter == 2 { -a } else { a };
    let b = if quarter >= 2 { -b } else { b };
    [radius * a, radius * b]
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
    fn normals_have_the_moments_and_the_tails_of_the_distribution() {
        let mut numbers = vec![0.0; 1 << 20];
        normals(Draw { seed: 3, step: 1 }, 0, &mut numbers);
        let count = numbers.len() as f64;
        let moment = |power: i32| {
            let sum: f64 = numbers.iter().map(|&x| f64::from(x).powi(power)).sum();
            sum / count
        };
        // Five standard deviations of the mean of x, x^2, x^3 and x^4.
        for (power, exact, variance) in
            [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)]
        {
            let error = (moment(power) - exact).abs();
            assert!(
                error < 5.0 * f64::sqrt(variance / count),
                "moment {power}: {error}"
            );
        }
        let far = numbers.iter().filter(|x| x.abs() > 3.0).count() as f64;
        assert!((far - 0.002_699_8 * count).abs() < 5.0 * f64::sqrt(0.0027 * count));
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
