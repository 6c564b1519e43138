//! Registers of the processor, chosen at run time, for work that shifts lanes.
//!
//! Loops in which every lane does the same are left to the compiler; shifts are not, it turns them
//! into scalar code.

#![allow(unsafe_code)]

use super::element::{Real, each, lanes};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// A set of registers.
pub trait Arch {
    type F32: Register<Real = f32>;
    type F64: Register<Real = f64>;

    /// Whether a product and its sum with a third number are one instruction.
    const FUSED: bool;
}

/// Arrays, for any processor.
pub struct Portable;

impl Arch for Portable {
    type F32 = [f32; 8];
    type F64 = [f64; 4];

    const FUSED: bool = false;
}

/// Work to be compiled for several instruction sets.
pub trait Task {
    /// To be `#[inline(always)]`, with all that it calls in its inner loops.
    fn run<A: Arch>(self);
}

/// Run a task with the best instructions that the processor has.
pub fn run(task: impl Task) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
        // SAFETY: the processor has what the function enables (BW and VL imply F, AVX2 and FMA).
        return unsafe { avx512::run(task) };
    }
    run_narrow(task);
}

/// The same without registers as wide as a cache line, for work that waits for memory: in arrays
/// that do not begin with a line, all that such a register holds lies in two of them.
pub fn run_narrow(task: impl Task) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has what the function enables.
        return unsafe { avx2::run(task) };
    }
    task.run::<Portable>();
}

/// Some consecutive lanes: times of a trajectory, lane 0 the earliest, or environments.
///
/// Arrays are registers of any width, for the compiler to find vectors in.
pub trait Register: Copy {
    type Real: Real;
    /// A choice for each lane.
    type Mask: Copy;
    const LANES: usize;

