//! Rows of a call's arrays as the walks want them: one recurrence for every estimator.

use std::marker::PhantomData;

use super::element::{Real, lanes};
use super::estimators::{Estimator, Rates, Step, VALUES};
use super::registers::{Arch, Register};
use super::rollout::{Inputs, Outputs, STEPS};
use super::scan::{Coefficients, Recurrence};
use super::strided::{Rows, RowsMut};
use super::tiles::{Drain, Feed, FlagFeed};

/// Space for arrays that cannot be used as they lie.
pub struct Buffers<R> {
    steps: [Feed<R>; STEPS],
    terminated: FlagFeed,
    truncated: FlagFeed,
    final_values: Feed<R>,
    gammas: Feed<R>,
    lambdas: Feed<R>,
    mask: FlagFeed,
    drains: Drains<R>,
}

/// The way out.
pub struct Drains<R>([Drain<R>; 2]);

impl<R: Real> Buffers<R> {
    pub fn new() -> Self {
        Self {
            steps: std::array::from_fn(|_| Feed::new()),
            terminated: FlagFeed::new(),
            truncated: FlagFeed::new(),
            final_values: Feed::new(),
            gammas: Feed::new(),
            lambdas: Feed::new(),
            mask: FlagFeed::new(),
            drains: Drains([Drain::new(), Drain::new()]),
        }
    }

    /// The estimator over all rows of `part`, and the way out for its results.
    #[inline(always)]
    pub fn model<'a, E: Estimator, A: Arch, const TRUNCATION: bool, const DETAILS: bool>(
        &'a mut self,
        part: &'a Inputs<'_, R>,
        rates: &Rates,
    ) -> (Model<'a, R, E, A, TRUNCATION, DETAILS>, &'a mut Drains<R>) {
        let mut steps = [None; STEPS];
        for (slot, feed) in self.steps.iter_mut().enumerate().take(E::SLOTS.len()) {
            let source = part.steps[E::SLOTS[slot]]
                .as_ref()
                .expect("an array for every slot");
            steps[slot] = Some(feed.rows(source));
        }
        let truncation = part.truncation.as_ref().map(|truncation| {
            let truncated = self.truncated.rows(&truncation.truncated);
            (truncated, self.final_values.rows(&truncation.final_values))
        });
        let details = part.details.as_ref().map(|details| {
            let gammas = self.gammas.rows(&details.gammas);
            let lambdas = self.lambdas.rows(&details.lambdas);
            let mask = details.valid(&mut self.mask);
            (gammas, lambdas, mask)
        });
        let model = Model {
            steps,
            terminated: self.terminated.rows(&part.terminated),
            truncation,
            details,
            gamma: R::from_f64(rates.gamma),
            lambda: R::from_f64(rates.lambda),
            decay: R::from_f64(rates.gamma * rates.lambda),
            bars: rates.bars.map(R::from_f64),
            compiled_for: PhantomData,
        };
        (model, &mut self.drains)
    }
}

impl<R: Real> Drains<R> {
    #[inline(always)]
    pub fn rows<'a>(&'a mut self, outputs: &'a mut Outputs<'_, R>) -> [Option<RowsMut<'a, R>>; 2] {
        let [first, second] = &mut self.0;
        let [to_first, to_second] = &mut outputs.0;
        [
            to_first.as_mut().map(|sink| first.rows(sink)),
            to_second.as_mut().map(|sink| second.rows(sink)),
        ]
    }

    #[inline(always)]
    pub fn flush(&self, outputs: &mut Outputs<'_, R>) {
        for (drain, sink) in self.0.iter().zip(&mut outputs.0) {
            if let Some(sink) = sink {
                drain.flush(sink);
            }
        }
    }
}

