//! The recurrence along one trajectory, without the latency of a chain of dependent steps.
//!
//! Consecutive steps compose: `(a, b)` and then `(a', b')` is `(a a', b + a b')`, where `(a, b)`
//! stands for `x = a x_next + b`. Two registers of consecutive times are composed with their own
//! copies shifted by 1, 2, 4, ... lanes; then every lane holds the steps from its time to the end of
//! the registers as a single one, and only that one waits for what follows (Hillis and Steele,
//! "Data parallel algorithms", CACM 1986).
//!
//! Registers are vectors of the processor where it has AVX2, and arrays otherwise; both run the same
//! operations in the same order and give the same bits.

#![allow(unsafe_code)]

use super::element::{Real, each};

pub fn compose_f32(decay: &[f32], x: &mut [f32], carry: f32) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        unsafe { avx2::compose_f32(decay, x, carry) };
        return;
    }
    compose::<[f32; 8]>(decay, x, carry);
}

pub fn compose_f64(decay: &[f64], x: &mut [f64], carry: f64) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        unsafe { avx2::compose_f64(decay, x, carry) };
        return;
    }
    compose::<[f64; 4]>(decay, x, carry);
}

/// Some consecutive lanes; lane 0 is the earliest time.
trait Register: Copy {
    type Real: Real;
    const LANES: usize;

