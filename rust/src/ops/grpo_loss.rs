//! Losses of the GRPO family on token log-probabilities, and their gradient, in one pass.
//!
//! With the ratio r of new to old probability, of the token or, as the exponential of the mean
//! logarithm over its valid tokens, of the sequence, a token's terms are
//!
//! ```text
//! policy   -min(r A, clip(r, low, high) A)
//! kl       an estimate from d = logp - logp_ref: d, d^2 / 2 or exp(-d) - 1 + d
//! clipped  1 where the clip holds
//! ```
//!
//! and an aggregation says how much a token counts: the scale of its sequence.

use super::element::{Element, Real, each};
use super::ppo_loss::share;
use super::registers::{self, Arch, Task};
use super::surrogate::{surrogate, total};
use super::transcendental::Transcendental;
use crate::pool::PoolError;

const LANES: usize = 64;
/// Tokens that one task takes at least.
const TASK: usize = 1 << 14;

/// `[B, T]` log-probabilities, contiguous. Tokens whose byte in `mask` is zero are left out,
/// whatever they hold.
#[derive(Clone, Copy)]
pub struct Tokens<'a, V> {
    pub logprobs: &'a [V],
    pub old_logprobs: &'a [V],
    /// `[B]` or `[B, T]`.
    pub advantages: &'a [V],
    pub ref_logprobs: Option<&'a [V]>,
    pub mask: Option<&'a [u8]>,
    pub rows: usize,
    pub length: usize,
}

/// Estimates of the divergence.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    K1,
    K2,
    K3,
}

/// What the sum over tokens is divided by.
#[derive(Clone, Copy)]
pub enum Aggregation {
    /// The valid tokens of the sequence, times the number of sequences.
    Sequence,
    /// This number of tokens, times the number of sequences.
    Constant(f64),
    /// All valid tokens.
    Token,
}

/// The loss's settings.
#[derive(Clone, Copy)]
pub struct Rules {
    /// The interval that ratios are clipped to.
    pub low: f64,
    pub high: f64,
    pub kl_coef: f64,
    pub kind: Kind,
    pub per_sequence: bool,
    pub aggregation: Aggregation,
}

/// Policy, divergence, clipped, and number of valid tokens of one sequence.
type Sums = [f64; 4];

/// Loss, policy's part, divergence, clip fraction.
pub type Terms = [f64; 4];

/// The loss and its parts; one scale for each sequence; and, where there is room for it, the
/// gradient with respect to `logprobs`, yet to be multiplied by the scales.
///
/// # Errors
/// When the thread pool cannot be built.
///
/// # Panics
/// If the lengths do not fit together.
pub fn grpo_loss<V: Element<Real: Transcendental>>(
    tokens: Tokens<'_, V>,
    rules: Rules,
    gradient: Option<&mut [V]>,
    scale: &mut [V::Real],
) -> Result<Terms, PoolError> {
    let Tokens { rows, length, .. } = tokens;
    let mut sums = vec![Sums::default(); rows];
    if length > 0 {
        let group = TASK.div_ceil(length);
        let mut gradients: Vec<Option<&mut [V]>> = match gradient {
            Some(gradient) => gradient.chunks_mut(group * length).map(Some).collect(),
            None => (0..rows.div_ceil(group)).map(|_| None).collect(),
        };
        let pieces = sums.chunks_mut(group).zip(&mut gradients).enumerate();
        share(rows * length, pieces.collect(), |(at, (sums, gradient))| {
            registers::run(Rows {
                tokens,
                rules,
                first: at * group,
                sums,
                gradient: gradient.as_deref_mut(),
            });
        })?;
    }
    Ok(finish(&sums, rules, scale))
}

