//! Categorical policies. With p = softmax(logits) and the action e, the gradient for the logits is
//! `-A r [not clipped] (e - p) + ent_coef p (log p + H)`.

use std::ops::Range;

use super::{LANES, Lanes, Policy, Predicted, RealOf, Seen};
use crate::ops::element::{Element, Real, each};
use crate::ops::transcendental::Transcendental;

/// Contiguous `[N, A]` logits and `[N]` actions. An action out of range makes the loss and the
/// sample's gradient NaN.
#[derive(Clone, Copy)]
pub struct Categorical<'a, V> {
    pub logits: &'a [V],
    pub actions: &'a [i64],
    pub classes: usize,
}

pub struct Scratch<R> {
    /// Logits, later gradients, as in memory.
    rows: Vec<R>,
    /// Differences to the largest logit, later the gradient; and their exponentials.
    shifted: Vec<Lanes<R>>,
    weights: Vec<Lanes<R>>,
    /// One over the sum of the exponentials, and its logarithm.
    norm: Lanes<R>,
    log_sum: Lanes<R>,
}

impl<V: Element<Real: Transcendental>> Policy for Categorical<'_, V> {
    type Value = V;
    type Scratch = Scratch<V::Real>;

    fn samples(&self) -> usize {
        self.actions.len()
    }

    fn sizes(&self) -> (usize, usize) {
        (self.classes, 0)
    }

    #[inline(always)]
    fn scratch(&self) -> Scratch<V::Real> {
        let column = [V::Real::ZERO; LANES];
        Scratch {
            rows: vec![V::Real::ZERO; self.classes * LANES],
            shifted: vec![column; self.classes],
            weights: vec![column; self.classes],
            norm: column,
            log_sum: column,
        }
    }

    #[inline(always)]
    fn forward(
        &self,
        at: Range<usize>,
        valid: &Lanes<<V::Real as Real>::Mask>,
        scratch: &mut Scratch<V::Real>,
    ) -> Predicted<V::Real> {
        let from = &self.logits[at.start * self.classes..at.end * self.classes];
        V::widen_slice(from, &mut scratch.rows[..from.len()]);
        scratch.predict(&self.actions[at], valid)
    }

    #[inline(always)]
    fn backward(
        &self,
        seen: &Seen<RealOf<Self>>,
        scratch: &mut Scratch<V::Real>,
        [out, _]: [&mut [V]; 2],
        _: &mut [f64],
    ) {
        scratch.gradient(&self.actions[seen.at.clone()], seen);
        for (class, column) in scratch.shifted.iter().enumerate() {
            for (lane, &x) in column.iter().enumerate().take(seen.at.len()) {
                scratch.rows[lane * self.classes + class] = x;
            }
        }
        V::narrow_slice(&scratch.rows[..out.len()], out);
    }
}

impl<R: Real + Transcendental> Scratch<R> {
    /// Log-probabilities of the actions, and entropies.
    #[inline(always)]
    fn predict(&mut self, actions: &[i64], valid: &Lanes<R::Mask>) -> Predicted<R> {
        let classes = self.shifted.len();
        let mut largest = [R::NEG_INFINITY; LANES];
        for (class, column) in self.shifted.iter_mut().enumerate() {
            for lane in 0..LANES {
                let x = self.rows[lane * classes + class].masked(valid[lane]);
                column[lane] = x;
                largest[lane] = R::choose(R::mask(x > largest[lane]), x, largest[lane]);
            }
        }
        let mut sum = [R::ZERO; LANES];
        let mut moment = [R::ZERO; LANES];
        for (column, weight) in self.shifted.iter_mut().zip(self.weights.iter_mut()) {
            for lane in 0..LANES {
                let x = column[lane] - largest[lane];
                let e = R::exp_of(x);
                sum[lane] = sum[lane] + e;
                // A class of probability zero, its logit minus infinity perhaps, adds nothing.
                moment[lane] = moment[lane] + (e * x).masked(R::mask(e != R::ZERO));
                column[lane] = x;
                weight[lane] = e;
            }
        }
        let mut chosen = [R::ZERO; LANES];
        for (lane, &action) in actions.iter().enumerate() {
            let column = usize::try_from(action)
                .ok()
                .and_then(|a| self.shifted.get(a));
            let x = column.map_or(R::from_f64(f64::NAN), |column| column[lane]);
            chosen[lane] = x.masked(valid[lane]);
        }
        let log_sum: Lanes<R> = each(|lane| R::ln_of(sum[lane]));
        let norm: Lanes<R> = each(|lane| R::ONE / sum[lane]);
        (self.log_sum, self.norm) = (log_sum, norm);
        Predicted {
            log_prob: each(|lane| chosen[lane] - log_sum[lane]),
            entropy: each(|lane| log_sum[lane] - moment[lane] * norm[lane]),
        }
    }

    /// Turn `shifted` into the gradient with respect to the logits.
    #[inline(always)]
    fn gradient(&mut self, actions: &[i64], seen: &Seen<R>) {
        let slope = &seen.slope;
        for (column, weight) in self.shifted.iter_mut().zip(&self.weights) {
            for lane in 0..LANES {
                let log_p = column[lane] - self.log_sum[lane];
                let pull = seen.ent_coef * (log_p + seen.entropy[lane]) - slope[lane];
                let x = weight[lane] * self.norm[lane] * pull;
                let possible = R::mask(weight[lane] != R::ZERO);
                column[lane] = x.masked(possible).masked(seen.valid[lane]);
            }
        }
        for (lane, &action) in actions.iter().enumerate() {
            if let Some(column) = usize::try_from(action)
                .ok()
                .and_then(|a| self.shifted.get_mut(a))
            {
                column[lane] = column[lane] + slope[lane];
            }
        }
    }
}
