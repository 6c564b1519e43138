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
use super::strided::RowsMut;

/// One step of the recurrence, for `L` lanes.
pub struct Coefficients<R, const L: usize> {
    pub decay: [R; L],
    pub offset: [R; L],
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

    /// The coefficients of the `L` lanes from `start` on; `next_values` are the values that
    /// follow if nothing ends.
    fn coefficients<const L: usize>(
        &self,
        slices: &Self::Slices,
        start: usize,
        next_values: [Self::Real; L],
    ) -> Coefficients<Self::Real, L>;

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
    let Coefficients { decay, offset } = model.coefficients(row, start, next_values);
    let kept: [_; L] = each(|lane| M::Real::mask(decay[lane] != M::Real::ZERO));
    let x: [_; L] = each(|lane| offset[lane] + (decay[lane] * carry[lane]).masked(kept[lane]));
    let results = model.results::<L>(row, start, x);
    let end = start + L;
    outputs[0][start..end].copy_from_slice(&results[0]);
    outputs[1][start..end].copy_from_slice(&results[1]);
    state.carry[start..end].copy_from_slice(&x);
    state.next_values[start..end].copy_from_slice(&values);
}

/// Times of a line that are worked on in one go.
pub const LINE: usize = 512;

/// What [`walk_line`] keeps between its three passes over at most [`LINE`] times.
pub struct LineBuffer<R> {
    next_values: Vec<R>,
    decay: Vec<R>,
    x: Vec<R>,
}

impl<R: Real> LineBuffer<R> {
    pub fn new(times: usize) -> Self {
        let length = times.min(LINE);
        Self {
            next_values: vec![R::ZERO; length],
            decay: vec![R::ZERO; length],
            x: vec![R::ZERO; length],
        }
    }
}

/// Walk row 0, a line of at most [`LINE`] times of one trajectory, from its end to its beginning, from
/// `state = (next value, x at the next time)` and to it.
#[inline(always)]
pub fn walk_line<M: Recurrence>(
    model: &M,
    state: &mut (M::Real, M::Real),
    buffer: &mut LineBuffer<M::Real>,
    outputs: [&mut [M::Real]; 2],
) {
    let [first, second] = outputs;
    let line = &model.row(0);
    let values = M::values(line);
    let times = values.len();
    let LineBuffer {
        next_values,
        decay,
        x,
    } = buffer;
    next_values[..times - 1].copy_from_slice(&values[1..]);
    next_values[times - 1] = state.0;
    for_groups!(times, |start, L| {
        let coefficients = model.coefficients::<L>(line, start, lanes(next_values, start));
        decay[start..start + L].copy_from_slice(&coefficients.decay);
        x[start..start + L].copy_from_slice(&coefficients.offset);
    });
    M::Real::compose(&decay[..times], &mut x[..times], state.1);
    for_groups!(times, |start, L| {
        let results = model.results::<L>(line, start, lanes(x, start));
        first[start..start + L].copy_from_slice(&results[0]);
        second[start..start + L].copy_from_slice(&results[1]);
    });
    *state = (values[0], x[0]);
}