fn finish<R: Real>(sums: &[Sums], rules: Rules, scale: &mut [R]) -> Terms {
    let rows = sums.len() as f64;
    let total = sums.iter().map(|sum| sum[3]).sum::<f64>().max(1.0);
    let (mut policy, mut divergence, mut clipped) = (0.0, 0.0, 0.0);
    for (sum, slot) in sums.iter().zip(scale) {
        let by = match rules.aggregation {
            Aggregation::Sequence => 1.0 / (rows * sum[3].max(1.0)),
            Aggregation::Constant(tokens) => 1.0 / (rows * tokens),
            Aggregation::Token => 1.0 / total,
        };
        *slot = R::from_f64(by);
        policy += by * sum[0];
        divergence += by * sum[1];
        clipped += sum[2];
    }
    // Without a coefficient an infinite divergence is no part of the loss.
    let penalty = if rules.kl_coef == 0.0 {
        0.0
    } else {
        rules.kl_coef * divergence
    };
    [policy + penalty, policy, divergence, clipped / total]
}

/// Some sequences, from `first` on.
struct Rows<'a, 'b, V> {
    tokens: Tokens<'a, V>,
    rules: Rules,
    first: usize,
    sums: &'b mut [Sums],
    gradient: Option<&'b mut [V]>,
}

impl<V: Element<Real: Transcendental>> Task for Rows<'_, '_, V> {
    #[inline(always)]
    fn run<A: Arch>(mut self) {
        let length = self.tokens.length;
        for (at, sums) in self.sums.iter_mut().enumerate() {
            let row = Row::new(&self.tokens, &self.rules, self.first + at);
            let whole = self.rules.per_sequence.then(|| row.as_one());
            for start in (0..length).step_by(LANES) {
                let stop = length.min(start + LANES);
                let slope = row.add_to(sums, start, stop, whole);
                if let Some(gradient) = &mut self.gradient {
                    let out = &mut gradient[at * length + start..at * length + stop];
                    V::narrow_slice(&slope[..stop - start], out);
                }
            }
        }
    }
}

/// A stretch of tokens' numbers, and which of them count.
type Lanes<V> = [<V as Element>::Real; LANES];
type Valid<V> = [<<V as Element>::Real as Real>::Mask; LANES];

/// One sequence.
struct Row<'a, V: Element> {
    tokens: Tokens<'a, V>,
    start: usize,
    advantage: Option<V::Real>,
    low: V::Real,
    high: V::Real,
    kl_coef: V::Real,
    kind: Kind,
}

/// What a sequence's tokens share where the ratio is the sequence's: the ratio, and the derivative
/// of the sum of the policy's terms with respect to each log-probability.
type Whole<R> = (R, R);

impl<'a, V: Element<Real: Transcendental>> Row<'a, V> {
    #[inline(always)]
    fn new(tokens: &Tokens<'a, V>, rules: &Rules, row: usize) -> Self {
        let per_token = tokens.advantages.len() != tokens.rows;
        Self {
            tokens: *tokens,
            start: row * tokens.length,
            advantage: (!per_token).then(|| tokens.advantages[row].widen()),
            low: V::Real::from_f64(rules.low),
            high: V::Real::from_f64(rules.high),
            kl_coef: V::Real::from_f64(rules.kl_coef),
            kind: rules.kind,
        }
    }

    #[inline(always)]
    fn valid(&self, start: usize, stop: usize) -> Valid<V> {
        each(|lane| {
            let at = start + lane;
            let counts = |mask: &[u8]| mask[self.start + at] != 0;
            V::Real::mask(at < stop && self.tokens.mask.is_none_or(counts))
        })
    }

    /// Tokens of `from`, zero where `valid` is not.
    #[inline(always)]
    fn load(&self, from: &[V], start: usize, stop: usize, valid: &Valid<V>) -> Lanes<V> {
        let mut out = [V::Real::ZERO; LANES];
        let from = &from[self.start + start..self.start + stop];
        V::widen_slice(from, &mut out[..stop - start]);
        each(|lane| out[lane].masked(valid[lane]))
    }

    #[inline(always)]
    fn advantages(&self, start: usize, stop: usize, valid: &Valid<V>) -> Lanes<V> {
        match self.advantage {
            Some(advantage) => each(|lane| advantage.masked(valid[lane])),
            None => self.load(self.tokens.advantages, start, stop, valid),
        }
    }

    /// The logarithm of the ratio of a stretch of tokens.
    #[inline(always)]
    fn log_ratios(&self, start: usize, stop: usize, valid: &Valid<V>) -> Lanes<V> {
        let new = self.load(self.tokens.logprobs, start, stop, valid);
        let old = self.load(self.tokens.old_logprobs, start, stop, valid);
        each(|lane| new[lane] - old[lane])
    }

