//! Generalised advantage estimation (Schulman et al., "High-dimensional continuous control using
//! generalized advantage estimation", ICLR 2016).
//!
//! ```text
//! delta[t] = r[t] + gamma V'[t] - v[t]      V'[t] = 0                 where terminated[t],
//!                                                   final_values[t]   else where truncated[t],
//!                                                   v[t+1]            else (at the end last_values)
//! A[t]     = delta[t] + gamma lambda A[t+1]         the second term unless terminated or truncated
//! returns  = A + v
//! ```

use std::ops::Range;

use multiversion::multiversion;

use super::element::{Element, Real};
use super::scan::{Coefficients, Recurrence, State, walk};
use super::strided::{FlagSource, Rows, Sink, Source};
use super::tiles::{Drain, Feed, FlagFeed};
use crate::pool::{self, PoolError};

/// The arrays that are read: all `[times, envs]`, `last_values` `[1, envs]`.
#[derive(Clone, Copy)]
pub struct Inputs<V> {
    pub times: usize,
    pub envs: usize,
    pub rewards: Source<V>,
    pub values: Source<V>,
    pub terminated: FlagSource,
    pub last_values: Source<V>,
    pub truncation: Option<Truncation<V>>,
}

/// Where trajectories are cut, and the values of the observations behind the cuts.
#[derive(Clone, Copy)]
pub struct Truncation<V> {
    pub truncated: FlagSource,
    pub final_values: Source<V>,
}

/// The arrays that are written, `[times, envs]`.
pub struct Outputs<V> {
    pub advantages: Sink<V>,
    pub returns: Sink<V>,
}

/// The two numbers of the estimator.
#[derive(Clone, Copy)]
pub struct Discounts {
    pub gamma: f64,
    pub lambda: f64,
}

/// Elements of each array that are looked at in one go when a buffer is needed.
const TILE: usize = 2048;

/// Environments walked side by side: their state stays in the first-level cache.
const BLOCK: usize = 1024;

/// Compute advantages and returns.
///
/// # Errors
/// Only those of [`pool::current`], and only for arrays large enough to be shared among threads.
pub fn gae<V: Element>(
    inputs: Inputs<V>,
    mut outputs: Outputs<V>,
    discounts: Discounts,
) -> Result<(), PoolError> {
    let _ = pool::current;
    if inputs.times == 0 || inputs.envs == 0 {
        return Ok(());
    }
    let mut start = 0;
    while start < inputs.envs {
        let envs = BLOCK.min(inputs.envs - start);
        let block = inputs.part(0..inputs.times, start..start + envs);
        run_block(block, outputs.take_envs(envs), discounts);
        start += envs;
    }
    Ok(())
}

fn run_block<V: Element>(inputs: Inputs<V>, outputs: Outputs<V>, discounts: Discounts) {
    let mut last_values = vec![V::Real::default(); inputs.envs];
    inputs.last_values.load(0..1, &mut last_values);
    let mut state = State {
        carry: vec![V::Real::ZERO; inputs.envs],
        next_values: last_values,
    };
    walk_block(inputs, outputs, discounts, &mut state);
}

impl<V: Element> Inputs<V> {
    fn part(self, times: Range<usize>, envs: Range<usize>) -> Self {
        Self {
            times: times.len(),
            envs: envs.len(),
            rewards: self.rewards.part(times.clone(), envs.clone()),
            values: self.values.part(times.clone(), envs.clone()),
            terminated: self.terminated.part(times.clone(), envs.clone()),
            last_values: self.last_values.part(0..1, envs.clone()),
            truncation: self.truncation.map(|truncation| Truncation {
                truncated: truncation.truncated.part(times.clone(), envs.clone()),
                final_values: truncation.final_values.part(times, envs),
            }),
        }
    }
}

impl<V: Element> Outputs<V> {
    fn take_envs(&mut self, envs: usize) -> Self {
        Self {
            advantages: self.advantages.take_envs(envs),
            returns: self.returns.take_envs(envs),
        }
    }
}

#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn walk_block<V: Element>(
    inputs: Inputs<V>,
    outputs: Outputs<V>,
    discounts: Discounts,
    state: &mut State<V::Real>,
) {
    match inputs.truncation {
        None => walk_tiles::<V, false>(inputs, outputs, discounts, state),
        Some(_) => walk_tiles::<V, true>(inputs, outputs, discounts, state),
    }
}

