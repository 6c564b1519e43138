//! Registers of x86 processors with AVX-512.

use std::arch::asm;
use std::arch::x86_64::{
    __m512, __m512d, __mmask8, __mmask16, _CMP_LT_OQ, _CMP_NEQ_UQ, _mm_cvtsi64_si128,
    _mm_loadu_si128, _mm_testn_epi8_mask, _mm512_add_pd, _mm512_add_ps, _mm512_alignr_epi32,
    _mm512_alignr_epi64, _mm512_broadcastsd_pd, _mm512_broadcastss_ps, _mm512_castpd_si512,
    _mm512_castpd512_pd128, _mm512_castps_si512, _mm512_castps512_ps128, _mm512_castsi512_pd,
    _mm512_castsi512_ps, _mm512_cmp_pd_mask, _mm512_cmp_ps_mask, _mm512_cvtsd_f64,
    _mm512_cvtss_f32, _mm512_div_pd, _mm512_div_ps, _mm512_fmadd_pd, _mm512_fmadd_ps,
    _mm512_loadu_pd, _mm512_loadu_ps, _mm512_mask_blend_pd, _mm512_mask_blend_ps,
    _mm512_maskz_mov_pd, _mm512_maskz_mov_ps, _mm512_maskz_mul_pd, _mm512_maskz_mul_ps,
    _mm512_max_pd, _mm512_max_ps, _mm512_min_pd, _mm512_min_ps, _mm512_mul_pd, _mm512_mul_ps,
    _mm512_permute_pd, _mm512_permute_ps, _mm512_scalef_pd, _mm512_scalef_ps, _mm512_set1_pd,
    _mm512_set1_ps, _mm512_setzero_pd, _mm512_setzero_ps, _mm512_shuffle_f32x4,
    _mm512_shuffle_f64x2, _mm512_sqrt_pd, _mm512_sqrt_ps, _mm512_storeu_pd, _mm512_storeu_ps,
    _mm512_sub_pd, _mm512_sub_ps,
};

use super::{Arch, Register, Task};
use crate::ops::element::lanes;

/// The registers of AVX-512; to be named only in functions that enable it.
pub struct Avx512;

impl Arch for Avx512 {
    type F32 = __m512;
    type F64 = __m512d;

    const FUSED: bool = true;
}

#[target_feature(enable = "avx2,avx512bw,avx512dq,avx512vl")]
pub fn run(task: impl Task) {
    task.run::<Avx512>();
}

/// What they are given, in a register that the compiler cannot see into: it would load a number that
/// it knows from memory wherever it is used.
macro_rules! opaque {
    ($name:ident, $register:ty) => {
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn $name(mut x: $register) -> $register {
            // SAFETY: no instruction at all.
            unsafe {
                asm!(
                    "/* {0} */",
                    inout(zmm_reg) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            x
        }
    };
}

opaque!(opaque_ps, __m512);
opaque!(opaque_pd, __m512d);

// SAFETY, for all blocks below: a register is used only in functions that enable its instructions;
// `load` and `store` check that there are enough elements.

impl Register for __m512 {
    type Real = f32;
    type Mask = __mmask16;
    const LANES: usize = 16;

    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        assert!(from.len() >= 16);
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        assert!(to.len() >= 16);
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self) }
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn constant(x: f32) -> Self {
        unsafe { opaque_ps(Self::splat(x)) }
    }

    #[inline(always)]
    fn lane_0(self) -> f32 {
        unsafe { _mm512_cvtss_f32(self) }
    }

    #[inline(always)]
    fn first(self) -> Self {
        unsafe { _mm512_broadcastss_ps(_mm512_castps512_ps128(self)) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { _mm512_add_ps(self, other) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        unsafe { _mm512_sub_ps(self, other) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { _mm512_mul_ps(self, other) }
    }

    #[inline(always)]
    fn times_plus<A: Arch>(self, by: Self, plus: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, by, plus) }
    }

    #[inline(always)]
    fn scaled(self, powers: Self) -> Self {
        unsafe { _mm512_scalef_ps(self, powers) }
    }

    #[inline(always)]
    fn least(self, other: Self) -> Self {
        unsafe { _mm512_min_ps(self, other) }
    }

    #[inline(always)]
    fn greatest(self, other: Self) -> Self {
        unsafe { _mm512_max_ps(self, other) }
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        unsafe { _mm512_div_ps(self, other) }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { _mm512_sqrt_ps(self) }
    }

    #[inline(always)]
    fn exchange(self, by: usize) -> Self {
        unsafe {
            match by {
                1 => _mm512_permute_ps::<0xB1>(self),
                2 => _mm512_permute_ps::<0x4E>(self),
                4 => _mm512_shuffle_f32x4::<0xB1>(self, self),
                _ => _mm512_shuffle_f32x4::<0x4E>(self, self),
            }
        }
    }

    #[inline(always)]
    fn kept(self, x: Self) -> Self {
        unsafe {
            let kept = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(self, _mm512_setzero_ps());
            _mm512_maskz_mul_ps(kept, self, x)
        }
    }

    #[inline(always)]
    fn shift(self, by: usize, after: Self) -> Self {
        unsafe {
            let (after, lanes) = (_mm512_castps_si512(after), _mm512_castps_si512(self));
            _mm512_castsi512_ps(match by {
                1 => _mm512_alignr_epi32::<1>(after, lanes),
                2 => _mm512_alignr_epi32::<2>(after, lanes),
                4 => _mm512_alignr_epi32::<4>(after, lanes),
                8 => _mm512_alignr_epi32::<8>(after, lanes),
                _ => after,
            })
        }
    }

    #[inline(always)]
    fn unset(flags: &[u8]) -> Self::Mask {
        let bytes: [u8; 16] = lanes(flags, 0);
        unsafe {
            let flags = _mm_loadu_si128(bytes.as_ptr().cast());
            _mm_testn_epi8_mask(flags, flags)
        }
    }

    #[inline(always)]
    fn below(self, other: Self) -> Self::Mask {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self, other) }
    }

    #[inline(always)]
    fn masked(self, mask: Self::Mask) -> Self {
        unsafe { _mm512_maskz_mov_ps(mask, self) }
    }

    #[inline(always)]
    fn choose(mask: Self::Mask, a: Self, b: Self) -> Self {
        unsafe { _mm512_mask_blend_ps(mask, b, a) }
    }
}

