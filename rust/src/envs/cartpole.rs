//! Cart and pole (Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve
//! difficult learning control problems", 1983), with the names and the order of operations of
//! Gymnasium's `CartPoleEnv`, in f32.

use super::task::Task;
use super::trigonometry::{is_near, sin_cos, sin_cos_near};
use crate::philox::unit_f32;

/// The task's constants; the order is the one in which callers pass them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct CartPole {
    pub gravity: f32,
    pub masspole: f32,
    pub total_mass: f32,
    pub length: f32,
    pub polemass_length: f32,
    pub force_mag: f32,
    pub tau: f32,
    pub theta_threshold_radians: f32,
    pub x_threshold: f32,
    /// Reward of a step that does not terminate, and of one that does.
    pub reward: f32,
    pub terminal_reward: f32,
    /// Bounds of the initial state.
    pub low: f32,
    pub high: f32,
}

impl CartPole {
    pub const NUM_PARAMS: usize = 13;

    #[must_use]
    pub fn from_params(params: [f32; Self::NUM_PARAMS]) -> Self {
        let [
            gravity,
            masspole,
            total_mass,
            length,
            polemass_length,
            force_mag,
            tau,
            rest @ ..,
        ] = params;
        let [
            theta_threshold_radians,
            x_threshold,
            reward,
            terminal_reward,
            low,
            high,
        ] = rest;
        Self {
            gravity,
            masspole,
            total_mass,
            length,
            polemass_length,
            force_mag,
            tau,
            theta_threshold_radians,
            x_threshold,
            reward,
            terminal_reward,
            low,
            high,
        }
    }

    #[inline(always)]
    fn dynamics(
        &self,
        [x, x_dot, theta, theta_dot]: [f32; 4],
        action: i64,
        (sintheta, costheta): (f32, f32),
    ) -> ([f32; 4], f32, bool) {
        let force = if action == 1 {
            self.force_mag
        } else {
            -self.force_mag
        };
        let temp =
            (force + self.polemass_length * (theta_dot * theta_dot) * sintheta) / self.total_mass;
        let thetaacc = (self.gravity * sintheta - costheta * temp)
            / (self.length * (4.0 / 3.0 - self.masspole * (costheta * costheta) / self.total_mass));
        let xacc = temp - self.polemass_length * thetaacc * costheta / self.total_mass;

        let x = x + self.tau * x_dot;
        let x_dot = x_dot + self.tau * xacc;
        let theta = theta + self.tau * theta_dot;
        let theta_dot = theta_dot + self.tau * thetaacc;

        let terminated = (x < -self.x_threshold)
            | (x > self.x_threshold)
            | (theta < -self.theta_threshold_radians)
            | (theta > self.theta_threshold_radians);
        let reward = if terminated {
            self.terminal_reward
        } else {
            self.reward
        };
        ([x, x_dot, theta, theta_dot], reward, terminated)
    }
}

impl Task for CartPole {
    type State = [f32; 4];
    const NUM_ACTIONS: i64 = 2;

    #[inline(always)]
    fn is_near(&self, state: &[f32; 4]) -> bool {
        is_near(state[2])
    }

    #[inline(always)]
    fn step_near(&self, state: [f32; 4], action: i64) -> ([f32; 4], f32, bool) {
        self.dynamics(state, action, sin_cos_near(state[2]))
    }

    #[inline]
    fn step(&self, state: [f32; 4], action: i64) -> ([f32; 4], f32, bool) {
        self.dynamics(state, action, sin_cos(state[2]))
    }

    #[inline(always)]
    fn initial(&self, words: [u32; 4]) -> [f32; 4] {
        words.map(|word| self.low + unit_f32(word) * (self.high - self.low))
    }
}
