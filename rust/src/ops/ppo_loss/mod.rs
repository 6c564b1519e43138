//! PPO's loss and its gradient, in one pass over the samples.
//!
//! With the ratio r of new to old probability of an action and the entropy H, a sample's terms are
//!
//! ```text
//! policy      -min(r A, clip(r, 1 - eps, 1 + eps) A)
//! value       1/2 (v - R)^2, or 1/2 max((v - R)^2, (v_old + clip(v - v_old, -eps, eps) - R)^2)
//! divergence  (r - 1) - log r
//! outside     1 where |r - 1| > eps
//! ```
//!
//! and the gradient is that of `policy + vf_coef * value - ent_coef * H`. What a policy makes of its
//! arrays is the matter of its [`Policy`].
//!
//! Samples go side by side through vector registers, [`LANES`] at a time, whatever the number of
//! actions. Sums are formed over chunks of fixed size and then in order, so that they do not
//! depend on the number of threads.

mod block;
mod categorical;
mod gaussian;

use std::ops::Range;

use super::element::{Element, Real};
use super::registers::{self, Arch, Task};
use super::transcendental::Transcendental;
use crate::pool::{self, PoolError};
use block::Block;
pub use categorical::Categorical;
pub use gaussian::Gaussian;

const LANES: usize = 32;
const CHUNK: usize = 1024;
/// Numbers of the policy from which threads are worth waking.
const SHARE_FROM: usize = 1 << 16;

/// A number for each of the samples in registers.
type Lanes<R> = [R; LANES];

/// What every kind of policy is trained on, contiguous `[N]` each. Samples whose byte in `mask` is
/// zero are left out, whatever they hold.
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
    /// That of the policy's arrays, in their order; one that samples share has no place here.
    pub policy: [&'a mut [V]; 2],
    pub values: &'a mut [V],
}

/// The loss and its parts, means over the valid samples; zero without any.
#[derive(Clone, Debug)]
pub struct Terms {
    pub loss: f64,
    /// Policy, value, entropy, divergence, outside.
    pub parts: [f64; 5],
    /// One over the number of valid samples.
    pub scale: f64,
    /// The gradient for the array that all samples share, scaled.
    pub shared: Vec<f64>,
}

/// Sums of the five parts, and the number of valid samples.
type Parts = [f64; 6];

/// Sums over a chunk: the parts, and the gradient of what samples share.
struct Sums {
    parts: Parts,
    shared: Vec<f64>,
}

impl Sums {
    fn new(shared: usize) -> Self {
        Self {
            parts: Parts::default(),
            shared: vec![0.0; shared],
        }
    }
}

/// A kind of policy, with its arrays.
pub trait Policy: Copy + Send + Sync {
    type Value: Element<Real: Transcendental>;
    /// What the passes over a block of samples leave each other, and the next block.
    type Scratch;

    fn samples(&self) -> usize;

    /// Numbers that a sample has of its own, and numbers with a gradient that all share.
    fn sizes(&self) -> (usize, usize);

    fn scratch(&self) -> Self::Scratch;

    /// Log-probabilities of the actions, and entropies, of at most [`LANES`] samples; anything in
    /// lanes that are not valid.
    fn forward(
        &self,
        at: Range<usize>,
        valid: &Lanes<<RealOf<Self> as Real>::Mask>,
        scratch: &mut Self::Scratch,
    ) -> Predicted<RealOf<Self>>;

    /// The gradient from that of the log-probabilities, which is zero in lanes that are not valid.
    fn backward(
        &self,
        seen: &Seen<RealOf<Self>>,
        scratch: &mut Self::Scratch,
        out: [&mut [Self::Value]; 2],
        shared: &mut [f64],
    );
}

/// The type that a policy's arithmetic runs in.
type RealOf<P> = <<P as Policy>::Value as Element>::Real;

/// What a policy says of a block of samples.
pub struct Predicted<R> {
    log_prob: Lanes<R>,
    entropy: Lanes<R>,
}

