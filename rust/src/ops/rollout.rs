//! The arrays of an estimator's call.

use std::ops::Range;

use super::element::Real;
use super::strided::{FlagSource, Rows, Sink, Source};
use super::tiles::FlagFeed;

/// How many arrays with one value per transition an estimator may read.
pub const STEPS: usize = 4;

/// The arrays that are read: all `[times, envs]`, `last_values` `[1, envs]`.
#[derive(Clone, Copy)]
pub struct Inputs<'a, R: Real> {
    pub times: usize,
    pub envs: usize,
    /// Values per transition, in the order in which the estimator is given them.
    pub steps: [Option<Source<R>>; STEPS],
    pub terminated: FlagSource,
    pub last_values: Source<R>,
    pub truncation: Option<Truncation<R>>,
    pub details: Option<Details<'a, R>>,
}

/// Where trajectories are cut, and the values of the observations behind the cuts.
#[derive(Clone, Copy)]
pub struct Truncation<R: Real> {
    pub truncated: FlagSource,
    pub final_values: Source<R>,
}

/// What most calls do without: discounts of each step's own, and steps that do not count.
#[derive(Clone, Copy)]
pub struct Details<'a, R: Real> {
    pub gammas: Source<R>,
    pub lambdas: Source<R>,
    pub mask: FlagSource,
    /// The times of each environment that count.
    pub spans: Option<Spans<'a>>,
}

/// For each environment the first time that counts and the one after the last.
#[derive(Clone, Copy)]
pub struct Spans<'a> {
    pub bounds: &'a [(usize, usize)],
    /// The time of the first row.
    pub first: usize,
}

/// The arrays that are written, `[times, envs]`; `None` where nobody asked.
pub struct Outputs<'a, R: Real>(pub [Option<Sink<'a, R>>; 2]);

impl<R: Real> Inputs<'_, R> {
    #[inline]
    pub fn part(&self, times: Range<usize>, envs: Range<usize>) -> Self {
        Self {
            last_values: self.last_values.part(0..1, envs.clone()),
            ..self.sequence(times, envs)
        }
    }

    /// One of several trajectories that follow each other in arrays `[total, 1]`.
    pub fn packed(&self, times: Range<usize>, index: usize) -> Self {
        Self {
            last_values: self.last_values.part(0..1, index..index + 1),
            ..self.sequence(times, 0..1)
        }
    }

    #[inline]
    fn sequence(&self, times: Range<usize>, envs: Range<usize>) -> Self {
        let values = |source: Source<R>| source.part(times.clone(), envs.clone());
        let flags = |source: FlagSource| source.part(times.clone(), envs.clone());
        Self {
            times: times.len(),
            envs: envs.len(),
            steps: self.steps.map(|source| source.map(values)),
            terminated: flags(self.terminated),
            last_values: self.last_values,
            truncation: self.truncation.map(|truncation| Truncation {
                truncated: flags(truncation.truncated),
                final_values: values(truncation.final_values),
            }),
            details: (self.details).map(|details| details.part(times.clone(), envs.clone())),
        }
    }

    /// Rows are trajectories; details stay as they are.
    pub fn transposed(self) -> Self {
        Self {
            steps: self.steps.map(|source| source.map(Source::transposed)),
            terminated: self.terminated.transposed(),
            truncation: self.truncation.map(|truncation| Truncation {
                truncated: truncation.truncated.transposed(),
                final_values: truncation.final_values.transposed(),
            }),
            ..self
        }
    }

    /// Whether no array needs a buffer.
    pub fn in_place(&self) -> bool {
        let truncation_in_place = self.truncation.is_none_or(|truncation| {
            truncation.truncated.rows().is_some() && truncation.final_values.rows().is_some()
        });
        truncation_in_place
            && self.details.is_none()
            && self
                .steps
                .iter()
                .flatten()
                .all(|source| source.rows().is_some())
            && self.terminated.rows().is_some()
    }

    /// Whether the times of a trajectory lie side by side, and its neighbours' do not.
    pub fn is_row_major(&self) -> bool {
        self.steps[0].is_some_and(|first| !first.is_dense() && first.transposed().is_dense())
    }
}

impl<R: Real> Details<'_, R> {
    #[inline]
    pub fn part(&self, times: Range<usize>, envs: Range<usize>) -> Self {
        Self {
            gammas: self.gammas.part(times.clone(), envs.clone()),
            lambdas: self.lambdas.part(times.clone(), envs.clone()),
            mask: self.mask.part(times.clone(), envs.clone()),
            spans: self.spans.map(|spans| Spans {
                bounds: &spans.bounds[envs],
                first: spans.first + times.start,
            }),
        }
    }

    /// Flags of the steps that count.
    #[inline(always)]
    pub fn valid<'a>(&'a self, feed: &'a mut FlagFeed) -> Rows<'a, u8> {
        feed.changed_rows(&self.mask, |mask| {
            let Some(spans) = self.spans else { return };
            for (row, flags) in mask.chunks_exact_mut(spans.bounds.len()).enumerate() {
                let time = spans.first + row;
                for (flag, &(start, end)) in flags.iter_mut().zip(spans.bounds) {
                    *flag *= u8::from(start <= time && time < end);
                }
            }
        })
    }
}

impl<R: Real> Outputs<'_, R> {
    pub fn take_envs(&mut self, envs: usize) -> Self {
        Self(
            self.0
                .each_mut()
                .map(|sink| sink.as_mut().map(|sink| sink.take_lanes(envs))),
        )
    }

    /// Cut off the first times.
    pub fn take_times(&mut self, times: usize) -> Self {
        Self(
            self.0
                .each_mut()
                .map(|sink| sink.as_mut().map(|sink| sink.take_rows(times))),
        )
    }

    #[inline]
    pub fn part(&mut self, times: Range<usize>, envs: Range<usize>) -> Outputs<'_, R> {
        Outputs(self.0.each_mut().map(|sink| {
            sink.as_mut()
                .map(|sink| sink.part(times.clone(), envs.clone()))
        }))
    }

    /// Whether no array needs a buffer.
    pub fn in_place(&mut self) -> bool {
        self.0
            .iter_mut()
            .flatten()
            .all(|sink| sink.rows().is_some())
    }

    /// Rows are trajectories.
    pub fn transposed(self) -> Self {
        Self(self.0.map(|sink| sink.map(Sink::transposed)))
    }
}
