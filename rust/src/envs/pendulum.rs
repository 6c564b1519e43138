//! Pendulum with a motor at its joint, with the names and the order of operations of Gymnasium's
//! `PendulumEnv`, in f32.

use super::lanes::Lanes;
use super::task::{Continuous, Task, task};
use super::trigonometry::angle_normalize;
use crate::philox::uniform;

task! {
    pub struct Pendulum {
        max_speed,
        max_torque,
        dt,
        /// 3 g / (2 l) and 3 / (m l^2).
        gravity_factor,
        torque_factor,
        /// Bounds of the initial angle and velocity, on both sides of 0.
        x_init,
        y_init,
    }
}

impl Task for Pendulum {
    /// Angle and angular velocity.
    type State = [f32; 2];
    /// Cosine and sine of the angle, and the angular velocity.
    type Obs = [f32; 3];
    type Action = Continuous;

    #[inline(always)]
    fn step<L: Lanes>(
        params: &Pendulum<L>,
        [th, thdot]: [L; 2],
        action: L,
    ) -> ([L; 2], L, L::Mask) {
        let &Pendulum {
            max_speed,
            max_torque,
            dt,
            gravity_factor,
            torque_factor,
            ..
        } = params;
        let zero = L::splat(0.0);

        let u = action.clip(zero - max_torque, max_torque);
        // Gymnasium's angle grows from turn to turn, which costs f32 its accuracy.
        let th = angle_normalize(th);
        let [sin, _] = th.sin_cos();
        let costs = th * th + L::splat(0.1) * (thdot * thdot) + L::splat(0.001) * (u * u);

        let newthdot = thdot + (gravity_factor * sin + torque_factor * u) * dt;
        let newthdot = newthdot.clip(zero - max_speed, max_speed);
        let newth = th + newthdot * dt;
        ([newth, newthdot], zero - costs, zero.less(zero))
    }

    #[inline(always)]
    fn observe<L: Lanes>([th, thdot]: [L; 2]) -> [L; 3] {
        let [sin, cos] = th.sin_cos();
        [cos, sin, thdot]
    }

    #[inline(always)]
    fn initial(&self, words: [u32; 4]) -> [f32; 2] {
        [
            uniform(words[0], -self.x_init, self.x_init),
            uniform(words[1], -self.y_init, self.y_init),
        ]
    }

    #[inline(always)]
    fn random_action(&self, word: u32) -> f32 {
        uniform(word, -self.max_torque, self.max_torque)
    }
}
