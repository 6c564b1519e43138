//! Estimates of the Kullback-Leibler divergence from the log-probabilities of sampled tokens
//! (Schulman, "Approximating KL divergence", 2020, <http://joschu.net/blog/kl-approx.html>).
//!
//! With `d = logprob - ref_logprob`: `k1 = d`, `k2 = d^2 / 2`, `k3 = e^-d - 1 + d`; each times the
//! importance ratio of its token where there is one.
//!
//! Arrays are walked in tiles that stay in the first-level cache, so that every factor may have a
//! short loop of its own.

mod rows;

use std::ops::Range;

use rows::{Feeds, Row, scale};

use super::element::Real;
use super::registers::{self, Arch, Task};
use super::strided::{FlagSource, RowsMut, Sink, Source};
use super::tiles::{Drain, Feed};
use super::transcendental::Transcendental;
use crate::pool::{self, PoolError};

/// Which estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    K1,
    K2,
    K3,
}

/// The arrays that are read: all `[rows, lanes]`.
#[derive(Clone, Copy)]
pub struct Inputs<R: Real> {
    pub rows: usize,
    pub lanes: usize,
    pub logprobs: Source<R>,
    pub ref_logprobs: Source<R>,
    pub ratio: Option<Source<R>>,
    /// Where it is zero, the token counts for nothing.
    pub mask: Option<FlagSource>,
}

/// What the backward pass reads beside the inputs.
#[derive(Clone, Copy)]
pub struct Upstream<R: Real> {
    pub grad: Source<R>,
    /// Every gradient is divided by it.
    pub divisor: f64,
}

/// What is computed for each token: the estimate, or the gradient of one of the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Estimate,
    Logprobs,
    RefLogprobs,
    Ratio,
}

/// Elements that are worked on at once.
const TILE: usize = 8192;

/// Elements that a thread takes at once. Sums are formed share by share, so that they do not
/// depend on the number of threads.
const SHARE: usize = 1 << 16;

/// Elements from which shares are handed to several threads.
const PARALLEL: usize = 1 << 18;

/// Sums are formed in this many interleaved parts.
const LANES: usize = 32;

/// The estimate of every token.
///
/// # Errors
/// As for [`each_token`].
pub fn estimates<R: Real + Transcendental>(
    inputs: &Inputs<R>,
    kind: Kind,
    mut out: Sink<'_, R>,
) -> Result<(), PoolError> {
    if inputs.rows * inputs.lanes < PARALLEL
        && let Some(plain) = Plain::of(inputs, kind, &mut out)
    {
        match kind {
            Kind::K1 | Kind::K2 => registers::run_narrow(plain),
            Kind::K3 => registers::run(plain),
        }
        return Ok(());
    }
    each_token(inputs, kind, None, vec![(Want::Estimate, out)])
}

/// What is wanted of every token; gradients need `upstream`, estimates ignore it.
///
/// # Errors
/// Those of [`pool::current`], for arrays that are large enough to be shared among threads.
pub fn each_token<R: Real + Transcendental>(
    inputs: &Inputs<R>,
    kind: Kind,
    upstream: Option<Upstream<R>>,
    outputs: Vec<(Want, Sink<'_, R>)>,
) -> Result<(), PoolError> {
    let mut walks = Vec::new();
    for (want, mut sink) in outputs {
        for rows in row_blocks(inputs, SHARE) {
            let mut band = sink.take_rows(rows.len());
            for lanes in lane_blocks(inputs, SHARE) {
                walks.push(EachToken {
                    inputs: inputs.part(&rows, &lanes),
                    kind,
                    upstream: upstream.map(|x| x.part(&rows, &lanes)),
                    want,
                    out: band.take_lanes(lanes.len()),
                });
            }
        }
    }
    for_each(inputs, walks, registers::run)
}

/// The sum of each row, and how many tokens count.
///
/// # Errors
/// As for [`each_token`].
pub fn row_sums<R: Real + Transcendental>(
    inputs: &Inputs<R>,
    kind: Kind,
) -> Result<(Vec<f64>, usize), PoolError> {
    let mut parts = Vec::new();
    for rows in row_blocks(inputs, SHARE) {
        for lanes in lane_blocks(inputs, SHARE) {
            parts.push((rows.clone(), lanes, vec![0.0; rows.len()], 0));
        }
    }
    let walks = parts
        .iter_mut()
        .map(|(rows, lanes, sums, count)| RowSums {
            inputs: inputs.part(rows, lanes),
            kind,
            sums,
            count,
        })
        .collect();
    for_each(inputs, walks, registers::run)?;
    let (mut sums, mut count) = (vec![0.0; inputs.rows], 0);
    for (rows, _, part, part_count) in parts {
        for (sum, part) in sums[rows].iter_mut().zip(part) {
            *sum += part;
        }
        count += part_count;
    }
    Ok((sums, count))
}

fn for_each<R: Real, T: Send>(
    inputs: &Inputs<R>,
    walks: Vec<T>,
    body: impl Fn(T) + Sync,
) -> Result<(), PoolError> {
    if inputs.rows * inputs.lanes < PARALLEL {
        walks.into_iter().for_each(body);
    } else {
        pool::current()?.for_each_item(walks, body);
    }
    Ok(())
}

/// Rows in blocks that, with the blocks of [`lane_blocks`], hold at most `most` elements.
fn row_blocks<R: Real>(inputs: &Inputs<R>, most: usize) -> impl Iterator<Item = Range<usize>> {
    stretches(inputs.rows, most / inputs.lanes.clamp(1, most))
}

/// The lanes of a row: all of them, or else in blocks of `most`.
fn lane_blocks<R: Real>(inputs: &Inputs<R>, most: usize) -> impl Iterator<Item = Range<usize>> {
    stretches(inputs.lanes, most)
}

fn stretches(count: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count)
        .step_by(length)
        .map(move |start| start..count.min(start + length))
}

