//! Car between two hills with an engine of any power (Moore, "Efficient memory-based learning for
//! robot control", 1990), with the names and the order of operations of Gymnasium's
//! `Continuous_MountainCarEnv`, in f32.

use super::lanes::Lanes;
use super::task::{Continuous, Task, task};
use crate::philox::uniform;

task! {
    pub struct MountainCarContinuous {
        min_action,
        max_action,
        min_position,
        max_position,
        max_speed,
        goal_position,
        goal_velocity,
        power,
        /// Bounds of the initial position.
        low,
        high,
    }
}

impl Task for MountainCarContinuous {
    /// Position and velocity.
    type State = [f32; 2];
    type Obs = [f32; 2];
    type Action = Continuous;

    #[inline(always)]
    fn step<L: Lanes>(
        params: &MountainCarContinuous<L>,
        [position, velocity]: [L; 2],
        action: L,
    ) -> ([L; 2], L, L::Mask) {
        let &MountainCarContinuous {
            min_position,
            max_position,
            max_speed,
            min_action,
            max_action,
            power,
            ..
        } = params;
        let zero = L::splat(0.0);

        let force = action.clip(min_action, max_action);
        let [_, cos] = (L::splat(3.0) * position).sin_cos();
        let velocity = velocity + (force * power - L::splat(0.0025) * cos);
        let velocity = velocity.clip(zero - max_speed, max_speed);
        let position = (position + velocity).clip(min_position, max_position);
        let stopped = min_position.at_least(position) & velocity.less(zero);
        let velocity = zero.select(velocity, stopped);

        let terminated =
            position.at_least(params.goal_position) & velocity.at_least(params.goal_velocity);
        // The action as it came, not as it was clipped.
        let reward = L::splat(100.0).select(zero, terminated) - (action * action) * L::splat(0.1);
        ([position, velocity], reward, terminated)
    }

    #[inline(always)]
    fn observe<L: Lanes>(state: [L; 2]) -> [L; 2] {
        state
    }

    #[inline(always)]
    fn initial(&self, words: [u32; 4]) -> [f32; 2] {
        [uniform(words[0], self.low, self.high), 0.0]
    }

    #[inline(always)]
    fn random_action(&self, word: u32) -> f32 {
        uniform(word, self.min_action, self.max_action)
    }
}
