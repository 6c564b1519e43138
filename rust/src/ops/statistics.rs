//! Counts, means and sums of squared distances of features, and normalising by them.
//!
//! A feature's numbers are seen once. With the first of them, p, as origin
//!
//! ```text
//! mean  = p + sum(x - p) / n
//! m2    = sum((x - p)^2) - sum(x - p)^2 / n
//! ```
//!
//! Because p is one of the numbers, the first sum of the last line is at most n + 1 times the
//! result: a large mean costs nothing, and n is bounded by cutting the rows into chunks, whose
//! results merge exactly (Chan et al., 1983). Chunks depend on the shape alone, so that
//! the result does not depend on the number of threads. All of it is float64.

use std::ops::Range;

use super::element::{Real, each};
use super::registers::{self, Arch, Task};
use super::strided::{FlagSource, Sink, Source};
use super::surrogate::clamp;
use crate::pool::{self, PoolError};

/// Features side by side in registers.
const LANES: usize = 16;
/// Rows that pass through the first-level cache at a time.
const TILE: usize = 64;
/// Numbers of a chunk of rows.
const CHUNK: usize = 1 << 15;
/// Rows that are worth merging the result of.
const LEAST_ROWS: usize = 256;
/// Numbers that are normalised at a time.
const STRETCH: usize = 2048;
/// As many times that number are one thread's.
const STRETCHES: usize = 8;
/// Numbers from which threads are worth waking.
const SHARE_FROM: usize = 1 << 16;

/// Of one feature.
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    m2: f64,
}

impl Moments {
    fn merge(&mut self, other: Self) {
        if other.count == 0.0 {
            return;
        }
        let count = self.count + other.count;
        let delta = other.mean - self.mean;
        let share = other.count / count;
        self.m2 += other.m2 + delta * delta * self.count * share;
        self.mean += delta * share;
        self.count = count;
    }
}

/// Take `[B, D]` numbers into a state: `D` counts, `D` means, and `D` sums of squared distances.
///
/// What is not finite, and rows `[B, 1]` whose flag is not set, are left out.
///
/// # Errors
/// Those of [`pool::current`], for work that is shared among threads.
pub fn update<R: Real>(
    state: &mut [f64],
    x: Source<R>,
    mask: Option<FlagSource>,
) -> Result<(), PoolError> {
    let features = x.lanes();
    if x.len() == 0 {
        return Ok(());
    }
    let rows = x.len() / features;
    let height = (CHUNK / features).max(LEAST_ROWS).next_multiple_of(LANES);
    let mut chunks: Vec<_> = (0..rows)
        .step_by(height)
        .map(|start| Chunk {
            x,
            mask,
            rows: start..rows.min(start + height),
            found: vec![Moments::default(); features],
        })
        .collect();
    if x.len() < SHARE_FROM {
        chunks.iter_mut().for_each(registers::run);
    } else {
        pool::current()?.for_each_item(chunks.iter_mut().collect(), registers::run);
    }
    for chunk in chunks {
        for (at, found) in chunk.found.into_iter().enumerate() {
            let places = [at, features + at, 2 * features + at];
            let [count, mean, m2] = places.map(|place| state[place]);
            let mut all = Moments { count, mean, m2 };
            all.merge(found);
            for (place, x) in places.into_iter().zip([all.count, all.mean, all.m2]) {
                state[place] = x;
            }
        }
    }
    Ok(())
}

/// Some rows of the numbers, and what is found in them.
struct Chunk<R: Real> {
    x: Source<R>,
    mask: Option<FlagSource>,
    rows: Range<usize>,
    found: Vec<Moments>,
}

impl<R: Real> Task for &mut Chunk<R> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let features = self.x.lanes();
        let x = self.x.part(self.rows.clone(), 0..features);
        let flags = self.mask.map(|mask| {
            let mut flags = vec![0; self.rows.len()];
            mask.part(self.rows.clone(), 0..1).load(&mut flags);
            flags
        });
        // Few features take several rows side by side.
        let by = if features < LANES { LANES } else { 1 };
        let folded = x.folded(by).filter(|x| x.len() > 0);
        let rest = folded.map_or(0, |x| x.len() / features);
        if let Some(x) = folded {
            self.columns(x, flags.as_deref(), by);
        }
        let flags = flags.as_ref().map(|flags| &flags[rest..]);
        self.columns(x.part(rest..self.rows.len(), 0..features), flags, 1);
    }
}

