//! Draws from categorical distributions by the Gumbel-max method (Yellott, "The relationship
//! between Luce's choice axiom, Thurstone's theory of comparative judgment, and the double
//! exponential distribution", Journal of Mathematical Psychology 15, 1977).
//!
//! ```text
//! action   = the first v with the largest x[v] + gumbel[v]
//! m        = max x;   s = sum exp(x - m);   t = sum exp(x - m) (x - m)
//! log_prob = (x[action] - m) - ln s
//! entropy  = ln s - t / s
//! ```
//!
//! Row r, class v takes number `v % 4` of index `r ceil(V / 4) + v / 4`.

use super::element::{Real, lanes};
use super::noise::{Draw, gumbels};
use super::registers::{self, Arch, Task};
use super::strided::{Sink, Source};
use super::transcendental::Transcendental;
use crate::pool::{self, PoolError};

/// What is drawn, one entry per row.
pub struct Samples<'a, R> {
    pub actions: &'a mut [i64],
    pub log_prob: &'a mut [R],
    pub entropy: &'a mut [R],
}

/// What the forward pass left and what comes back for it, one entry per row.
#[derive(Clone, Copy)]
pub struct Drawn<'a, R> {
    pub actions: &'a [i64],
    pub log_prob: &'a [R],
    pub entropy: &'a [R],
    pub log_prob_gradients: &'a [R],
    pub entropy_gradients: &'a [R],
}

/// Logits that are worked on in one go: with their noise they stay in the first-level cache.
const STRETCH: usize = 256;

/// Up to so many classes several rows are worked on in one go.
const NARROW: usize = 64;

/// Logits from which rows are shared among threads.
const PARALLEL: usize = 1 << 15;

/// Draw an action for every row of `logits`.
///
/// # Errors
/// Only those of [`pool::current`], and only where there is enough to be shared among threads.
pub fn sample<R: Real + Transcendental>(
    logits: Source<R>,
    samples: Samples<'_, R>,
    draw: Draw,
) -> Result<(), PoolError> {
    let Samples {
        actions,
        log_prob,
        entropy,
    } = samples;
    let (rows, classes) = (actions.len(), logits.lanes());
    let share = rows_per_share(rows, classes)?;
    let parts = actions
        .chunks_mut(share)
        .zip(log_prob.chunks_mut(share))
        .zip(entropy.chunks_mut(share))
        .enumerate();
    let shares: Vec<_> = parts
        .map(|(index, ((actions, log_prob), entropy))| Share {
            logits: logits.part(index * share..index * share + actions.len(), 0..classes),
            first_row: index * share,
            samples: Samples {
                actions,
                log_prob,
                entropy,
            },
            draw,
        })
        .collect();
    if shares.len() == 1 {
        shares.into_iter().for_each(registers::run);
    } else {
        pool::current()?.for_each_item(shares, registers::run);
    }
    Ok(())
}

/// Write the gradient of the logits.
///
/// With `ln p = (x - x[action]) + log_prob`, `g` and `h` the gradients of `log_prob` and `entropy`:
/// `g [v is the action] - p (g + h (ln p + entropy))`.
///
/// # Errors
/// As for [`sample`].
pub fn backward<R: Real + Transcendental>(
    logits: Source<R>,
    drawn: Drawn<'_, R>,
    out: Sink<'_, R>,
) -> Result<(), PoolError> {
    let (rows, classes) = (drawn.actions.len(), logits.lanes());
    let share = rows_per_share(rows, classes)?;
    let mut shares = Vec::new();
    let mut out = out.transposed();
    for start in (0..rows).step_by(share) {
        let end = rows.min(start + share);
        shares.push(BackwardShare {
            logits: logits.part(start..end, 0..classes),
            drawn: drawn.part(start, end),
            out: out.take_lanes(end - start).transposed(),
        });
    }
    if shares.len() == 1 {
        shares.into_iter().for_each(registers::run);
    } else {
        pool::current()?.for_each_item(shares, registers::run);
    }
    Ok(())
}

