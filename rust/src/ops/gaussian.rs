//! Draws from Gaussian distributions with a diagonal covariance, and their image under tanh.
//!
//! ```text
//! x        = mean + exp(log_std) noise
//! log_prob = sum of -noise^2 / 2 - log_std - ln(2 pi) / 2 over the last axis
//! squashed:  action = tanh x,  log_prob -= sum of 2 (ln 2 - |x| - ln(1 + exp(-2 |x|)))
//! ```
//!
//! The last line is `ln(1 - tanh(x)^2)` without its cancellation. Row r, dimension d takes number
//! `d % 4` of index `r ceil(D / 4) + d / 4`.

use std::ops::Range;

use super::element::Real;
use super::noise::{Draw, normals};
use super::registers::{self, Arch, Task};
use super::strided::{Sink, Source};
use super::transcendental::Transcendental;
use crate::pool::{self, PoolError};

/// The distributions, both `[rows, dimensions]`.
#[derive(Clone, Copy)]
pub struct Gaussians<R: Real> {
    pub mean: Source<R>,
    pub log_std: Source<R>,
    pub draw: Draw,
    pub squash: bool,
}

/// What is done with the draws: two results, or two gradients from those of the results.
pub enum Pass<'a, R: Real> {
    Forward {
        actions: Sink<'a, R>,
        log_prob: &'a mut [R],
    },
    Backward {
        action_gradients: Source<R>,
        log_prob_gradients: &'a [R],
        mean: Sink<'a, R>,
        log_std: Sink<'a, R>,
    },
}

/// Dimensions that are worked on in one go.
const STRETCH: usize = 256;

/// Elements from which rows are shared among threads.
const PARALLEL: usize = 1 << 15;

/// Draw for every row, or go back through the draws.
///
/// # Errors
/// Only those of [`pool::current`], and only where there is enough to be shared among threads.
pub fn run<R: Real + Transcendental>(
    gaussians: Gaussians<R>,
    rows: usize,
    pass: Pass<'_, R>,
) -> Result<(), PoolError> {
    let dimensions = gaussians.mean.lanes();
    if rows * dimensions < PARALLEL {
        registers::run(Share {
            gaussians,
            rows: 0..rows,
            pass,
        });
        return Ok(());
    }
    let pool = pool::current()?;
    let shares = pass.shared(rows, dimensions, rows.div_ceil(pool.num_threads()));
    let shares = shares.into_iter().map(|(rows, pass)| Share {
        gaussians,
        rows,
        pass,
    });
    pool.for_each_item(shares.collect(), registers::run);
    Ok(())
}

impl<'a, R: Real> Pass<'a, R> {
    /// Parts of `share` rows each.
    fn shared(self, rows: usize, dimensions: usize, share: usize) -> Vec<(Range<usize>, Self)> {
        let ranges = (0..rows)
            .step_by(share)
            .map(|start| start..rows.min(start + share));
        let take =
            |sink: &mut Sink<'a, R>, rows: &Range<usize>| sink.take_lanes(rows.len()).transposed();
        match self {
            Self::Forward { actions, log_prob } => {
                let mut actions = actions.transposed();
                ranges
                    .zip(log_prob.chunks_mut(share))
                    .map(|(rows, log_prob)| {
                        let actions = take(&mut actions, &rows);
                        (rows, Self::Forward { actions, log_prob })
                    })
                    .collect()
            }
            Self::Backward {
                action_gradients,
                log_prob_gradients,
                mean,
                log_std,
            } => {
                let (mut mean, mut log_std) = (mean.transposed(), log_std.transposed());
                ranges
                    .map(|rows| {
                        let part = Self::Backward {
                            action_gradients: action_gradients.part(rows.clone(), 0..dimensions),
                            log_prob_gradients: &log_prob_gradients[rows.clone()],
                            mean: take(&mut mean, &rows),
                            log_std: take(&mut log_std, &rows),
                        };
                        (rows, part)
                    })
                    .collect()
            }
        }
    }
}

/// One thread's rows, numbered from `rows.start` in the batch and from 0 in `pass`.
struct Share<'a, R: Real> {
    gaussians: Gaussians<R>,
    rows: Range<usize>,
    pass: Pass<'a, R>,
}

impl<R: Real + Transcendental> Task for Share<'_, R> {
    #[inline(always)]
    fn run<A: Arch>(mut self) {
        let dimensions = self.gaussians.mean.lanes();
        if let Pass::Forward { log_prob, .. } = &mut self.pass {
            log_prob.fill(R::ZERO);
        }
        // Several whole rows in one go, or parts of one.
        let block = (STRETCH / dimensions.next_multiple_of(4)).max(1);
        let rows = self.rows.len();
        for start in (0..rows).step_by(block) {
            for column in (0..dimensions).step_by(STRETCH) {
                let columns = column..dimensions.min(column + STRETCH);
                self.stretch(start..rows.min(start + block), columns);
            }
        }
    }
}

