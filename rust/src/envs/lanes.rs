//! One number of several environments at once: physics is written on `Lanes` and runs on a plain
//! `f32` or on a vector register, with the same rounding in every lane.

#![allow(unsafe_code)]

use std::ops::{Add, BitAnd, BitOr, Div, Mul, Not, Sub};

/// Sixteen or fewer `f32`, one per environment.
///
/// The pointer methods read or write `WIDTH` consecutive entries.
pub trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    const WIDTH: usize;
    type Mask: Copy
        + BitAnd<Output = Self::Mask>
        + BitOr<Output = Self::Mask>
        + Not<Output = Self::Mask>;

    fn splat(value: f32) -> Self;
    fn less(self, other: Self) -> Self::Mask;
    /// `self` where the mask is set, else `other`.
    fn select(self, other: Self, mask: Self::Mask) -> Self;
}

impl Lanes for f32 {
    const WIDTH: usize = 1;
    type Mask = bool;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn less(self, other: Self) -> bool {
        self < other
    }

    #[inline(always)]
    fn select(self, other: Self, mask: bool) -> Self {
        if mask { self } else { other }
    }
}

/// A vector register of `f32`, and how the arrays of a batch go in and out of it.
///
/// # Safety
/// Every method needs the instruction set of the register; pointers must be valid for `WIDTH`
/// entries.
#[allow(clippy::missing_safety_doc)]
pub trait Register: Lanes {
    /// One bit per lane.
    fn bits(mask: Self::Mask) -> u32;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Four numbers per environment, environment after environment.
    unsafe fn load_rows(from: *const [f32; 4]) -> [Self; 4];
    unsafe fn store_rows(rows: [Self; 4], to: *mut [f32; 4]);
    /// Which flags are not 0.
    unsafe fn load_flags(from: *const u8) -> Self::Mask;
    unsafe fn store_flags(mask: Self::Mask, to: *mut u8);
    /// Which actions equal `action`.
    unsafe fn actions_equal(from: *const i64, action: i64) -> Self::Mask;
    /// Adds one to the chosen counters; gives which counters have reached the limit.
    unsafe fn count(counters: *mut i32, chosen: Self::Mask, limit: i32) -> Self::Mask;
    /// Copies the chosen counters, 0 elsewhere.
    unsafe fn copy_counters(from: *const i32, chosen: Self::Mask, to: *mut i32);
}
