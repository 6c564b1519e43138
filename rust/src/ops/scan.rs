//! The linear recurrence `x[t] = a[t] x[t+1] + b[t]`, walked backwards in time.
//!
//! Discounted sums, GAE, TD(lambda), V-trace and their kin differ only in how `a` and `b` are built
//! from a transition. An estimator says that in a [`Recurrence`]; here is the walk itself, over
//! many lanes at a time (a lane is an environment, or a stretch of one long trajectory).

use std::ops::Range;

use super::element::Real;
use super::strided::RowsMut;

/// One step of the recurrence: `x = offset`, plus `decay * x_next` if the trace is kept.
///
/// A cut is a choice and not a zero `decay`, so that NaN or infinity behind it stays there.
pub struct Coefficients<R> {
    pub keep: bool,
    pub decay: R,
    pub offset: R,
}

impl<R: Real> Coefficients<R> {
    /// `x` before the step, given `x` after it.
    #[inline(always)]
    pub fn after(&self, x_next: R) -> R {
        self.offset
            + if self.keep {
                self.decay * x_next
            } else {
                R::ZERO
            }
    }
}

/// Some rows of transitions, and what turns them into coefficients and results.
pub trait Recurrence {
    type Real: Real;

    /// One row or a part of it: slices of equal length.
    type Row: Copy;

    fn row(&self, time: usize) -> Self::Row;

    fn lanes(row: Self::Row, lanes: Range<usize>) -> Self::Row;

    /// The value of the observation that the transition starts from.
    fn value(row: Self::Row, lane: usize) -> Self::Real;

    /// The coefficients of one lane; `next_value` is the value that follows if nothing ends.
    fn coefficients(
        &self,
        row: Self::Row,
        lane: usize,
        next_value: Self::Real,
    ) -> Coefficients<Self::Real>;

    /// What is written to the two outputs.
    fn results(&self, row: Self::Row, lane: usize, x: Self::Real) -> [Self::Real; 2];
}

/// What the walk hands from a row to the row before it, for each lane.
pub struct State<R> {
    /// The value of the next observation.
    pub next_values: Vec<R>,
    /// `x` at the next time.
    pub carry: Vec<R>,
}

/// Walk `times` rows backwards, from `state` and to it.
#[inline(always)]
pub fn walk<M: Recurrence>(
    model: &M,
    times: usize,
    state: &mut State<M::Real>,
    outputs: [&mut RowsMut<'_, M::Real>; 2],
) {
    let [first, second] = outputs;
    let width = state.carry.len();
    let next_values = &mut state.next_values[..width];
    let carry = &mut state.carry[..width];
    for time in (0..times).rev() {
        let row = M::lanes(model.row(time), 0..width);
        let first = &mut first.row(time)[..width];
        let second = &mut second.row(time)[..width];
        for lane in 0..width {
            let step = model.coefficients(row, lane, next_values[lane]);
            let x = step.after(carry[lane]);
            [first[lane], second[lane]] = model.results(row, lane, x);
            carry[lane] = x;
            next_values[lane] = M::value(row, lane);
        }
    }
}

/// Many steps as one, for each lane: `x = offset`, plus `decay * x_after` where the trace is kept.
pub struct Summary<R> {
    pub keep: Vec<bool>,
    pub decay: Vec<R>,
    pub offset: Vec<R>,
}

impl<R: Real> Summary<R> {
    /// The summary of no step.
    pub fn new(width: usize) -> Self {
        Self {
            keep: vec![true; width],
            decay: vec![R::ONE; width],
            offset: vec![R::ZERO; width],
        }
    }

    /// `x` before the steps of a lane, given `x` after them.
    ///
    /// A product of decays that has underflowed must not turn infinity into NaN.
    pub fn before(&self, lane: usize, x_after: R) -> R {
        let underflow = self.decay[lane] == R::ZERO && !x_after.is_finite();
        Coefficients {
            keep: self.keep[lane],
            decay: if underflow { R::TINY } else { self.decay[lane] },
            offset: self.offset[lane],
        }
        .after(x_after)
    }
}

/// Compose `times` rows, the last one first, with what `summary` holds already.
#[inline(always)]
pub fn summarize<M: Recurrence>(
    model: &M,
    times: usize,
    next_values: &mut [M::Real],
    summary: &mut Summary<M::Real>,
) {
    let width = next_values.len();
    let keep = &mut summary.keep[..width];
    let decay = &mut summary.decay[..width];
    let offset = &mut summary.offset[..width];
    for time in (0..times).rev() {
        let row = M::lanes(model.row(time), 0..width);
        for lane in 0..width {
            let step = model.coefficients(row, lane, next_values[lane]);
            keep[lane] &= step.keep;
            decay[lane] = decay[lane] * step.decay;
            offset[lane] = step.after(offset[lane]);
            next_values[lane] = M::value(row, lane);
        }
    }
}