impl<R: Real> Chunk<R> {
    /// Take rows, of each `by` samples, [`LANES`] columns at a time.
    #[inline(always)]
    fn columns(&mut self, x: Source<R>, flags: Option<&[u8]>, by: usize) {
        let (width, features) = (x.lanes(), self.found.len());
        let rows = x.len() / width;
        let mut buffer = [R::ZERO; TILE * LANES];
        for start in (0..width).step_by(LANES) {
            let columns = start..width.min(start + LANES);
            let count = columns.len();
            let mut sums = Sums::default();
            for first in (0..rows).step_by(TILE) {
                let tile = first..rows.min(first + TILE);
                let buffer = &mut buffer[..tile.len() * count];
                x.part(tile.clone(), columns.clone()).load(buffer);
                if let Some(flags) = flags {
                    for (row, at) in buffer.chunks_exact_mut(count).zip(tile) {
                        for (x, column) in row.iter_mut().zip(columns.clone()) {
                            if flags[at * by + column / features] == 0 {
                                *x = R::from_f64(f64::NAN);
                            }
                        }
                    }
                }
                if count == LANES {
                    for row in buffer.chunks_exact(LANES) {
                        sums.take(each(|lane| row[lane].to_f64()));
                    }
                } else {
                    for row in buffer.chunks_exact(count) {
                        let mut lanes = [f64::NAN; LANES];
                        for (lane, x) in lanes.iter_mut().zip(row) {
                            *lane = x.to_f64();
                        }
                        sums.take(lanes);
                    }
                }
            }
            for (lane, column) in columns.enumerate() {
                self.found[column % features].merge(sums.moments(lane));
            }
        }
    }
}

/// Of [`LANES`] columns: the first number that counts, and the others' distances from it.
#[derive(Default)]
struct Sums {
    count: [f64; LANES],
    origin: [f64; LANES],
    distance: [f64; LANES],
    square: [f64; LANES],
}

impl Sums {
    #[inline(always)]
    fn take(&mut self, row: [f64; LANES]) {
        for (lane, &x) in row.iter().enumerate() {
            let counts = f64::mask(x.is_finite());
            let is_first = f64::mask(self.count[lane] == 0.0);
            // Until there is one, the origin is whatever the last row had.
            self.origin[lane] = f64::choose(is_first, x, self.origin[lane]);
            let distance = (x - self.origin[lane]).masked(counts);
            self.count[lane] += 1.0_f64.masked(counts);
            self.distance[lane] += distance;
            self.square[lane] += distance * distance;
        }
    }

    fn moments(&self, lane: usize) -> Moments {
        let (count, distance) = (self.count[lane], self.distance[lane]);
        if count == 0.0 {
            return Moments::default();
        }
        Moments {
            count,
            mean: self.origin[lane] + distance / count,
            m2: (self.square[lane] - distance * distance / count).max(0.0),
        }
    }
}

/// How numbers are normalised.
#[derive(Clone, Copy)]
pub struct Scaling<'a> {
    /// `[D]` each.
    pub mean: &'a [f64],
    pub var: &'a [f64],
    /// The least divisor.
    pub eps: f64,
    /// The largest result.
    pub clip: f64,
}