    /// The sequence as a whole.
    #[inline(always)]
    fn as_one(&self) -> Whole<V::Real> {
        let (mut log_ratio, mut count) = (0.0, 0.0);
        self.each_stretch(|start, stop, valid| {
            log_ratio += total::<_, LANES>(&self.log_ratios(start, stop, valid));
            count += total::<_, LANES>(&each(|lane| V::Real::ONE.masked(valid[lane])));
        });
        let count = f64::max(count, 1.0);
        let ratio = V::Real::exp_of(V::Real::from_f64(log_ratio / count));
        let mut slope = 0.0;
        self.each_stretch(|start, stop, valid| {
            let advantages = self.advantages(start, stop, valid);
            slope += total::<_, LANES>(&each(|lane| {
                let slope = surrogate(ratio, advantages[lane], self.low, self.high).slope;
                slope.masked(valid[lane])
            }));
        });
        (ratio, V::Real::from_f64(slope / count))
    }

    #[inline(always)]
    fn each_stretch(&self, mut body: impl FnMut(usize, usize, &Valid<V>)) {
        for start in (0..self.tokens.length).step_by(LANES) {
            let stop = self.tokens.length.min(start + LANES);
            body(start, stop, &self.valid(start, stop));
        }
    }

    /// Add a stretch of tokens to `sums`; their gradient.
    #[inline(always)]
    fn add_to(
        &self,
        sums: &mut Sums,
        start: usize,
        stop: usize,
        whole: Option<Whole<V::Real>>,
    ) -> Lanes<V> {
        let valid = self.valid(start, stop);
        let advantages = self.advantages(start, stop, &valid);
        let ratios = match whole {
            Some((ratio, _)) => [ratio; LANES],
            None => {
                let log_ratios = self.log_ratios(start, stop, &valid);
                each(|lane| V::Real::exp_of(log_ratios[lane]))
            }
        };
        let terms: [_; LANES] =
            each(|lane| surrogate(ratios[lane], advantages[lane], self.low, self.high));
        let (kl, kl_slope) = self.divergence(start, stop, &valid);
        sums[0] += total::<_, LANES>(&each(|lane| terms[lane].loss.masked(valid[lane])));
        sums[1] += total::<_, LANES>(&each(|lane| kl[lane].masked(valid[lane])));
        sums[2] += total::<_, LANES>(&each(|lane| {
            let held = V::Real::ONE.masked(V::Real::mask(terms[lane].held));
            held.masked(valid[lane])
        }));
        sums[3] += total::<_, LANES>(&each(|lane| V::Real::ONE.masked(valid[lane])));
        // Without a coefficient an infinite slope is no part of the gradient.
        let penalized = V::Real::mask(self.kl_coef != V::Real::ZERO);
        each(|lane| {
            let own = whole.map_or(terms[lane].slope, |(_, slope)| slope);
            let pull = (self.kl_coef * kl_slope[lane]).masked(penalized);
            (own + pull).masked(valid[lane])
        })
    }

    /// The estimate of the divergence and its derivative; zero without a reference.
    #[inline(always)]
    fn divergence(&self, start: usize, stop: usize, valid: &Valid<V>) -> (Lanes<V>, Lanes<V>) {
        let zero = [V::Real::ZERO; LANES];
        let Some(reference) = self.tokens.ref_logprobs else {
            return (zero, zero);
        };
        let new = self.load(self.tokens.logprobs, start, stop, valid);
        let reference = self.load(reference, start, stop, valid);
        let d: Lanes<V> = each(|lane| new[lane] - reference[lane]);
        match self.kind {
            Kind::K1 => (d, [V::Real::ONE; LANES]),
            Kind::K2 => {
                let half = V::Real::from_f64(0.5);
                (each(|lane| half * d[lane] * d[lane]), d)
            }
            Kind::K3 => {
                let e: Lanes<V> = each(|lane| V::Real::exp_of(V::Real::ZERO - d[lane]));
                let excess = each(|lane| e[lane] - V::Real::ONE + d[lane]);
                (excess, each(|lane| V::Real::ONE - e[lane]))
            }
        }
    }
}