/// How many rows one thread takes.
fn rows_per_share(rows: usize, classes: usize) -> Result<usize, PoolError> {
    if rows * classes < PARALLEL {
        return Ok(rows.max(1));
    }
    Ok(rows.div_ceil(pool::current()?.num_threads()))
}

/// One thread's rows.
struct Share<'a, R: Real> {
    logits: Source<R>,
    first_row: usize,
    samples: Samples<'a, R>,
    draw: Draw,
}

impl<R: Real + Transcendental> Task for Share<'_, R> {
    #[inline(always)]
    fn run<A: Arch>(mut self) {
        if self.logits.lanes() <= NARROW {
            self.narrow();
        } else {
            self.wide();
        }
    }
}

impl<R: Real + Transcendental> Share<'_, R> {
    /// Several rows in one go, each in whole groups of four numbers.
    #[inline(always)]
    fn narrow(&mut self) {
        let (rows, classes) = (self.samples.actions.len(), self.logits.lanes());
        let width = classes.next_multiple_of(4);
        let block = STRETCH / width;
        let mut noise = [0.0; STRETCH];
        let mut loaded = [R::ZERO; STRETCH];
        let mut x = [R::NEG_INFINITY; STRETCH];
        for start in (0..rows).step_by(block) {
            let count = block.min(rows - start);
            let group = (self.first_row + start) * (width / 4);
            gumbels(self.draw, group as u64, &mut noise[..count * width]);
            let part = self.logits.part(start..start + count, 0..classes);
            part.load(&mut loaded[..count * classes]);
            for row in 0..count {
                let slots = row * width..(row + 1) * width;
                let x = &mut x[slots.clone()];
                for (slot, &logit) in x.iter_mut().zip(&loaded[row * classes..][..classes]) {
                    *slot = logit;
                }
                let mut running = Running::new();
                running.absorb::<4>(x, &noise[slots], 0);
                self.finish(start + row, &running);
            }
        }
    }

    /// One row after the other, stretch by stretch.
    #[inline(always)]
    fn wide(&mut self) {
        const LANES: usize = 16;
        let (rows, classes) = (self.samples.actions.len(), self.logits.lanes());
        let mut noise = [0.0; STRETCH];
        let mut x = [R::ZERO; STRETCH];
        for row in 0..rows {
            let first = (self.first_row + row) * classes.div_ceil(4);
            let mut running = Running::new();
            for start in (0..classes).step_by(STRETCH) {
                let count = STRETCH.min(classes - start);
                let padded = count.next_multiple_of(LANES);
                gumbels(self.draw, (first + start / 4) as u64, &mut noise[..padded]);
                let part = self.logits.part(row..row + 1, start..start + count);
                part.load(&mut x[..count]);
                x[count..padded].fill(R::NEG_INFINITY);
                running.absorb::<LANES>(&x[..padded], &noise[..padded], start);
            }
            self.finish(row, &running);
        }
    }

    #[inline(always)]
    fn finish(&mut self, row: usize, running: &Running<R>) {
        let ln_sum = R::ln_of(running.sum);
        self.samples.actions[row] = running.action as i64;
        self.samples.log_prob[row] = (running.logit - running.reference()) - ln_sum;
        self.samples.entropy[row] = ln_sum - running.weighted / running.sum;
    }
}

/// A row up to some class: the winner so far, and the sums around the largest logit so far.
struct Running<R> {
    action: usize,
    logit: R,
    score: R,
    max: R,
    sum: R,
    weighted: R,
}

impl<R: Real + Transcendental> Running<R> {
    #[inline(always)]
    fn new() -> Self {
        Self {
            action: 0,
            logit: R::NEG_INFINITY,
            score: R::NEG_INFINITY,
            max: R::NEG_INFINITY,
            sum: R::ZERO,
            weighted: R::ZERO,
        }
    }

    /// What exponents are taken relative to: finite while no logit was.
    #[inline(always)]
    fn reference(&self) -> R {
        if self.max == R::NEG_INFINITY {
            R::ZERO
        } else {
            self.max
        }
    }