/// An estimator over some rows.
///
/// Without `TRUNCATION` and `DETAILS` the arrays that belong to them are not looked at, which keeps
/// the common case short.
pub struct Model<'a, R, E, A, const TRUNCATION: bool, const DETAILS: bool> {
    steps: [Option<Rows<'a, R>>; STEPS],
    terminated: Rows<'a, u8>,
    /// Flags and final values.
    truncation: Option<(Rows<'a, u8>, Rows<'a, R>)>,
    /// Discounts, traces and the steps that count.
    details: Option<(Rows<'a, R>, Rows<'a, R>, Rows<'a, u8>)>,
    gamma: R,
    lambda: R,
    decay: R,
    bars: [R; 2],
    compiled_for: PhantomData<(E, A)>,
}

/// One row; slices that are not looked at are empty.
#[derive(Clone, Copy)]
pub struct Slices<'a, R> {
    steps: [&'a [R]; STEPS],
    terminated: &'a [u8],
    truncated: &'a [u8],
    final_values: &'a [R],
    gammas: &'a [R],
    lambdas: &'a [R],
    mask: &'a [u8],
}

impl<'a, R: Real, E: Estimator, A: Arch, const TRUNCATION: bool, const DETAILS: bool> Recurrence
    for Model<'a, R, E, A, TRUNCATION, DETAILS>
{
    type Real = R;
    type Slices = Slices<'a, R>;

    #[inline(always)]
    fn row(&self, index: usize) -> Slices<'a, R> {
        let mut slices = Slices {
            steps: [&[]; STEPS],
            terminated: self.terminated.row(index),
            truncated: &[],
            final_values: &[],
            gammas: &[],
            lambdas: &[],
            mask: &[],
        };
        for slot in 0..E::SLOTS.len() {
            slices.steps[slot] = self.steps[slot]
                .as_ref()
                .map_or(&[], |rows| rows.row(index));
        }
        if let (true, Some((truncated, final_values))) = (TRUNCATION, &self.truncation) {
            slices.truncated = truncated.row(index);
            slices.final_values = final_values.row(index);
        }
        if let (true, Some((gammas, lambdas, mask))) = (DETAILS, &self.details) {
            slices.gammas = gammas.row(index);
            slices.lambdas = lambdas.row(index);
            slices.mask = mask.row(index);
        }
        slices
    }

    #[inline(always)]
    fn part(slices: &Slices<'a, R>, start: usize, count: usize) -> Slices<'a, R> {
        let mut part = *slices;
        for slot in 0..E::SLOTS.len() {
            part.steps[slot] = &slices.steps[slot][start..][..count];
        }
        part.terminated = &slices.terminated[start..][..count];
        if TRUNCATION {
            part.truncated = &slices.truncated[start..][..count];
            part.final_values = &slices.final_values[start..][..count];
        }
        if DETAILS {
            part.gammas = &slices.gammas[start..][..count];
            part.lambdas = &slices.lambdas[start..][..count];
            part.mask = &slices.mask[start..][..count];
        }
        part
    }

    #[inline(always)]
    fn values(slices: &Slices<'a, R>) -> &'a [R] {
        // What does not bootstrap never looks at what it finds here.
        slices.steps[if E::BOOTSTRAPS { VALUES } else { 0 }]
    }

    #[inline(always)]
    fn coefficients<V: Register<Real = R>>(
        &self,
        slices: &Slices<'a, R>,
        start: usize,
        values: V,
        next_values: V,
    ) -> Coefficients<V> {
        let zero = V::splat(R::ZERO);
        let (mut gamma, mut lambda) = (V::splat(self.gamma), V::splat(self.lambda));
        let mut decay = V::splat(self.decay);
        if DETAILS {
            gamma = V::load(&slices.gammas[start..]);
            lambda = V::load(&slices.lambdas[start..]);
            decay = gamma.mul(lambda);
        }
        let goes_on = V::unset(&slices.terminated[start..]);
        let mut following = if E::BOOTSTRAPS { next_values } else { zero };
        let mut discount = gamma.masked(goes_on);
        decay = decay.masked(goes_on);
        if TRUNCATION {
            let runs_on = V::unset(&slices.truncated[start..]);
            let final_values = V::load(&slices.final_values[start..]);
            following = V::choose(runs_on, following, final_values);
            discount = discount.masked(runs_on);
            decay = decay.masked(runs_on);
        }
        let slot = |slot: usize| {
            if slot < E::SLOTS.len() && slot != VALUES {
                V::load(&slices.steps[slot][start..])
            } else {
                values
            }
        };
        E::coefficients::<A, V>(&Step {
            slots: [slot(0), slot(1), slot(2), slot(3)],
            bootstrap: gamma.mul(following).masked(goes_on),
            discount,
            decay,
            lambda,
            bars: self.bars.map(V::splat),
        })
    }

    #[inline(always)]
    fn is_uncut(&self, block: &Slices<'a, R>) -> bool {
        let mut set = u128::from_ne_bytes(lanes(block.terminated, 0));
        if TRUNCATION {
            set |= u128::from_ne_bytes(lanes(block.truncated, 0));
        }
        set == 0
    }

    #[inline(always)]
    fn skipped<V: Register<Real = R>>(
        &self,
        slices: &Slices<'a, R>,
        start: usize,
    ) -> Option<V::Mask> {
        DETAILS.then(|| V::unset(&slices.mask[start..]))
    }

    #[inline(always)]
    fn results<V: Register<Real = R>>(&self, values: V, x: V, ahead: V) -> [V; 2] {
        E::results(values, x, ahead)
    }
}