    fn load(from: &[Self::Real]) -> Self;
    fn store(self, to: &mut [Self::Real]);
    fn splat(x: Self::Real) -> Self;
    /// [`Self::splat`] of what a loop needs again and again, to be kept in a register.
    #[inline(always)]
    fn constant(x: Self::Real) -> Self {
        Self::splat(x)
    }
    fn lane_0(self) -> Self::Real;
    /// Lane 0 in every lane.
    fn first(self) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * by + plus`, rounded once where the processor does that in one instruction.
    fn times_plus<A: Arch>(self, by: Self, plus: Self) -> Self;
    /// `self * 2^powers`, rounded once; `powers` are integers between those of the least number and
    /// of infinity.
    fn scaled(self, powers: Self) -> Self;
    /// The lesser of each pair of lanes; `other` where there is a NaN.
    fn least(self, other: Self) -> Self;
    /// The greater of each pair of lanes; `other` where there is a NaN.
    fn greatest(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    /// Each lane gets the one whose number differs in the bit `by`, a power of two below `LANES`.
    fn exchange(self, by: usize) -> Self;
    /// `self * x`, and zero where `self` is zero.
    fn kept(self, x: Self) -> Self;
    /// Lanes `by` and up, then the first lanes of `after`; `by` is a power of two below `LANES`,
    /// or `LANES` itself.
    fn shift(self, by: usize, after: Self) -> Self;
    /// The lanes whose flag is zero.
    fn unset(flags: &[u8]) -> Self::Mask;
    /// The lanes in which `self` is less than `other`.
    fn below(self, other: Self) -> Self::Mask;
    /// `self` in the lanes of the mask, zero in the others.
    fn masked(self, mask: Self::Mask) -> Self;
    /// `a` in the lanes of the mask, `b` in the others.
    fn choose(mask: Self::Mask, a: Self, b: Self) -> Self;
}

impl<R: Real, const L: usize> Register for [R; L] {
    type Real = R;
    type Mask = [R::Mask; L];
    const LANES: usize = L;

    #[inline(always)]
    fn load(from: &[R]) -> Self {
        lanes(from, 0)
    }

    #[inline(always)]
    fn store(self, to: &mut [R]) {
        to[..L].copy_from_slice(&self);
    }

    #[inline(always)]
    fn splat(x: R) -> Self {
        [x; L]
    }

    #[inline(always)]
    fn lane_0(self) -> R {
        self[0]
    }

    #[inline(always)]
    fn first(self) -> Self {
        [self[0]; L]
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each(|lane| self[lane] + other[lane])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each(|lane| self[lane] - other[lane])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each(|lane| self[lane] * other[lane])
    }

    #[inline(always)]
    fn times_plus<A: Arch>(self, by: Self, plus: Self) -> Self {
        each(|lane| self[lane].times_plus::<A>(by[lane], plus[lane]))
    }

    #[inline(always)]
    fn scaled(self, powers: Self) -> Self {
        each(|lane| R::scaled(self[lane], powers[lane]))
    }

    #[inline(always)]
    fn least(self, other: Self) -> Self {
        each(|lane| {
            if self[lane] < other[lane] {
                self[lane]
            } else {
                other[lane]
            }
        })
    }

    #[inline(always)]
    fn greatest(self, other: Self) -> Self {
        each(|lane| {
            if self[lane] > other[lane] {
                self[lane]
            } else {
                other[lane]
            }
        })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        each(|lane| self[lane] / other[lane])
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        each(|lane| self[lane].sqrt())
    }

    #[inline(always)]
    fn exchange(self, by: usize) -> Self {
        each(|lane| self[lane ^ by])
    }

    #[inline(always)]
    fn kept(self, x: Self) -> Self {
        let nonzero: Self::Mask = each(|lane| R::mask(self[lane] != R::ZERO));
        self.mul(x).masked(nonzero)
    }

    #[inline(always)]
    fn shift(self, by: usize, after: Self) -> Self {
        each(|lane| {
            if lane + by < L {
                self[lane + by]
            } else {
                after[lane + by - L]
            }
        })
    }

    #[inline(always)]
    fn unset(flags: &[u8]) -> Self::Mask {
        let flags = &flags[..L];
        each(|lane| R::mask(flags[lane] == 0))
    }

    #[inline(always)]
    fn below(self, other: Self) -> Self::Mask {
        each(|lane| R::mask(self[lane] < other[lane]))
    }

    #[inline(always)]
    fn masked(self, mask: Self::Mask) -> Self {
        each(|lane| self[lane].masked(mask[lane]))
    }

    #[inline(always)]
    fn choose(mask: Self::Mask, a: Self, b: Self) -> Self {
        each(|lane| R::choose(mask[lane], a[lane], b[lane]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Comparisons, choices and exchanges of registers against those of single numbers.
    struct Check;

    impl Task for Check {
        #[inline(always)]
        fn run<A: Arch>(self) {
            check::<A::F32>();
            check::<A::F64>();
        }
    }

    #[inline(always)]
    fn check<R: Register>() {
        let number = |i: usize| R::Real::from_f64([1.0, -2.0, 0.0, 3.0, f64::INFINITY][i % 5]);
        let a: [R::Real; 16] = each(number);
        let b: [R::Real; 16] = each(|lane| number(lane / 3));
        let (x, y) = (R::load(&a), R::load(&b));
        let mut found = [R::Real::ZERO; 16];
        R::choose(x.below(y), x, y).store(&mut found);
        for lane in 0..R::LANES {
            let least = if a[lane] < b[lane] { a[lane] } else { b[lane] };
            assert!(found[lane] == least, "lane {lane}");
        }
        for by in [1, 2, 4, 8].into_iter().filter(|&by| by < R::LANES) {
            x.exchange(by).store(&mut found);
            assert!(
                (0..R::LANES).all(|lane| found[lane] == a[lane ^ by]),
                "{by}"
            );
        }
    }

    #[test]
    fn registers_of_all_instruction_sets_do_as_numbers_do() {
        Check.run::<Portable>();
        run_narrow(Check);
        run(Check);
    }
}
