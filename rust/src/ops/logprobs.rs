//! Log-probabilities of chosen tokens and the entropy of their distribution, in one pass over the
//! vocabulary.
//!
//! With `u[j] = (logits[j] - max) / temperature` and `sum` that of `e^u[j]`
//!
//! ```text
//! logprob = u[token] - ln(sum)
//! entropy = ln(sum) - (sum of u[j] e^u[j]) / sum
//! ```
//!
//! The sums are formed block by block, as [`super::vocabulary`] says.

use super::element::{Element, Real, lanes};
use super::registers::{Arch, Task};
use super::transcendental::Transcendental;
use super::vocabulary::{
    BLOCK, FLOOR, LANES, largest, origin, padded, rows_per_share, share_out, total,
};
use crate::pool::PoolError;

/// What both passes read: `row(i)` are the logits of row `i`, `tokens[i]` the chosen one.
#[derive(Clone, Copy)]
pub struct Inputs<'a, F> {
    pub row: F,
    pub tokens: &'a [i64],
    pub vocabulary: usize,
    pub temperature: f64,
}

/// One number per row; no `entropies` are computed into an empty slice.
pub struct Outputs<'a, R> {
    pub logprobs: &'a mut [R],
    pub entropies: &'a mut [R],
    pub maxima: &'a mut [R],
    pub log_sums: &'a mut [R],
}

/// What the backward pass reads beside the logits; empty `entropies` have no gradient.
#[derive(Clone, Copy)]
pub struct Saved<'a, R> {
    pub maxima: &'a [R],
    pub log_sums: &'a [R],
    pub entropies: &'a [R],
    pub grad_logprobs: &'a [R],
    pub grad_entropies: &'a [R],
}

/// Log-probabilities, entropies, and the largest logit and `ln(sum)` of each row.
///
/// A token outside the vocabulary gives NaN.
///
/// # Errors
/// Those of [`rows_per_share`], for work that is shared among threads.
pub fn forward<'e, E: Element<Real: Transcendental>>(
    inputs: Inputs<'_, impl Fn(usize) -> &'e [E] + Copy + Send>,
    outputs: Outputs<'_, E::Real>,
) -> Result<(), PoolError> {
    let share = rows_per_share(inputs.tokens.len(), inputs.vocabulary)?;
    let Outputs {
        logprobs,
        entropies,
        maxima,
        log_sums,
    } = outputs;
    let mut entropies = entropies.chunks_mut(share);
    let shares = logprobs
        .chunks_mut(share)
        .zip(maxima.chunks_mut(share))
        .zip(log_sums.chunks_mut(share))
        .enumerate()
        .map(|(index, ((logprobs, maxima), log_sums))| Forward {
            inputs,
            first: index * share,
            outputs: Outputs {
                logprobs,
                entropies: entropies.next().unwrap_or_default(),
                maxima,
                log_sums,
            },
        });
    share_out(shares.collect())
}

/// The gradient of the logits, row after row into `grad_logits`.
///
/// A token outside the vocabulary has no gradient of its own logit.
///
/// # Errors
/// As [`forward`].
pub fn backward<'e, E: Element<Real: Transcendental>>(
    inputs: Inputs<'_, impl Fn(usize) -> &'e [E] + Copy + Send>,
    saved: Saved<'_, E::Real>,
    grad_logits: &mut [E],
) -> Result<(), PoolError> {
    let share = rows_per_share(inputs.tokens.len(), inputs.vocabulary)?;
    let shares = grad_logits
        .chunks_mut(share * inputs.vocabulary.max(1))
        .enumerate()
        .map(|(index, grad_logits)| Backward {
            inputs,
            first: index * share,
            saved,
            grad_logits,
        });
    share_out(shares.collect())
}

struct Forward<'a, F, R> {
    inputs: Inputs<'a, F>,
    first: usize,
    outputs: Outputs<'a, R>,
}

impl<'e, E, F> Task for Forward<'_, F, E::Real>
where
    E: Element<Real: Transcendental>,
    F: Fn(usize) -> &'e [E],
{
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Self {
            inputs,
            first,
            outputs,
        } = self;
        let scale = E::Real::from_f64(1.0 / inputs.temperature);
        for index in 0..outputs.logprobs.len() {
            let logits = (inputs.row)(first + index);
            let row = if outputs.entropies.is_empty() {
                Running::over::<E, false>(logits, scale)
            } else {
                Running::over::<E, true>(logits, scale)
            };
            let chosen = usize::try_from(inputs.tokens[first + index]).ok();
            let logit = chosen.and_then(|token| logits.get(token));
            let logit = logit.map_or(E::Real::from_f64(f64::NAN), |logit| logit.widen());
            let log_sum = Transcendental::ln_of(row.sum);
            outputs.logprobs[index] = (logit - row.max) * scale - log_sum;
            outputs.maxima[index] = row.max;
            outputs.log_sums[index] = log_sum;
            if let Some(entropy) = outputs.entropies.get_mut(index) {
                *entropy = log_sum - row.weighted / row.sum;
            }
        }
    }
}

