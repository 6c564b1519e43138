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

use super::element::{Real, lanes};
use super::line::{self, Powers};
use super::registers::{self, Arch, Register, Task};
use super::scan::{Coefficients, Recurrence, State, walk_line, walk_rows};
use super::strided::{FlagSource, Rows, RowsMut, Sink, Source};
use super::tiles::{Drain, Feed, FlagFeed};
use crate::pool::{self, PoolError};

/// The arrays that are read: all `[times, envs]`, `last_values` `[1, envs]`.
#[derive(Clone, Copy)]
pub struct Inputs<R: Real> {
    pub times: usize,
    pub envs: usize,
    pub rewards: Source<R>,
    pub values: Source<R>,
    pub terminated: FlagSource,
    pub last_values: Source<R>,
    pub truncation: Option<Truncation<R>>,
}

/// Where trajectories are cut, and the values of the observations behind the cuts.
#[derive(Clone, Copy)]
pub struct Truncation<R: Real> {
    pub truncated: FlagSource,
    pub final_values: Source<R>,
}

/// The arrays that are written, `[times, envs]`.
pub struct Outputs<'a, R: Real> {
    pub advantages: Sink<'a, R>,
    pub returns: Sink<'a, R>,
}

/// The two numbers of the estimator.
#[derive(Clone, Copy)]
pub struct Discounts {
    pub gamma: f64,
    pub lambda: f64,
}

/// Elements of an array that pass through a buffer in one go, where one is needed.
const TILE: usize = 4096;

/// Times of a trajectory that are walked in one go: with their coefficients, and with what is read
/// and written, they fit in the first-level cache.
const LINE: usize = 512;

/// Environments walked side by side: their state stays in the first-level cache.
const BLOCK: usize = 2048;

/// Shares of the threads are multiples of this many environments, so that no two threads write to
/// the same cache line.
const ALIGNED: usize = 64;

/// Fewer environments than these are walked one by one, each along its line of times.
const MIN_LANES: usize = 4;

/// Elements of an array from which its environments are shared among threads.
const PARALLEL: usize = 1 << 18;

/// Compute advantages and returns.
///
/// # Errors
/// Only those of [`pool::current`], and only for arrays large enough to be shared among threads.
pub fn gae<R: Real>(
    inputs: &Inputs<R>,
    mut outputs: Outputs<'_, R>,
    discounts: Discounts,
) -> Result<(), PoolError> {
    let Inputs { times, envs, .. } = *inputs;
    if times == 0 || envs == 0 {
        return Ok(());
    }
    if times * envs < PARALLEL || envs == 1 {
        walk(inputs, &mut outputs, discounts);
        return Ok(());
    }
    let pool = pool::current()?;
    let share = envs
        .div_ceil(pool.num_threads())
        .next_multiple_of(ALIGNED)
        .min(envs);
    let mut shares = Vec::new();
    let mut start = 0;
    while start < envs {
        let end = envs.min(start + share);
        shares.push((
            inputs.part(0..times, start..end),
            outputs.take_envs(end - start),
        ));
        start = end;
    }
    pool.for_each_item(shares, |(inputs, mut outputs)| {
        walk(&inputs, &mut outputs, discounts);
    });
    Ok(())
}

/// One thread's work.
fn walk<R: Real>(inputs: &Inputs<R>, outputs: &mut Outputs<'_, R>, discounts: Discounts) {
    let Inputs {
        times,
        envs,
        rewards,
        ..
    } = *inputs;
    let lines = envs < MIN_LANES || (!rewards.is_dense() && rewards.transposed().is_dense());
    for start in (0..envs).step_by(BLOCK) {
        let block = start..envs.min(start + BLOCK);
        registers::run(Walk {
            inputs: &inputs.part(0..times, block.clone()),
            outputs: &mut outputs.part(0..times, block),
            discounts,
            lines,
        });
    }
}

impl<R: Real> Inputs<R> {
    #[inline]
    fn part(&self, times: Range<usize>, envs: Range<usize>) -> Self {
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

    /// Whether no array needs a buffer.
    fn in_place(&self) -> bool {
        let truncation_in_place = self.truncation.is_none_or(|truncation| {
            truncation.truncated.rows().is_some() && truncation.final_values.rows().is_some()
        });
        truncation_in_place
            && self.rewards.rows().is_some()
            && self.values.rows().is_some()
            && self.terminated.rows().is_some()
    }

    /// Rows are trajectories.
    fn transposed(self) -> Self {
        Self {
            rewards: self.rewards.transposed(),
            values: self.values.transposed(),
            terminated: self.terminated.transposed(),
            truncation: self.truncation.map(|truncation| Truncation {
                truncated: truncation.truncated.transposed(),
                final_values: truncation.final_values.transposed(),
            }),
            ..self
        }
    }
}

impl<R: Real> Outputs<'_, R> {
    fn take_envs(&mut self, envs: usize) -> Self {
        Self {
            advantages: self.advantages.take_lanes(envs),
            returns: self.returns.take_lanes(envs),
        }
    }

