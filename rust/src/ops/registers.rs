//! Registers of the processor, chosen at run time, for work that shifts lanes.
//!
//! What is the same operation in every lane is left to the compiler; shifts are not, it turns them
//! into scalar code.

#![allow(unsafe_code)]

use super::element::{Real, each};

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
            return unsafe { avx2::run_avx512(task) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2::run_avx2(task) };
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
    /// Lanes `by` and up, then the first lanes of `after`; `by` is 1, 2 or 4 and below `LANES`.
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

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, __m256d, _CMP_NEQ_UQ, _mm256_add_pd, _mm256_add_ps, _mm256_alignr_epi8,
        _mm256_and_pd, _mm256_and_ps, _mm256_broadcastsd_pd, _mm256_broadcastss_ps,
        _mm256_castpd256_pd128, _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps,
        _mm256_cmp_pd, _mm256_cmp_ps, _mm256_cvtsd_f64, _mm256_cvtss_f32, _mm256_loadu_pd,
        _mm256_loadu_ps, _mm256_mul_pd, _mm256_mul_ps, _mm256_permute2f128_pd,
        _mm256_permute2f128_ps, _mm256_set1_pd, _mm256_set1_ps, _mm256_setzero_pd,
        _mm256_setzero_ps, _mm256_shuffle_pd, _mm256_storeu_pd, _mm256_storeu_ps,
    };

    use super::{Arch, Register, Task};

    #[target_feature(enable = "avx2,avx512bw,avx512vl")]
    pub fn run_avx512(task: impl Task) {
        task.run::<Avx2>();
    }

    #[target_feature(enable = "avx2")]
    pub fn run_avx2(task: impl Task) {
        task.run::<Avx2>();
    }

    /// The registers of AVX2; to be named only in functions that enable it.
    pub struct Avx2;

    impl Arch for Avx2 {
        type F32 = __m256;
        type F64 = __m256d;
    }

    // SAFETY, for all blocks below: these registers are used only in functions that enable
    // AVX2; `load` and `store` check that there are enough elements.

    impl Register for __m256 {
        type Real = f32;
        const LANES: usize = 8;

        #[inline(always)]
        fn load(from: &[f32]) -> Self {
            assert!(from.len() >= 8);
            unsafe { _mm256_loadu_ps(from.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, to: &mut [f32]) {
            assert!(to.len() >= 8);
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), self) }
        }

        #[inline(always)]
        fn splat(x: f32) -> Self {
            unsafe { _mm256_set1_ps(x) }
        }

        #[inline(always)]
        fn lane_0(self) -> f32 {
            unsafe { _mm256_cvtss_f32(self) }
        }

        #[inline(always)]
        fn first(self) -> Self {
            unsafe { _mm256_broadcastss_ps(_mm256_castps256_ps128(self)) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            unsafe { _mm256_add_ps(self, other) }
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            unsafe { _mm256_mul_ps(self, other) }
        }

        #[inline(always)]
        fn kept(self, x: Self) -> Self {
            unsafe {
                let kept = _mm256_cmp_ps::<_CMP_NEQ_UQ>(self, _mm256_setzero_ps());
                _mm256_and_ps(_mm256_mul_ps(self, x), kept)
            }
        }

        #[inline(always)]
        fn shift(self, by: usize, after: Self) -> Self {
            unsafe {
                let halves = _mm256_permute2f128_ps::<0x21>(self, after);
                let (upper, lower) = (_mm256_castps_si256(halves), _mm256_castps_si256(self));
                match by {
                    1 => _mm256_castsi256_ps(_mm256_alignr_epi8::<4>(upper, lower)),
                    2 => _mm256_castsi256_ps(_mm256_alignr_epi8::<8>(upper, lower)),
                    _ => halves,
                }
            }
        }
    }

    impl Register for __m256d {
        type Real = f64;
        const LANES: usize = 4;

        #[inline(always)]
        fn load(from: &[f64]) -> Self {
            assert!(from.len() >= 4);
            unsafe { _mm256_loadu_pd(from.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, to: &mut [f64]) {
            assert!(to.len() >= 4);
            unsafe { _mm256_storeu_pd(to.as_mut_ptr(), self) }
        }

        #[inline(always)]
        fn splat(x: f64) -> Self {
            unsafe { _mm256_set1_pd(x) }
        }

        #[inline(always)]
        fn lane_0(self) -> f64 {
            unsafe { _mm256_cvtsd_f64(self) }
        }

        #[inline(always)]
        fn first(self) -> Self {
            unsafe { _mm256_broadcastsd_pd(_mm256_castpd256_pd128(self)) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            unsafe { _mm256_add_pd(self, other) }
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            unsafe { _mm256_mul_pd(self, other) }
        }

        #[inline(always)]
        fn kept(self, x: Self) -> Self {
            unsafe {
                let kept = _mm256_cmp_pd::<_CMP_NEQ_UQ>(self, _mm256_setzero_pd());
                _mm256_and_pd(_mm256_mul_pd(self, x), kept)
            }
        }

        #[inline(always)]
        fn shift(self, by: usize, after: Self) -> Self {
            unsafe {
                let halves = _mm256_permute2f128_pd::<0x21>(self, after);
                match by {
                    1 => _mm256_shuffle_pd::<0b0101>(self, halves),
                    _ => halves,
                }
            }
        }
    }
}
