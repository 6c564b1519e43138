//! Car between two hills (Moore, "Efficient memory-based learning for robot control", 1990), with
//! the names and the order of operations of Gymnasium's `MountainCarEnv`, in f32.

use super::lanes::Lanes;
use super::task::{Discrete, Task, task};
use crate::philox::uniform;

task! {
    pub struct MountainCar {
        min_position,
        max_position,
        max_speed,
        goal_position,
        goal_velocity,
        force,
        gravity,
        /// Bounds of the initial position.
        low,
        high,
    }
}

impl Task for MountainCar {
    /// Position and velocity.
    type State = [f32; 2];
    type Obs = [f32; 2];
    type Action = Discrete<3>;

    #[inline(always)]
    fn step<L: Lanes>(
        params: &MountainCar<L>,
        [position, velocity]: [L; 2],
        action: L,
    ) -> ([L; 2], L, L::Mask) {
        let &MountainCar {
            min_position,
            max_position,
            max_speed,
            force,
            gravity,
            ..
        } = params;
        let zero = L::splat(0.0);

        let [_, cos] = (L::splat(3.0) * position).sin_cos();
        let velocity = velocity + ((action - L::splat(1.0)) * force + cos * (zero - gravity));
        let velocity = velocity.clip(zero - max_speed, max_speed);
        let position = (position + velocity).clip(min_position, max_position);
        let stopped = min_position.at_least(position) & velocity.less(zero);
        let velocity = zero.select(velocity, stopped);

        let terminated =
            position.at_least(params.goal_position) & velocity.at_least(params.goal_velocity);
        ([position, velocity], L::splat(-1.0), terminated)
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
    fn random_action(&self, word: u32) -> i64 {
        Discrete::<3>::choice(word)
    }
}
