//! Exponential, what is left of it behind its first terms, and natural logarithm, in a form that
//! the compiler turns into vectors.
//!
//! No branches, no tables, no calls: a loop over them becomes vector code of the instruction set
//! that the loop is compiled for. Exponential and logarithm use no fused operations: they have the
//! same bits in all instruction sets, and are within two units in the last place. Zero, infinities
//! and NaN behave as in the standard library.

use super::element::Real;
use super::registers::{Arch, Register};

/// Types that have these functions.
pub trait Transcendental: Sized + 'static {
    /// `e^x`.
    fn exp_of(x: Self) -> Self;

    /// `x * 2^power`, rounded once; `power` is an integer between those of the least number and of
    /// infinity.
    fn scaled(x: Self, power: Self) -> Self;

    /// What [`exp`] needs: below and above these bounds `e^x` is zero and infinite.
    const EXP_BOUNDS: (Self, Self);
    /// Two numbers whose sum is `ln(2)`; products of the first with exponents are exact.
    const LN_2: (Self, Self);
    const LOG2_E: Self;
    /// Adding this to a number that is not large rounds it to an integer.
    const ROUNDER: Self;
    /// Coefficients of `(e^x - 1 - x) / x^2`, the constant first, for `|x| <= ln(2) / 2`.
    const EXCESS: &'static [Self];

    /// `e^x - 1`, accurate near zero.
    fn exp_m1_of<A: Arch>(x: Self) -> Self;

    /// `e^x - 1 - x`, accurate near zero: never negative, and zero at zero alone.
    fn exp_excess_of<A: Arch>(x: Self) -> Self;

    /// The natural logarithm: negative infinity at zero, NaN below.
    fn ln_of(x: Self) -> Self;
}

/// `e^x` of the lanes of a register, with fused operations where the processor has them: within
/// two units in the last place.
#[inline(always)]
pub fn exp<A: Arch, V: Register>(x: V) -> V {
    let (least, most) = V::Real::EXP_BOUNDS;
    let (ln_2_high, ln_2_low) = V::Real::LN_2;
    let zero = V::Real::ZERO;
    let (one, rounder) = (V::constant(V::Real::ONE), V::constant(V::Real::ROUNDER));
    // NaN stays.
    let bounded = V::constant(least).greatest(V::constant(most).least(x));
    let power = bounded
        .times_plus::<A>(V::constant(V::Real::LOG2_E), rounder)
        .sub(rounder);
    let r = power.times_plus::<A>(V::constant(zero - ln_2_high), bounded);
    let r = power.times_plus::<A>(V::constant(zero - ln_2_low), r);
    let coefficients = V::Real::EXCESS;
    let last = coefficients.len() - 1;
    let mut excess = V::constant(coefficients[last]);
    for &coefficient in coefficients[..last].iter().rev() {
        excess = excess.times_plus::<A>(r, V::constant(coefficient));
    }
    let rest = excess.times_plus::<A>(r, one);
    rest.times_plus::<A>(r, one).scaled(power)
}

/// `c0 + x (c1 + x (c2 + ...))`.
macro_rules! polynomial {
    ($x:ident; $c:expr) => { $c };
    ($x:ident; $c:expr, $($rest:expr),+) => { $c + $x * (polynomial!($x; $($rest),+)) };
}

/// The same, with what fuses fused.
macro_rules! fused_polynomial {
    ($arch:ident, $x:ident; $c:expr) => { $c };
    ($arch:ident, $x:ident; $c:expr, $($rest:expr),+) => {
        $x.times_plus::<$arch>(fused_polynomial!($arch, $x; $($rest),+), $c)
    };
}

