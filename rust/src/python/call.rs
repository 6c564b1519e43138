//! A checked call of an estimator, and the way from there into the core.

#![allow(unsafe_code)]

use half::{bf16, f16};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::arrays::Code;
use crate::ops::element::Element;
use crate::ops::estimators::Rates;
use crate::ops::moments::{Moments, moments};
use crate::ops::rollout::{Details, Inputs, Outputs, STEPS, Spans, Truncation};
use crate::ops::strided::{FlagKind, FlagSource, Layout, Sink, Source};
use crate::ops::walk::{Kind, estimate, estimate_packed};
use crate::pool::PoolError;

/// Elements from which releasing the GIL costs less than it gives.
const DETACH_FROM: usize = 4096;

/// The estimators by the codes of the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Gae,
    DiscountedReturns,
    TdLambdaReturns,
    NStepReturns,
    Vtrace,
    Retrace,
    EligibilityTraces,
    GaeMoments,
}

impl Op {
    pub(super) fn from_int(code: usize) -> Option<Self> {
        use Op::{
            DiscountedReturns, EligibilityTraces, Gae, GaeMoments, NStepReturns, Retrace,
            TdLambdaReturns, Vtrace,
        };
        [
            Gae,
            DiscountedReturns,
            TdLambdaReturns,
            NStepReturns,
            Vtrace,
            Retrace,
            EligibilityTraces,
            GaeMoments,
        ]
        .get(code)
        .copied()
    }

    /// How many arrays it reads that have one value per transition.
    pub(super) fn steps(self) -> usize {
        match self {
            Self::DiscountedReturns | Self::EligibilityTraces => 1,
            Self::Gae | Self::GaeMoments | Self::TdLambdaReturns | Self::NStepReturns => 2,
            Self::Vtrace => 3,
            Self::Retrace => 4,
        }
    }

    /// How many arrays it writes.
    pub(super) fn results(self) -> usize {
        match self {
            Self::GaeMoments => 3,
            Self::Gae | Self::Vtrace => 2,
            _ => 1,
        }
    }

    /// The walk; `n` is the number of steps that n-step returns look ahead.
    fn kind(self, n: usize) -> Kind {
        match self {
            Self::Gae | Self::GaeMoments | Self::TdLambdaReturns => Kind::Gae,
            Self::DiscountedReturns => Kind::Discounted,
            Self::NStepReturns => Kind::NStep(n),
            Self::Vtrace => Kind::Vtrace,
            Self::Retrace => Kind::Retrace,
            Self::EligibilityTraces => Kind::Traces,
        }
    }
}

/// Flags, and how they are stored.
pub(super) type Flags = (Layout, Code);

/// What a call may do without.
#[derive(Default)]
pub(super) struct Extras {
    pub(super) gammas: Option<Layout>,
    pub(super) lambdas: Option<Layout>,
    pub(super) mask: Option<Flags>,
    pub(super) lengths: Option<Vec<usize>>,
    /// Where packed trajectories begin, and the end of the last one.
    pub(super) bounds: Option<Vec<usize>>,
}

/// A checked call.
pub(super) struct Call {
    pub(super) op: Op,
    pub(super) code: Code,
    pub(super) steps: [Option<Layout>; STEPS],
    pub(super) terminated: Flags,
    /// Zeros if absent.
    pub(super) last_values: Option<Layout>,
    pub(super) truncated: Option<Flags>,
    pub(super) final_values: Option<Layout>,
    pub(super) extras: Extras,
    pub(super) outputs: [Option<Layout>; 2],
    /// Three float64: count, mean and sum of squares of the first output.
    pub(super) moments: Option<Layout>,
    pub(super) rates: Rates,
    pub(super) n: usize,
}

impl Call {
    /// # Safety
    /// Inputs can be read, outputs can be written and overlap nothing, for arrays of the types
    /// that the codes say.
    pub(super) unsafe fn run(mut self, py: Python<'_>) -> PyResult<()> {
        if self.op == Op::EligibilityTraces {
            self.reverse();
        }
        // SAFETY: the caller's promise.
        unsafe {
            match self.code {
                Code::F16 => self.run_as::<f16>(py),
                Code::Bf16 => self.run_as::<bf16>(py),
                Code::F32 => self.run_as::<f32>(py),
                _ => self.run_as::<f64>(py),
            }
        }
    }

