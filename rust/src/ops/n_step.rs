//! N-step returns: at most `n` discounted rewards, then the value of the observation behind them.
//!
//! With `w[t] = v[t]` before the first of `n` passes, a pass makes
//! `w[t] = r[t] + gamma (w[t+1], or V'[t] where the episode ends)`.

use super::element::Real;
use super::rollout::{Inputs, Outputs};
use super::strided::{FlagSource, Sink, Source};
use super::tiles::FlagFeed;
use crate::pool::{self, PoolError};

/// Environments whose arrays are brought into buffers together: enough for rows of environments to
/// be read by the cache line.
const TOGETHER: usize = 16;

/// Elements of an array, times `n`, from which environments are shared among threads.
const PARALLEL: usize = 1 << 18;

/// Compute n-step returns into the first output; the inputs have truncation and details.
///
/// # Errors
/// Only those of [`pool::current`], and only for arrays large enough to be shared among threads.
pub fn n_step<R: Real>(
    inputs: &Inputs<'_, R>,
    mut outputs: Outputs<'_, R>,
    n: usize,
) -> Result<(), PoolError> {
    let Inputs { times, envs, .. } = *inputs;
    let mut shares = Vec::new();
    for start in (0..envs).step_by(TOGETHER) {
        let end = envs.min(start + TOGETHER);
        shares.push((
            inputs.part(0..times, start..end),
            outputs.take_envs(end - start),
        ));
    }
    shared(shares, times * envs, n)
}

/// [`n_step`] for trajectories that follow each other, as in [`super::walk::estimate_packed`].
///
/// # Errors
/// As for [`n_step`].
pub fn n_step_packed<R: Real>(
    inputs: &Inputs<'_, R>,
    mut outputs: Outputs<'_, R>,
    n: usize,
    bounds: &[usize],
) -> Result<(), PoolError> {
    let sequences = bounds.windows(2).enumerate().map(|(index, bounds)| {
        let sequence = inputs.packed(bounds[0]..bounds[1], index);
        (sequence, outputs.take_times(bounds[1] - bounds[0]))
    });
    shared(sequences.collect(), inputs.times, n)
}

fn shared<R: Real>(
    shares: Vec<(Inputs<'_, R>, Outputs<'_, R>)>,
    elements: usize,
    n: usize,
) -> Result<(), PoolError> {
    let body = |(inputs, outputs): (Inputs<'_, R>, Outputs<'_, R>)| {
        let [Some(mut sink), _] = outputs.0 else {
            return;
        };
        if inputs.times > 0 {
            lines(&inputs, &mut sink, n);
        }
    };
    if elements.saturating_mul(n) < PARALLEL {
        shares.into_iter().for_each(body);
    } else {
        pool::current()?.for_each_item(shares, body);
    }
    Ok(())
}

/// Some trajectories, each a line of its own in the buffers.
fn lines<R: Real>(inputs: &Inputs<'_, R>, sink: &mut Sink<'_, R>, n: usize) {
    let Inputs { times, envs, .. } = *inputs;
    let (Some(truncation), Some(details)) = (&inputs.truncation, &inputs.details) else {
        return;
    };
    let loaded = |source: Source<R>| {
        let mut buffer = vec![R::ZERO; times * envs];
        source.transposed().load(&mut buffer);
        buffer
    };
    let flags = |source: FlagSource| {
        let mut buffer = vec![0; times * envs];
        source.transposed().load(&mut buffer);
        buffer
    };
    let [rewards, values, ..] = inputs
        .steps
        .map(|source| source.map_or_else(Vec::new, loaded));
    let final_values = loaded(truncation.final_values);
    let gammas = loaded(details.gammas);
    let (terminated, truncated) = (flags(inputs.terminated), flags(truncation.truncated));
    let mut feed = FlagFeed::new();
    let valid = details.valid(&mut feed);
    let mut last_values = vec![R::ZERO; envs];
    inputs.last_values.load(&mut last_values);
    let mut results = vec![R::ZERO; times * envs];
    let steps = |env: usize| {
        let counts = move |&(time, _): &(usize, usize)| valid.row(time)[env] != 0;
        (0..times).zip(env * times..).filter(counts)
    };
    let mut line = Line::new(times);
    for (env, &last_value) in last_values.iter().enumerate() {
        line.clear();
        for (_, at) in steps(env) {
            let after = if terminated[at] != 0 {
                Some(R::ZERO)
            } else {
                (truncated[at] != 0).then_some(final_values[at])
            };
            line.push(rewards[at], gammas[at], values[at], after);
        }
        let mut returns = line.returns(n, last_value).iter();
        for (_, at) in steps(env) {
            results[at] = *returns.next().expect("one for every step that counts");
        }
    }
    let mut turned = sink.part(0..times, 0..envs).transposed();
    turned.store(&results);
}

/// The steps of one trajectory that count.
struct Line<R> {
    /// What a pass adds, and what it multiplies the next step's return with.
    offsets: Vec<R>,
    decays: Vec<R>,
    returns: Vec<R>,
}

impl<R: Real> Line<R> {
    fn new(times: usize) -> Self {
        Self {
            offsets: Vec::with_capacity(times),
            decays: Vec::with_capacity(times),
            returns: Vec::with_capacity(times + 1),
        }
    }

    fn clear(&mut self) {
        self.offsets.clear();
        self.decays.clear();
        self.returns.clear();
    }

    /// The next step; `after` is the value behind it if the episode ends.
    fn push(&mut self, reward: R, gamma: R, value: R, after: Option<R>) {
        self.offsets
            .push(after.map_or(reward, |after| reward + gamma * after));
        self.decays
            .push(if after.is_some() { R::ZERO } else { gamma });
        self.returns.push(value);
    }

    fn returns(&mut self, n: usize, last_value: R) -> &[R] {
        let times = self.offsets.len();
        self.returns.push(last_value);
        for _ in 0..n.min(times) {
            for time in 0..times {
                let decay = self.decays[time];
                let ahead = decay * self.returns[time + 1];
                self.returns[time] = self.offsets[time] + ahead.masked(R::mask(decay != R::ZERO));
            }
        }
        &self.returns[..times]
    }
}
