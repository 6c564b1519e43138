//! Registers of x86 processors with AVX2.

use std::arch::x86_64::{
    __m256, __m256d, _CMP_LT_OQ, _CMP_NEQ_UQ, _mm_add_epi32, _mm_cvtsi32_si128, _mm_cvtsi64_si128,
    _mm_set1_epi32, _mm_srai_epi32, _mm_sub_epi32, _mm256_add_epi32, _mm256_add_pd, _mm256_add_ps,
    _mm256_alignr_epi8, _mm256_and_pd, _mm256_and_ps, _mm256_blendv_pd, _mm256_blendv_ps,
    _mm256_broadcastsd_pd, _mm256_broadcastss_ps, _mm256_castpd256_pd128, _mm256_castps_si256,
    _mm256_castps256_ps128, _mm256_castsi256_pd, _mm256_castsi256_ps, _mm256_cmp_pd, _mm256_cmp_ps,
    _mm256_cmpeq_epi32, _mm256_cmpeq_epi64, _mm256_cvtepi32_epi64, _mm256_cvtepu8_epi32,
    _mm256_cvtepu8_epi64, _mm256_cvtpd_epi32, _mm256_cvtps_epi32, _mm256_cvtsd_f64,
    _mm256_cvtss_f32, _mm256_div_pd, _mm256_div_ps, _mm256_fmadd_pd, _mm256_fmadd_ps,
    _mm256_loadu_pd, _mm256_loadu_ps, _mm256_max_pd, _mm256_max_ps, _mm256_min_pd, _mm256_min_ps,
    _mm256_mul_pd, _mm256_mul_ps, _mm256_permute_pd, _mm256_permute_ps, _mm256_permute2f128_pd,
    _mm256_permute2f128_ps, _mm256_set1_epi32, _mm256_set1_pd, _mm256_set1_ps, _mm256_setzero_pd,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_shuffle_pd, _mm256_slli_epi32,
    _mm256_slli_epi64, _mm256_sqrt_pd, _mm256_sqrt_ps, _mm256_srai_epi32, _mm256_storeu_pd,
    _mm256_storeu_ps, _mm256_sub_epi32, _mm256_sub_pd, _mm256_sub_ps,
};

use super::{Arch, Register, Task};
use crate::ops::element::lanes;

/// The registers of AVX2; to be named only in functions that enable it.
pub struct Avx2;

impl Arch for Avx2 {
    type F32 = __m256;
    type F64 = __m256d;

    const FUSED: bool = true;
}

#[target_feature(enable = "avx2,fma")]
pub fn run(task: impl Task) {
    task.run::<Avx2>();
}

// SAFETY, for all blocks below: a register is used only in functions that enable its instructions;
// `load` and `store` check that there are enough elements.

impl Register for __m256 {
    type Real = f32;
    type Mask = Self;
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
    fn sub(self, other: Self) -> Self {
        unsafe { _mm256_sub_ps(self, other) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { _mm256_mul_ps(self, other) }
    }

    #[inline(always)]
    fn times_plus<A: Arch>(self, by: Self, plus: Self) -> Self {
        unsafe { _mm256_fmadd_ps(self, by, plus) }
    }

    #[inline(always)]
    fn scaled(self, powers: Self) -> Self {
        unsafe {
            let powers = _mm256_cvtps_epi32(powers);
            let half = _mm256_srai_epi32::<1>(powers);
            let two_to = |n| {
                let biased = _mm256_add_epi32(n, _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            };
            // In two steps: the whole power leaves the range before the result does.
            let halfway = _mm256_mul_ps(self, two_to(half));
            _mm256_mul_ps(halfway, two_to(_mm256_sub_epi32(powers, half)))
        }
    }

    #[inline(always)]
    fn least(self, other: Self) -> Self {
        unsafe { _mm256_min_ps(self, other) }
    }

    #[inline(always)]
    fn greatest(self, other: Self) -> Self {
        unsafe { _mm256_max_ps(self, other) }
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        unsafe { _mm256_div_ps(self, other) }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { _mm256_sqrt_ps(self) }
    }

    #[inline(always)]
    fn exchange(self, by: usize) -> Self {
        unsafe {
            match by {
                1 => _mm256_permute_ps::<0xB1>(self),
                2 => _mm256_permute_ps::<0x4E>(self),
                _ => _mm256_permute2f128_ps::<0x01>(self, self),
            }
        }
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
                4 => halves,
                _ => after,
            }
        }
    }