impl Register for __m512d {
    type Real = f64;
    type Mask = __mmask8;
    const LANES: usize = 8;

    #[inline(always)]
    fn load(from: &[f64]) -> Self {
        assert!(from.len() >= 8);
        unsafe { _mm512_loadu_pd(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f64]) {
        assert!(to.len() >= 8);
        unsafe { _mm512_storeu_pd(to.as_mut_ptr(), self) }
    }

    #[inline(always)]
    fn splat(x: f64) -> Self {
        unsafe { _mm512_set1_pd(x) }
    }

    #[inline(always)]
    fn constant(x: f64) -> Self {
        unsafe { opaque_pd(Self::splat(x)) }
    }

    #[inline(always)]
    fn lane_0(self) -> f64 {
        unsafe { _mm512_cvtsd_f64(self) }
    }

    #[inline(always)]
    fn first(self) -> Self {
        unsafe { _mm512_broadcastsd_pd(_mm512_castpd512_pd128(self)) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { _mm512_add_pd(self, other) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        unsafe { _mm512_sub_pd(self, other) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { _mm512_mul_pd(self, other) }
    }

    #[inline(always)]
    fn times_plus<A: Arch>(self, by: Self, plus: Self) -> Self {
        unsafe { _mm512_fmadd_pd(self, by, plus) }
    }

    #[inline(always)]
    fn scaled(self, powers: Self) -> Self {
        unsafe { _mm512_scalef_pd(self, powers) }
    }

    #[inline(always)]
    fn least(self, other: Self) -> Self {
        unsafe { _mm512_min_pd(self, other) }
    }

    #[inline(always)]
    fn greatest(self, other: Self) -> Self {
        unsafe { _mm512_max_pd(self, other) }
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        unsafe { _mm512_div_pd(self, other) }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { _mm512_sqrt_pd(self) }
    }

    #[inline(always)]
    fn exchange(self, by: usize) -> Self {
        unsafe {
            match by {
                1 => _mm512_permute_pd::<0b0101_0101>(self),
                2 => _mm512_shuffle_f64x2::<0xB1>(self, self),
                _ => _mm512_shuffle_f64x2::<0x4E>(self, self),
            }
        }
    }

    #[inline(always)]
    fn kept(self, x: Self) -> Self {
        unsafe {
            let kept = _mm512_cmp_pd_mask::<_CMP_NEQ_UQ>(self, _mm512_setzero_pd());
            _mm512_maskz_mul_pd(kept, self, x)
        }
    }

    #[inline(always)]
    fn shift(self, by: usize, after: Self) -> Self {
        unsafe {
            let (after, lanes) = (_mm512_castpd_si512(after), _mm512_castpd_si512(self));
            _mm512_castsi512_pd(match by {
                1 => _mm512_alignr_epi64::<1>(after, lanes),
                2 => _mm512_alignr_epi64::<2>(after, lanes),
                4 => _mm512_alignr_epi64::<4>(after, lanes),
                _ => after,
            })
        }
    }

    #[inline(always)]
    fn unset(flags: &[u8]) -> Self::Mask {
        let bytes = i64::from_ne_bytes(lanes(flags, 0));
        unsafe {
            let flags = _mm_cvtsi64_si128(bytes);
            _mm_testn_epi8_mask(flags, flags) as __mmask8
        }
    }

    #[inline(always)]
    fn below(self, other: Self) -> Self::Mask {
        unsafe { _mm512_cmp_pd_mask::<_CMP_LT_OQ>(self, other) }
    }

    #[inline(always)]
    fn masked(self, mask: Self::Mask) -> Self {
        unsafe { _mm512_maskz_mov_pd(mask, self) }
    }

    #[inline(always)]
    fn choose(mask: Self::Mask, a: Self, b: Self) -> Self {
        unsafe { _mm512_mask_blend_pd(mask, b, a) }
    }
}