    #[inline]
    fn part(&mut self, times: Range<usize>, envs: Range<usize>) -> Outputs<'_, R> {
        Outputs {
            advantages: self.advantages.part(times.clone(), envs.clone()),
            returns: self.returns.part(times, envs),
        }
    }

    /// Whether no array needs a buffer.
    fn in_place(&mut self) -> bool {
        self.advantages.rows().is_some() && self.returns.rows().is_some()
    }

    /// Rows are trajectories.
    fn transposed(self) -> Self {
        Self {
            advantages: self.advantages.transposed(),
            returns: self.returns.transposed(),
        }
    }
}

/// Some environments over all times.
struct Walk<'a, 'b, R: Real> {
    inputs: &'a Inputs<R>,
    outputs: &'a mut Outputs<'b, R>,
    discounts: Discounts,
    lines: bool,
}

impl<R: Real> Task for Walk<'_, '_, R> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Self {
            inputs, outputs, ..
        } = self;
        let mut buffers = Buffers::new(self.discounts);
        match (self.lines, inputs.truncation.is_some()) {
            (false, false) => block_by_rows::<R, false>(inputs, outputs, &mut buffers),
            (false, true) => block_by_rows::<R, true>(inputs, outputs, &mut buffers),
            (true, false) => block_by_lines::<R, A, false>(inputs, outputs, &mut buffers),
            (true, true) => block_by_lines::<R, A, true>(inputs, outputs, &mut buffers),
        }
    }
}

#[inline(always)]
fn block_by_rows<R: Real, const TRUNCATION: bool>(
    inputs: &Inputs<R>,
    outputs: &mut Outputs<'_, R>,
    buffers: &mut Buffers<R>,
) {
    let mut last_values = vec![R::ZERO; inputs.envs];
    inputs.last_values.load(&mut last_values);
    let mut state = State {
        carry: vec![R::ZERO; inputs.envs],
        next_values: last_values,
    };
    let in_place = inputs.in_place() && outputs.in_place();
    let height = if in_place {
        inputs.times
    } else {
        (TILE / inputs.envs).max(1)
    };
    let mut end = inputs.times;
    while end > 0 {
        let start = end.saturating_sub(height);
        let part = inputs.part(start..end, 0..inputs.envs);
        let mut outputs = outputs.part(start..end, 0..inputs.envs);
        let (model, drains) = buffers.model::<TRUNCATION>(&part);
        let rows = drains.rows(&mut outputs);
        walk_rows(&model, end - start, &mut state, rows);
        drains.flush(&mut outputs);
        end = start;
    }
}

#[inline(always)]
fn block_by_lines<R: Real, A: Arch, const TRUNCATION: bool>(
    inputs: &Inputs<R>,
    outputs: &mut Outputs<'_, R>,
    buffers: &mut Buffers<R>,
) {
    let powers = (buffers.decay != R::ZERO).then(|| Powers::<R::Register<A>>::new(buffers.decay));
    let length = inputs.times.min(LINE);
    let mut states = vec![(R::ZERO, R::ZERO); TILE / length];
    let mut first = 0;
    while first < inputs.envs {
        let envs = first..inputs.envs.min(first + states.len());
        for (env, state) in envs.clone().zip(&mut states) {
            let mut last_value = [R::ZERO];
            inputs
                .last_values
                .part(0..1, env..env + 1)
                .load(&mut last_value);
            *state = (last_value[0], R::ZERO);
        }
        let mut end = inputs.times;
        while end > 0 {
            let times = end.saturating_sub(length)..end;
            let part = inputs.part(times.clone(), envs.clone()).transposed();
            let mut outputs = outputs.part(times.clone(), envs.clone()).transposed();
            let (model, drains) = buffers.model::<TRUNCATION>(&part);
            let [mut advantages, mut returns] = drains.rows(&mut outputs);
            for (index, state) in states.iter_mut().enumerate().take(envs.len()) {
                let outputs = [advantages.row(index), returns.row(index)];
                walk_line(&model, index, powers.as_ref(), state, outputs);
            }
            drains.flush(&mut outputs);
            end = times.start;
        }
        first = envs.end;
    }
}

/// Space for arrays that cannot be used as they lie.
struct Buffers<R> {
    gamma: R,
    decay: R,
    rewards: Feed<R>,
    values: Feed<R>,
    terminated: FlagFeed,
    truncated: FlagFeed,
    final_values: Feed<R>,
    drains: Drains<R>,
}

struct Drains<R> {
    advantages: Drain<R>,
    returns: Drain<R>,
}

impl<R: Real> Buffers<R> {
    fn new(discounts: Discounts) -> Self {
        Self {
            gamma: R::from_f64(discounts.gamma),
            decay: R::from_f64(discounts.gamma * discounts.lambda),
            rewards: Feed::new(),
            values: Feed::new(),
            terminated: FlagFeed::new(),
            truncated: FlagFeed::new(),
            final_values: Feed::new(),
            drains: Drains {
                advantages: Drain::new(),
                returns: Drain::new(),
            },
        }
    }

