//! PPO's loss for a categorical policy, and its gradient, in one pass over the samples.
//!
//! With p = softmax(logits), the ratio r of new to old probability of the action e, and the
//! entropy H, a sample's terms are
//!
//! ```text
//! policy      -min(r A, clip(r, 1 - eps, 1 + eps) A)
//! value       1/2 (v - R)^2, or 1/2 max((v - R)^2, (v_old + clip(v - v_old, -eps, eps) - R)^2)
//! divergence  (r - 1) - log r
//! outside     1 where |r - 1| > eps
//! ```
//!
//! and the gradient of `policy + vf_coef * value - ent_coef * H` is
//! `-A r [not clipped] (e - p) + ent_coef p (log p + H)` for the logits.
//!
//! Samples go side by side through vector registers, [`LANES`] at a time, whatever the number of
//! actions. Sums are formed over chunks of fixed size and then in order, so that they do not
//! depend on the number of threads.

use super::element::{Element, Real, each};
use super::registers::{self, Arch, Task};
use super::surrogate::{clamp, surrogate, total};
use super::transcendental::Transcendental;
use crate::pool::{self, PoolError};

const LANES: usize = 32;
const CHUNK: usize = 1024;
/// Logits from which threads are worth waking.
const SHARE_FROM: usize = 1 << 16;

/// `[N, A]` logits and `[N]` columns, contiguous. Samples whose byte in `mask` is zero are left
/// out, whatever they hold.
#[derive(Clone, Copy)]
pub struct Samples<'a, V> {
    pub logits: &'a [V],
    pub actions: &'a [i64],
    pub columns: Columns<'a, V>,
}

/// What every kind of policy is trained on, `[N]` each.
#[derive(Clone, Copy)]
pub struct Columns<'a, V> {
    pub old_log_probs: &'a [V],
    pub advantages: &'a [V],
    pub returns: &'a [V],
    pub values: &'a [V],
    /// Given: the value may move `clip_eps` away from them.
    pub old_values: Option<&'a [V]>,
    pub mask: Option<&'a [u8]>,
}

/// The loss's numbers.
#[derive(Clone, Copy)]
pub struct Coefficients {
    pub clip_eps: f64,
    pub vf_coef: f64,
    pub ent_coef: f64,
}

/// The gradient of the sum over the samples: to be scaled by [`Terms::scale`].
pub struct Gradient<'a, V> {
    pub logits: &'a mut [V],
    pub values: &'a mut [V],
}

/// The loss and its parts, means over the valid samples; zero without any.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub loss: f64,
    /// Policy, value, entropy, divergence, outside.
    pub parts: [f64; 5],
    /// One over the number of valid samples.
    pub scale: f64,
}

/// Sums of the five parts, and the number of valid samples.
pub(super) type Sums = [f64; 6];

/// The loss, and its gradient where there is room for it.
///
/// An action out of range makes the loss and the sample's gradient NaN.
///
/// # Errors
/// When the thread pool cannot be built.
///
/// # Panics
/// If the lengths do not fit together.
pub fn ppo_loss<V: Element<Real: Transcendental>>(
    samples: Samples<'_, V>,
    coefficients: Coefficients,
    gradient: Option<Gradient<'_, V>>,
) -> Result<Terms, PoolError> {
    let count = samples.actions.len();
    if count == 0 {
        return Ok(finish(&[], coefficients));
    }
    let classes = samples.logits.len() / count;
    let mut sums = vec![Sums::default(); count.div_ceil(CHUNK)];
    let mut gradients: Vec<Option<Gradient<'_, V>>> = match gradient {
        Some(Gradient { logits, values }) => logits
            .chunks_mut(CHUNK * classes)
            .zip(values.chunks_mut(CHUNK))
            .map(|(logits, values)| Some(Gradient { logits, values }))
            .collect(),
        None => sums.iter().map(|_| None).collect(),
    };
    let pieces: Vec<_> = gradients.iter_mut().zip(&mut sums).enumerate().collect();
    share(samples.logits.len(), pieces, |(at, (gradient, sums))| {
        let start = at * CHUNK;
        registers::run(Chunk {
            samples,
            classes,
            start,
            stop: count.min(start + CHUNK),
            coefficients,
            gradient: gradient.as_mut(),
            sums,
        });
    })?;
    Ok(finish(&sums, coefficients))
}