    fn load(from: &[Self::Real]) -> Self;
    fn store(self, to: &mut [Self::Real]);
    fn splat(x: Self::Real) -> Self;
    /// Lane 0 in every lane.
    fn first(self) -> Self;
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * x`, and zero where `self` is zero.
    fn kept(self, x: Self) -> Self;
    /// Lanes 1 and up, then lane 0 of `after`.
    fn shift_1(self, after: Self) -> Self;
    /// Lanes 2 and up, then lanes 0 and 1 of `after`.
    fn shift_2(self, after: Self) -> Self;
    /// Lanes 4 and up, then lanes 0 to 3 of `after`; called for eight lanes only.
    fn shift_4(self, after: Self) -> Self;
}

#[inline(always)]
fn compose<V: Register>(decay: &[V::Real], x: &mut [V::Real], carry: V::Real) {
    let mut behind = V::splat(carry);
    let mut end = x.len();
    let decay = &decay[..end];
    while end >= 2 * V::LANES {
        let (start, middle) = (end - 2 * V::LANES, end - V::LANES);
        let [low, high] = compose_block(
            [V::load(&decay[start..middle]), V::load(&decay[middle..end])],
            [V::load(&x[start..middle]), V::load(&x[middle..end])],
            behind,
        );
        low.store(&mut x[start..middle]);
        high.store(&mut x[middle..end]);
        behind = low.first();
        end = start;
    }
    let mut carry = if end < x.len() { x[end] } else { carry };
    for (decay, x) in decay[..end].iter().zip(&mut x[..end]).rev() {
        let kept = V::Real::mask(*decay != V::Real::ZERO);
        carry = *x + (*decay * carry).masked(kept);
        *x = carry;
    }
}

#[inline(always)]
fn compose_block<V: Register>(a: [V; 2], x: [V; 2], carry: V) -> [V; 2] {
    let (mut a, mut x) = (a, x);
    (a, x) = level(a, x, |lanes, after| lanes.shift_1(after));
    (a, x) = level(a, x, |lanes, after| lanes.shift_2(after));
    if V::LANES == 8 {
        (a, x) = level(a, x, |lanes, after| lanes.shift_4(after));
    }
    let low = x[0].add(a[0].kept(x[1]));
    let to_end = a[0].mul(a[1]);
    [low.add(to_end.kept(carry)), x[1].add(a[1].kept(carry))]
}

/// Compose every lane with the one that `shift` puts in its place; nothing follows the last lane.
#[inline(always)]
fn level<V: Register>(a: [V; 2], x: [V; 2], shift: impl Fn(V, V) -> V) -> ([V; 2], [V; 2]) {
    let (zero, one) = (V::splat(V::Real::ZERO), V::splat(V::Real::ONE));
    let behind = [shift(x[0], x[1]), shift(x[1], zero)];
    let decays = [shift(a[0], a[1]), shift(a[1], one)];
    (
        [a[0].mul(decays[0]), a[1].mul(decays[1])],
        [
            x[0].add(a[0].kept(behind[0])),
            x[1].add(a[1].kept(behind[1])),
        ],
    )
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
            fn shift_1(self, after: Self) -> Self {
                shift_array::<_, $lanes, 1>(self, after)
            }

            #[inline(always)]
            fn shift_2(self, after: Self) -> Self {
                shift_array::<_, $lanes, 2>(self, after)
            }

            #[inline(always)]
            fn shift_4(self, after: Self) -> Self {
                shift_array::<_, $lanes, 4>(self, after)
            }
        }
    };
}

#[inline(always)]
fn shift_array<T: Copy + Default, const L: usize, const BY: usize>(
    lanes: [T; L],
    after: [T; L],
) -> [T; L] {
    each(|lane| {
        if lane + BY < L {
            lanes[lane + BY]
        } else {
            after[lane + BY - L]
        }
    })
}

impl_register_for_array!(f32, 8);
impl_register_for_array!(f64, 4);

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, __m256d, _CMP_NEQ_UQ, _mm256_add_pd, _mm256_add_ps, _mm256_alignr_epi8,
        _mm256_and_pd, _mm256_and_ps, _mm256_broadcastsd_pd, _mm256_broadcastss_ps,
        _mm256_castpd256_pd128, _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps,
        _mm256_cmp_pd, _mm256_cmp_ps, _mm256_loadu_pd, _mm256_loadu_ps, _mm256_mul_pd,
        _mm256_mul_ps, _mm256_permute2f128_pd, _mm256_permute2f128_ps, _mm256_set1_pd,
        _mm256_set1_ps, _mm256_setzero_pd, _mm256_setzero_ps, _mm256_shuffle_pd, _mm256_storeu_pd,
        _mm256_storeu_ps,
    };

    use super::{Register, compose};

    #[target_feature(enable = "avx2")]
    pub fn compose_f32(decay: &[f32], x: &mut [f32], carry: f32) {
        compose::<__m256>(decay, x, carry);
    }

    #[target_feature(enable = "avx2")]
    pub fn compose_f64(decay: &[f64], x: &mut [f64], carry: f64) {
        compose::<__m256d>(decay, x, carry);
    }

    // SAFETY, for all blocks below: only the two functions above use these registers, on a
    // processor with AVX2; `load` and `store` check that there are enough elements.

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
        fn shift_1(self, after: Self) -> Self {
            unsafe {
                let halves = _mm256_permute2f128_ps::<0x21>(self, after);
                let (upper, lower) = (_mm256_castps_si256(halves), _mm256_castps_si256(self));
                _mm256_castsi256_ps(_mm256_alignr_epi8::<4>(upper, lower))
            }
        }

        #[inline(always)]
        fn shift_2(self, after: Self) -> Self {
            unsafe {
                let halves = _mm256_permute2f128_ps::<0x21>(self, after);
                let (upper, lower) = (_mm256_castps_si256(halves), _mm256_castps_si256(self));
                _mm256_castsi256_ps(_mm256_alignr_epi8::<8>(upper, lower))
            }
        }

        #[inline(always)]
        fn shift_4(self, after: Self) -> Self {
            unsafe { _mm256_permute2f128_ps::<0x21>(self, after) }
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
        fn shift_1(self, after: Self) -> Self {
            unsafe {
                let halves = _mm256_permute2f128_pd::<0x21>(self, after);
                _mm256_shuffle_pd::<0b0101>(self, halves)
            }
        }

        #[inline(always)]
        fn shift_2(self, after: Self) -> Self {
            unsafe { _mm256_permute2f128_pd::<0x21>(self, after) }
        }

        #[inline(always)]
        fn shift_4(self, after: Self) -> Self {
            after
        }
    }
}
