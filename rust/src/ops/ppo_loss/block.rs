//! What PPO's loss makes of log-probabilities, whatever kind of policy they come from.

use std::ops::Range;

use super::{Coefficients, Columns, LANES, Parts};
use crate::ops::element::{Element, Real, each};
use crate::ops::surrogate::{clamp, surrogate, total};
use crate::ops::transcendental::Transcendental;

/// The columns of a block of samples; zero where a sample is not valid.
pub struct Block<R: Real> {
    pub valid: [R::Mask; LANES],
    old_log_probs: [R; LANES],
    advantages: [R; LANES],
    returns: [R; LANES],
    values: [R; LANES],
    old_values: Option<[R; LANES]>,
}

/// The terms that follow from the log-probability, zero where a sample is not valid.
pub struct Head<R> {
    policy: [R; LANES],
    value: [R; LANES],
    divergence: [R; LANES],
    outside: [R; LANES],
    /// Derivative of the policy's term with respect to the log-probability.
    pub slope: [R; LANES],
    /// Derivative of the weighted value's term with respect to the value.
    pub value_slope: [R; LANES],
}

impl<R: Real + Transcendental> Block<R> {
    #[inline(always)]
    pub fn load<V: Element<Real = R>>(columns: &Columns<'_, V>, at: Range<usize>) -> Self {
        let valid = each(|lane| {
            let row = at.start + lane;
            R::mask(row < at.end && columns.mask.is_none_or(|mask| mask[row] != 0))
        });
        let load = |column: &[V]| {
            let mut out = [R::ZERO; LANES];
            V::widen_slice(&column[at.clone()], &mut out[..at.len()]);
            each(|lane| out[lane].masked(valid[lane]))
        };
        Self {
            valid,
            old_log_probs: load(columns.old_log_probs),
            advantages: load(columns.advantages),
            returns: load(columns.returns),
            values: load(columns.values),
            old_values: columns.old_values.map(load),
        }
    }

    #[inline(always)]
    pub fn head(&self, log_prob: [R; LANES], coefficients: Coefficients) -> Head<R> {
        let eps = R::from_f64(coefficients.clip_eps);
        let low = R::from_f64(1.0 - coefficients.clip_eps);
        let high = R::from_f64(1.0 + coefficients.clip_eps);
        let log_ratio: [R; LANES] = each(|lane| log_prob[lane] - self.old_log_probs[lane]);
        let ratio: [R; LANES] = each(|lane| R::exp_of(log_ratio[lane]));
        let clipped: [_; LANES] =
            each(|lane| surrogate(ratio[lane], self.advantages[lane], low, high));
        let (value, value_slope) = self.value_terms(eps);
        let vf_coef = R::from_f64(coefficients.vf_coef);
        let keep = |lane: usize, x: R| x.masked(self.valid[lane]);
        Head {
            policy: each(|lane| keep(lane, clipped[lane].loss)),
            value: each(|lane| keep(lane, value[lane])),
            divergence: each(|lane| keep(lane, ratio[lane] - R::ONE - log_ratio[lane])),
            outside: each(|lane| {
                let away = ratio[lane] - R::ONE;
                keep(
                    lane,
                    R::ONE.masked(R::mask(clamp(away, R::ZERO - eps, eps) != away)),
                )
            }),
            slope: each(|lane| keep(lane, clipped[lane].slope)),
            value_slope: each(|lane| keep(lane, vf_coef * value_slope[lane])),
        }
    }

    /// A sample's value loss and its derivative.
    #[inline(always)]
    fn value_terms(&self, eps: R) -> ([R; LANES], [R; LANES]) {
        let half = R::from_f64(0.5);
        let error: [R; LANES] = each(|lane| self.values[lane] - self.returns[lane]);
        let square: [R; LANES] = each(|lane| error[lane] * error[lane]);
        let Some(old) = self.old_values else {
            return (each(|lane| half * square[lane]), error);
        };
        let moved: [R; LANES] = each(|lane| self.values[lane] - old[lane]);
        let limited: [R; LANES] = each(|lane| clamp(moved[lane], R::ZERO - eps, eps));
        let clipped: [R; LANES] = each(|lane| {
            let error = old[lane] + limited[lane] - self.returns[lane];
            error * error
        });
        // Where the clip is active its error is a constant; where it is not, both errors agree.
        let slope = each(|lane| {
            let free = R::mask(limited[lane] == moved[lane]);
            let held = R::mask(clipped[lane] > square[lane]);
            R::choose(free, error[lane], R::choose(held, R::ZERO, error[lane]))
        });
        let larger = each(|lane| {
            half * R::choose(
                R::mask(clipped[lane] > square[lane]),
                clipped[lane],
                square[lane],
            )
        });
        (larger, slope)
    }

    #[inline(always)]
    pub fn add_to(&self, sums: &mut Parts, head: &Head<R>, entropy: &[R; LANES]) {
        let entropy = each(|lane| entropy[lane].masked(self.valid[lane]));
        let ones = each(|lane| R::ONE.masked(self.valid[lane]));
        let parts = [
            &head.policy,
            &head.value,
            &entropy,
            &head.divergence,
            &head.outside,
            &ones,
        ];
        for (sum, part) in sums.iter_mut().zip(parts) {
            *sum += total(part);
        }
    }
}
