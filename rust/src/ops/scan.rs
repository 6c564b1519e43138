//! The linear recurrence `x[t] = decay[t] x[t+1] + offset[t]`, walked backwards in time.
//!
//! Discounted sums, GAE, TD(lambda), V-trace and their kin differ only in how decay and offset are
//! built from a transition: an estimator is a [`Recurrence`]. Two walks serve all layouts:
//! [`walk_rows`] has environments side by side in a vector, [`walk_line`] consecutive times of one
//! trajectory.
//!
//! A decay of zero cuts the trace: what lies behind is not multiplied by zero but left out, so that
//! NaN or infinity there stays there.

use super::element::{Real, each, lanes};
use super::line::{BLOCK, Powers, solve, solve_uncut};
use super::registers::Register;
use super::strided::RowsMut;

/// The recurrence's coefficients in `L` lanes.
pub struct Coefficients<R, const L: usize> {
    pub decays: [R; L],
    pub offsets: [R; L],
}

/// How transitions become coefficients, and the recurrence results.
pub trait Recurrence {
    type Real: Real;

    /// Slices of equal length, one per input: a row of environments or a line of times.
    type Slices: Copy;

    /// One row.
    fn row(&self, index: usize) -> Self::Slices;

    /// The values of the observations that the transitions start from.
    fn values(slices: &Self::Slices) -> &[Self::Real];

    /// Decays and offsets of the `L` lanes from `start` on; `next_values` are the values that
    /// follow if nothing ends.
    fn coefficients<const L: usize>(
        &self,
        slices: &Self::Slices,
        start: usize,
        next_values: [Self::Real; L],
    ) -> Coefficients<Self::Real, L>;

    /// Whether all lanes of a block from `start` on are known to have the decay of the [`Powers`]
    /// that the walk is given, and that it is not zero. False is always right and costs only time.
    fn is_uncut(&self, slices: &Self::Slices, start: usize) -> bool;

    /// What is written to the two outputs.
    fn results<const L: usize>(
        &self,
        slices: &Self::Slices,
        start: usize,
        x: [Self::Real; L],
    ) -> [[Self::Real; L]; 2];
}

/// What is handed backwards in time, for each environment.
pub struct State<R> {
    /// The value of the next observation.
    pub next_values: Vec<R>,
    /// `x` at the next time.
    pub carry: Vec<R>,
}

/// Run a body for all lanes: in groups of sixteen, then of four, then singly.
macro_rules! for_groups {
    ($width:expr, |$start:ident, $lanes:ident| $body:block) => {
        let width = $width;
        let mut $start = 0;
        for_groups!(width, $start, $lanes, 16, $body);
        for_groups!(width, $start, $lanes, 4, $body);
        for_groups!(width, $start, $lanes, 1, $body);
    };
    ($width:ident, $start:ident, $lanes:ident, $count:literal, $body:block) => {
        while $width - $start >= $count {
            const $lanes: usize = $count;
            $body
            $start += $count;
        }
    };
}

