//! The divergence of two categorical distributions, in one pass over the vocabulary.
//!
//! With `u[j] = (logits[j] - max) / temperature`, `v[j]` likewise of the reference's logits, and
//! the sums `X` of `e^u[j]` and `Y` of `e^v[j]`
//!
//! ```text
//! KL = (sum of e^u[j] (u[j] - v[j])) / X + ln Y - ln X
//! ```
//!
//! The sums are formed block by block, as [`super::vocabulary`] says.

use super::element::{Element, Real, lanes};
use super::registers::{Arch, Task};
use super::transcendental::Transcendental;
use super::vocabulary::{
    BLOCK, FLOOR, LANES, larger, largest, origin, padded, rows_per_share, share_out, total,
};
use crate::pool::PoolError;

/// What both passes read: `row(i)` are the policy's logits of row `i`, `ref_row(i)` the
/// reference's; where the mask is zero, a row counts for nothing and is not read.
#[derive(Clone, Copy)]
pub struct Inputs<'a, F, G> {
    pub row: F,
    pub ref_row: G,
    /// Empty if all rows count.
    pub mask: &'a [u8],
    pub rows: usize,
    pub vocabulary: usize,
    pub temperature: f64,
}

/// What the backward pass needs of a row: largest logit and `ln X`, then both of the reference.
pub type Statistics<R> = [R; 4];

/// What the backward pass reads beside the logits, one entry per row.
#[derive(Clone, Copy)]
pub struct Saved<'a, R> {
    pub grad: &'a [R],
    pub divergences: &'a [R],
    pub statistics: &'a [Statistics<R>],
}

/// The divergence and the statistics of each row.
///
/// # Errors
/// Those of [`rows_per_share`], for work that is shared among threads.
pub fn forward<'e, E: Element>(
    inputs: Inputs<
        '_,
        impl Fn(usize) -> &'e [E] + Copy + Send,
        impl Fn(usize) -> &'e [E] + Copy + Send,
    >,
    divergences: &mut [E::Real],
    statistics: &mut [Statistics<E::Real>],
) -> Result<(), PoolError> {
    let share = rows_per_share(inputs.rows, inputs.vocabulary)?;
    let shares = divergences
        .chunks_mut(share)
        .zip(statistics.chunks_mut(share))
        .enumerate()
        .map(|(index, (divergences, statistics))| Forward {
            inputs,
            first: index * share,
            divergences,
            statistics,
        });
    share_out(shares.collect())
}

/// The gradients of the logits of both, row after row; nothing into an empty slice.
///
/// # Errors
/// As [`forward`].
pub fn backward<'e, E: Element>(
    inputs: Inputs<
        '_,
        impl Fn(usize) -> &'e [E] + Copy + Send,
        impl Fn(usize) -> &'e [E] + Copy + Send,
    >,
    saved: Saved<'_, E::Real>,
    grad_logits: &mut [E],
    grad_ref: &mut [E],
) -> Result<(), PoolError> {
    let share = rows_per_share(inputs.rows, inputs.vocabulary)?;
    let length = share * inputs.vocabulary;
    let (mut grads, mut ref_grads) = (grad_logits.chunks_mut(length), grad_ref.chunks_mut(length));
    let shares = (0..inputs.rows).step_by(share).map(|first| Backward {
        inputs,
        rows: first..inputs.rows.min(first + share),
        saved,
        grad_logits: grads.next().unwrap_or_default(),
        grad_ref: ref_grads.next().unwrap_or_default(),
    });
    share_out(shares.collect())
}

impl<F, G> Inputs<'_, F, G> {
    fn counts(&self, row: usize) -> bool {
        self.mask.get(row).is_none_or(|&flag| flag != 0)
    }
}

struct Forward<'a, F, G, R> {
    inputs: Inputs<'a, F, G>,
    first: usize,
    divergences: &'a mut [R],
    statistics: &'a mut [Statistics<R>],
}

