//! Registers of the processor, chosen at run time, for work that shifts lanes.
//!
//! What is the same operation in every lane is left to the compiler; shifts are not, it turns them
//! into scalar code.

#![allow(unsafe_code)]

use super::element::{Real, each};

#[cfg(target_arch = "x86_64")]
mod x86;

/// A set of registers.
pub trait Arch {
    type F32: Register<Real = f32>;
    type F64: Register<Real = f64>;
}

/// Arrays, for any processor.
pub struct Portable;

impl Arch for Portable {
    type F32 = [f32; 8];
    type F64 = [f64; 4];
}

/// Work to be compiled for several instruction sets.
pub trait Task {
    /// To be `#[inline(always)]`, with all that it calls in its inner loops.
    fn run<A: Arch>(self);
}

/// Run a task with the best instructions that the processor has.
pub fn run(task: impl Task) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
            // SAFETY: the processor has what the function enables (BW and VL imply F and AVX2).
            return unsafe { x86::run_avx512(task) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { x86::run_avx2(task) };
        }
    }
    task.run::<Portable>();
}

/// Some consecutive lanes; lane 0 is the earliest time.
pub trait Register: Copy {
    type Real: Real;
    const LANES: usize;

    fn load(from: &[Self::Real]) -> Self;
    fn store(self, to: &mut [Self::Real]);
    fn splat(x: Self::Real) -> Self;
    fn lane_0(self) -> Self::Real;
    /// Lane 0 in every lane.
    fn first(self) -> Self;
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * x`, and zero where `self` is zero.
    fn kept(self, x: Self) -> Self;
    /// Lanes `by` and up, then the first lanes of `after`; `by` is a power of two below `LANES`.
    fn shift(self, by: usize, after: Self) -> Self;
}

macro_rules! impl_register_for_array {
    ($real:ty, $lanes:literal) => {
        impl Register for [$real; $lanes] {
            type Real = $real;
            const LANES: usize = $lanes;

            #[inline(always)]
            fn load(from: &[$real]) -> Self {
                each(|lane| from[lane])
            }

            #[inline(always)]
            fn store(self, to: &mut [$real]) {
                to.copy_from_slice(&self);
            }

            #[inline(always)]
            fn splat(x: $real) -> Self {
                [x; $lanes]
            }

            #[inline(always)]
            fn lane_0(self) -> $real {
                self[0]
            }

            #[inline(always)]
            fn first(self) -> Self {
                [self[0]; $lanes]
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                each(|lane| self[lane] + other[lane])
            }

            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                each(|lane| self[lane] * other[lane])
            }

            #[inline(always)]
            fn kept(self, x: Self) -> Self {
                each(|lane| (self[lane] * x[lane]).masked(<$real>::mask(self[lane] != 0.0)))
            }

            #[inline(always)]
            fn shift(self, by: usize, after: Self) -> Self {
                each(|lane| {
                    if lane + by < $lanes {
                        self[lane + by]
                    } else {
                        after[lane + by - $lanes]
                    }
                })
            }
        }
    };
}

impl_register_for_array!(f32, 8);
impl_register_for_array!(f64, 4);
