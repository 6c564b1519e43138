//! Element types: what is stored, and the type that arithmetic runs in.

use std::ops::{Add, Div, Mul, Sub};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::registers::{Arch, Register};
use super::transcendental::Transcendental;

/// A type of array elements; sums are formed in [`Element::Real`].
pub trait Element: Copy + Send + Sync + 'static {
    type Real: Real;

    /// Whether the type is its own [`Element::Real`].
    const IS_REAL: bool;

    fn widen(self) -> Self::Real;

    fn narrow(real: Self::Real) -> Self;

    /// [`Element::widen`] for slices of equal length.
    fn widen_slice(from: &[Self], to: &mut [Self::Real]);

    /// [`Element::narrow`] for slices of equal length.
    fn narrow_slice(from: &[Self::Real], to: &mut [Self]);

    /// `from` itself where it holds [`Element::Real`], else widened into `buffer`, which is at
    /// least as long.
    fn reals<'a>(from: &'a [Self], buffer: &'a mut [Self::Real]) -> &'a [Self::Real];
}

/// A type that arithmetic runs in.
///
/// Choices are made by masks, words of ones or zeros: unlike branches they leave the compiler no
/// reason not to work on whole vectors, whatever the instruction set.
pub trait Real:
    Element<Real = Self>
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Default
    + Transcendental
    + Into<f64>
{
    type Mask: Copy + Default;

    const ZERO: Self;
    const ONE: Self;
    /// The least that is not subnormal.
    const MIN_POSITIVE: Self;
    const MAX: Self;
    const NEG_INFINITY: Self;

    fn from_f64(x: f64) -> Self;

    fn to_f64(self) -> f64;

    fn sqrt(self) -> Self;

    /// `self * by + plus`, rounded once where the processor does that in one instruction.
    fn times_plus<A: Arch>(self, by: Self, plus: Self) -> Self;

    /// Ones where `chosen`.
    fn mask(chosen: bool) -> Self::Mask;

    /// `a` where the mask is ones, else `b`.
    fn choose(mask: Self::Mask, a: Self, b: Self) -> Self;

    /// `self` where the mask is ones, else zero.
    fn masked(self, mask: Self::Mask) -> Self;

    /// Some lanes of this type in a register of a processor.
    type Register<A: Arch>: Register<Real = Self>;
}

/// `L` elements of a slice, from `start` on.
#[inline(always)]
pub fn lanes<T: Copy, const L: usize>(slice: &[T], start: usize) -> [T; L] {
    *slice[start..].first_chunk().expect("as many as asked for")
}

/// `f` of every lane.
///
/// `std::array::from_fn` is at times not inlined, and then not compiled for the instruction set of
/// the function that calls it.
#[inline(always)]
pub fn each<T: Copy + Default, const L: usize>(f: impl Fn(usize) -> T) -> [T; L] {
    let mut lanes = [T::default(); L];
    for (lane, slot) in lanes.iter_mut().enumerate() {
        *slot = f(lane);
    }
    lanes
}

macro_rules! impl_real {
    ($type:ty, $bits:ty, $register:ident) => {
        impl Real for $type {
            type Mask = $bits;
            type Register<A: Arch> = A::$register;

            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const MIN_POSITIVE: Self = <$type>::MIN_POSITIVE;
            const MAX: Self = <$type>::MAX;
            const NEG_INFINITY: Self = <$type>::NEG_INFINITY;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $type
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }

            #[inline(always)]
            fn times_plus<A: Arch>(self, by: Self, plus: Self) -> Self {
                // Without the instruction `mul_add` is a call.
                if A::FUSED {
                    self.mul_add(by, plus)
                } else {
                    self * by + plus
                }
            }

            #[inline(always)]
            fn mask(chosen: bool) -> $bits {
                <$bits>::from(chosen).wrapping_neg()
            }

            #[inline(always)]
            fn choose(mask: $bits, a: Self, b: Self) -> Self {
                Self::from_bits((a.to_bits() & mask) | (b.to_bits() & !mask))
            }

            #[inline(always)]
            fn masked(self, mask: $bits) -> Self {
                Self::from_bits(self.to_bits() & mask)
            }
        }

        impl Element for $type {
            type Real = Self;

            const IS_REAL: bool = true;

            #[inline(always)]
            fn widen(self) -> Self {
                self
            }

            #[inline(always)]
            fn narrow(real: Self) -> Self {
                real
            }

            #[inline(always)]
            fn widen_slice(from: &[Self], to: &mut [Self]) {
                to.copy_from_slice(from);
            }

            #[inline(always)]
            fn narrow_slice(from: &[Self], to: &mut [Self]) {
                to.copy_from_slice(from);
            }

            #[inline(always)]
            fn reals<'a>(from: &'a [Self], _: &'a mut [Self]) -> &'a [Self] {
                from
            }
        }
    };
}

macro_rules! impl_half {
    ($type:ty) => {
        impl Element for $type {
            type Real = f32;

            const IS_REAL: bool = false;

            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }

            #[inline(always)]
            fn narrow(real: f32) -> Self {
                Self::from_f32(real)
            }

            #[inline(always)]
            fn widen_slice(from: &[Self], to: &mut [f32]) {
                from.convert_to_f32_slice(to);
            }

            #[inline(always)]
            fn narrow_slice(from: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(from);
            }

            #[inline(always)]
            fn reals<'a>(from: &'a [Self], buffer: &'a mut [f32]) -> &'a [f32] {
                let buffer = &mut buffer[..from.len()];
                Self::widen_slice(from, buffer);
                buffer
            }
        }
    };
}

impl_real!(f32, u32, F32);
impl_real!(f64, u64, F64);
impl_half!(f16);
impl_half!(bf16);