impl<'e, E, F, G> Task for Forward<'_, F, G, E::Real>
where
    E: Element,
    F: Fn(usize) -> &'e [E],
    G: Fn(usize) -> &'e [E],
{
    #[inline(always)]
    fn run<A: Arch>(self) {
        let inputs = self.inputs;
        let scale = E::Real::from_f64(1.0 / inputs.temperature);
        let results = self.divergences.iter_mut().zip(self.statistics);
        for (index, (divergence, statistics)) in (self.first..).zip(results) {
            if !inputs.counts(index) {
                *divergence = E::Real::ZERO;
                *statistics = [E::Real::ZERO; 4];
                continue;
            }
            let row = Running::over((inputs.row)(index), (inputs.ref_row)(index), scale);
            (*divergence, *statistics) = row.finished();
        }
    }
}

/// The largest logit so far, and the sum of `e^u` against it.
struct Side<R> {
    max: R,
    sum: R,
}

impl<R: Real> Side<R> {
    fn new() -> Self {
        Self {
            max: R::NEG_INFINITY,
            sum: R::ZERO,
        }
    }

    /// Take in another maximum; by how much `u` shrinks, and the factor of its exponentials.
    #[inline(always)]
    fn raise(&mut self, max: R, scale: R) -> (R, R) {
        let before = self.max;
        self.max = larger(max, before);
        let shift = (before - origin(self.max)) * scale;
        let factor = R::exp_of(shift);
        self.sum = factor * self.sum;
        (shift, factor)
    }
}

/// Both sides, and the sum of `e^u (u - v)`.
struct Running<R> {
    policy: Side<R>,
    reference: Side<R>,
    weighted: R,
}

impl<R: Real> Running<R> {
    #[inline(always)]
    fn over<E: Element<Real = R>>(logits: &[E], ref_logits: &[E], scale: R) -> Self {
        let (mut buffer, mut ref_buffer) = ([R::ZERO; BLOCK], [R::ZERO; BLOCK]);
        let mut row = Self {
            policy: Side::new(),
            reference: Side::new(),
            weighted: R::ZERO,
        };
        for (block, ref_block) in logits.chunks(BLOCK).zip(ref_logits.chunks(BLOCK)) {
            let block = E::reals(block, &mut buffer);
            row.absorb(block, E::reals(ref_block, &mut ref_buffer), scale);
        }
        row
    }

    #[inline(always)]
    fn absorb(&mut self, block: &[R], ref_block: &[R], scale: R) {
        let ((whole, rest), (ref_whole, ref_rest)) = (padded(block), padded(ref_block));
        let before = self.policy.sum;
        let (shift, factor) = self.policy.raise(largest(whole, rest), scale);
        let (ref_shift, _) = self.reference.raise(largest(ref_whole, ref_rest), scale);
        self.weighted = factor * (self.weighted + gap(shift, ref_shift) * before);

        let (top, ref_top) = (origin(self.policy.max), origin(self.reference.max));
        let mut sums = [R::ZERO; LANES];
        let mut ref_sums = [R::ZERO; LANES];
        let mut weighted = [R::ZERO; LANES];
        let mut add = |logits: [R; LANES], ref_logits: [R; LANES]| {
            for lane in 0..LANES {
                let u = (logits[lane] - top) * scale;
                let v = (ref_logits[lane] - ref_top) * scale;
                let weight = R::exp_of(u);
                sums[lane] = sums[lane] + weight;
                ref_sums[lane] = ref_sums[lane] + R::exp_of(v);
                weighted[lane] = weighted[lane] + weight * gap(u, v);
            }
        };
        for start in (0..whole.len()).step_by(LANES) {
            add(lanes(whole, start), lanes(ref_whole, start));
        }
        if whole.len() < block.len() {
            add(rest, ref_rest);
        }
        self.policy.sum = self.policy.sum + total(sums);
        self.reference.sum = self.reference.sum + total(ref_sums);
        self.weighted = self.weighted + total(weighted);
    }

    #[inline(always)]
    fn finished(self) -> (R, Statistics<R>) {
        let (zero, infinity) = (R::ZERO, R::ZERO - R::NEG_INFINITY);
        let (policy, reference) = (self.policy, self.reference);
        let (log_sum, ref_log_sum) = (R::ln_of(policy.sum), R::ln_of(reference.sum));
        let divergence = if !(policy.sum > zero && reference.sum > zero) {
            R::from_f64(f64::NAN)
        } else if self.weighted < infinity {
            larger(self.weighted / policy.sum + (ref_log_sum - log_sum), zero)
        } else {
            // A token that the reference excludes and the policy does not; where its probability
            // rounds to zero the product of both is not a number.
            infinity
        };
        let statistics = [policy.max, log_sum, reference.max, ref_log_sum];
        (divergence, statistics)
    }
}

