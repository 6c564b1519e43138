//! Proportional prioritisation (Schaul et al., "Prioritized experience replay", ICLR 2016).

use std::fmt;

use super::draw::{Draw, stratified};
use super::tree::Tree;
use crate::ops::registers::{Arch, Task, run};
use crate::ops::transcendental::Transcendental;

/// The largest weight: 2^32 of them have a finite sum.
const MOST: f64 = 1e290;

/// A priority that no weight can be made of, and where it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BadPriority {
    pub at: usize,
    pub priority: f64,
}

impl fmt::Display for BadPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, priority } = self;
        write!(
            f,
            "expected finite numbers >= 0 whose power of alpha is at most 1e290, got {priority} at index {at}"
        )
    }
}

/// Weights `priority^alpha` of all slots, and what is drawn by them.
pub struct Priorities {
    pub tree: Tree,
    alpha: f64,
    pub beta: f64,
    /// The largest weight so far, which a transition gets that comes without a priority.
    pub largest: f64,
    targets: Vec<f64>,
}

impl Priorities {
    #[must_use]
    pub fn new(capacity: usize, alpha: f64, beta: f64) -> Self {
        Self {
            tree: Tree::new(capacity),
            alpha,
            beta,
            largest: 1.0,
            targets: Vec::new(),
        }
    }

    #[must_use]
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// Turn priorities into weights.
    ///
    /// # Errors
    /// At the first that is NaN, negative or too large; nothing has changed then but `numbers`.
    pub fn weigh(&self, numbers: &mut [f64]) -> Result<(), BadPriority> {
        if let Some(at) = numbers.iter().position(|x| !(0.0..=f64::MAX).contains(x)) {
            let priority = numbers[at];
            return Err(BadPriority { at, priority });
        }
        if self.alpha == 1.0 {
            return check_sizes(numbers, |x| x);
        }
        if self.alpha == 0.0 {
            numbers.fill(1.0);
            return Ok(());
        }
        let power = self.alpha;
        run(Power { numbers, power });
        check_sizes(numbers, |weight| weight.powf(1.0 / power))
    }

    /// Set the weights of slots; of several for one slot the last one stays.
    pub fn set(&mut self, slots: &[u32], weights: &[f64]) {
        self.largest = weights.iter().fold(self.largest, |most, &x| most.max(x));
        match slots {
            [slot] => self.tree.set(*slot, weights[0]),
            _ => self.tree.set_all(slots, weights.iter().copied()),
        }
    }

    /// Draw slots in proportion to their weights, one from each of as many equal strata as
    /// `slots` has room for, with the importance weights `(p / p_min)^-beta`: those of the paper,
    /// `(n P)^-beta`, divided by the largest that any slot has.
    ///
    /// The total must not be zero.
    pub fn sample(&mut self, slots: &mut [u32], importance: &mut [f32], draw: Draw) {
        let mut targets = std::mem::take(&mut self.targets);
        targets.resize(slots.len(), 0.0);
        stratified(&mut targets, self.tree.total(), draw);
        self.tree.find(&mut targets, slots);
        let least = self.tree.least();
        for (ratio, &slot) in targets.iter_mut().zip(slots.iter()) {
            *ratio = self.tree.weight(slot) / least;
        }
        run(Power {
            numbers: &mut targets,
            power: -self.beta,
        });
        for (to, &weight) in importance.iter_mut().zip(&targets) {
            *to = weight as f32;
        }
        self.targets = targets;
    }

    pub fn clear(&mut self) {
        self.tree.clear();
        self.largest = 1.0;
    }
}

fn check_sizes(weights: &[f64], priority: impl Fn(f64) -> f64) -> Result<(), BadPriority> {
    match weights.iter().position(|&x| x > MOST) {
        None => Ok(()),
        Some(at) => Err(BadPriority {
            at,
            priority: priority(weights[at]),
        }),
    }
}

/// `x^power` in place, in arithmetic that every device rounds the same way.
struct Power<'a> {
    numbers: &'a mut [f64],
    power: f64,
}

impl Task for Power<'_> {
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Self { numbers, power } = self;
        for x in numbers {
            *x = f64::exp_of(power * f64::ln_of(*x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAW: Draw = Draw { seed: 1, step: 0 };

    fn weighed(alpha: f64, numbers: &[f64]) -> Result<Vec<f64>, BadPriority> {
        let mut weights = numbers.to_vec();
        let priorities = Priorities::new(8, alpha, 0.4);
        priorities.weigh(&mut weights).map(|()| weights)
    }

    #[test]
    fn weights_are_powers() {
        let numbers = [0.0, 1e-30, 0.25, 1.0, 3.0, 1e30];
        for alpha in [0.3, 0.5, 0.6, 1.0, 2.0] {
            let weights = weighed(alpha, &numbers).unwrap();
            for (weight, x) in weights.iter().zip(numbers) {
                assert!((weight - x.powf(alpha)).abs() <= 1e-13 * x.powf(alpha));
            }
        }
        assert_eq!(weighed(0.0, &[0.0, 5.0]).unwrap(), [1.0, 1.0]);
    }

    #[test]
    fn bad_priorities_are_named() {
        for bad in [f64::NAN, -1.0, f64::INFINITY] {
            let error = weighed(0.6, &[1.0, bad, bad]).unwrap_err();
            assert_eq!(error.at, 1);
            assert!(error.to_string().contains("at index 1"));
        }
        assert_eq!(weighed(1.0, &[1.0, 1e300]).unwrap_err().at, 1);
        assert_eq!(weighed(2.0, &[1e200]).unwrap_err().at, 0);
    }

    #[test]
    fn importance_weights_are_those_of_the_formula() {
        let mut priorities = Priorities::new(5, 1.0, 0.4);
        priorities.set(&[0, 1, 2, 4], &[1.0, 2.0, 0.5, 8.0]);
        let (mut slots, mut importance) = ([0; 50], [0.0; 50]);
        priorities.sample(&mut slots, &mut importance, DRAW);
        for (&slot, &found) in slots.iter().zip(&importance) {
            let p = priorities.tree.weight(slot) / 11.5;
            let most = (4.0_f64 * 0.5 / 11.5).powf(-0.4);
            let wanted = (4.0 * p).powf(-0.4) / most;
            assert!((f64::from(found) - wanted).abs() < 1e-6);
        }
        assert!(!slots.contains(&3));
    }

    // A million draws of weights 1 to 200, in samples of 100: chi-square below the 1e-6 quantile
    // for 199 degrees of freedom. (Strata make it smaller than independent draws would.)
    #[test]
    fn draws_are_proportional() {
        let n = 200;
        let mut priorities = Priorities::new(n, 1.0, 0.4);
        let slots: Vec<u32> = (0..n as u32).collect();
        let weights: Vec<f64> = (0..n).map(|i| (i * 37 % n + 1) as f64).collect();
        priorities.set(&slots, &weights);
        let mut counts = vec![0.0_f64; n];
        let (mut drawn, mut importance) = ([0; 100], [0.0; 100]);
        for step in 0..10_000 {
            priorities.sample(&mut drawn, &mut importance, Draw { seed: 3, step });
            for slot in drawn {
                counts[slot as usize] += 1.0;
            }
        }
        let total: f64 = weights.iter().sum();
        let chi2: f64 = weights
            .iter()
            .zip(&counts)
            .map(|(w, c)| (c - 1e6 * w / total).powi(2) / (1e6 * w / total))
            .sum();
        assert!(chi2 < 307.0, "chi2 {chi2}");
    }
}
