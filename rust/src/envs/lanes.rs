//! One number of several environments at once: physics is written on `Lanes` and runs on a plain
//! `f32` or on a vector register, with the same rounding in every lane.

#![allow(unsafe_code)]

use std::ops::{Add, BitAnd, BitOr, Div, Mul, Not, Sub};

use super::trigonometry;

/// Lanes of the widest register.
pub const MAX_WIDTH: usize = 16;

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
    fn at_least(self, other: Self) -> Self::Mask;
    /// `self` where the mask is set, else `other`.
    fn select(self, other: Self, mask: Self::Mask) -> Self;
    /// The largest whole number that is not above.
    fn floor(self) -> Self;
    /// `[sin, cos]` of any angle.
    fn sin_cos(self) -> [Self; 2];

    /// `low` where it is below that, `high` where it is above that; NaN stays.
    #[inline(always)]
    fn clip(self, low: Self, high: Self) -> Self {
        let raised = low.select(self, self.less(low));
        high.select(raised, high.less(raised))
    }
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
    fn at_least(self, other: Self) -> bool {
        self >= other
    }

    #[inline(always)]
    fn select(self, other: Self, mask: bool) -> Self {
        if mask { self } else { other }
    }

    #[inline(always)]
    fn floor(self) -> Self {
        self.floor()
    }

    #[inline(always)]
    fn sin_cos(self) -> [Self; 2] {
        trigonometry::sin_cos(self)
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
    /// Adds one to the chosen counters; gives which counters have reached their limits.
    unsafe fn count(counters: *mut i32, chosen: Self::Mask, limits: *const i32) -> Self::Mask;
    /// Copies the chosen counters, 0 elsewhere.
    unsafe fn copy_counters(from: *const i32, chosen: Self::Mask, to: *mut i32);
}

/// The numbers of one environment, next to each other in memory.
pub trait Row: Copy + Send + Sync + 'static {
    const ZERO: Self;
    /// Whether the numbers are i32, otherwise they are f32.
    const INTEGERS: bool;
    /// The same numbers of the environments of a register.
    type Of<L: Lanes>: Copy + AsRef<[L]> + AsMut<[L]>;

    fn numbers(self) -> Self::Of<f32>;

    fn from_numbers(numbers: Self::Of<f32>) -> Self;

    /// # Safety
    /// The register's instructions exist; the pointer is valid for a row per lane.
    unsafe fn load<R: Register>(from: *const Self) -> Self::Of<R>;

    /// # Safety
    /// As for `load`.
    unsafe fn store<R: Register>(rows: Self::Of<R>, to: *mut Self);
}

impl<const N: usize> Row for [f32; N] {
    const ZERO: Self = [0.0; N];
    const INTEGERS: bool = false;
    type Of<L: Lanes> = [L; N];

    #[inline(always)]
    fn numbers(self) -> Self {
        self
    }

    #[inline(always)]
    fn from_numbers(numbers: Self) -> Self {
        numbers
    }

    #[inline(always)]
    unsafe fn load<R: Register>(from: *const Self) -> [R; N] {
        // SAFETY: the caller's promise; as many lanes as `WIDTH` fit the buffer.
        unsafe {
            if N == 4 {
                let rows = R::load_rows(from.cast());
                return std::array::from_fn(|i| rows[i]);
            }
            std::array::from_fn(|i| {
                let mut column = [0.0; MAX_WIDTH];
                for (lane, number) in column.iter_mut().enumerate().take(R::WIDTH) {
                    *number = (*from.add(lane))[i];
                }
                R::load(column.as_ptr())
            })
        }
    }

    #[inline(always)]
    unsafe fn store<R: Register>(rows: [R; N], to: *mut Self) {
        // SAFETY: as above.
        unsafe {
            if N == 4 {
                R::store_rows(std::array::from_fn(|i| rows[i % N]), to.cast());
                return;
            }
            let mut columns = [[0.0; MAX_WIDTH]; N];
            for (row, column) in rows.into_iter().zip(&mut columns) {
                row.store(column.as_mut_ptr());
            }
            for lane in 0..R::WIDTH {
                *to.add(lane) = columns.map(|column| column[lane]);
            }
        }
    }
}

/// Whole numbers that f32 holds exactly, which is what they are in lanes.
impl<const N: usize> Row for [i32; N] {
    const ZERO: Self = [0; N];
    const INTEGERS: bool = true;
    type Of<L: Lanes> = [L; N];

    #[inline(always)]
    fn numbers(self) -> [f32; N] {
        self.map(|number| number as f32)
    }

    #[inline(always)]
    fn from_numbers(numbers: [f32; N]) -> Self {
        numbers.map(|number| number as i32)
    }

    #[inline(always)]
    unsafe fn load<R: Register>(from: *const Self) -> [R; N] {
        let mut rows = [[0.0; N]; MAX_WIDTH];
        for (lane, row) in rows.iter_mut().enumerate().take(R::WIDTH) {
            // SAFETY: the caller's promise.
            *row = unsafe { *from.add(lane) }.numbers();
        }
        // SAFETY: as many lanes as `WIDTH` fit the buffer.
        unsafe { <[f32; N]>::load::<R>(rows.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store<R: Register>(rows: [R; N], to: *mut Self) {
        let mut numbers = [[0.0; N]; MAX_WIDTH];
        // SAFETY: as above.
        unsafe {
            <[f32; N]>::store::<R>(rows, numbers.as_mut_ptr());
            for (lane, &row) in numbers.iter().enumerate().take(R::WIDTH) {
                *to.add(lane) = Self::from_numbers(row);
            }
        }
    }
}