macro_rules! impl_transcendental {
    (
        $type:ident, $bits:ty, $signed:ty, $mantissa_bits:literal,
        nonzero_and_finite: ($least:literal, $most:literal),
        ln_2: ($ln_2_high:literal, $ln_2_low:literal),
        least_normal: $lowest:literal,
        exp: [$($exp:expr),+],
        excess: [$($excess:expr),+],
        atanh: [$($atanh:expr),+]
    ) => {
        impl Transcendental for $type {
            #[inline(always)]
            fn exp_of(x: Self) -> Self {
                let bounded = if x > $most { $most } else { x };
                let bounded = if bounded < $least { $least } else { bounded };
                // The lowest bits hold the integer.
                let shifted = bounded * Self::LOG2_E + Self::ROUNDER;
                let power = shifted - Self::ROUNDER;
                let exponent = shifted.to_bits().wrapping_sub(Self::ROUNDER.to_bits()) as $signed;
                // The product with the high part is exact; the remainder is at most ln(2) / 2.
                let r = (bounded - power * $ln_2_high) - power * $ln_2_low;
                $type::times_power(polynomial!(r; $($exp),+), exponent)
            }

            const EXP_BOUNDS: (Self, Self) = ($least, $most);
            const LN_2: (Self, Self) = ($ln_2_high, $ln_2_low);
            const LOG2_E: Self = std::$type::consts::LOG2_E;
            const ROUNDER: Self = 1.5 * ((1 as $bits) << $mantissa_bits) as $type;
            const EXCESS: &'static [Self] = &[$($excess),+];

            #[inline(always)]
            fn scaled(x: Self, power: Self) -> Self {
                $type::times_power(x, power as $signed)
            }

            #[inline(always)]
            fn exp_m1_of<A: Arch>(x: Self) -> Self {
                let Parts { scale, r, excess, .. } = $type::parts::<A>(x);
                scale.times_plus::<A>(excess + r, scale - 1.0)
            }

            #[inline(always)]
            fn exp_excess_of<A: Arch>(x: Self) -> Self {
                // Where the scale is one, all but the first term are exact zeros.
                let Parts { x, scale, r, excess } = $type::parts::<A>(x);
                let others = scale.times_plus::<A>(r, 0.0 - x) + (scale - 1.0);
                scale.times_plus::<A>(excess, others)
            }

            #[inline(always)]
            fn ln_of(x: Self) -> Self {
                const MANTISSA: $bits = (1 << $mantissa_bits) - 1;
                const SCALE: $type = ((1 as $bits) << $mantissa_bits) as $type;
                let lowest = std::$type::consts::FRAC_1_SQRT_2.to_bits();
                let subnormal = x < $type::MIN_POSITIVE;
                let normal = if subnormal { x * SCALE } else { x };
                let shift: i32 = if subnormal { $mantissa_bits } else { 0 };
                // x = m 2^exponent with m in [1 / sqrt(2), sqrt(2)).
                let offset = normal.to_bits().wrapping_sub(lowest);
                let exponent = (offset as $signed >> $mantissa_bits) as i32 - shift;
                let m = $type::from_bits((offset & MANTISSA).wrapping_add(lowest));
                let power = exponent as $type;
                // ln(m) = 2 atanh(s).
                let s = (m - 1.0) / (m + 1.0);
                let z = s * s;
                let tail = s * z * (polynomial!(z; $($atanh),+));
                let ln = (tail + power * $ln_2_low) + 2.0 * s + power * $ln_2_high;
                let ln = if x == $type::INFINITY { x } else { ln };
                let ln = if x == 0.0 { $type::NEG_INFINITY } else { ln };
                if x >= 0.0 { ln } else { $type::NAN }
            }
        }

        impl HasParts for $type {
            type Exponent = $signed;

            #[inline(always)]
            fn times_power(x: Self, exponent: $signed) -> Self {
                const BIAS: $signed = $type::MAX_EXP as $signed - 1;
                let half = exponent >> 1;
                let two_to = |n: $signed| {
                    $type::from_bits((n.wrapping_add(BIAS) as $bits) << $mantissa_bits)
                };
                // In two steps: 2^exponent alone leaves the range before the result does.
                x * two_to(half) * two_to(exponent.wrapping_sub(half))
            }

            #[inline(always)]
            fn parts<A: Arch>(x: Self) -> Parts<Self> {
                // Adding this rounds to an integer, which the lowest bits then hold, biased as the
                // exponent of a float is.
                const BIAS: $type = ($type::MAX_EXP - 1) as $type;
                const ROUNDER: $type = 1.5 * ((1 as $bits) << $mantissa_bits) as $type + BIAS;
                let x = if x > $most { $most } else { x };
                let from_below = if x < $lowest { $lowest } else { x };
                let shifted = from_below.times_plus::<A>(std::$type::consts::LOG2_E, ROUNDER);
                let highest = ROUNDER + BIAS;
                let shifted = if shifted > highest { highest } else { shifted };
                let power = shifted - ROUNDER;
                let scale = $type::from_bits(shifted.to_bits() << $mantissa_bits);
                let r = power.times_plus::<A>(-$ln_2_high, from_below);
                let r = power.times_plus::<A>(-$ln_2_low, r);
                let excess = r * r * fused_polynomial!(A, r; $($excess),+);
                Parts { x, scale, r, excess }
            }
        }
    };
}

