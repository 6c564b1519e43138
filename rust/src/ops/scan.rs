//! The linear recurrence `x[t] = decay[t] x[t+1] + offset[t]`, walked backwards in time.
//!
//! Discounted sums, GAE, TD(lambda), V-trace and their kin differ only in how decay and offset are
//! built from a transition: an estimator is a [`Recurrence`]. Two walks serve all layouts:
//! [`State`] has environments side by side in a vector, [`walk_line`] consecutive times of one
//! trajectory.
//!
//! A decay of zero cuts the trace: what lies behind is not multiplied by zero but left out, so that
//! NaN or infinity there stays there.

use super::element::{Real, lanes};
use super::line::{BLOCK, Block, Powers, registers, solve, solve_uncut};
use super::registers::Register;
use super::strided::RowsMut;

/// What the recurrence takes from the transitions in the lanes of a register.
#[derive(Clone, Copy)]
pub struct Coefficients<V> {
    pub decays: V,
    pub offsets: V,
    /// Results may look at `gains x[t+1] + bases`.
    pub gains: V,
    pub bases: V,
}

impl<V: Register> Coefficients<V> {
    /// For results that do not look ahead.
    #[inline(always)]
    pub fn new(decays: V, offsets: V) -> Self {
        Self {
            decays,
            offsets,
            gains: decays,
            bases: offsets,
        }
    }

    #[inline(always)]
    fn ahead(&self, x_next: V) -> V {
        self.bases.add(self.gains.kept(x_next))
    }
}

/// How transitions become coefficients, and the recurrence results.
pub trait Recurrence {
    type Real: Real;

    /// Slices of equal length, one per input: a row of environments or a line of times.
    type Slices: Copy;

    /// One row.
    fn row(&self, index: usize) -> Self::Slices;

    /// `count` elements of every slice from `start` on: after this one check none is needed.
    fn part(slices: &Self::Slices, start: usize, count: usize) -> Self::Slices;

    /// The values of the observations that the transitions start from.
    fn values(slices: &Self::Slices) -> &[Self::Real];

    /// Decays and offsets of the lanes from `start` on; `next_values` are the values that follow
    /// if nothing ends.
    fn coefficients<V: Register<Real = Self::Real>>(
        &self,
        slices: &Self::Slices,
        start: usize,
        values: V,
        next_values: V,
    ) -> Coefficients<V>;

    /// Whether all lanes of a block are known to have the decay of the [`Powers`] that the walk is
    /// given. False is always right and costs only time.
    fn is_uncut(&self, block: &Self::Slices) -> bool;

    /// The lanes that do not count, from `start` on: nothing happens in them, and the results are
    /// zero. `None` if all of them count.
    fn skipped<V: Register<Real = Self::Real>>(
        &self,
        slices: &Self::Slices,
        start: usize,
    ) -> Option<V::Mask>;

    /// What is written to the two outputs; `ahead` is `gains x[t+1] + bases`.
    fn results<V: Register<Real = Self::Real>>(&self, values: V, x: V, ahead: V) -> [V; 2];
}

/// What is handed backwards in time, for each environment.
pub struct State<R> {
    /// The value of the next observation.
    pub next_values: Vec<R>,
    /// `x` at the next time.
    pub carry: Vec<R>,
}

/// One row of each output.
pub type Row<'a, R> = [Option<&'a mut [R]>; 2];

