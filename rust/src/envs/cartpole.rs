//! Cart and pole (Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve
//! difficult learning control problems", 1983), with the names and the order of operations of
//! Gymnasium's `CartPoleEnv`, in f32.
#![allow(unsafe_code)]

use super::lanes::{Lanes, Register};
use super::task::Task;
use super::trigonometry::{sin_cos, sin_cos_near_lanes};
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

    /// The next state, the reward, and whether the state is terminal.
    #[inline(always)]
    fn dynamics<L: Lanes>(
        &self,
        [x, x_dot, theta, theta_dot]: [L; 4],
        pushes_right: L::Mask,
        [sintheta, costheta]: [L; 2],
    ) -> ([L; 4], L, L::Mask) {
        let [gravity, masspole, total_mass, length] =
            [self.gravity, self.masspole, self.total_mass, self.length].map(L::splat);
        let [polemass_length, tau] = [self.polemass_length, self.tau].map(L::splat);

        let force = L::splat(self.force_mag).select(L::splat(-self.force_mag), pushes_right);
        let temp = (force + polemass_length * (theta_dot * theta_dot) * sintheta) / total_mass;
        let thetaacc = (gravity * sintheta - costheta * temp)
            / (length * (L::splat(4.0 / 3.0) - masspole * (costheta * costheta) / total_mass));
        let xacc = temp - polemass_length * thetaacc * costheta / total_mass;

        let x = x + tau * x_dot;
        let x_dot = x_dot + tau * xacc;
        let theta = theta + tau * theta_dot;
        let theta_dot = theta_dot + tau * thetaacc;

        let terminated = x.less(L::splat(-self.x_threshold))
            | L::splat(self.x_threshold).less(x)
            | theta.less(L::splat(-self.theta_threshold_radians))
            | L::splat(self.theta_threshold_radians).less(theta);
        let reward = L::splat(self.terminal_reward).select(L::splat(self.reward), terminated);
        ([x, x_dot, theta, theta_dot], reward, terminated)
    }
}

impl Task for CartPole {
    const NUM_ACTIONS: i64 = 2;

    /// Every action but 1 pushes to the left.
    #[inline(always)]
    fn step(&self, state: [f32; 4], action: i64) -> ([f32; 4], f32, bool) {
        self.dynamics(state, action == 1, sin_cos(state[2]))
    }

    #[inline(always)]
    unsafe fn step_lanes<R: Register>(
        &self,
        state: [R; 4],
        actions: *const i64,
    ) -> Option<([R; 4], R, R::Mask)> {
        // SAFETY: the caller's promise is the same.
        let pushes_right = unsafe { R::actions_equal(actions, 1) };
        let sin_cos = sin_cos_near_lanes(state[2])?;
        Some(self.dynamics(state, pushes_right, sin_cos))
    }

    #[inline(always)]
    fn initial(&self, words: [u32; 4]) -> [f32; 4] {
        words.map(|word| self.low + unit_f32(word) * (self.high - self.low))
    }
}
