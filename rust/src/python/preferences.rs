//! Losses on preference pairs, on bare memory.

#![allow(unsafe_code)]

use half::{bf16, f16};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::arrays::Code;
use crate::ops::element::{Element, Real};
use crate::ops::preferences::{self as core, Inputs, Kind, Loss, Outputs};
use crate::ops::strided::{Layout, Sink, Source};

/// Addresses of `loss`, `slopes`, `chosen_rewards` and `rejected_rewards`, contiguous.
type Results = (usize, usize, usize, usize);

/// The loss of pairs, its slopes, and the implicit rewards.
#[pyfunction]
#[pyo3(signature = (logps, results, count, code, kind, beta, label_smoothing, reduction, /))]
pub(super) fn dpo_loss_raw(
    logps: [(usize, isize); 4],
    results: Results,
    count: usize,
    code: usize,
    kind: usize,
    beta: f64,
    label_smoothing: f64,
    reduction: usize,
) -> PyResult<()> {
    let kinds = [Kind::Sigmoid, Kind::Hinge, Kind::Ipo];
    let (Some(&kind), true) = (kinds.get(kind), reduction < 3) else {
        return Err(PyValueError::new_err(format!(
            "kind and reduction must be codes from 0 to 2, not {kind} and {reduction}"
        )));
    };
    let loss = Loss {
        kind,
        beta,
        label_smoothing,
    };
    let call = Call {
        logps,
        results,
        count,
        loss,
        reduction,
    };
    // SAFETY: the caller vouches for all arrays.
    unsafe {
        match Code::from_int(code) {
            Some(Code::F16) => call.run::<f16>(),
            Some(Code::Bf16) => call.run::<bf16>(),
            Some(Code::F32) => call.run::<f32>(),
            Some(Code::F64) => call.run::<f64>(),
            _ => {
                return Err(PyValueError::new_err(format!(
                    "the values' type must be a code from 0 to 3, not {code}"
                )));
            }
        }
    }
    Ok(())
}

struct Call {
    logps: [(usize, isize); 4],
    results: Results,
    count: usize,
    loss: Loss,
    reduction: usize,
}

impl Call {
    /// # Safety
    /// The inputs can be read as `V`; the results can be written, the slopes as what `V` is
    /// computed in, by nobody else.
    unsafe fn run<V: Element>(&self) {
        let layout = |address: usize, stride: isize, size: usize| Layout {
            base: address as *mut u8,
            row_stride: 0,
            lane_stride: stride * size as isize,
            rows: 1,
            lanes: self.count,
        };
        let size = size_of::<V>();
        // SAFETY: the caller's promise, here and below.
        let [policy_chosen, policy_rejected, ref_chosen, ref_rejected] = self
            .logps
            .map(|(address, stride)| unsafe { Source::new::<V>(layout(address, stride, size)) });
        let sink = |address| unsafe { Sink::new::<V>(layout(address, 1, size)) };
        let (loss, slopes, chosen, rejected) = self.results;
        let slopes = unsafe { Sink::new::<V::Real>(layout(slopes, 1, size_of::<V::Real>())) };
        let divisor = if self.reduction == 2 {
            self.count.max(1) as f64
        } else {
            1.0
        };
        let sum = core::forward(
            &Inputs {
                policy_chosen,
                policy_rejected,
                ref_chosen,
                ref_rejected,
            },
            self.loss,
            1.0 / divisor,
            Outputs {
                losses: (self.reduction == 0).then(|| sink(loss)),
                slopes,
                chosen_rewards: sink(chosen),
                rejected_rewards: sink(rejected),
            },
        );
        if self.reduction != 0 {
            let value = V::narrow(V::Real::from_f64(sum / divisor));
            // SAFETY: the caller's promise: one element.
            unsafe { (loss as *mut V).write(value) };
        }
    }
}
