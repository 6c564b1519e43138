//! Losses on pairs of a preferred and a rejected answer (Rafailov et al., "Direct preference
//! optimization", 2023, and its relatives).
//!
//! With `h` the log-ratio of the policy between the two answers minus that of the reference:
//!
//! ```text
//! sigmoid  -(1 - s) log sigmoid(beta h) - s log sigmoid(-beta h)      s: label smoothing
//! hinge    max(0, 1 - beta h)
//! ipo      (h - 1 / (2 beta))^2
//! ```
//!
//! A batch has some thousand pairs at most: they are computed one by one, in float64.

use super::element::Real;
use super::strided::{Sink, Source};

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sigmoid,
    Hinge,
    Ipo,
}

/// A loss and its numbers.
#[derive(Clone, Copy)]
pub struct Loss {
    pub kind: Kind,
    pub beta: f64,
    pub label_smoothing: f64,
}

/// Log-probabilities of the answers, `[1, pairs]`.
pub struct Inputs<R: Real> {
    pub policy_chosen: Source<R>,
    pub policy_rejected: Source<R>,
    pub ref_chosen: Source<R>,
    pub ref_rejected: Source<R>,
}

/// What is written, `[1, pairs]`; `losses` only where it is wanted.
pub struct Outputs<'a, R: Real> {
    pub losses: Option<Sink<'a, R>>,
    /// The derivatives of the losses by `h`.
    pub slopes: Sink<'a, R>,
    pub chosen_rewards: Sink<'a, R>,
    pub rejected_rewards: Sink<'a, R>,
}

/// Losses, their slopes times `factor`, and the implicit rewards; gives the sum of the losses.
pub fn forward<R: Real>(
    inputs: &Inputs<R>,
    loss: Loss,
    factor: f64,
    mut outputs: Outputs<'_, R>,
) -> f64 {
    let [pc, pr, rc, rr] = [
        inputs.policy_chosen,
        inputs.policy_rejected,
        inputs.ref_chosen,
        inputs.ref_rejected,
    ]
    .map(loaded);
    let chosen: Vec<f64> = pc.iter().zip(&rc).map(|(p, r)| p - r).collect();
    let rejected: Vec<f64> = pr.iter().zip(&rr).map(|(p, r)| p - r).collect();
    let (losses, slopes): (Vec<_>, Vec<_>) = chosen
        .iter()
        .zip(&rejected)
        .map(|(chosen, rejected)| loss.of(chosen - rejected))
        .unzip();
    store(&mut outputs.slopes, &slopes, factor);
    store(&mut outputs.chosen_rewards, &chosen, loss.beta);
    store(&mut outputs.rejected_rewards, &rejected, loss.beta);
    if let Some(sink) = &mut outputs.losses {
        store(sink, &losses, 1.0);
    }
    losses.iter().sum()
}

fn loaded<R: Real>(source: Source<R>) -> Vec<f64> {
    let mut values = vec![R::ZERO; source.len()];
    source.load(&mut values);
    values.into_iter().map(Real::to_f64).collect()
}

fn store<R: Real>(sink: &mut Sink<'_, R>, values: &[f64], factor: f64) {
    let values: Vec<R> = values.iter().map(|x| R::from_f64(x * factor)).collect();
    sink.store(&values);
}

impl Loss {
    /// The loss at `h` and its derivative.
    fn of(self, h: f64) -> (f64, f64) {
        let Self { beta, .. } = self;
        match self.kind {
            Kind::Sigmoid => {
                let smoothing = self.label_smoothing;
                let x = beta * h;
                let value = softplus(-x) * (1.0 - smoothing) + softplus(x) * smoothing;
                let slope = smoothing * sigmoid(x) - (1.0 - smoothing) * sigmoid(-x);
                (value, beta * slope)
            }
            Kind::Hinge => {
                let distance = 1.0 - beta * h;
                if distance <= 0.0 {
                    (0.0, 0.0)
                } else {
                    (distance, -beta)
                }
            }
            Kind::Ipo => {
                let distance = h - 0.5 / beta;
                (distance * distance, 2.0 * distance)
            }
        }
    }
}

/// `log(1 + e^x)` without overflow, with all its digits where it is small.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    let small = (-x.abs()).exp();
    (if x < 0.0 { small } else { 1.0 }) / (1.0 + small)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Loss};

    #[test]
    fn slopes_are_those_of_the_losses() {
        for kind in [Kind::Sigmoid, Kind::Hinge, Kind::Ipo] {
            let loss = Loss {
                kind,
                beta: 0.3,
                label_smoothing: 0.1,
            };
            for h in [-700.0, -3.0, 0.0, 2.0, 900.0] {
                let step = 1e-5;
                let rise = loss.of(h + step).0 - loss.of(h - step).0;
                let slope = loss.of(h).1;
                assert!((rise / (2.0 * step) - slope).abs() < 1e-5 * (1.0 + slope.abs()));
            }
            assert!(loss.of(f64::NAN).0.is_nan());
        }
    }
}