/// `x`, no larger than where `e^x` overflows, as `ln(scale) + r`, and `e^r - 1 - r`.
///
/// The scale is a power of two within the normal range; where `e^x` leaves it, so does `r` leave
/// its usual bounds of half of `ln(2)`.
struct Parts<T> {
    x: T,
    scale: T,
    r: T,
    excess: T,
}

trait HasParts: Sized {
    type Exponent;

    /// `x * 2^exponent`, rounded once.
    fn times_power(x: Self, exponent: Self::Exponent) -> Self;

    fn parts<A: Arch>(x: Self) -> Parts<Self>;
}

impl_transcendental!(
    f32, u32, i32, 23,
    nonzero_and_finite: (-104.0, 89.0),
    ln_2: (0.693_359_4, -2.121_944_4e-4),
    least_normal: -87.0,
    exp: [
        1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5_040.0
    ],
    // Chebyshev's interpolation for |r| <= ln(2) / 2: shorter than the series.
    excess: [0.5, 0.166_665_76, 0.041_666_552, 0.008_363_233, 0.001_392_625],
    atanh: [2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0]
);

impl_transcendental!(
    f64, u64, i64, 52,
    nonzero_and_finite: (-746.0, 710.0),
    ln_2: (0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10),
    least_normal: -708.0,
    exp: [
        1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5_040.0,
        1.0 / 40_320.0, 1.0 / 362_880.0, 1.0 / 3_628_800.0, 1.0 / 39_916_800.0,
        1.0 / 479_001_600.0, 1.0 / 6_227_020_800.0
    ],
    excess: [
        1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5_040.0, 1.0 / 40_320.0,
        1.0 / 362_880.0, 1.0 / 3_628_800.0, 1.0 / 39_916_800.0, 1.0 / 479_001_600.0,
        1.0 / 6_227_020_800.0
    ],
    atanh: [
        2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0, 2.0 / 13.0, 2.0 / 15.0,
        2.0 / 17.0, 2.0 / 19.0, 2.0 / 21.0
    ]
);

#[cfg(test)]
mod tests {
    use super::super::element::Real;
    use super::super::registers::{self, Arch, Portable, Register, Task};
    use super::Transcendental;