/// Call `body` with every piece, by threads if `work` is large.
pub(super) fn share<T: Send>(
    work: usize,
    pieces: Vec<T>,
    body: impl Fn(T) + Sync,
) -> Result<(), PoolError> {
    if work < SHARE_FROM {
        pieces.into_iter().for_each(body);
    } else {
        pool::current()?.for_each_item(pieces, body);
    }
    Ok(())
}

/// The means of sums over chunks.
pub(super) fn finish(sums: &[Sums], coefficients: Coefficients) -> Terms {
    let mut total = Sums::default();
    for chunk in sums {
        for (sum, x) in total.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    let scale = 1.0 / total[5].max(1.0);
    let parts: [f64; 5] = std::array::from_fn(|i| total[i] * scale);
    let loss = parts[0] + coefficients.vf_coef * parts[1] - coefficients.ent_coef * parts[2];
    Terms { loss, parts, scale }
}

/// Samples `start..stop`, at most [`CHUNK`] of them.
struct Chunk<'a, 'b, V> {
    samples: Samples<'a, V>,
    classes: usize,
    start: usize,
    stop: usize,
    coefficients: Coefficients,
    gradient: Option<&'b mut Gradient<'a, V>>,
    sums: &'b mut Sums,
}

impl<V: Element<Real: Transcendental>> Task for Chunk<'_, '_, V> {
    #[inline(always)]
    fn run<A: Arch>(mut self) {
        let classes = self.classes;
        let mut rows = vec![V::Real::ZERO; classes * LANES];
        // Differences to the largest logit, later the gradient; and their exponentials.
        let mut shifted = vec![[V::Real::ZERO; LANES]; classes];
        let mut weights = shifted.clone();
        for start in (self.start..self.stop).step_by(LANES) {
            let stop = self.stop.min(start + LANES);
            let block = Block::load(&self.samples.columns, start, stop);
            let from = &self.samples.logits[start * classes..stop * classes];
            V::widen_slice(from, &mut rows[..from.len()]);
            let actions = &self.samples.actions[start..stop];
            let policy = categorical(&rows, actions, block.valid, &mut shifted, &mut weights);
            let head = block.head(policy.log_prob, self.coefficients);
            block.add_to(self.sums, &head, &policy.entropy);
            if let Some(gradient) = &mut self.gradient {
                let (slope, ent_coef) = (head.slope, V::Real::from_f64(self.coefficients.ent_coef));
                policy.gradient(&block, slope, ent_coef, actions, &mut shifted, &weights);
                for (class, column) in shifted.iter().enumerate() {
                    for (lane, &x) in column.iter().enumerate().take(stop - start) {
                        rows[lane * classes + class] = x;
                    }
                }
                let (from, to) = (start - self.start, stop - self.start);
                let out = &mut gradient.logits[from * classes..to * classes];
                V::narrow_slice(&rows[..out.len()], out);
                V::narrow_slice(
                    &head.value_slope[..to - from],
                    &mut gradient.values[from..to],
                );
            }
        }
    }
}

/// The policy's side of a block of samples.
struct Categorical<R> {
    log_prob: [R; LANES],
    entropy: [R; LANES],
    /// One over the sum of the exponentials, and its logarithm.
    norm: [R; LANES],
    log_sum: [R; LANES],
}

/// Log-probabilities of the actions, and entropies, of rows `[LANES, A]`.
#[inline(always)]
fn categorical<R: Real + Transcendental>(
    rows: &[R],
    actions: &[i64],
    valid: [R::Mask; LANES],
    shifted: &mut [[R; LANES]],
    weights: &mut [[R; LANES]],
) -> Categorical<R> {
    let classes = shifted.len();
    let mut largest = [R::from_f64(f64::NEG_INFINITY); LANES];
    for (class, column) in shifted.iter_mut().enumerate() {
        for lane in 0..LANES {
            let x = rows[lane * classes + class].masked(valid[lane]);
            column[lane] = x;
            largest[lane] = R::choose(R::mask(x > largest[lane]), x, largest[lane]);
        }
    }
    let mut sum = [R::ZERO; LANES];
    let mut moment = [R::ZERO; LANES];
    for (column, weight) in shifted.iter_mut().zip(weights.iter_mut()) {
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
        let column = usize::try_from(action).ok().and_then(|a| shifted.get(a));
        let x = column.map_or(R::from_f64(f64::NAN), |column| column[lane]);
        chosen[lane] = x.masked(valid[lane]);
    }
    let log_sum = each(|lane| R::ln_of(sum[lane]));
    let norm = each(|lane| R::ONE / sum[lane]);
    Categorical {
        log_prob: each(|lane| chosen[lane] - log_sum[lane]),
        entropy: each(|lane| log_sum[lane] - moment[lane] * norm[lane]),
        norm,
        log_sum,
    }
}

impl<R: Real + Transcendental> Categorical<R> {
    /// Turn `shifted` into the gradient with respect to the logits.
    #[inline(always)]
    fn gradient(
        &self,
        block: &Block<R>,
        slope: [R; LANES],
        ent_coef: R,
        actions: &[i64],
        shifted: &mut [[R; LANES]],
        weights: &[[R; LANES]],
    ) {
        for (column, weight) in shifted.iter_mut().zip(weights) {
            for lane in 0..LANES {
                let log_p = column[lane] - self.log_sum[lane];
                let pull = ent_coef * (log_p + self.entropy[lane]) - slope[lane];
                let x = weight[lane] * self.norm[lane] * pull;
                let possible = R::mask(weight[lane] != R::ZERO);
                column[lane] = x.masked(possible).masked(block.valid[lane]);
            }
        }
        for (lane, &action) in actions.iter().enumerate() {
            if let Some(column) = usize::try_from(action)
                .ok()
                .and_then(|a| shifted.get_mut(a))
            {
                column[lane] = column[lane] + slope[lane];
            }
        }
    }
}

/// The columns of a block of samples; zero where a sample is not valid.
pub(super) struct Block<R: Real> {
    pub(super) valid: [R::Mask; LANES],
    old_log_probs: [R; LANES],
    advantages: [R; LANES],
    returns: [R; LANES],
    values: [R; LANES],
    old_values: Option<[R; LANES]>,
}

/// The terms that follow from the log-probability, zero where a sample is not valid.
pub(super) struct Head<R> {
    policy: [R; LANES],
    value: [R; LANES],
    divergence: [R; LANES],
    outside: [R; LANES],
    /// Derivative of the policy's term with respect to the log-probability.
    pub(super) slope: [R; LANES],
    /// Derivative of the weighted value's term with respect to the value.
    pub(super) value_slope: [R; LANES],
}

impl<R: Real + Transcendental> Block<R> {
    #[inline(always)]
    pub(super) fn load<V: Element<Real = R>>(
        columns: &Columns<'_, V>,
        start: usize,
        stop: usize,
    ) -> Self {
        let valid = each(|lane| {
            let at = start + lane;
            R::mask(at < stop && columns.mask.is_none_or(|mask| mask[at] != 0))
        });
        let load = |column: &[V]| {
            let mut out = [R::ZERO; LANES];
            V::widen_slice(&column[start..stop], &mut out[..stop - start]);
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
    pub(super) fn head(&self, log_prob: [R; LANES], coefficients: Coefficients) -> Head<R> {
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
    pub(super) fn add_to(&self, sums: &mut Sums, head: &Head<R>, entropy: &[R; LANES]) {
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