/// A walk over rows of environments, from the last time to the first, that may be taken in parts.
pub trait RowWalk<R: Real> {
    /// Walk the last `times` rows that are left.
    fn walk<M: Recurrence<Real = R>, V: Register<Real = R>>(
        &mut self,
        model: &M,
        times: usize,
        outputs: &mut [Option<RowsMut<'_, R>>; 2],
    );
}

impl<R: Real> RowWalk<R> for State<R> {
    #[inline(always)]
    fn walk<M: Recurrence<Real = R>, V: Register<Real = R>>(
        &mut self,
        model: &M,
        times: usize,
        outputs: &mut [Option<RowsMut<'_, R>>; 2],
    ) {
        let width = self.carry.len();
        let (carry, next_values) = (&mut self.carry[..], &mut self.next_values[..width]);
        for time in (0..times).rev() {
            let row = M::part(&model.row(time), 0, width);
            let mut outputs = rows(outputs, time).map(|row| row.map(|row| &mut row[..width]));
            let mut start = 0;
            steps::<M, V>(model, &row, &mut start, carry, next_values, &mut outputs);
            steps::<M, [_; 8]>(model, &row, &mut start, carry, next_values, &mut outputs);
            steps::<M, [_; 4]>(model, &row, &mut start, carry, next_values, &mut outputs);
            steps::<M, [_; 1]>(model, &row, &mut start, carry, next_values, &mut outputs);
        }
    }
}

/// As many registers from `start` on as the row still fills.
#[inline(always)]
fn steps<M: Recurrence, V: Register<Real = M::Real>>(
    model: &M,
    row: &M::Slices,
    start: &mut usize,
    carry: &mut [M::Real],
    next_values: &mut [M::Real],
    outputs: &mut Row<'_, M::Real>,
) {
    while next_values.len() - *start >= V::LANES {
        step::<M, V>(model, row, *start, carry, next_values, outputs);
        *start += V::LANES;
    }
}

/// Row `index` of each output.
#[inline(always)]
pub fn rows<'a, R>(outputs: &'a mut [Option<RowsMut<'_, R>>; 2], index: usize) -> Row<'a, R> {
    let [first, second] = outputs;
    let row = |rows: &'a mut Option<_>| {
        rows.as_mut()
            .map(|rows: &mut RowsMut<'_, R>| rows.row(index))
    };
    [row(first), row(second)]
}

#[inline(always)]
fn store<V: Register>(results: [V; 2], outputs: &mut Row<'_, V::Real>, start: usize) {
    let [first, second] = outputs;
    if let Some(first) = first {
        results[0].store(&mut first[start..]);
    }
    if let Some(second) = second {
        results[1].store(&mut second[start..]);
    }
}

#[inline(always)]
fn step<M: Recurrence, V: Register<Real = M::Real>>(
    model: &M,
    row: &M::Slices,
    start: usize,
    carry: &mut [M::Real],
    next_values: &mut [M::Real],
    outputs: &mut Row<'_, M::Real>,
) {
    let (carry, next_values) = (&mut carry[start..], &mut next_values[start..]);
    let mut values = V::load(&M::values(row)[start..]);
    let (next_value, x_next) = (V::load(next_values), V::load(carry));
    let found = model.coefficients(row, start, values, next_value);
    let mut x = found.offsets.add(found.decays.kept(x_next));
    let mut results = model.results(values, x, found.ahead(x_next));
    if let Some(skipped) = model.skipped::<V>(row, start) {
        let zero = V::splat(M::Real::ZERO);
        x = V::choose(skipped, x_next, x);
        values = V::choose(skipped, next_value, values);
        results = results.map(|result| V::choose(skipped, zero, result));
    }
    store(results, outputs, start);
    x.store(carry);
    values.store(next_values);
}

/// Walk row `index`, a line of times of one trajectory all of which count, from its end to its
/// beginning, from `state = (next value, x at the next time)` and to it.
#[inline(always)]
pub fn walk_line<M: Recurrence, V: Register<Real = M::Real>>(
    model: &M,
    index: usize,
    powers: Option<&Powers<V>>,
    state: &mut (M::Real, M::Real),
    outputs: &mut [Option<RowsMut<'_, M::Real>>; 2],
) {
    let count = M::values(&model.row(index)).len();
    // All slices get one length, which the compiler then checks once for all of them.
    let line = M::part(&model.row(index), 0, count);
    let mut outputs = rows(outputs, index).map(|row| row.map(|row| &mut row[..count]));
    let mut later_values = V::splat(state.0);
    let mut carry = V::splat(state.1);
    let mut head = count;
    while head >= BLOCK {
        head -= BLOCK;
        let block = M::part(&line, head, BLOCK);
        let mut values = [later_values; 4];
        let mut decays: Block<V> = values;
        let mut offsets: Block<V> = values;
        let mut found = [Coefficients::new(later_values, later_values); 4];
        for register in (0..registers::<V>()).rev() {
            let at = register * V::LANES;
            values[register] = V::load(&M::values(&block)[at..]);
            let next_values = values[register].shift(1, later_values);
            later_values = values[register];
            found[register] = model.coefficients(&block, at, values[register], next_values);
            decays[register] = found[register].decays;
            offsets[register] = found[register].offsets;
        }
        let mut written = outputs
            .each_mut()
            .map(|row| row.as_deref_mut().map(|row| &mut row[head..][..BLOCK]));
        let mut later = carry;
        let x = match powers {
            Some(powers) if model.is_uncut(&block) => solve_uncut(powers, offsets, &mut carry),
            _ => solve(decays, offsets, &mut carry),
        };
        for register in (0..registers::<V>()).rev() {
            let ahead = found[register].ahead(x[register].shift(1, later));
            later = x[register];
            let results = model.results(values[register], x[register], ahead);
            store(results, &mut written, register * V::LANES);
        }
    }
    let (mut next_value, mut x) = ([later_values.lane_0()], [carry.lane_0()]);
    for time in (0..head).rev() {
        let value = lanes(M::values(&line), time);
        let found = model.coefficients(&line, time, value, next_value);
        let ahead = found.ahead(x);
        x = found.offsets.add(found.decays.kept(x));
        store(model.results(value, x, ahead), &mut outputs, time);
        next_value = value;
    }
    *state = (next_value[0], x[0]);
}