/// The largest logit so far, and the sums of `e^u` and `u e^u` against it.
struct Running<R> {
    max: R,
    sum: R,
    weighted: R,
}

impl<R: Real + Transcendental> Running<R> {
    #[inline(always)]
    fn over<E: Element<Real = R>, const WEIGHTED: bool>(logits: &[E], scale: R) -> Self {
        let mut buffer = [R::ZERO; BLOCK];
        let mut row = Self {
            max: R::NEG_INFINITY,
            sum: R::ZERO,
            weighted: R::ZERO,
        };
        for block in logits.chunks(BLOCK) {
            row.absorb::<WEIGHTED>(E::reals(block, &mut buffer), scale);
        }
        row
    }

    #[inline(always)]
    fn absorb<const WEIGHTED: bool>(&mut self, block: &[R], scale: R) {
        let (whole, rest) = padded(block);
        let max = largest(whole, rest);
        if max > self.max {
            // Nothing was summed while the largest logit was negative infinity.
            if self.max > R::NEG_INFINITY {
                let shift = (self.max - max) * scale;
                let factor = Transcendental::exp_of(shift);
                self.weighted = factor * (self.weighted + floored(shift) * self.sum);
                self.sum = factor * self.sum;
            }
            self.max = max;
        }
        let origin = origin(self.max);
        let mut sums = [R::ZERO; LANES];
        let mut weighted = [R::ZERO; LANES];
        let mut add = |logits: [R; LANES]| {
            for lane in 0..LANES {
                let u = (logits[lane] - origin) * scale;
                let weight = R::exp_of(u);
                sums[lane] = sums[lane] + weight;
                if WEIGHTED {
                    weighted[lane] = weighted[lane] + weight * floored(u);
                }
            }
        };
        for start in (0..whole.len()).step_by(LANES) {
            add(lanes(whole, start));
        }
        if whole.len() < block.len() {
            add(rest);
        }
        self.sum = self.sum + total(sums);
        if WEIGHTED {
            self.weighted = self.weighted + total(weighted);
        }
    }
}

#[inline(always)]
fn floored<R: Real>(u: R) -> R {
    let floor = R::from_f64(FLOOR);
    if u < floor { floor } else { u }
}

struct Backward<'a, E: Element, F> {
    inputs: Inputs<'a, F>,
    first: usize,
    saved: Saved<'a, E::Real>,
    grad_logits: &'a mut [E],
}

impl<'e, E, F> Task for Backward<'_, E, F>
where
    E: Element<Real: Transcendental>,
    F: Fn(usize) -> &'e [E],
{
    #[inline(always)]
    fn run<A: Arch>(self) {
        let scale = E::Real::from_f64(1.0 / self.inputs.temperature);
        let rows = self.grad_logits.chunks_mut(self.inputs.vocabulary);
        for (index, grad_logits) in (self.first..).zip(rows) {
            let slopes = Slopes::of_row(self.saved, index, scale);
            let token = usize::try_from(self.inputs.tokens[index]).ok();
            slopes.write((self.inputs.row)(index), token, scale, grad_logits);
        }
    }
}

/// The gradient of logit `j` is `p (slope + log_slope ln p)`, and `chosen` more for the token.
struct Slopes<R> {
    max: R,
    log_sum: R,
    slope: R,
    log_slope: R,
    chosen: R,
}

impl<R: Real + Transcendental> Slopes<R> {
    #[inline(always)]
    fn of_row(saved: Saved<'_, R>, index: usize, scale: R) -> Self {
        let chosen = saved.grad_logprobs[index] * scale;
        let (mut slope, mut log_slope) = (R::ZERO - chosen, R::ZERO);
        if let Some(&entropy) = saved.entropies.get(index) {
            log_slope = R::ZERO - saved.grad_entropies[index] * scale;
            slope = slope + log_slope * entropy;
        }
        Self {
            max: saved.maxima[index],
            log_sum: saved.log_sums[index],
            slope,
            log_slope,
            chosen,
        }
    }

