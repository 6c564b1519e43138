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

/// The recurrence's coefficients in `L` lanes; aligned so that no vector crosses a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
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

/// Walk row `index`, a line of times of one trajectory, from its end to its beginning, from
/// `state = (next value, x at the next time)` and to it.
///
/// `blocks` has room for all full blocks of the line. Forming their coefficients first keeps the
/// compiler from mixing that work, in its own vectors, with the shifts of the solver.
#[inline(always)]
pub fn walk_line<M: Recurrence, V: Register<Real = M::Real>>(
    model: &M,
    index: usize,
    powers: &Powers<V>,
    state: &mut (M::Real, M::Real),
    blocks: &mut [Coefficients<M::Real, BLOCK>],
    outputs: [&mut [M::Real]; 2],
) {
    let [first, second] = outputs;
    let line = model.row(index);
    let values = M::values(&line);
    let head = values.len() % BLOCK;
    let blocks = &mut blocks[..values.len() / BLOCK];
    let (mut next_value, x_next) = *state;
    if let Some((last, others)) = blocks.split_last_mut() {
        for (block, slot) in others.iter_mut().enumerate() {
            let start = head + block * BLOCK;
            *slot = model.coefficients(&line, start, lanes(values, start + 1));
        }
        let start = head + others.len() * BLOCK;
        let mut next_values = [next_value; BLOCK];
        next_values[..BLOCK - 1].copy_from_slice(&values[start + 1..]);
        *last = model.coefficients(&line, start, next_values);
        next_value = values[head];
    }
    let mut carry = V::splat(x_next);
    for (block, Coefficients { decays, offsets }) in blocks.iter().enumerate().rev() {
        let start = head + block * BLOCK;
        let x = if model.is_uncut(&line, start) {
            solve_uncut(powers, offsets, &mut carry)
        } else {
            solve(decays, offsets, &mut carry)
        };
        let results = model.results(&line, start, x);
        first[start..start + BLOCK].copy_from_slice(&results[0]);
        second[start..start + BLOCK].copy_from_slice(&results[1]);
    }
    let mut x_next = carry.lane_0();
    for time in (0..head).rev() {
        let Coefficients { decays, offsets } = model.coefficients(&line, time, [next_value]);
        let kept = M::Real::mask(decays[0] != M::Real::ZERO);
        x_next = offsets[0] + (decays[0] * x_next).masked(kept);
        [[first[time]], [second[time]]] = model.results(&line, time, [x_next]);
        next_value = values[time];
    }
    *state = (next_value, x_next);
}

/// Room for the blocks of a line of so many times.
pub fn line_blocks<R: Real>(times: usize) -> Vec<Coefficients<R, BLOCK>> {
    let empty = Coefficients {
        decays: [R::ZERO; BLOCK],
        offsets: [R::ZERO; BLOCK],
    };
    vec![empty; times / BLOCK]
}