    /// [`super::exp`] in the registers of this processor, and one by one without fused operations.
    struct Exp<'a, R: Real> {
        x: &'a [R],
        found: &'a mut [[R; 2]],
    }

    impl<R: Real> Task for Exp<'_, R> {
        #[inline(always)]
        fn run<A: Arch>(self) {
            let lanes = R::Register::<A>::LANES;
            let groups = self
                .x
                .chunks_exact(lanes)
                .zip(self.found.chunks_exact_mut(lanes));
            for (x, found) in groups {
                let mut together = vec![R::ZERO; lanes];
                super::exp::<A, _>(R::Register::<A>::load(x)).store(&mut together);
                for (lane, found) in found.iter_mut().enumerate() {
                    let [one] = super::exp::<A, _>([x[lane]]);
                    assert!(one == together[lane] || one.to_f64().is_nan());
                    let [unfused] = super::exp::<Portable, _>([x[lane]]);
                    *found = [one, unfused];
                }
            }
        }
    }

    const SPECIAL: [f64; 5] = [0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0];

    macro_rules! check {
        ($name:ident, $type:ident) => {
            mod $name {
                use super::{Exp, Portable, SPECIAL, Transcendental, registers};

                /// Distance in units in the last place of the exact result.
                fn ulps(got: $type, exact: f64) -> f64 {
                    let rounded = exact as $type;
                    if got == rounded || (got.is_nan() && rounded.is_nan()) {
                        return 0.0;
                    }
                    let ulp = (rounded.abs().next_up() - rounded.abs()) as f64;
                    (got as f64 - exact).abs() / ulp
                }

                #[test]
                fn exp_of_registers_is_accurate_from_underflow_to_overflow() {
                    let limit = ($type::MAX_EXP + $type::MANTISSA_DIGITS as i32) as $type * 0.7;
                    let special = SPECIAL.map(|x| x as $type);
                    let line = (-100_000..100_000).map(|i| limit * (i as $type / 100_000.0));
                    let ends = [$type::MIN, $type::MAX, limit];
                    let x: Vec<_> = special.into_iter().chain(ends).chain(line).collect();
                    assert_eq!(x.len() % 8, 0);
                    let mut found = vec![[0.5; 2]; x.len() / 16 * 16];
                    registers::run(Exp {
                        x: &x[..found.len()],
                        found: &mut found,
                    });
                    for (&x, found) in x.iter().zip(found) {
                        for got in found {
                            let error = ulps(got, (x as f64).exp());
                            assert!(error <= 2.0, "exp({x}) is off by {error} ulp");
                        }
                    }
                }

                #[test]
                fn exp_is_accurate_from_underflow_to_overflow() {
                    let limit = ($type::MAX_EXP + $type::MANTISSA_DIGITS as i32) as $type * 0.7;
                    for i in -100_000..=100_000 {
                        let x = limit * (i as $type / 100_000.0);
                        let error = ulps(Transcendental::exp_of(x), (x as f64).exp());
                        assert!(error <= 2.0, "exp({x}) is off by {error} ulp");
                    }
                }

                #[test]
                fn what_is_left_of_exp_is_accurate_from_the_smallest_on() {
                    let limit = $type::MAX.ln() * 0.99;
                    for i in 1..=50_000 {
                        let part = i as $type / 50_000.0;
                        let tiny = $type::EPSILON.powf(1.0 - part);
                        for x in [limit * part, -limit * part, tiny, -tiny] {
                            let exact = (x as f64).exp_m1();
                            let error =
                                ulps(<$type as Transcendental>::exp_m1_of::<Portable>(x), exact);
                            assert!(error <= 8.0, "exp_m1({x}) is off by {error} ulp");
                            let excess = <$type as Transcendental>::exp_excess_of::<Portable>(x);
                            assert!(excess > 0.0, "excess of {x} is {excess}");
                            // The series where the difference of float64 has lost its digits.
                            let near = x as f64;
                            let series = (1..=20)
                                .rev()
                                .fold(1.0, |tail, n| 1.0 + near / (n as f64 + 2.0) * tail);
                            let exact = if near.abs() < 0.5 {
                                near * near / 2.0 * series
                            } else {
                                exact - near
                            };
                            let error = ulps(excess, exact);
                            assert!(error <= 32.0, "excess of {x} is off by {error} ulp");
                        }
                    }
                }

                #[test]
                fn what_is_left_of_exp_at_the_ends() {
                    let m1 = <$type as Transcendental>::exp_m1_of::<Portable>;
                    let excess = <$type as Transcendental>::exp_excess_of::<Portable>;
                    assert_eq!((m1(0.0), excess(0.0)), (0.0, 0.0));
                    assert_eq!((m1($type::MIN), excess($type::MIN)), (-1.0, $type::MAX));
                    assert_eq!(m1($type::NEG_INFINITY), -1.0);
                    assert_eq!(excess($type::NEG_INFINITY), $type::INFINITY);
                    for x in [$type::MAX, $type::INFINITY] {
                        assert_eq!((m1(x), excess(x)), ($type::INFINITY, $type::INFINITY));
                    }
                    assert!(m1($type::NAN).is_nan() && excess($type::NAN).is_nan());
                }

                #[test]
                fn ln_is_accurate_over_all_exponents_and_near_one() {
                    let least = $type::from_bits(1).log2();
                    let most = $type::MAX.log2();
                    for i in 0..=100_000 {
                        let part = i as $type / 100_000.0;
                        let far = (least + (most - least) * part).exp2();
                        let near = 0.9 + 0.2 * part;
                        for x in [far, near] {
                            let error = ulps(Transcendental::ln_of(x), (x as f64).ln());
                            assert!(error <= 2.0, "ln({x}) is off by {error} ulp");
                        }
                    }
                }

                #[test]
                fn special_values_are_those_of_the_standard_library() {
                    for x in SPECIAL.map(|x| x as $type) {
                        assert_eq!(ulps(Transcendental::exp_of(x), (x as f64).exp()), 0.0);
                        assert_eq!(ulps(Transcendental::ln_of(x), (x as f64).ln()), 0.0);
                    }
                    assert_eq!(<$type as Transcendental>::ln_of(1.0), 0.0);
                    assert!(<$type as Transcendental>::ln_of(-1.0).is_nan());
                    let (low, high) = ($type::MIN, $type::MAX);
                    assert_eq!(<$type as Transcendental>::exp_of(low), 0.0);
                    assert_eq!(<$type as Transcendental>::exp_of(high), $type::INFINITY);
                }
            }
        };
    }

    check!(single, f32);
    check!(double, f64);
}