    #[inline(always)]
    fn write<E: Element<Real = R>>(
        &self,
        logits: &[E],
        token: Option<usize>,
        scale: R,
        grad_logits: &mut [E],
    ) {
        let (mut buffer, mut gradient) = ([R::ZERO; BLOCK], [R::ZERO; BLOCK]);
        let blocks = logits.chunks(BLOCK).zip(grad_logits.chunks_mut(BLOCK));
        for (number, (block, target)) in blocks.enumerate() {
            let gradient = &mut gradient[..block.len()];
            for (&logit, slot) in E::reals(block, &mut buffer).iter().zip(&mut *gradient) {
                let log_p = floored((logit - self.max) * scale - self.log_sum);
                *slot = R::exp_of(log_p) * (self.slope + self.log_slope * log_p);
            }
            let place = token.and_then(|token| token.checked_sub(number * BLOCK));
            if let Some(slot) = place.and_then(|place| gradient.get_mut(place)) {
                *slot = *slot + self.chosen;
            }
            E::narrow_slice(gradient, target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 8] = [1, 2, 31, 32, 63, 1000, BLOCK, 2 * BLOCK + 17];
    const TEMPERATURE: f64 = 0.7;

    fn wave(count: usize) -> Vec<f64> {
        let at = |i: usize| 5.0 * (i as f64 * 0.7).sin() + (i % 13) as f64;
        (0..count).map(at).collect()
    }

    /// Log-probabilities, entropies and the gradient for gradients of 2 and -3.
    fn both(logits: &[f64], vocabulary: usize, tokens: &[i64]) -> [Vec<f64>; 3] {
        let inputs = Inputs {
            row: |i: usize| &logits[i * vocabulary..][..vocabulary],
            tokens,
            vocabulary,
            temperature: TEMPERATURE,
        };
        let rows = tokens.len();
        let [mut logprobs, mut entropies, mut maxima, mut log_sums] =
            [(); 4].map(|()| vec![0.0; rows]);
        let outputs = Outputs {
            logprobs: &mut logprobs,
            entropies: &mut entropies,
            maxima: &mut maxima,
            log_sums: &mut log_sums,
        };
        forward(inputs, outputs).unwrap();
        let saved = Saved {
            maxima: &maxima,
            log_sums: &log_sums,
            entropies: &entropies,
            grad_logprobs: &vec![2.0; rows],
            grad_entropies: &vec![-3.0; rows],
        };
        let mut grad_logits = vec![f64::NAN; logits.len()];
        backward(inputs, saved, &mut grad_logits).unwrap();
        [logprobs, entropies, grad_logits]
    }

    fn probabilities(row: &[f64]) -> Vec<f64> {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = row
            .iter()
            .map(|x| ((x - max) / TEMPERATURE).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|w| w / sum).collect()
    }

    fn entropy_of(p: &[f64]) -> f64 {
        -p.iter()
            .filter(|&&p| p > 0.0)
            .map(|p| p * p.ln())
            .sum::<f64>()
    }

    fn assert_near(got: f64, want: f64) {
        assert!(
            (got - want).abs() <= 1e-11 * (1.0 + want.abs()),
            "{got} {want}"
        );
    }

    #[test]
    fn every_size_agrees_with_the_definition() {
        for vocabulary in SIZES {
            let logits = wave(3 * vocabulary);
            let tokens = [0, vocabulary as i64 / 2, vocabulary as i64 - 1];
            let [logprobs, entropies, gradient] = both(&logits, vocabulary, &tokens);
            for (row, &token) in tokens.iter().enumerate() {
                let range = row * vocabulary..(row + 1) * vocabulary;
                let p = probabilities(&logits[range.clone()]);
                let entropy = entropy_of(&p);
                assert_near(logprobs[row], p[token as usize].ln());
                assert_near(entropies[row], entropy);
                for (j, &got) in gradient[range].iter().enumerate() {
                    let hit = f64::from(u8::from(j as i64 == token));
                    let want = 2.0 * (hit - p[j]) + 3.0 * p[j] * (p[j].ln() + entropy);
                    assert_near(got, want / TEMPERATURE);
                }
            }
        }
    }

    #[test]
    fn excluded_tokens_have_no_probability() {
        let mut logits = wave(3 * BLOCK);
        logits[..BLOCK + 5].fill(f64::NEG_INFINITY);
        let [logprobs, entropies, gradient] = both(&logits, logits.len(), &[3]);
        let p = probabilities(&logits);
        assert_eq!(logprobs[0], f64::NEG_INFINITY);
        assert_near(entropies[0], entropy_of(&p));
        assert_eq!(gradient[4], 0.0);
        assert_near(gradient[3], 2.0 / TEMPERATURE);
        assert!(gradient.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn nan_where_there_is_no_answer() {
        let nothing = vec![f64::NEG_INFINITY; 40];
        let [logprobs, entropies, _] = both(&nothing, 40, &[1]);
        assert!(logprobs[0].is_nan() && entropies[0].is_nan());
        let mut spoilt = wave(2 * BLOCK);
        spoilt[7] = f64::NAN;
        let [logprobs, entropies, gradient] = both(&spoilt, spoilt.len(), &[1]);
        assert!(logprobs[0].is_nan() && entropies[0].is_nan());
        assert!(gradient.iter().all(|g| g.is_nan()));
        for token in [-1, 40, i64::MAX] {
            let [logprobs, entropies, gradient] = both(&wave(40), 40, &[token]);
            assert!(logprobs[0].is_nan() && entropies[0].is_finite());
            assert!(gradient.iter().all(|g| g.is_finite()));
        }
    }

    #[test]
    fn rows_do_not_depend_on_how_they_are_shared() {
        let (rows, vocabulary) = (150, 1001);
        let logits = wave(rows * vocabulary);
        let tokens: Vec<i64> = (0..rows as i64).collect();
        let together = both(&logits, vocabulary, &tokens);
        for row in 0..rows {
            let range = row * vocabulary..(row + 1) * vocabulary;
            let alone = both(&logits[range.clone()], vocabulary, &tokens[row..=row]);
            assert_eq!(alone[0][0].to_bits(), together[0][row].to_bits());
            assert_eq!(alone[1][0].to_bits(), together[1][row].to_bits());
            assert_eq!(alone[2], together[2][range]);
        }
    }
}