    /// The estimator over all rows of `part`, and the way out for its results.
    #[inline(always)]
    fn model<'a, const TRUNCATION: bool>(
        &'a mut self,
        part: &'a Inputs<R>,
    ) -> (Gae<'a, R, TRUNCATION>, &'a mut Drains<R>) {
        let truncation = part.truncation.as_ref().map(|truncation| {
            let truncated = self.truncated.rows(&truncation.truncated);
            (truncated, self.final_values.rows(&truncation.final_values))
        });
        let model = Gae {
            rewards: self.rewards.rows(&part.rewards),
            values: self.values.rows(&part.values),
            terminated: self.terminated.rows(&part.terminated),
            truncation,
            gamma: self.gamma,
            decay: self.decay,
        };
        (model, &mut self.drains)
    }
}

impl<R: Real> Drains<R> {
    #[inline(always)]
    fn rows<'a>(&'a mut self, outputs: &'a mut Outputs<'_, R>) -> [RowsMut<'a, R>; 2] {
        [
            self.advantages.rows(&mut outputs.advantages),
            self.returns.rows(&mut outputs.returns),
        ]
    }

    #[inline(always)]
    fn flush(&self, outputs: &mut Outputs<'_, R>) {
        self.advantages.flush(&mut outputs.advantages);
        self.returns.flush(&mut outputs.returns);
    }
}

/// The estimator over some rows.
struct Gae<'a, R, const TRUNCATION: bool> {
    rewards: Rows<'a, R>,
    values: Rows<'a, R>,
    terminated: Rows<'a, u8>,
    /// Flags and final values; `None` exactly where `TRUNCATION` is false.
    truncation: Option<(Rows<'a, u8>, Rows<'a, R>)>,
    gamma: R,
    decay: R,
}

#[derive(Clone, Copy)]
struct GaeSlices<'a, R> {
    rewards: &'a [R],
    values: &'a [R],
    terminated: &'a [u8],
    truncated: &'a [u8],
    final_values: &'a [R],
}

impl<'a, R: Real, const TRUNCATION: bool> Recurrence for Gae<'a, R, TRUNCATION> {
    type Real = R;
    type Slices = GaeSlices<'a, R>;

    #[inline(always)]
    fn row(&self, index: usize) -> GaeSlices<'a, R> {
        let (truncated, final_values): (&[u8], &[R]) = match &self.truncation {
            Some((truncated, final_values)) if TRUNCATION => {
                (truncated.row(index), final_values.row(index))
            }
            _ => (&[], &[]),
        };
        GaeSlices {
            rewards: self.rewards.row(index),
            values: self.values.row(index),
            terminated: self.terminated.row(index),
            truncated,
            final_values,
        }
    }

    #[inline(always)]
    fn block(slices: &Self::Slices, start: usize) -> Self::Slices {
        let (mut truncated, mut final_values) = (slices.truncated, slices.final_values);
        if TRUNCATION {
            truncated = &truncated[start..][..line::BLOCK];
            final_values = &final_values[start..][..line::BLOCK];
        }
        GaeSlices {
            rewards: &slices.rewards[start..][..line::BLOCK],
            values: &slices.values[start..][..line::BLOCK],
            terminated: &slices.terminated[start..][..line::BLOCK],
            truncated,
            final_values,
        }
    }

    #[inline(always)]
    fn values(slices: &Self::Slices) -> &'a [R] {
        slices.values
    }

    #[inline(always)]
    fn coefficients<V: Register<Real = R>>(
        &self,
        slices: &Self::Slices,
        start: usize,
        values: V,
        next_values: V,
    ) -> Coefficients<V> {
        let rewards = V::load(&slices.rewards[start..]);
        let goes_on = V::unset(&slices.terminated[start..]);
        let mut next_values = next_values;
        let mut decays = V::splat(self.decay).masked(goes_on);
        if TRUNCATION {
            let runs_on = V::unset(&slices.truncated[start..]);
            let final_values = V::load(&slices.final_values[start..]);
            next_values = V::choose(runs_on, next_values, final_values);
            decays = decays.masked(runs_on);
        }
        let bootstrap = V::splat(self.gamma).mul(next_values).masked(goes_on);
        Coefficients {
            decays,
            offsets: rewards.add(bootstrap).sub(values),
        }
    }

    #[inline(always)]
    fn is_uncut(&self, block: &Self::Slices) -> bool {
        let mut set = u128::from_ne_bytes(lanes(block.terminated, 0));
        if TRUNCATION {
            set |= u128::from_ne_bytes(lanes(block.truncated, 0));
        }
        set == 0
    }

    #[inline(always)]
    fn results<V: Register<Real = R>>(&self, values: V, x: V) -> [V; 2] {
        [x, x.add(values)]
    }
}
