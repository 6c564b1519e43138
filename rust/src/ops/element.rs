//! Element types: what is stored, and the type that arithmetic runs in.

use std::ops::{Add, Mul, Sub};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

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
}

/// A type that arithmetic runs in.
pub trait Real:
    Element<Real = Self>
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Default
{
    const ZERO: Self;
    const ONE: Self;
    /// The smallest positive normal number.
    const TINY: Self;

    fn from_f64(x: f64) -> Self;

    fn is_finite(self) -> bool;
}

macro_rules! impl_real {
    ($type:ty) => {
        impl Real for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const TINY: Self = <$type>::MIN_POSITIVE;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $type
            }

            #[inline(always)]
            fn is_finite(self) -> bool {
                self.is_finite()
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
        }
    };
}

impl_real!(f32);
impl_real!(f64);
impl_half!(f16);
impl_half!(bf16);
