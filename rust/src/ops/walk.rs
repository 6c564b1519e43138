//! How the arrays of a call are cut up: shares of threads, blocks that fit the caches, tiles.

use super::element::Real;
use super::estimators::{Discounted, Estimator, Gae, NStep, Rates, Retrace, Traces, Vtrace};
use super::line::Powers;
use super::model::Buffers;
use super::n_step::Ladder;
use super::registers::{self, Arch, Task};
use super::rollout::{Inputs, Outputs};
use super::scan::{RowWalk, State, walk_line};
use crate::pool::{self, PoolError};

/// The estimators that are walks over the recurrence.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Advantages and returns.
    Gae,
    Discounted,
    /// Targets and policy-gradient advantages.
    Vtrace,
    Retrace,
    /// Looking ahead by that many steps.
    NStep(usize),
    /// On arrays whose time is reversed.
    Traces,
}

impl Kind {
    /// Whether the estimator has no short walks: its inputs need truncation and details.
    pub fn needs_details(self) -> bool {
        matches!(self, Self::Retrace | Self::NStep(_) | Self::Traces)
    }

    /// Whether the estimator's inputs need truncation.
    pub fn needs_truncation(self) -> bool {
        matches!(self, Self::Discounted)
    }

    /// How often each element is worked on.
    fn passes(self) -> usize {
        if let Self::NStep(n) = self { n } else { 1 }
    }
}

/// Elements of an array that pass through a buffer in one go, where one is needed.
const TILE: usize = 4096;

/// Times of a trajectory that are walked in one go: with what is read and written, they fit in the
/// first-level cache.
const LINE: usize = 512;

/// Environments walked side by side: their state stays in the first-level cache.
const BLOCK: usize = 2048;

/// The same where everything goes through buffers: of the times that lie side by side in memory
/// enough are taken at once.
const DETAILS_BLOCK: usize = 64;

/// Shares of the threads are multiples of this many environments, so that no two threads write to
/// the same cache line.
const ALIGNED: usize = 64;

/// Fewer environments than these are walked one by one, each along its line of times.
const MIN_LANES: usize = 4;

/// Elements of an array, times the work on each, from which its environments are shared among
/// threads.
const PARALLEL: usize = 1 << 18;

/// Compute an estimator.
///
/// # Errors
/// Only those of [`pool::current`], and only for arrays large enough to be shared among threads.
pub fn estimate<R: Real>(
    kind: Kind,
    inputs: &Inputs<'_, R>,
    mut outputs: Outputs<'_, R>,
    rates: &Rates,
) -> Result<(), PoolError> {
    let Inputs { times, envs, .. } = *inputs;
    if times == 0 || envs == 0 {
        return Ok(());
    }
    if (times * envs).saturating_mul(kind.passes()) < PARALLEL || envs == 1 {
        walk(kind, inputs, &mut outputs, rates);
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
        walk(kind, &inputs, &mut outputs, rates);
    });
    Ok(())
}

/// [`estimate`] for trajectories that follow each other in arrays `[total, 1]`: number `i` takes
/// the times from `bounds[i]` to `bounds[i + 1]` and `last_values[i]`; the last bound is `total`.
///
/// # Errors
/// As for [`estimate`].
pub fn estimate_packed<R: Real>(
    kind: Kind,
    inputs: &Inputs<'_, R>,
    mut outputs: Outputs<'_, R>,
    rates: &Rates,
    bounds: &[usize],
) -> Result<(), PoolError> {
    let sequences = bounds.windows(2).enumerate().map(|(index, bounds)| {
        let sequence = inputs.packed(bounds[0]..bounds[1], index);
        (sequence, outputs.take_times(bounds[1] - bounds[0]))
    });
    let body = |(inputs, mut outputs): (Inputs<'_, R>, Outputs<'_, R>)| {
        if inputs.times > 0 {
            walk(kind, &inputs, &mut outputs, rates);
        }
    };
    if inputs.times.saturating_mul(kind.passes()) < PARALLEL {
        sequences.for_each(body);
    } else {
        pool::current()?.for_each_item(sequences.collect(), body);
    }
    Ok(())
}

/// One thread's work.
fn walk<R: Real>(kind: Kind, inputs: &Inputs<'_, R>, outputs: &mut Outputs<'_, R>, rates: &Rates) {
    let Inputs { times, envs, .. } = *inputs;
    let width = if inputs.details.is_some() {
        DETAILS_BLOCK
    } else {
        BLOCK
    };
    for start in (0..envs).step_by(width) {
        let block = start..envs.min(start + width);
        registers::run(Walk {
            kind,
            inputs: &inputs.part(0..times, block.clone()),
            outputs: &mut outputs.part(0..times, block),
            rates,
            lines: envs < MIN_LANES || inputs.is_row_major(),
        });
    }
}

/// Some environments over all times.
struct Walk<'a, 'b, R: Real> {
    kind: Kind,
    inputs: &'a Inputs<'b, R>,
    outputs: &'a mut Outputs<'b, R>,
    rates: &'a Rates,
    lines: bool,
}