    /// Turn time round.
    fn reverse(&mut self) {
        let times = self.terminated.0.rows;
        let turn = |layout: &mut Layout| *layout = layout.reversed();
        self.steps.iter_mut().flatten().for_each(turn);
        self.outputs.iter_mut().flatten().for_each(turn);
        turn(&mut self.terminated.0);
        self.truncated
            .iter_mut()
            .for_each(|flags| turn(&mut flags.0));
        self.extras
            .mask
            .iter_mut()
            .for_each(|flags| turn(&mut flags.0));
        self.extras.gammas.iter_mut().for_each(turn);
        self.extras.lambdas.iter_mut().for_each(turn);
        if let Some(bounds) = &mut self.extras.bounds {
            bounds.reverse();
            for bound in bounds {
                *bound = times - *bound;
            }
            // One per trajectory, the last one first.
            let turned = |layout: Layout| layout.transposed().reversed().transposed();
            self.last_values = self.last_values.map(turned);
        }
    }

    /// # Safety
    /// As for [`Call::run`]; values are of type `V`.
    unsafe fn run_as<V: Element>(&self, py: Python<'_>) -> PyResult<()> {
        let (times, envs) = (self.terminated.0.rows, self.terminated.0.lanes);
        let ends = self
            .extras
            .bounds
            .as_ref()
            .map_or(envs, |bounds| bounds.len() - 1);
        let reals = [0.0, self.rates.gamma, self.rates.lambda].map(real::<V::Real>);
        let bytes = [0_u8, 1];
        // SAFETY: the caller's promise, for all of these, and constants that outlive the call.
        let source = |layout| unsafe { Source::new::<V>(layout) };
        let flags = |(layout, code): Flags| unsafe { FlagSource::new(layout, code.flag_kind()) };
        let sink = |layout| unsafe { Sink::new::<V>(layout) };
        let constant = |index: usize, rows, lanes| unsafe {
            Source::new::<V::Real>(Layout::constant(&reals[index], rows, lanes))
        };
        let flag = |index: usize| unsafe {
            FlagSource::new(Layout::constant(&bytes[index], times, envs), FlagKind::Byte)
        };
        let Extras {
            gammas,
            lambdas,
            mask,
            lengths,
            bounds,
        } = &self.extras;
        let kind = self.op.kind(self.n);
        let has_details = kind.needs_details()
            || gammas.is_some()
            || lambdas.is_some()
            || mask.is_some()
            || lengths.is_some();
        let has_truncation = has_details || self.truncated.is_some() || kind.needs_truncation();
        let spans = lengths.as_ref().map(|lengths| self.spans(lengths, times));
        let zero = constant(0, times, envs);
        let inputs = Inputs {
            times,
            envs,
            steps: self.steps.map(|layout| layout.map(source)),
            terminated: flags(self.terminated),
            last_values: self.last_values.map_or(constant(0, 1, ends), source),
            truncation: has_truncation.then(|| Truncation {
                truncated: self.truncated.map_or_else(|| flag(0), flags),
                final_values: self.final_values.map_or(zero, source),
            }),
            details: has_details.then(|| Details {
                gammas: gammas.map_or_else(|| constant(1, times, envs), source),
                lambdas: lambdas.map_or_else(|| constant(2, times, envs), source),
                mask: mask.map_or_else(|| flag(1), flags),
                spans: spans.as_ref().map(|bounds| Spans { bounds, first: 0 }),
            }),
        };
        let outputs = Outputs(self.outputs.map(|layout| layout.map(sink)));
        let rates = self.rates;
        let sample = (self.outputs[0].zip(self.moments)).map(|(layout, _)| source(layout));
        let body = || -> Result<Option<Moments>, PoolError> {
            match bounds {
                None => estimate(kind, &inputs, outputs, &rates),
                Some(bounds) => estimate_packed(kind, &inputs, outputs, &rates, bounds),
            }?;
            Ok(sample.map(|sample| moments(sample, inputs.details, times, envs)))
        };
        let done = if times * envs < DETACH_FROM {
            body()
        } else {
            py.detach(body)
        };
        let found = done.map_err(|error| PyValueError::new_err(error.to_string()))?;
        if let (Some(layout), Some(found)) = (self.moments, found) {
            for (at, x) in [found.count, found.mean, found.squares]
                .into_iter()
                .enumerate()
            {
                // SAFETY: the caller's promise: float64 in a row.
                unsafe { layout.address(0, at).cast::<f64>().write_unaligned(x) };
            }
        }
        Ok(())
    }

    /// The times that count, in the direction of the walk.
    fn spans(&self, lengths: &[usize], times: usize) -> Vec<(usize, usize)> {
        let turned = self.op == Op::EligibilityTraces;
        let span = |&length| {
            if turned {
                (times - length, times)
            } else {
                (0, length)
            }
        };
        lengths.iter().map(span).collect()
    }
}

fn real<R: crate::ops::element::Real>(x: f64) -> R {
    R::from_f64(x)
}