/// What is known of a block of samples on the way back.
pub struct Seen<R: Real> {
    at: Range<usize>,
    valid: Lanes<R::Mask>,
    entropy: Lanes<R>,
    slope: Lanes<R>,
    ent_coef: R,
}

/// The loss, and its gradient where there is room for it.
///
/// # Errors
/// When the thread pool cannot be built.
///
/// # Panics
/// If the lengths do not fit together.
pub fn ppo_loss<P: Policy>(
    policy: P,
    columns: Columns<'_, P::Value>,
    coefficients: Coefficients,
    mut gradient: Option<Gradient<'_, P::Value>>,
) -> Result<Terms, PoolError> {
    let count = policy.samples();
    let (width, shared) = policy.sizes();
    let shared = if gradient.is_some() { shared } else { 0 };
    let starts = (0..count).step_by(CHUNK);
    let mut sums: Vec<Sums> = starts.clone().map(|_| Sums::new(shared)).collect();
    let pieces = starts
        .zip(&mut sums)
        .map(|(start, sums)| {
            let at = start..count.min(start + CHUNK);
            let gradient = gradient.as_mut().map(|gradient| gradient.cut(at.len()));
            Chunk {
                policy,
                columns,
                at,
                coefficients,
                gradient,
                sums,
            }
        })
        .collect();
    share(count * width, pieces, registers::run)?;
    Ok(finish(&sums, shared, coefficients))
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
fn finish(sums: &[Sums], shared: usize, coefficients: Coefficients) -> Terms {
    let mut total = Sums::new(shared);
    for chunk in sums {
        let all = total.parts.iter_mut().chain(&mut total.shared);
        for (sum, x) in all.zip(chunk.parts.iter().chain(&chunk.shared)) {
            *sum += x;
        }
    }
    let scale = 1.0 / total.parts[5].max(1.0);
    let parts: [f64; 5] = std::array::from_fn(|i| total.parts[i] * scale);
    let loss = parts[0] + coefficients.vf_coef * parts[1] - coefficients.ent_coef * parts[2];
    total.shared.iter_mut().for_each(|sum| *sum *= scale);
    Terms {
        loss,
        parts,
        scale,
        shared: total.shared,
    }
}

impl<V> Gradient<'_, V> {
    /// The part of the first `samples`; `self` keeps the rest.
    fn cut(&mut self, samples: usize) -> Self {
        let left = self.values.len();
        let cut = "as many as there are samples";
        let [first, second] = &mut self.policy;
        Gradient {
            policy: [first, second].map(|array| {
                let count = array.len() / left * samples;
                array.split_off_mut(..count).expect(cut)
            }),
            values: self.values.split_off_mut(..samples).expect(cut),
        }
    }
}

/// Some samples, at most [`CHUNK`] of them.
struct Chunk<'a, 'b, P: Policy> {
    policy: P,
    columns: Columns<'a, P::Value>,
    at: Range<usize>,
    coefficients: Coefficients,
    gradient: Option<Gradient<'a, P::Value>>,
    sums: &'b mut Sums,
}

impl<P: Policy> Task for Chunk<'_, '_, P> {
    #[inline(always)]
    fn run<A: Arch>(mut self) {
        let mut scratch = self.policy.scratch();
        for start in self.at.clone().step_by(LANES) {
            let at = start..self.at.end.min(start + LANES);
            let block = Block::load(&self.columns, at.clone());
            let predicted = self.policy.forward(at.clone(), &block.valid, &mut scratch);
            let head = block.head(predicted.log_prob, self.coefficients);
            block.add_to(&mut self.sums.parts, &head, &predicted.entropy);
            if let Some(gradient) = &mut self.gradient {
                let out = gradient.cut(at.len());
                P::Value::narrow_slice(&head.value_slope[..at.len()], out.values);
                let seen = Seen {
                    at,
                    valid: block.valid,
                    entropy: predicted.entropy,
                    slope: head.slope,
                    ent_coef: Real::from_f64(self.coefficients.ent_coef),
                };
                self.policy
                    .backward(&seen, &mut scratch, out.policy, &mut self.sums.shared);
            }
        }
    }
}
