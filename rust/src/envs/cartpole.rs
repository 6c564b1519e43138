//! Cart and pole (Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve
//! difficult learning control problems", 1983), with the names and the order of operations of
//! Gymnasium's `CartPoleEnv`, in f32.

use super::lanes::Lanes;
use super::task::{Discrete, Task, task};
use crate::philox::uniform;

task! {
    pub struct CartPole {
        gravity,
        masspole,
        total_mass,
        length,
        polemass_length,
        force_mag,
        tau,
        theta_threshold_radians,
        x_threshold,
        /// Reward of a step that does not terminate, and of one that does.
        reward,
        terminal_reward,
        /// Bounds of the initial state.
        low,
        high,
    }
}

impl Task for CartPole {
    type State = [f32; 4];
    type Obs = [f32; 4];
    type Action = Discrete<2>;

    #[inline(always)]
    fn step<L: Lanes>(
        params: &CartPole<L>,
        [x, x_dot, theta, theta_dot]: [L; 4],
        action: L,
    ) -> ([L; 4], L, L::Mask) {
        let &CartPole {
            gravity,
            masspole,
            total_mass,
            length,
            polemass_length,
            force_mag,
            tau,
            theta_threshold_radians,
            x_threshold,
            ..
        } = params;
        let zero = L::splat(0.0);

        let pushes_right = zero.less(action);
        let force = force_mag.select(zero - force_mag, pushes_right);
        let [sintheta, costheta] = theta.sin_cos();

        let temp = (force + polemass_length * (theta_dot * theta_dot) * sintheta) / total_mass;
        let thetaacc = (gravity * sintheta - costheta * temp)
            / (length * (L::splat(4.0 / 3.0) - masspole * (costheta * costheta) / total_mass));
        let xacc = temp - polemass_length * thetaacc * costheta / total_mass;

        let x = x + tau * x_dot;
        let x_dot = x_dot + tau * xacc;
        let theta = theta + tau * theta_dot;
        let theta_dot = theta_dot + tau * thetaacc;

        let terminated = x.less(zero - x_threshold)
            | x_threshold.less(x)
            | theta.less(zero - theta_threshold_radians)
            | theta_threshold_radians.less(theta);
        let reward = params.terminal_reward.select(params.reward, terminated);
        ([x, x_dot, theta, theta_dot], reward, terminated)
    }

    #[inline(always)]
    fn observe<L: Lanes>(state: [L; 4]) -> [L; 4] {
        state
    }

    #[inline(always)]
    fn initial(&self, words: [u32; 4]) -> [f32; 4] {
        words.map(|word| uniform(word, self.low, self.high))
    }

    #[inline(always)]
    fn random_action(&self, word: u32) -> i64 {
        Discrete::<2>::choice(word)
    }
}