impl<R: Real + Transcendental> Share<'_, R> {
    #[inline(always)]
    fn stretch(&mut self, rows: Range<usize>, columns: Range<usize>) {
        let Gaussians {
            mean,
            log_std,
            draw,
            squash,
        } = self.gaussians;
        let (first, width) = (self.rows.start, columns.len());
        let count = rows.len() * width;
        let batch = first + rows.start..first + rows.end;
        let (mut means, mut log_stds) = ([R::ZERO; STRETCH], [R::ZERO; STRETCH]);
        mean.part(batch.clone(), columns.clone())
            .load(&mut means[..count]);
        log_std
            .part(batch.clone(), columns.clone())
            .load(&mut log_stds[..count]);
        let noise = noise(draw, mean.lanes(), &batch, &columns);
        match &mut self.pass {
            Pass::Forward { actions, log_prob } => {
                let (mut x, mut terms) = ([R::ZERO; STRETCH], [R::ZERO; STRETCH]);
                for i in 0..count {
                    (x[i], terms[i]) = drawn(means[i], log_stds[i], noise[i], squash);
                }
                actions.part(rows.clone(), columns).store(&x[..count]);
                for (row, terms) in rows.zip(terms[..count].chunks(width)) {
                    log_prob[row] = terms.iter().fold(log_prob[row], |sum, &term| sum + term);
                }
            }
            Pass::Backward {
                action_gradients,
                log_prob_gradients,
                mean,
                log_std,
            } => {
                let mut gradients = [R::ZERO; STRETCH];
                let source = action_gradients.part(rows.clone(), columns.clone());
                source.load(&mut gradients[..count]);
                for (at, row) in rows.clone().enumerate() {
                    for i in at * width..(at + 1) * width {
                        let of_results = (gradients[i], log_prob_gradients[row]);
                        (means[i], log_stds[i]) =
                            gradient(means[i], log_stds[i], noise[i], of_results, squash);
                    }
                }
                mean.part(rows.clone(), columns.clone())
                    .store(&means[..count]);
                log_std.part(rows, columns).store(&log_stds[..count]);
            }
        }
    }
}

/// The noise of whole rows, or of a part of one that begins with a group of four.
#[inline(always)]
fn noise<R: Real>(
    draw: Draw,
    dimensions: usize,
    rows: &Range<usize>,
    columns: &Range<usize>,
) -> [R; STRETCH] {
    let (width, padded) = (columns.len(), columns.len().next_multiple_of(4));
    let first = rows.start * dimensions.div_ceil(4) + columns.start / 4;
    let mut numbers = [0.0; STRETCH];
    normals(draw, first as u64, &mut numbers[..rows.len() * padded]);
    let mut noise = [R::ZERO; STRETCH];
    for row in 0..rows.len() {
        for column in 0..width {
            noise[row * width + column] = R::from_f64(f64::from(numbers[row * padded + column]));
        }
    }
    noise
}

/// An action, and its part of the log-probability.
#[inline(always)]
fn drawn<R: Real + Transcendental>(mean: R, log_std: R, noise: R, squash: bool) -> (R, R) {
    let half = R::from_f64(0.5);
    let half_ln_2_pi = R::from_f64(0.918_938_533_204_672_7);
    let x = mean + R::exp_of(log_std) * noise;
    let term = R::ZERO - half * noise * noise - log_std - half_ln_2_pi;
    if !squash {
        return (x, term);
    }
    let (tanh, size, decay) = squashed(x);
    let ln_2 = R::from_f64(std::f64::consts::LN_2);
    let ln_slope = ln_2 - size - R::ln_of(R::ONE + decay);
    (tanh, term - (ln_slope + ln_slope))
}

/// Gradients of mean and `log_std` from those of the action and the log-probability.
#[inline(always)]
fn gradient<R: Real + Transcendental>(
    mean: R,
    log_std: R,
    noise: R,
    (of_action, of_log_prob): (R, R),
    squash: bool,
) -> (R, R) {
    let spread = R::exp_of(log_std) * noise;
    let mut of_x = of_action;
    if squash {
        let (tanh, _, decay) = squashed(mean + spread);
        let two = R::ONE + R::ONE;
        let slope = two / (R::ONE + decay);
        of_x = of_action * (slope * slope * decay) + of_log_prob * (two * tanh);
    }
    (of_x, of_x * spread - of_log_prob)
}

/// `tanh x`, `|x|` and `exp(-2 |x|)`.
#[inline(always)]
fn squashed<R: Real + Transcendental>(x: R) -> (R, R, R) {
    let size = if x < R::ZERO { R::ZERO - x } else { x };
    let decay = R::exp_of(R::ZERO - (size + size));
    let tanh = (R::ONE - decay) / (R::ONE + decay);
    (if x < R::ZERO { R::ZERO - tanh } else { tanh }, size, decay)
}
