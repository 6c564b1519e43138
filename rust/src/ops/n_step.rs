//! N-step returns: at most `n` discounted rewards, then the value of the observation behind them.
//!
//! ```text
//! w[0][t] = v[t]
//! w[k][t] = r[t] + gamma (w[k-1][t+1], or V'[t] where the episode ends)
//! ```
//!
//! The return is `w[n]`. One walk backwards in time makes all of them: what a step needs of the one
//! behind it is a row of environments for each `k`.

use super::element::Real;
use super::registers::Register;
use super::scan::{Recurrence, RowWalk, rows};
use super::strided::RowsMut;

/// `w[k]` at the next time, for each environment, one row per `k < n`.
pub struct Ladder<R> {
    rungs: Vec<R>,
    width: usize,
}

impl<R: Real> Ladder<R> {
    /// Behind the last step, where all are the values of the last observations.
    pub fn new(n: usize, last_values: &[R]) -> Self {
        Self {
            rungs: last_values.repeat(n),
            width: last_values.len(),
        }
    }
}

impl<R: Real> RowWalk<R> for Ladder<R> {
    #[inline(always)]
    fn walk<M: Recurrence<Real = R>, V: Register<Real = R>>(
        &mut self,
        model: &M,
        times: usize,
        outputs: &mut [Option<RowsMut<'_, R>>; 2],
    ) {
        let width = self.width;
        for time in (0..times).rev() {
            let row = M::part(&model.row(time), 0, width);
            let [Some(output), _] = rows(outputs, time) else {
                return;
            };
            let mut start = 0;
            while width - start >= V::LANES {
                self.step::<M, V>(model, &row, start, output);
                start += V::LANES;
            }
            while start < width {
                self.step::<M, [_; 1]>(model, &row, start, output);
                start += 1;
            }
        }
    }
}

impl<R: Real> Ladder<R> {
    #[inline(always)]
    fn step<M: Recurrence<Real = R>, V: Register<Real = R>>(
        &mut self,
        model: &M,
        row: &M::Slices,
        start: usize,
        output: &mut [R],
    ) {
        let zero = V::splat(R::ZERO);
        let skipped = model.skipped::<V>(row, start);
        let values = V::load(&M::values(row)[start..]);
        // What follows comes from the rungs.
        let found = model.coefficients(row, start, values, zero);
        let mut below = values;
        let mut result = values;
        for rung in self.rungs.chunks_exact_mut(self.width) {
            let rung = &mut rung[start..];
            let ahead = V::load(rung);
            result = found.offsets.add(found.decays.kept(ahead));
            let kept = skipped.map_or(below, |skipped| V::choose(skipped, ahead, below));
            kept.store(rung);
            below = result;
        }
        if let Some(skipped) = skipped {
            result = V::choose(skipped, zero, result);
        }
        result.store(&mut output[start..]);
    }
}