/// Walk `times` rows of environments from the last to the first, from `state` and to it.
#[inline(always)]
pub fn walk_rows<M: Recurrence>(
    model: &M,
    times: usize,
    state: &mut State<M::Real>,
    outputs: [RowsMut<'_, M::Real>; 2],
) {
    let [mut first, mut second] = outputs;
    let width = state.carry.len();
    for time in (0..times).rev() {
        let row = model.row(time);
        let mut outputs = [first.row(time), second.row(time)];
        for_groups!(width, |start, L| {
            step::<M, L>(model, &row, start, state, &mut outputs);
        });
    }
}

#[inline(always)]
fn step<M: Recurrence, const L: usize>(
    model: &M,
    row: &M::Slices,
    start: usize,
    state: &mut State<M::Real>,
    outputs: &mut [&mut [M::Real]; 2],
) {
    let next_values: [_; L] = lanes(&state.next_values, start);
    let carry: [_; L] = lanes(&state.carry, start);
    let values: [_; L] = lanes(M::values(row), start);
    let Coefficients { decays, offsets } = model.coefficients(row, start, next_values);
    let kept: [_; L] = each(|lane| M::Real::mask(decays[lane] != M::Real::ZERO));
    let x: [_; L] = each(|lane| offsets[lane] + (decays[lane] * carry[lane]).masked(kept[lane]));
    let results = model.results::<L>(row, start, x);
    let end = start + L;
    outputs[0][start..end].copy_from_slice(&results[0]);
    outputs[1][start..end].copy_from_slice(&results[1]);
    state.carry[start..end].copy_from_slice(&x);
    state.next_values[start..end].copy_from_slice(&values);
}

/// The coefficients of a line.
pub struct LineBuffer<R> {
    decays: Vec<R>,
    offsets: Vec<R>,
}

impl<R: Real> LineBuffer<R> {
    pub fn new(times: usize) -> Self {
        Self {
            decays: vec![R::ZERO; times],
            offsets: vec![R::ZERO; times],
        }
    }

    #[inline(always)]
    fn fill<M: Recurrence<Real = R>>(&mut self, model: &M, line: &M::Slices, next_value: R) {
        let values = M::values(line);
        let times = values.len();
        // The last block, where one is full, takes its last next value from elsewhere.
        let rest = times.saturating_sub(BLOCK);
        if times >= BLOCK {
            let mut next_values = [next_value; BLOCK];
            next_values[..BLOCK - 1].copy_from_slice(&values[rest + 1..]);
            self.put(rest, model.coefficients(line, rest, next_values));
        } else {
            for time in 0..times {
                let next_value = *values.get(time + 1).unwrap_or(&next_value);
                self.put(time, model.coefficients(line, time, [next_value]));
            }
        }
        for_groups!(rest, |start, L| {
            let next_values: [_; L] = lanes(values, start + 1);
            self.put(start, model.coefficients(line, start, next_values));
        });
    }

    #[inline(always)]
    fn put<const L: usize>(&mut self, start: usize, coefficients: Coefficients<R, L>) {
        self.decays[start..start + L].copy_from_slice(&coefficients.decays);
        self.offsets[start..start + L].copy_from_slice(&coefficients.offsets);
    }
}

/// Walk row `index`, a line of times of one trajectory, from its end to its beginning, from
/// `state = (next value, x at the next time)` and to it.
///
/// Forming all coefficients first keeps the compiler from mixing that work, in its own vectors,
/// with the shifts of the solver.
#[inline(always)]
pub fn walk_line<M: Recurrence, V: Register<Real = M::Real>>(
    model: &M,
    index: usize,
    powers: &Powers<V>,
    state: &mut (M::Real, M::Real),
    buffer: &mut LineBuffer<M::Real>,
    outputs: [&mut [M::Real]; 2],
) {
    let [first, second] = outputs;
    let line = model.row(index);
    let values = M::values(&line);
    buffer.fill(model, &line, state.0);
    let head = values.len() % BLOCK;
    let mut carry = V::splat(state.1);
    for start in (head..values.len()).step_by(BLOCK).rev() {
        let offsets = lanes(&buffer.offsets, start);
        let x = if model.is_uncut(&line, start) {
            solve_uncut(powers, &offsets, &mut carry)
        } else {
            solve(&lanes(&buffer.decays, start), &offsets, &mut carry)
        };
        let results = model.results(&line, start, x);
        first[start..start + BLOCK].copy_from_slice(&results[0]);
        second[start..start + BLOCK].copy_from_slice(&results[1]);
    }
    let mut x_next = carry.lane_0();
    for start in (0..head).rev() {
        let decay = buffer.decays[start];
        let kept = M::Real::mask(decay != M::Real::ZERO);
        x_next = buffer.offsets[start] + (decay * x_next).masked(kept);
        [[first[start]], [second[start]]] = model.results(&line, start, [x_next]);
    }
    *state = (values[0], x_next);
}