#[inline(always)]
fn walk_tiles<V: Element, const TRUNCATION: bool>(
    inputs: Inputs<V>,
    outputs: Outputs<V>,
    discounts: Discounts,
    state: &mut State<V::Real>,
) {
    let height = (TILE / inputs.envs).clamp(1, inputs.times);
    let length = height * inputs.envs;
    let mut feeds = Feeds::new(inputs, length);
    let mut advantages = Drain::new(outputs.advantages, length);
    let mut returns = Drain::new(outputs.returns, length);
    let mut end = inputs.times;
    while end > 0 {
        let times = end.saturating_sub(height)..end;
        let model = feeds.rows::<TRUNCATION>(times.clone(), discounts);
        let outputs = [
            &mut advantages.rows(times.clone(), inputs.envs),
            &mut returns.rows(times.clone(), inputs.envs),
        ];
        walk(&model, times.len(), state, outputs);
        advantages.flush(times.clone());
        returns.flush(times.clone());
        end = times.start;
    }
}

/// The inputs, tile by tile.
struct Feeds<V: Element> {
    envs: usize,
    rewards: Feed<V>,
    values: Feed<V>,
    terminated: FlagFeed,
    truncation: Option<(FlagFeed, Feed<V>)>,
}

impl<V: Element> Feeds<V> {
    fn new(inputs: Inputs<V>, length: usize) -> Self {
        Self {
            envs: inputs.envs,
            rewards: Feed::new(inputs.rewards, length),
            values: Feed::new(inputs.values, length),
            terminated: FlagFeed::new(inputs.terminated, length),
            truncation: inputs.truncation.map(|truncation| {
                (
                    FlagFeed::new(truncation.truncated, length),
                    Feed::new(truncation.final_values, length),
                )
            }),
        }
    }

    #[inline(always)]
    fn rows<const TRUNCATION: bool>(
        &mut self,
        times: Range<usize>,
        discounts: Discounts,
    ) -> Gae<'_, V::Real, TRUNCATION> {
        Gae {
            rewards: self.rewards.rows(times.clone(), self.envs),
            values: self.values.rows(times.clone(), self.envs),
            terminated: self.terminated.rows(times.clone(), self.envs),
            truncated: self.truncation.as_mut().map(|(truncated, final_values)| {
                let truncated = truncated.rows(times.clone(), self.envs);
                (truncated, final_values.rows(times, self.envs))
            }),
            gamma: V::Real::from_f64(discounts.gamma),
            decay: V::Real::from_f64(discounts.gamma * discounts.lambda),
        }
    }
}

/// The estimator over some rows.
struct Gae<'a, R, const TRUNCATION: bool> {
    rewards: Rows<'a, R>,
    values: Rows<'a, R>,
    terminated: Rows<'a, u8>,
    /// With the final values; `None` exactly where `TRUNCATION` is false.
    truncated: Option<(Rows<'a, u8>, Rows<'a, R>)>,
    gamma: R,
    decay: R,
}

#[derive(Clone, Copy)]
struct GaeRow<'a, R> {
    rewards: &'a [R],
    values: &'a [R],
    terminated: &'a [u8],
    truncated: &'a [u8],
    final_values: &'a [R],
}

impl<'a, R: Real, const TRUNCATION: bool> Recurrence for Gae<'a, R, TRUNCATION> {
    type Real = R;
    type Row = GaeRow<'a, R>;

    #[inline(always)]
    fn row(&self, time: usize) -> GaeRow<'a, R> {
        let rewards = self.rewards.row(time);
        let terminated = self.terminated.row(time);
        // Without truncations two other arrays stand in; nothing reads them.
        let (truncated, final_values) = match &self.truncated {
            Some((truncated, final_values)) if TRUNCATION => {
                (truncated.row(time), final_values.row(time))
            }
            _ => (terminated, rewards),
        };
        GaeRow {
            rewards,
            values: self.values.row(time),
            terminated,
            truncated,
            final_values,
        }
    }

    #[inline(always)]
    fn lanes(row: GaeRow<'a, R>, lanes: Range<usize>) -> GaeRow<'a, R> {
        GaeRow {
            rewards: &row.rewards[lanes.clone()],
            values: &row.values[lanes.clone()],
            terminated: &row.terminated[lanes.clone()],
            truncated: &row.truncated[lanes.clone()],
            final_values: &row.final_values[lanes],
        }
    }

    #[inline(always)]
    fn value(row: GaeRow<'a, R>, lane: usize) -> R {
        row.values[lane]
    }

    #[inline(always)]
    fn coefficients(&self, row: GaeRow<'a, R>, lane: usize, next_value: R) -> Coefficients<R> {
        let ends = row.terminated[lane] != 0;
        let stops = TRUNCATION && row.truncated[lane] != 0;
        let next_value = if stops {
            row.final_values[lane]
        } else {
            next_value
        };
        let bootstrap = if ends {
            R::ZERO
        } else {
            self.gamma * next_value
        };
        Coefficients {
            keep: !(ends | stops),
            decay: self.decay,
            offset: row.rewards[lane] + bootstrap - row.values[lane],
        }
    }

    #[inline(always)]
    fn results(&self, row: GaeRow<'a, R>, lane: usize, x: R) -> [R; 2] {
        [x, x + row.values[lane]]
    }
}