    /// Take in the classes from `first` on; `x` and `noise` are of one length, a multiple of `L`.
    #[inline(always)]
    fn absorb<const L: usize>(&mut self, x: &[R], noise: &[f32], first: usize) {
        let mut max = [R::NEG_INFINITY; L];
        let mut score = [R::NEG_INFINITY; L];
        for start in (0..x.len()).step_by(L) {
            let (x, noise): ([_; L], [_; L]) = (lanes(x, start), lanes(noise, start));
            for lane in 0..L {
                score[lane] = larger(score[lane], noisy(x[lane], noise[lane]));
                max[lane] = larger(max[lane], x[lane]);
            }
        }
        let best = score.into_iter().fold(self.score, larger);
        // Rarely true in a long row; the place is looked for only then.
        if best > self.score {
            let mut scores = x.iter().zip(noise).map(|(&x, &noise)| noisy(x, noise));
            let at = scores.position(|score| score == best).unwrap_or(0);
            (self.score, self.action, self.logit) = (best, first + at, x[at]);
        }
        let max = max.into_iter().fold(self.max, larger);
        self.rescale(max);
        self.add_up::<L>(x);
    }

    /// Bring the sums to a new maximum.
    #[inline(always)]
    fn rescale(&mut self, max: R) {
        let before = self.max;
        self.max = max;
        if max == before || self.sum == R::ZERO {
            return;
        }
        let lower = before - max;
        let factor = R::exp_of(lower);
        self.weighted = factor * (self.weighted + lower * self.sum);
        self.sum = factor * self.sum;
    }

    #[inline(always)]
    fn add_up<const L: usize>(&mut self, x: &[R]) {
        let reference = self.reference();
        let (mut sum, mut weighted) = ([R::ZERO; L], [R::ZERO; L]);
        for start in (0..x.len()).step_by(L) {
            let x: [_; L] = lanes(x, start);
            for lane in 0..L {
                let below = x[lane] - reference;
                let p = R::exp_of(below);
                sum[lane] = sum[lane] + p;
                // Negative infinity times zero is no number.
                let term = if p == R::ZERO { R::ZERO } else { p * below };
                weighted[lane] = weighted[lane] + term;
            }
        }
        self.sum = sum.into_iter().fold(self.sum, |a, b| a + b);
        self.weighted = weighted.into_iter().fold(self.weighted, |a, b| a + b);
    }
}

#[inline(always)]
fn noisy<R: Real>(x: R, noise: f32) -> R {
    x + R::from_f64(f64::from(noise))
}

/// The larger of two numbers, the first if the second is none.
#[inline(always)]
fn larger<R: Real>(a: R, b: R) -> R {
    if b > a { b } else { a }
}

impl<R> Drawn<'_, R> {
    fn part(&self, start: usize, end: usize) -> Self {
        Self {
            actions: &self.actions[start..end],
            log_prob: &self.log_prob[start..end],
            entropy: &self.entropy[start..end],
            log_prob_gradients: &self.log_prob_gradients[start..end],
            entropy_gradients: &self.entropy_gradients[start..end],
        }
    }
}

/// One thread's rows of the backward pass.
struct BackwardShare<'a, R: Real> {
    logits: Source<R>,
    drawn: Drawn<'a, R>,
    out: Sink<'a, R>,
}

impl<R: Real + Transcendental> Task for BackwardShare<'_, R> {
    #[inline(always)]
    fn run<A: Arch>(mut self) {
        let (rows, classes) = (self.drawn.actions.len(), self.logits.lanes());
        let mut x = [R::ZERO; STRETCH];
        for row in 0..rows {
            let action = self.drawn.actions[row] as usize;
            self.logits
                .part(row..row + 1, action..action + 1)
                .load(&mut x[..1]);
            let chosen = x[0];
            for start in (0..classes).step_by(STRETCH) {
                let count = STRETCH.min(classes - start);
                let x = &mut x[..count];
                let place = start..start + count;
                self.logits.part(row..row + 1, place.clone()).load(x);
                self.through_softmax(row, chosen, x);
                if place.contains(&action) {
                    let slot = &mut x[action - start];
                    *slot = *slot + self.drawn.log_prob_gradients[row];
                }
                self.out.part(row..row + 1, place).store(x);
            }
        }
    }
}

