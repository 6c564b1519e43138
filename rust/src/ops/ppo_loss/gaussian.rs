//! Gaussian policies with a diagonal covariance. With z = (action - mean) / std
//!
//! ```text
//! log-probability  sum of -z^2 / 2 - log_std - ln(2 pi) / 2
//! entropy          sum of log_std + 1/2 + ln(2 pi) / 2
//! ```
//!
//! and with g, the derivative of the loss with respect to the log-probability, the gradient is
//! `g z / std` for the mean and `g (z^2 - 1) - ent_coef` for `log_std`.

use std::ops::Range;

use super::{LANES, Lanes, Policy, Predicted, RealOf, Seen};
use crate::ops::element::{Element, Real, each};
use crate::ops::surrogate::total;
use crate::ops::transcendental::Transcendental;

/// Contiguous `[N, A]` means and actions, and `[A]` or `[N, A]` logarithms of deviations.
#[derive(Clone, Copy)]
pub struct Gaussian<'a, V> {
    pub mean: &'a [V],
    pub log_std: &'a [V],
    pub actions: &'a [V],
    pub samples: usize,
    pub dimensions: usize,
    /// Whether all samples have the same `log_std`.
    pub shared: bool,
}

pub struct Scratch<R> {
    /// Means, actions and deviations of a block, as in memory; later gradients.
    means: Vec<R>,
    actions: Vec<R>,
    log_stds: Vec<R>,
    /// z, and one over the deviation, of each dimension.
    z: Vec<Lanes<R>>,
    inverse: Vec<Lanes<R>>,
}

impl<V: Element> Gaussian<'_, V> {
    /// Where the numbers of some samples are.
    fn numbers(&self, at: &Range<usize>) -> Range<usize> {
        at.start * self.dimensions..at.end * self.dimensions
    }
}

impl<V: Element<Real: Transcendental>> Policy for Gaussian<'_, V> {
    type Value = V;
    type Scratch = Scratch<V::Real>;

    fn samples(&self) -> usize {
        self.samples
    }

    fn sizes(&self) -> (usize, usize) {
        if self.shared {
            (2 * self.dimensions, self.dimensions)
        } else {
            (3 * self.dimensions, 0)
        }
    }

    #[inline(always)]
    fn scratch(&self) -> Scratch<V::Real> {
        let (rows, column) = (self.dimensions * LANES, [V::Real::ZERO; LANES]);
        let mut scratch = Scratch {
            means: vec![V::Real::ZERO; rows],
            actions: vec![V::Real::ZERO; rows],
            log_stds: vec![V::Real::ZERO; rows],
            z: vec![column; self.dimensions],
            inverse: vec![column; self.dimensions],
        };
        if self.shared {
            for row in scratch.log_stds.chunks_exact_mut(self.dimensions) {
                V::widen_slice(self.log_std, row);
            }
        }
        scratch
    }

    #[inline(always)]
    fn forward(
        &self,
        at: Range<usize>,
        valid: &Lanes<<V::Real as Real>::Mask>,
        scratch: &mut Scratch<V::Real>,
    ) -> Predicted<V::Real> {
        let from = self.numbers(&at);
        V::widen_slice(&self.mean[from.clone()], &mut scratch.means[..from.len()]);
        V::widen_slice(
            &self.actions[from.clone()],
            &mut scratch.actions[..from.len()],
        );
        if !self.shared {
            V::widen_slice(
                &self.log_std[from.clone()],
                &mut scratch.log_stds[..from.len()],
            );
        }
        scratch.predict(valid)
    }

    #[inline(always)]
    fn backward(
        &self,
        seen: &Seen<RealOf<Self>>,
        scratch: &mut Scratch<V::Real>,
        [means, log_stds]: [&mut [V]; 2],
        shared: &mut [f64],
    ) {
        for dimension in 0..self.dimensions {
            let (of_mean, of_log_std) = scratch.gradient(dimension, seen);
            for lane in 0..seen.at.len() {
                let place = lane * self.dimensions + dimension;
                scratch.means[place] = of_mean[lane];
                // All blocks read the shared deviations.
                if !self.shared {
                    scratch.log_stds[place] = of_log_std[lane];
                }
            }
            if let Some(sum) = shared.get_mut(dimension) {
                *sum += total(&of_log_std);
            }
        }
        V::narrow_slice(&scratch.means[..means.len()], means);
        V::narrow_slice(&scratch.log_stds[..log_stds.len()], log_stds);
    }
}

impl<R: Real + Transcendental> Scratch<R> {
    /// Log-probabilities of the actions, and entropies.
    #[inline(always)]
    fn predict(&mut self, valid: &Lanes<R::Mask>) -> Predicted<R> {
        let dimensions = self.z.len();
        let half = R::from_f64(0.5);
        let (mut squares, mut log_stds) = ([R::ZERO; LANES], [R::ZERO; LANES]);
        for (dimension, (z, inverse)) in self.z.iter_mut().zip(&mut self.inverse).enumerate() {
            for lane in 0..LANES {
                let place = lane * dimensions + dimension;
                let log_std = self.log_stds[place].masked(valid[lane]);
                let distance = (self.actions[place] - self.means[place]).masked(valid[lane]);
                inverse[lane] = R::exp_of(R::ZERO - log_std);
                z[lane] = distance * inverse[lane];
                squares[lane] = squares[lane] + z[lane] * z[lane];
                log_stds[lane] = log_stds[lane] + log_std;
            }
        }
        let half_ln_2_pi = 0.918_938_533_204_672_7 * dimensions as f64;
        let log_norm = R::from_f64(half_ln_2_pi);
        let entropy_at_one = R::from_f64(half_ln_2_pi + 0.5 * dimensions as f64);
        Predicted {
            log_prob: each(|lane| R::ZERO - half * squares[lane] - log_stds[lane] - log_norm),
            entropy: each(|lane| log_stds[lane] + entropy_at_one),
        }
    }

    /// With respect to mean and `log_std`, in one dimension.
    #[inline(always)]
    fn gradient(&self, dimension: usize, seen: &Seen<R>) -> (Lanes<R>, Lanes<R>) {
        let (z, inverse) = (&self.z[dimension], &self.inverse[dimension]);
        let slope = &seen.slope;
        let of_mean = each(|lane| (slope[lane] * z[lane] * inverse[lane]).masked(seen.valid[lane]));
        let of_log_std = each(|lane| {
            let x = slope[lane] * (z[lane] * z[lane] - R::ONE) - seen.ent_coef;
            x.masked(seen.valid[lane])
        });
        (of_mean, of_log_std)
    }
}