    #[inline(always)]
    fn unset(flags: &[u8]) -> Self::Mask {
        let bytes = i64::from_ne_bytes(lanes(flags, 0));
        unsafe {
            let flags = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes));
            _mm256_castsi256_ps(_mm256_cmpeq_epi32(flags, _mm256_setzero_si256()))
        }
    }

    #[inline(always)]
    fn below(self, other: Self) -> Self::Mask {
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self, other) }
    }

    #[inline(always)]
    fn masked(self, mask: Self::Mask) -> Self {
        unsafe { _mm256_and_ps(self, mask) }
    }

    #[inline(always)]
    fn choose(mask: Self::Mask, a: Self, b: Self) -> Self {
        unsafe { _mm256_blendv_ps(b, a, mask) }
    }
}

impl Register for __m256d {
    type Real = f64;
    type Mask = Self;
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
    fn sub(self, other: Self) -> Self {
        unsafe { _mm256_sub_pd(self, other) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { _mm256_mul_pd(self, other) }
    }

    #[inline(always)]
    fn times_plus<A: Arch>(self, by: Self, plus: Self) -> Self {
        unsafe { _mm256_fmadd_pd(self, by, plus) }
    }

    #[inline(always)]
    fn scaled(self, powers: Self) -> Self {
        unsafe {
            let powers = _mm256_cvtpd_epi32(powers);
            let half = _mm_srai_epi32::<1>(powers);
            let two_to = |n| {
                let biased = _mm256_cvtepi32_epi64(_mm_add_epi32(n, _mm_set1_epi32(1023)));
                _mm256_castsi256_pd(_mm256_slli_epi64::<52>(biased))
            };
            // In two steps: the whole power leaves the range before the result does.
            let halfway = _mm256_mul_pd(self, two_to(half));
            _mm256_mul_pd(halfway, two_to(_mm_sub_epi32(powers, half)))
        }
    }

    #[inline(always)]
    fn least(self, other: Self) -> Self {
        unsafe { _mm256_min_pd(self, other) }
    }

    #[inline(always)]
    fn greatest(self, other: Self) -> Self {
        unsafe { _mm256_max_pd(self, other) }
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        unsafe { _mm256_div_pd(self, other) }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { _mm256_sqrt_pd(self) }
    }

    #[inline(always)]
    fn exchange(self, by: usize) -> Self {
        unsafe {
            match by {
                1 => _mm256_permute_pd::<0b0101>(self),
                _ => _mm256_permute2f128_pd::<0x01>(self, self),
            }
        }
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
                2 => halves,
                _ => after,
            }
        }
    }

    #[inline(always)]
    fn unset(flags: &[u8]) -> Self::Mask {
        let bytes = i32::from_ne_bytes(lanes(flags, 0));
        unsafe {
            let flags = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(bytes));
            _mm256_castsi256_pd(_mm256_cmpeq_epi64(flags, _mm256_setzero_si256()))
        }
    }

    #[inline(always)]
    fn below(self, other: Self) -> Self::Mask {
        unsafe { _mm256_cmp_pd::<_CMP_LT_OQ>(self, other) }
    }

    #[inline(always)]
    fn masked(self, mask: Self::Mask) -> Self {
        unsafe { _mm256_and_pd(self, mask) }
    }

    #[inline(always)]
    fn choose(mask: Self::Mask, a: Self, b: Self) -> Self {
        unsafe { _mm256_blendv_pd(b, a, mask) }
    }
}
