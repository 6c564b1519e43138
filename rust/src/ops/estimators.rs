//! What the estimators make of the one recurrence.
//!
//! ```text
//! V'[t] = 0                 where terminated[t]
//!         final_values[t]   else where truncated[t]
//!         v[t+1]            else (at the end last_values)
//! x[t]  = decay[t] x[t+1] + offset[t]      decay zero where terminated or truncated
//! ```

use super::element::Real;
use super::registers::{Arch, Register};
use super::rollout::STEPS;
use super::scan::Coefficients;
use super::transcendental::exp;

/// The slot of the rewards among the arrays that an estimator reads.
pub const REWARDS: usize = 0;
/// The slot of the values that are bootstrapped from.
pub const VALUES: usize = 1;

/// The numbers of a call.
#[derive(Clone, Copy)]
pub struct Rates {
    pub gamma: f64,
    pub lambda: f64,
    /// Bounds of the importance ratios.
    pub bars: [f64; 2],
}

/// Transitions in the lanes of a register.
#[derive(Clone, Copy)]
pub struct Step<V> {
    pub slots: [V; STEPS],
    /// `gamma V'`.
    pub bootstrap: V,
    /// `gamma`, and zero where the trace is cut.
    pub discount: V,
    /// `gamma lambda`, and zero where the trace is cut.
    pub decay: V,
    pub lambda: V,
    /// Bounds of the importance ratios.
    pub bars: [V; 2],
}

/// An estimator.
pub trait Estimator {
    /// For each slot the array that it is filled from.
    const SLOTS: &'static [usize];

    /// Whether it bootstraps from values: otherwise the recurrence itself starts from
    /// `last_values`.
    const BOOTSTRAPS: bool = true;

    /// Whether the decay is that of [`Step::decay`].
    const PLAIN_DECAY: bool = true;

    fn coefficients<A: Arch, V: Register>(step: &Step<V>) -> Coefficients<V>;

    /// What is written to the two outputs; `ahead` is `gain[t] x[t+1] + base[t]`.
    fn results<V: Register>(values: V, x: V, ahead: V) -> [V; 2];
}

/// Generalised advantage estimation, advantages and returns (Schulman et al., "High-dimensional
/// continuous control using generalized advantage estimation", ICLR 2016). The returns are the
/// TD(lambda) returns.
pub struct Gae;

impl Estimator for Gae {
    const SLOTS: &'static [usize] = &[0, 1];

    #[inline(always)]
    fn coefficients<A: Arch, V: Register>(step: &Step<V>) -> Coefficients<V> {
        let target = step.slots[REWARDS].add(step.bootstrap);
        Coefficients::new(step.decay, target.sub(step.slots[VALUES]))
    }

    #[inline(always)]
    fn results<V: Register>(values: V, x: V, _ahead: V) -> [V; 2] {
        [x, x.add(values)]
    }
}

/// Discounted sums of rewards.
pub struct Discounted;

impl Estimator for Discounted {
    const SLOTS: &'static [usize] = &[0];
    const BOOTSTRAPS: bool = false;

    #[inline(always)]
    fn coefficients<A: Arch, V: Register>(step: &Step<V>) -> Coefficients<V> {
        Coefficients::new(step.decay, step.slots[REWARDS].add(step.bootstrap))
    }

    #[inline(always)]
    fn results<V: Register>(_values: V, x: V, _ahead: V) -> [V; 2] {
        [x, x]
    }
}

/// What n-step returns take from a step, for [`super::n_step`].
pub struct NStep;

impl Estimator for NStep {
    const SLOTS: &'static [usize] = &[0, 1];
    const PLAIN_DECAY: bool = false;

    #[inline(always)]
    fn coefficients<A: Arch, V: Register>(step: &Step<V>) -> Coefficients<V> {
        Coefficients::new(step.discount, step.slots[REWARDS].add(step.bootstrap))
    }

    #[inline(always)]
    fn results<V: Register>(_values: V, x: V, _ahead: V) -> [V; 2] {
        [x, x]
    }
}

/// V-trace targets and policy-gradient advantages (Espeholt et al., "IMPALA: scalable distributed
/// deep-RL with importance weighted actor-learner architectures", ICML 2018); x is target - value.
///
/// With `ONE_BAR` both bounds of the ratios are the same, and x is the advantage too.
pub struct Vtrace<const ONE_BAR: bool>;

impl<const ONE_BAR: bool> Estimator for Vtrace<ONE_BAR> {
    const SLOTS: &'static [usize] = &[1, 2, 0];
    const PLAIN_DECAY: bool = false;

    #[inline(always)]
    fn coefficients<A: Arch, V: Register>(step: &Step<V>) -> Coefficients<V> {
        let [rewards, values, log_ratios, _] = step.slots;
        let ratios = exp::<A, V>(log_ratios);
        let rho = step.bars[0].least(ratios);
        let delta = rho.mul(rewards.add(step.bootstrap).sub(values));
        if ONE_BAR {
            return Coefficients::new(step.discount.mul(rho), delta);
        }
        let c = step.bars[1].least(ratios);
        Coefficients {
            gains: rho.mul(step.discount),
            bases: delta,
            ..Coefficients::new(step.discount.mul(c), delta)
        }
    }

    #[inline(always)]
    fn results<V: Register>(values: V, x: V, ahead: V) -> [V; 2] {
        [x.add(values), ahead]
    }
}

/// Retrace(lambda) targets of action values (Munos et al., "Safe and efficient off-policy
/// reinforcement learning", 2016); x is the correction times the step's own trace, which is
/// what the step before sees of it.
pub struct Retrace;

impl Estimator for Retrace {
    const SLOTS: &'static [usize] = &[1, 3, 2, 0];
    const PLAIN_DECAY: bool = false;

    #[inline(always)]
    fn coefficients<A: Arch, V: Register>(step: &Step<V>) -> Coefficients<V> {
        let [rewards, _, q_values, log_ratios] = step.slots;
        let target = rewards.add(step.bootstrap);
        let trace = step.lambda.mul(step.bars[0].least(exp::<A, V>(log_ratios)));
        Coefficients {
            gains: step.discount,
            bases: target,
            ..Coefficients::new(step.discount.mul(trace), trace.mul(target.sub(q_values)))
        }
    }

    #[inline(always)]
    fn results<V: Register>(_values: V, _x: V, ahead: V) -> [V; 2] {
        [ahead, ahead]
    }
}

/// Eligibility traces, with time reversed; x is what a step hands on.
pub struct Traces;

impl Estimator for Traces {
    const SLOTS: &'static [usize] = &[0];
    const BOOTSTRAPS: bool = false;

    #[inline(always)]
    fn coefficients<A: Arch, V: Register>(step: &Step<V>) -> Coefficients<V> {
        let x = step.slots[REWARDS];
        Coefficients {
            gains: V::splat(V::Real::ONE),
            bases: x,
            ..Coefficients::new(step.decay, step.decay.kept(x))
        }
    }

    #[inline(always)]
    fn results<V: Register>(_values: V, _x: V, ahead: V) -> [V; 2] {
        [ahead, ahead]
    }
}
