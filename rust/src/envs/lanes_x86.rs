//! `Lanes` on AVX-512 and AVX2 registers.
// Some eighty intrinsics, all from one module.
#![allow(unsafe_code, clippy::wildcard_imports)]

use std::arch::x86_64::*;
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Not, Sub};

use super::lanes::{Lanes, Register};
use super::trigonometry::{sin_cos_lanes, sin_cos_near_lanes};

/// Sixteen environments; needs AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub struct Avx512(__m512);

/// Eight environments; needs AVX2.
#[derive(Clone, Copy)]
pub struct Avx2(__m256);

/// A mask of eight lanes, all bits of a lane set or none.
#[derive(Clone, Copy)]
pub struct Mask256(__m256);

macro_rules! operators {
    ($type:ty, $($trait:ident $method:ident $intrinsic:ident),*) => {$(
        impl $trait for $type {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: a value of this type exists only where its instructions do.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}

operators!(Avx512, Add add _mm512_add_ps, Sub sub _mm512_sub_ps, Mul mul _mm512_mul_ps, Div div _mm512_div_ps);
operators!(Avx2, Add add _mm256_add_ps, Sub sub _mm256_sub_ps, Mul mul _mm256_mul_ps, Div div _mm256_div_ps);
operators!(Mask256, BitAnd bitand _mm256_and_ps, BitOr bitor _mm256_or_ps);

impl Not for Mask256 {
    type Output = Self;

    #[inline(always)]
    fn not(self) -> Self {
        // SAFETY: as above.
        unsafe {
            let ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
            Self(_mm256_xor_ps(self.0, ones))
        }
    }
}

// SAFETY of both implementations: the caller of the outermost function has checked the instruction
// set, and every pointer is valid for WIDTH entries by the contract of `Register`.

impl Lanes for Avx512 {
    const WIDTH: usize = 16;
    type Mask = __mmask16;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn less(self, other: Self) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn at_least(self, other: Self) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_GE_OQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn select(self, other: Self, mask: __mmask16) -> Self {
        Self(unsafe { _mm512_mask_blend_ps(mask, other.0, self.0) })
    }

    #[inline(always)]
    fn floor(self) -> Self {
        Self(unsafe {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0)
        })
    }

    #[inline(always)]
    fn sin_cos(self) -> [Self; 2] {
        sin_cos_near_lanes(self).unwrap_or_else(|| unsafe { sin_cos512(self) })
    }
}

/// Not inlined: where all angles are small, nothing of this is in the way.
#[inline(never)]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2")]
unsafe fn sin_cos512(angle: Avx512) -> [Avx512; 2] {
    unsafe { sin_cos_lanes(angle) }
}

impl Register for Avx512 {
    #[inline(always)]
    fn bits(mask: __mmask16) -> u32 {
        u32::from(mask)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn load_rows(from: *const [f32; 4]) -> [Self; 4] {
        unsafe {
            let quarter = |i: usize| _mm512_loadu_ps(from.cast::<f32>().add(16 * i));
            let [a, b, c, d] = transpose512([quarter(0), quarter(1), quarter(2), quarter(3)]);
            [Self(a), Self(b), Self(c), Self(d)]
        }
    }

    #[inline(always)]
    unsafe fn store_rows(rows: [Self; 4], to: *mut [f32; 4]) {
        unsafe {
            let quarters = untranspose512(rows.map(|row| row.0));
            for (i, quarter) in quarters.into_iter().enumerate() {
                _mm512_storeu_ps(to.cast::<f32>().add(16 * i), quarter);
            }
        }
    }

    #[inline(always)]
    unsafe fn load_flags(from: *const u8) -> __mmask16 {
        unsafe {
            let flags = _mm_loadu_si128(from.cast());
            _mm_test_epi8_mask(flags, flags)
        }
    }

    #[inline(always)]
    unsafe fn store_flags(mask: __mmask16, to: *mut u8) {
        unsafe { _mm_storeu_si128(to.cast(), _mm_maskz_set1_epi8(mask, 1)) }
    }

    #[inline(always)]
    unsafe fn actions_equal(from: *const i64, action: i64) -> __mmask16 {
        unsafe {
            let action = _mm512_set1_epi64(action);
            let low = _mm512_cmpeq_epi64_mask(_mm512_loadu_si512(from.cast()), action);
            let high = _mm512_cmpeq_epi64_mask(_mm512_loadu_si512(from.add(8).cast()), action);
            u16::from(low) | u16::from(high) << 8
        }
    }

    #[inline(always)]
    unsafe fn count(counters: *mut i32, chosen: __mmask16, limits: *const i32) -> __mmask16 {
        unsafe {
            let old = _mm512_loadu_si512(counters.cast());
            let new = _mm512_mask_add_epi32(old, chosen, old, _mm512_set1_epi32(1));
            _mm512_storeu_si512(counters.cast(), new);
            _mm512_cmpge_epi32_mask(new, _mm512_loadu_si512(limits.cast()))
        }
    }

    #[inline(always)]
    unsafe fn copy_counters(from: *const i32, chosen: __mmask16, to: *mut i32) {
        unsafe {
            let counters = _mm512_maskz_loadu_epi32(chosen, from);
            _mm512_storeu_si512(to.cast(), counters);
        }
    }
}

/// From four environments per register to one number per register.
#[inline(always)]
unsafe fn transpose512([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    unsafe {
        // Within 128-bit parts, which then hold environments 0 4 8 12, 1 5 9 13, ...
        let [p, q, r, s] = transpose_parts512([a, b, c, d]);
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        [p, q, r, s].map(|row| _mm512_permutexvar_ps(order, row))
    }
}

#[inline(always)]
unsafe fn untranspose512(rows: [__m512; 4]) -> [__m512; 4] {
    unsafe {
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        transpose_parts512(rows.map(|row| _mm512_permutexvar_ps(order, row)))
    }
}

/// Transposes the 4 x 4 numbers that lie in the same 128-bit part of four registers.
#[inline(always)]
unsafe fn transpose_parts512([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    unsafe {
        let ab_low = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
        let ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
        let cd_low = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
        let cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
        [
            _mm512_castpd_ps(_mm512_unpacklo_pd(ab_low, cd_low)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(ab_low, cd_low)),
            _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high)),
        ]
    }
}

impl Lanes for Avx2 {
    const WIDTH: usize = 8;
    type Mask = Mask256;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    fn less(self, other: Self) -> Mask256 {
        Mask256(unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) })
    }

    #[inline(always)]
    fn at_least(self, other: Self) -> Mask256 {
        Mask256(unsafe { _mm256_cmp_ps::<_CMP_GE_OQ>(self.0, other.0) })
    }

    #[inline(always)]
    fn select(self, other: Self, mask: Mask256) -> Self {
        Self(unsafe { _mm256_blendv_ps(other.0, self.0, mask.0) })
    }

    #[inline(always)]
    fn floor(self) -> Self {
        Self(unsafe { _mm256_floor_ps(self.0) })
    }

    #[inline(always)]
    fn sin_cos(self) -> [Self; 2] {
        sin_cos_near_lanes(self).unwrap_or_else(|| unsafe { sin_cos256(self) })
    }
}

/// As `sin_cos512`.
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn sin_cos256(angle: Avx2) -> [Avx2; 2] {
    unsafe { sin_cos_lanes(angle) }
}

impl Register for Avx2 {
    #[inline(always)]
    fn bits(mask: Mask256) -> u32 {
        unsafe { _mm256_movemask_ps(mask.0) as u32 }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn load_rows(from: *const [f32; 4]) -> [Self; 4] {
        unsafe {
            // Environments i and i + 4 share a register, so that the transpose leaves them in order.
            let pair = |i: usize| {
                let low = _mm256_castps128_ps256(_mm_loadu_ps(from.add(i).cast()));
                _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(from.add(i + 4).cast()))
            };
            transpose_parts256([pair(0), pair(1), pair(2), pair(3)]).map(Self)
        }
    }

    #[inline(always)]
    unsafe fn store_rows(rows: [Self; 4], to: *mut [f32; 4]) {
        unsafe {
            let pairs = transpose_parts256(rows.map(|row| row.0));
            for (i, pair) in pairs.into_iter().enumerate() {
                _mm_storeu_ps(to.add(i).cast(), _mm256_castps256_ps128(pair));
                _mm_storeu_ps(to.add(i + 4).cast(), _mm256_extractf128_ps::<1>(pair));
            }
        }
    }

    #[inline(always)]
    unsafe fn load_flags(from: *const u8) -> Mask256 {
        unsafe {
            let flags = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
            Mask256(_mm256_castsi256_ps(_mm256_cmpgt_epi32(
                flags,
                _mm256_setzero_si256(),
            )))
        }
    }

    #[inline(always)]
    unsafe fn store_flags(mask: Mask256, to: *mut u8) {
        unsafe {
            let words = _mm256_castps_si256(mask.0);
            let halves = _mm_packs_epi32(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            let flags = _mm_and_si128(_mm_packs_epi16(halves, halves), _mm_set1_epi8(1));
            _mm_storel_epi64(to.cast(), flags);
        }
    }

    #[inline(always)]
    unsafe fn actions_equal(from: *const i64, action: i64) -> Mask256 {
        unsafe {
            let action = _mm256_set1_epi64x(action);
            let equal = |i: usize| {
                let actions = _mm256_loadu_si256(from.add(i).cast());
                _mm256_castsi256_ps(_mm256_cmpeq_epi64(actions, action))
            };
            // Every other word of both, 0 1 4 5 2 3 6 7, then in order.
            let words = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(equal(0), equal(4)));
            Mask256(_mm256_castpd_ps(_mm256_permute4x64_pd::<0xD8>(words)))
        }
    }

    #[inline(always)]
    unsafe fn count(counters: *mut i32, chosen: Mask256, limits: *const i32) -> Mask256 {
        unsafe {
            let old = _mm256_loadu_si256(counters.cast());
            let new = _mm256_sub_epi32(old, _mm256_castps_si256(chosen.0));
            _mm256_storeu_si256(counters.cast(), new);
            let below = _mm256_cmpgt_epi32(_mm256_loadu_si256(limits.cast()), new);
            !Mask256(_mm256_castsi256_ps(below))
        }
    }

    #[inline(always)]
    unsafe fn copy_counters(from: *const i32, chosen: Mask256, to: *mut i32) {
        unsafe {
            let counters = _mm256_castsi256_ps(_mm256_loadu_si256(from.cast()));
            _mm256_storeu_ps(to.cast(), _mm256_and_ps(counters, chosen.0));
        }
    }
}

/// Transposes the 4 x 4 numbers that lie in the same 128-bit part of four registers.
#[inline(always)]
unsafe fn transpose_parts256([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
    unsafe {
        let ab_low = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
        let ab_high = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
        let cd_low = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
        let cd_high = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
        [
            _mm256_castpd_ps(_mm256_unpacklo_pd(ab_low, cd_low)),
            _mm256_castpd_ps(_mm256_unpackhi_pd(ab_low, cd_low)),
            _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high)),
            _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high)),
        ]
    }
}
