//! Count, mean and sum of squared differences from the mean.
//!
//! Tiles are small samples with two passes each, merged as in Chan and others, "Updating formulae and a
//! pairwise algorithm for computing sample variances", 1979.

use super::element::Real;
use super::registers::{self, Arch, Task};
use super::rollout::Details;
use super::strided::Source;
use super::tiles::{Feed, FlagFeed};

/// Rows and lanes of a tile.
const TILE: usize = 64;

/// Sums that are formed side by side.
const LANES: usize = 8;

/// The moments of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    pub count: f64,
    pub mean: f64,
    pub squares: f64,
}

impl Moments {
    fn merged(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let share = other.count / count;
        let away = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + away * share,
            squares: self.squares + other.squares + away * away * self.count * share,
        }
    }
}

/// The moments of the elements that count, of an array `[times, envs]`.
pub fn moments<R: Real>(
    x: Source<R>,
    details: Option<Details<'_, R>>,
    times: usize,
    envs: usize,
) -> Moments {
    let mut found = Moments::default();
    registers::run(Sample {
        x,
        details,
        times,
        envs,
        found: &mut found,
    });
    found
}

struct Sample<'a, 'b, R: Real> {
    x: Source<R>,
    details: Option<Details<'b, R>>,
    times: usize,
    envs: usize,
    found: &'a mut Moments,
}

impl<R: Real> Task for Sample<'_, '_, R> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let (mut feed, mut flags) = (Feed::new(), FlagFeed::new());
        let mut kept = Vec::with_capacity(TILE * TILE);
        for time in (0..self.times).step_by(TILE) {
            let times = time..self.times.min(time + TILE);
            for env in (0..self.envs).step_by(TILE) {
                let envs = env..self.envs.min(env + TILE);
                let part = self.x.part(times.clone(), envs.clone());
                let rows = feed.rows(&part);
                kept.clear();
                let details = (self.details).map(|found| found.part(times.clone(), envs.clone()));
                let mask = details.as_ref().map(|details| details.valid(&mut flags));
                for index in 0..times.len() {
                    let row = rows.row(index);
                    if let Some(mask) = &mask {
                        let counts = row
                            .iter()
                            .zip(mask.row(index))
                            .filter(|(_, flag)| **flag != 0);
                        kept.extend(counts.map(|(&x, _)| x));
                    } else {
                        kept.extend_from_slice(row);
                    }
                }
                *self.found = self.found.merged(of_tile(&kept));
            }
        }
    }
}

#[inline(always)]
fn of_tile<R: Real>(sample: &[R]) -> Moments {
    if sample.is_empty() {
        return Moments::default();
    }
    let count = sample.len() as f64;
    let mean = sum(sample, |x| x) / count;
    Moments {
        count,
        mean,
        squares: sum(sample, |x| (x - mean) * (x - mean)),
    }
}

#[inline(always)]
fn sum<R: Real>(sample: &[R], of: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    let (groups, rest) = sample.as_chunks::<LANES>();
    for group in groups {
        for (sum, &x) in sums.iter_mut().zip(group) {
            *sum += of(x.into());
        }
    }
    let rest: f64 = rest.iter().map(|&x| of(x.into())).sum();
    sums.into_iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::{Moments, of_tile};

    #[test]
    fn merging_is_the_moments_of_both() {
        let sample: Vec<f64> = (0..50).map(|i| f64::from(i * i % 17)).collect();
        let whole = of_tile(&sample);
        let parts = of_tile(&sample[..13]).merged(of_tile(&sample[13..]));
        assert_eq!(whole.count, parts.count);
        assert!((whole.mean - parts.mean).abs() < 1e-12);
        assert!((whole.squares - parts.squares).abs() < 1e-9);
        assert_eq!(Moments::default().merged(whole), whole);
        assert_eq!(whole.merged(Moments::default()), whole);
    }
}