impl<R: Real + Transcendental> BackwardShare<'_, R> {
    #[inline(always)]
    fn through_softmax(&self, row: usize, chosen: R, x: &mut [R]) {
        let (log_prob, entropy) = (self.drawn.log_prob[row], self.drawn.entropy[row]);
        let for_log_prob = self.drawn.log_prob_gradients[row];
        let for_entropy = self.drawn.entropy_gradients[row];
        for slot in x {
            let log_p = (*slot - chosen) + log_prob;
            let p = R::exp_of(log_p);
            let slope = R::ZERO - p * (for_log_prob + for_entropy * (log_p + entropy));
            *slot = if p == R::ZERO { R::ZERO } else { slope };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::strided::Layout;
    use super::*;

    fn sampled(x: &[f32], classes: usize) -> (Vec<i64>, [Vec<f32>; 2]) {
        let rows = x.len() / classes;
        let layout = Layout {
            base: x.as_ptr().cast_mut().cast(),
            row_stride: 4 * classes as isize,
            lane_stride: 4,
            rows,
            lanes: classes,
        };
        let mut actions = vec![-1; rows];
        let mut floats = [(); 2].map(|()| vec![f32::NAN; rows]);
        let [log_prob, entropy] = &mut floats;
        let samples = Samples {
            actions: &mut actions,
            log_prob,
            entropy,
        };
        // SAFETY: `x` is borrowed for as long as the source lives.
        #[allow(unsafe_code)]
        let source = unsafe { Source::new::<f32>(layout) };
        sample(source, samples, Draw { seed: 1, step: 2 }).unwrap();
        (actions, floats)
    }

    // Chi-square below its 1e-6 quantile, through both ways of walking.
    #[test]
    fn actions_come_as_often_as_their_probability_says() {
        for (classes, bound) in [(2, 24.0), (6, 35.9), (70, 138.0)] {
            let rows = 20_000;
            let row: Vec<f32> = (0..classes).map(|v| (v % 5) as f32 * 0.4).collect();
            let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            let (actions, _) = sampled(&row.repeat(rows), classes);
            let mut counts = vec![0.0_f64; classes];
            for action in actions {
                counts[action as usize] += 1.0;
            }
            let chi2: f64 = counts
                .iter()
                .zip(&row)
                .map(|(count, &x)| {
                    let expected = rows as f64 * f64::from(x).exp() / total;
                    (count - expected).powi(2) / expected
                })
                .sum();
            assert!(chi2 < bound, "{classes} classes: chi2 {chi2}");
        }
    }

    #[test]
    fn sums_are_those_of_the_softmax() {
        for classes in [1, 2, 7, 64, 65, 300, 1000] {
            let x: Vec<f32> = (0..classes).map(|v| (v * 37 % 11) as f32 - 4.0).collect();
            let (actions, [log_prob, entropy]) = sampled(&x, classes);
            let sum: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
            let mean: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x).exp()).sum();
            let chosen = f64::from(x[actions[0] as usize]);
            assert!((f64::from(log_prob[0]) - (chosen - sum.ln())).abs() < 1e-5);
            assert!((f64::from(entropy[0]) - (sum.ln() - mean / sum)).abs() < 1e-5);
        }
    }

    #[test]
    fn equal_scores_go_to_the_first() {
        let mut running = Running::new();
        running.absorb::<4>(&[1.0, 3.0, 3.0, 0.0, 3.0, 2.0, 1.0, 3.0_f32], &[0.0; 8], 10);
        running.absorb::<4>(&[3.0; 4], &[0.0; 4], 18);
        assert_eq!((running.action, running.logit), (11, 3.0));
    }
}