impl<R: Real> Task for Walk<'_, '_, R> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let one_bar = self.rates.bars[0] == self.rates.bars[1];
        match (self.kind, self.inputs.details.is_some()) {
            (Kind::Gae, true) => self.by_rows::<Gae, A, true, true>(),
            (Kind::Gae, false) => self.without_details::<Gae, A>(),
            (Kind::Discounted, true) => self.by_rows::<Discounted, A, true, true>(),
            (Kind::Discounted, false) if self.lines => self.by_lines::<Discounted, A, true>(),
            (Kind::Discounted, false) => self.by_rows::<Discounted, A, true, false>(),
            (Kind::Vtrace, true) => self.by_rows::<Vtrace<false>, A, true, true>(),
            (Kind::Vtrace, false) if one_bar => self.without_details::<Vtrace<true>, A>(),
            (Kind::Vtrace, false) => self.without_details::<Vtrace<false>, A>(),
            (Kind::NStep(n), _) => self.by_ladders::<A>(n),
            (Kind::Retrace, _) => self.by_rows::<Retrace, A, true, true>(),
            (Kind::Traces, _) => self.by_rows::<Traces, A, true, true>(),
        }
    }
}

impl<R: Real> Walk<'_, '_, R> {
    #[inline(always)]
    fn without_details<E: Estimator, A: Arch>(self) {
        match (self.inputs.truncation.is_some(), self.lines) {
            (true, false) => self.by_rows::<E, A, true, false>(),
            (false, false) => self.by_rows::<E, A, false, false>(),
            (true, true) => self.by_lines::<E, A, true>(),
            (false, true) => self.by_lines::<E, A, false>(),
        }
    }

    #[inline(always)]
    fn by_rows<E: Estimator, A: Arch, const TRUNCATION: bool, const DETAILS: bool>(self) {
        let last_values = self.last_values();
        let zeros = vec![R::ZERO; last_values.len()];
        let state = if E::BOOTSTRAPS {
            State {
                next_values: last_values,
                carry: zeros,
            }
        } else {
            State {
                next_values: zeros,
                carry: last_values,
            }
        };
        self.by_tiles::<E, A, TRUNCATION, DETAILS>(state);
    }

    #[inline(always)]
    fn by_ladders<A: Arch>(self, n: usize) {
        let ladder = Ladder::new(n.min(self.inputs.times), &self.last_values());
        self.by_tiles::<NStep, A, true, true>(ladder);
    }

    fn last_values(&self) -> Vec<R> {
        let mut last_values = vec![R::ZERO; self.inputs.envs];
        self.inputs.last_values.load(&mut last_values);
        last_values
    }

    #[inline(always)]
    fn by_tiles<E: Estimator, A: Arch, const TRUNCATION: bool, const DETAILS: bool>(
        self,
        mut state: impl RowWalk<R>,
    ) {
        let Self {
            inputs, outputs, ..
        } = self;
        let mut buffers = Buffers::new();
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
            let (model, drains) = buffers.model::<E, A, TRUNCATION, DETAILS>(&part, self.rates);
            let mut rows = drains.rows(&mut outputs);
            state.walk::<_, R::Register<A>>(&model, end - start, &mut rows);
            drains.flush(&mut outputs);
            end = start;
        }
    }

    #[inline(always)]
    fn by_lines<E: Estimator, A: Arch, const TRUNCATION: bool>(self) {
        let Self {
            inputs, outputs, ..
        } = self;
        let mut buffers = Buffers::new();
        let decay = R::from_f64(self.rates.gamma * self.rates.lambda);
        let powers =
            (E::PLAIN_DECAY && decay != R::ZERO).then(|| Powers::<R::Register<A>>::new(decay));
        let (times, envs) = (0..inputs.times, 0..inputs.envs);
        let in_place =
            inputs.transposed().in_place() && outputs.part(times, envs).transposed().in_place();
        let (length, group) = if in_place {
            (inputs.times, inputs.envs)
        } else {
            let length = inputs.times.min(LINE);
            (length, TILE / length)
        };
        let mut states = vec![(R::ZERO, R::ZERO); group];
        let mut first = 0;
        while first < inputs.envs {
            let envs = first..inputs.envs.min(first + states.len());
            for (env, state) in envs.clone().zip(&mut states) {
                let mut last_value = [R::ZERO];
                let source = inputs.last_values.part(0..1, env..env + 1);
                source.load(&mut last_value);
                *state = if E::BOOTSTRAPS {
                    (last_value[0], R::ZERO)
                } else {
                    (R::ZERO, last_value[0])
                };
            }
            let mut end = inputs.times;
            while end > 0 {
                let times = end.saturating_sub(length)..end;
                let part = inputs.part(times.clone(), envs.clone()).transposed();
                let mut outputs = outputs.part(times.clone(), envs.clone()).transposed();
                let (model, drains) = buffers.model::<E, A, TRUNCATION, false>(&part, self.rates);
                let mut rows = drains.rows(&mut outputs);
                for (index, state) in states.iter_mut().enumerate().take(envs.len()) {
                    walk_line(&model, index, powers.as_ref(), state, &mut rows);
                }
                drains.flush(&mut outputs);
                end = times.start;
            }
            first = envs.end;
        }
    }
}