impl<R: Real> Inputs<R> {
    #[inline]
    fn part(&self, rows: &Range<usize>, lanes: &Range<usize>) -> Self {
        Self {
            rows: rows.len(),
            lanes: lanes.len(),
            logprobs: self.logprobs.part(rows.clone(), lanes.clone()),
            ref_logprobs: self.ref_logprobs.part(rows.clone(), lanes.clone()),
            ratio: self.ratio.map(|x| x.part(rows.clone(), lanes.clone())),
            mask: self.mask.map(|x| x.part(rows.clone(), lanes.clone())),
        }
    }
}

impl<R: Real> Upstream<R> {
    #[inline]
    fn part(self, rows: &Range<usize>, lanes: &Range<usize>) -> Self {
        Self {
            grad: self.grad.part(rows.clone(), lanes.clone()),
            ..self
        }
    }
}

/// Estimates of what lies side by side and needs neither ratio nor mask: a single loop.
struct Plain<'a, R> {
    row: Row<'a, R>,
    kind: Kind,
    out: RowsMut<'a, R>,
}

impl<'a, R: Real> Plain<'a, R> {
    fn of(inputs: &'a Inputs<R>, kind: Kind, out: &'a mut Sink<'_, R>) -> Option<Self> {
        if inputs.ratio.is_some() || inputs.mask.is_some() {
            return None;
        }
        let row = Row {
            logprobs: inputs.logprobs.rows()?.flat()?,
            ref_logprobs: inputs.ref_logprobs.rows()?.flat()?,
            ratio: None,
            mask: None,
        };
        let mut out = out.rows()?;
        out.flat()?;
        Some(Self { row, kind, out })
    }
}

impl<R: Real + Transcendental> Task for Plain<'_, R> {
    #[inline(always)]
    fn run<A: Arch>(mut self) {
        let out = self.out.flat().expect("seen when it was made");
        self.row.compute::<A>(self.kind, Want::Estimate, out);
    }
}

/// One share of [`each_token`].
struct EachToken<'a, R: Real> {
    inputs: Inputs<R>,
    kind: Kind,
    upstream: Option<Upstream<R>>,
    want: Want,
    out: Sink<'a, R>,
}

impl<R: Real + Transcendental> Task for EachToken<'_, R> {
    #[inline(always)]
    fn run<A: Arch>(mut self) {
        let inputs = &self.inputs;
        let mut feeds = Feeds::new();
        let mut grads = Feed::new();
        let mut drain = Drain::new();
        for rows in row_blocks(inputs, TILE) {
            for lanes in lane_blocks(inputs, TILE) {
                let part = inputs.part(&rows, &lanes);
                let tile = feeds.tile(&part);
                let upstream = self.upstream.map(|x| x.part(&rows, &lanes));
                let grad = upstream.as_ref().map(|x| {
                    let factor = R::from_f64(1.0 / x.divisor);
                    (grads.rows(&x.grad), factor)
                });
                let mut sink = self.out.part(rows.clone(), lanes.clone());
                let mut out = drain.rows(&mut sink);
                for row in 0..rows.len() {
                    let out = out.row(row);
                    tile.row(row).compute::<A>(self.kind, self.want, out);
                    if let Some((grad, factor)) = &grad {
                        scale(out, grad.row(row), *factor);
                    }
                    tile.row(row).silence(out);
                }
                drain.flush(&mut sink);
            }
        }
    }
}

/// One share of [`row_sums`].
struct RowSums<'a, R: Real> {
    inputs: Inputs<R>,
    kind: Kind,
    sums: &'a mut [f64],
    count: &'a mut usize,
}

impl<R: Real + Transcendental> Task for RowSums<'_, R> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let inputs = &self.inputs;
        let mut feeds = Feeds::new();
        let mut estimates = vec![R::ZERO; inputs.lanes.min(TILE)];
        for rows in row_blocks(inputs, TILE) {
            for lanes in lane_blocks(inputs, TILE) {
                let part = inputs.part(&rows, &lanes);
                let tile = feeds.tile(&part);
                for (index, sum) in self.sums[rows.clone()].iter_mut().enumerate() {
                    let row = tile.row(index);
                    let estimates = &mut estimates[..lanes.len()];
                    row.compute::<A>(self.kind, Want::Estimate, estimates);
                    row.silence(estimates);
                    *sum += total(estimates);
                    *self.count += row.count();
                }
            }
        }
    }
}

#[inline(always)]
fn total<R: Real>(of: &[R]) -> f64 {
    let mut sums = [R::ZERO; LANES];
    let mut chunks = of.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum = *sum + x;
        }
    }
    sums.iter()
        .chain(chunks.remainder())
        .map(|&x| x.to_f64())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::stretches;

    #[test]
    fn stretches_cover_everything_once() {
        for (count, length) in [(0, 4), (1, 4), (4, 4), (9, 4)] {
            let all: Vec<_> = stretches(count, length).flatten().collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }
}