/// `(x - mean) / max(sqrt(var), eps)` within `[-clip, clip]`, of `[R, D]`; NaN stays NaN.
///
/// `out` has the results as one row.
///
/// # Errors
/// Those of [`pool::current`], for work that is shared among threads.
pub fn normalize<R: Real>(
    x: Source<R>,
    mut out: Sink<'_, R>,
    scaling: Scaling<'_>,
) -> Result<(), PoolError> {
    let features = x.lanes();
    if x.len() == 0 {
        return Ok(());
    }
    let rows = x.len() / features;
    // A deviation that is NaN is no less than anything.
    let divisor = |var: &f64| {
        let deviation = var.sqrt();
        if deviation < scaling.eps {
            scaling.eps
        } else {
            deviation
        }
    };
    let divisors: Vec<f64> = scaling.var.iter().map(divisor).collect();
    // As many whole rows as fit, so that one pattern of features serves all of them.
    let by = (STRETCH / features).clamp(1, rows);
    let pattern = Pattern {
        rows: by,
        mean: scaling.mean.repeat(by),
        divisor: divisors.repeat(by),
        clip: scaling.clip,
    };
    let height = by * STRETCHES;
    let pieces: Vec<_> = (0..rows)
        .step_by(height)
        .map(|start| {
            let part = start..rows.min(start + height);
            Piece {
                out: out.take_lanes(part.len() * features),
                x: x.part(part, 0..features),
                pattern: &pattern,
            }
        })
        .collect();
    if x.len() < SHARE_FROM {
        pieces.into_iter().for_each(registers::run);
    } else {
        pool::current()?.for_each_item(pieces, registers::run);
    }
    Ok(())
}

/// What the numbers of a few rows have taken off and are divided by.
struct Pattern {
    rows: usize,
    mean: Vec<f64>,
    divisor: Vec<f64>,
    clip: f64,
}

struct Piece<'a, R: Real> {
    x: Source<R>,
    out: Sink<'a, R>,
    pattern: &'a Pattern,
}

impl<R: Real> Task for Piece<'_, R> {
    #[inline(always)]
    fn run<A: Arch>(mut self) {
        let pattern = self.pattern;
        let features = self.x.lanes();
        let rows = self.x.len() / features;
        let mut buffer = vec![R::ZERO; pattern.mean.len()];
        for start in (0..rows).step_by(pattern.rows) {
            let part = start..rows.min(start + pattern.rows);
            let count = part.len() * features;
            let x = self.x.part(part.clone(), 0..features);
            // As one row, where it can be.
            x.folded(part.len()).unwrap_or(x).load(&mut buffer[..count]);
            let patterns = pattern.mean.iter().zip(&pattern.divisor);
            for (x, (mean, divisor)) in buffer[..count].iter_mut().zip(patterns) {
                let result = (x.to_f64() - mean) / divisor;
                *x = R::from_f64(clamp(result, -pattern.clip, pattern.clip));
            }
            self.out.take_lanes(count).store(&buffer[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::strided::Layout;

    fn moments_of(x: &[f32], features: usize) -> Vec<f64> {
        let layout = Layout {
            base: x.as_ptr().cast_mut().cast(),
            row_stride: (4 * features) as isize,
            lane_stride: 4,
            rows: x.len() / features,
            lanes: features,
        };
        let mut state = vec![0.0; 3 * features];
        // SAFETY: the layout is that of the slice.
        #[allow(unsafe_code)]
        let source = unsafe { Source::new::<f32>(layout) };
        update(&mut state, source, None).unwrap();
        state
    }

    #[test]
    fn a_large_mean_costs_nothing() {
        for features in [1, 3, 20] {
            let x: Vec<f32> = (0..600 * features)
                .map(|i| 1e6 + (i / features % 8) as f32)
                .collect();
            let state = moments_of(&x, features);
            for feature in 0..features {
                assert_eq!(state[feature], 600.0);
                assert!((state[features + feature] - 1_000_003.5).abs() < 1e-9);
                assert!((state[2 * features + feature] - 600.0 * 5.25).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn an_outlier_in_front_spoils_nothing() {
        let mut x: Vec<f32> = (0..1000).map(|i| (i % 2) as f32).collect();
        x[0] = 1e6;
        let state = moments_of(&x, 1);
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / 1000.0;
        let m2: f64 = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
        assert!((state[2] - m2).abs() < 1e-9 * m2);
    }

    #[test]
    fn what_is_not_finite_does_not_count() {
        let x = [f32::NAN, 1.0, f32::INFINITY, 2.0, 3.0, f32::NAN];
        assert_eq!(moments_of(&x, 2), [1.0, 2.0, 3.0, 1.5, 0.0, 0.5]);
    }
}