/// `u - v`, and some finite number where the token has no probability.
#[inline(always)]
fn gap<R: Real>(u: R, v: R) -> R {
    larger(u - v, R::from_f64(FLOOR))
}

struct Backward<'a, E: Element, F, G> {
    inputs: Inputs<'a, F, G>,
    rows: std::ops::Range<usize>,
    saved: Saved<'a, E::Real>,
    grad_logits: &'a mut [E],
    grad_ref: &'a mut [E],
}

impl<'e, E, F, G> Task for Backward<'_, E, F, G>
where
    E: Element,
    F: Fn(usize) -> &'e [E],
    G: Fn(usize) -> &'e [E],
{
    #[inline(always)]
    fn run<A: Arch>(self) {
        let inputs = self.inputs;
        let scale = E::Real::from_f64(1.0 / inputs.temperature);
        let mut grads = self.grad_logits.chunks_mut(inputs.vocabulary);
        let mut ref_grads = self.grad_ref.chunks_mut(inputs.vocabulary);
        for index in self.rows {
            let grad = grads.next().unwrap_or_default();
            let ref_grad = ref_grads.next().unwrap_or_default();
            if inputs.counts(index) {
                let slopes = Slopes::of_row(self.saved, index, scale);
                let rows = ((inputs.row)(index), (inputs.ref_row)(index));
                slopes.write(rows, grad, |slopes, log_p, log_q| {
                    slopes.slope
                        * Transcendental::exp_of(log_p)
                        * (gap(log_p, log_q) - slopes.divergence)
                });
                slopes.write(rows, ref_grad, |slopes, log_p, log_q| {
                    slopes.slope * (E::Real::exp_of(log_q) - E::Real::exp_of(log_p))
                });
            } else {
                grad.fill(E::narrow(E::Real::ZERO));
                ref_grad.fill(E::narrow(E::Real::ZERO));
            }
        }
    }
}

/// What the gradients of a row have in common.
struct Slopes<R> {
    slope: R,
    divergence: R,
    statistics: Statistics<R>,
    scale: R,
}

impl<R: Real> Slopes<R> {
    #[inline(always)]
    fn of_row(saved: Saved<'_, R>, index: usize, scale: R) -> Self {
        let divergence = saved.divergences[index];
        let is_finite = divergence < R::ZERO - R::NEG_INFINITY;
        Self {
            slope: saved.grad[index] * scale,
            // No direction leads from an infinite divergence.
            divergence: if is_finite {
                divergence
            } else {
                R::from_f64(f64::NAN)
            },
            statistics: saved.statistics[index],
            scale,
        }
    }

    /// `gradient(self, ln p, ln q)` of every token.
    #[inline(always)]
    fn write<E: Element<Real = R>>(
        &self,
        (logits, ref_logits): (&[E], &[E]),
        target: &mut [E],
        gradient: impl Fn(&Self, R, R) -> R,
    ) {
        let (mut buffer, mut ref_buffer) = ([R::ZERO; BLOCK], [R::ZERO; BLOCK]);
        let mut found = [R::ZERO; BLOCK];
        let [max, log_sum, ref_max, ref_log_sum] = self.statistics;
        let blocks = logits.chunks(BLOCK).zip(ref_logits.chunks(BLOCK));
        for (target, (block, ref_block)) in target.chunks_mut(BLOCK).zip(blocks) {
            let found = &mut found[..target.len()];
            let block = E::reals(block, &mut buffer);
            let ref_block = E::reals(ref_block, &mut ref_buffer);
            for ((slot, &x), &y) in found.iter_mut().zip(block).zip(ref_block) {
                let log_p = (x - max) * self.scale - log_sum;
                let log_q = (y - ref_max) * self.scale - ref_log_sum;
                *slot = gradient(self, log_p, log_q);
            }
            E::narrow_slice(found, target);
        }
    }
}

#[cfg(test)]
mod tests;
