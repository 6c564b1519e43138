//! Sine and cosine in f32 from additions and multiplications alone, so that every backend rounds
//! the same way.
//!
//! Angles within a quarter turn of zero go straight into minimax polynomials (largest error 0.8
//! and 1.0 units in the last place). All others are first reduced exactly, by multiplying the
//! integer significand with the bits of 2/pi that matter for its exponent (Payne and Hanek,
//! "Radian reduction for trigonometric functions", SIGNUM Newsletter 18, 1983): every finite
//! angle keeps its accuracy, however large. Infinity and NaN give NaN.

use std::f32::consts::FRAC_PI_4;

use super::lanes::{Lanes, Register};

/// A word of zeros, then the first 224 bits of 2/pi.
const TWO_OVER_PI: [u32; 8] = [
    0,
    0xA2F9_836E,
    0x4E44_1529,
    0xFC27_57D1,
    0xF534_DDC0,
    0xDB62_9599,
    0x3C43_9041,
    0xFE51_63AB,
];
/// pi/2 scaled by 2^-64: the fraction of a quarter turn comes as a 64-bit integer.
const QUARTER_TURN: f64 = std::f64::consts::FRAC_PI_2 / 18_446_744_073_709_551_616.0;

/// `[sin, cos]` of angles within a quarter turn of zero.
#[inline(always)]
pub fn sin_cos_near<L: Lanes>(angle: L) -> [L; 2] {
    let [s0, s1, s2] = [-0.166_666_55, 0.008_332_16, -0.000_195_152_13].map(L::splat);
    let [c0, c1, c2] = [0.041_666_646, -0.001_388_731_5, 0.000_024_433_073].map(L::splat);
    let z = angle * angle;
    let sine = s0 + z * (s1 + z * s2);
    let cosine = c0 + z * (c1 + z * c2);
    [
        angle + angle * (z * sine),
        L::splat(1.0) - (L::splat(0.5) * z - (z * z) * cosine),
    ]
}

/// `[sin, cos]` of several angles, or None if one of them is not within a quarter turn of zero.
#[inline(always)]
#[must_use]
pub fn sin_cos_near_lanes<R: Register>(angle: R) -> Option<[R; 2]> {
    let far = angle.less(R::splat(-FRAC_PI_4)) | R::splat(FRAC_PI_4).less(angle);
    (R::bits(far) == 0).then(|| sin_cos_near(angle))
}

/// `[sin, cos]` of any angle.
#[inline]
#[must_use]
pub fn sin_cos(angle: f32) -> [f32; 2] {
    if angle.abs() <= FRAC_PI_4 {
        return sin_cos_near(angle);
    }
    let (quadrant, remainder) = reduce(angle);
    let [sin, cos] = sin_cos_near(remainder);
    match quadrant {
        0 => [sin, cos],
        1 => [cos, -sin],
        2 => [-sin, -cos],
        _ => [-cos, sin],
    }
}

/// The nearest multiple of a quarter turn, modulo four, and the signed distance to it.
// `angle - angle` is 0 for numbers and NaN for infinity and NaN.
#[allow(clippy::eq_op)]
fn reduce(angle: f32) -> (u32, f32) {
    let bits = angle.to_bits();
    let exponent = ((bits >> 23) & 0xFF) as i32 - 150;
    let significand = u64::from(bits & 0x007F_FFFF | 0x0080_0000);
    // Bits of 2/pi above this place contribute whole turns only.
    let place = (exponent + 30) as u32;
    let (index, shift) = ((place >> 5) as usize, place & 31);
    let word = |i: usize| {
        let pair = u64::from(TWO_OVER_PI[index + i]) << 32 | u64::from(TWO_OVER_PI[index + i + 1]);
        (pair << shift) >> 32
    };
    let turns = ((significand * word(0)) << 32)
        .wrapping_add(significand * word(1))
        .wrapping_add((significand * word(2)) >> 32);
    let quadrant = (turns.wrapping_add(1 << 61) >> 62) as u32;
    let fraction = (turns << 2) as i64;
    let remainder = (fraction as f64 * QUARTER_TURN) as f32 + (angle - angle);
    if bits >> 31 == 0 {
        (quadrant, remainder)
    } else {
        (quadrant.wrapping_neg() & 3, -remainder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulps(actual: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        let spacing = f64::from(nearest.abs().next_up()) - f64::from(nearest.abs());
        (f64::from(actual) - exact).abs() / spacing
    }

    #[test]
    fn stays_within_two_ulps_for_every_exponent() {
        // f64 reduces its argument exactly, so it is a reference for every f32.
        for exponent in 1..255_u32 {
            for significand in (0..1 << 23).step_by(9973) {
                let angle = f32::from_bits(exponent << 23 | significand);
                for angle in [angle, -angle] {
                    let [sin, cos] = sin_cos(angle);
                    assert!(ulps(sin, f64::from(angle).sin()) < 2.0, "sin {angle}");
                    assert!(ulps(cos, f64::from(angle).cos()) < 2.0, "cos {angle}");
                }
            }
        }
    }

    #[test]
    fn stays_within_two_ulps_where_nothing_is_reduced() {
        for bits in (0..=FRAC_PI_4.to_bits()).step_by(61) {
            let angle = f32::from_bits(bits);
            let [sin, cos] = sin_cos(angle);
            assert!(ulps(sin, f64::from(angle).sin()) < 1.0, "sin {angle}");
            assert!(ulps(cos, f64::from(angle).cos()) < 1.0, "cos {angle}");
        }
    }

    #[test]
    fn infinity_and_nan_give_nan() {
        for angle in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            assert!(sin_cos(angle).iter().all(|value| value.is_nan()));
        }
    }
}
