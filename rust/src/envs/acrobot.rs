//! Two links with a motor between them (Sutton, "Generalization in reinforcement learning:
//! successful examples using sparse coarse coding", NIPS 1996; the equations of motion of Sutton
//! and Barto's book), with the names of Gymnasium's `AcrobotEnv`, in f32.

use super::lanes::Lanes;
use super::task::{Discrete, Task, task};
use super::trigonometry::angle_normalize;
use crate::philox::uniform;

task! {
    #[allow(clippy::struct_field_names)]
    pub struct Acrobot {
        dt,
        link_length_1,
        link_mass_1,
        link_mass_2,
        link_com_pos_1,
        link_com_pos_2,
        link_moi,
        max_vel_1,
        max_vel_2,
        /// Bounds of the initial state.
        low,
        high,
    }
}

impl<L: Lanes> Acrobot<L> {
    /// The derivative of the state. Gymnasium's cosine of an angle less a quarter turn is its
    /// sine here.
    #[inline(always)]
    fn dsdt(&self, [theta1, theta2, dtheta1, dtheta2]: [L; 4], torque: L) -> [L; 4] {
        let (m1, m2, l1) = (self.link_mass_1, self.link_mass_2, self.link_length_1);
        let (lc1, lc2, moi) = (self.link_com_pos_1, self.link_com_pos_2, self.link_moi);
        let [g, two] = [9.8, 2.0].map(L::splat);
        let coupling = m2 * l1 * lc2;
        let [sin2, cos2] = theta2.sin_cos();
        let [sin1, _] = theta1.sin_cos();
        let [sin12, _] = (theta1 + theta2).sin_cos();

        let d1 = (m1 * lc1 * lc1 + m2 * (l1 * l1 + lc2 * lc2) + moi + moi) + two * coupling * cos2;
        let d2 = (m2 * lc2 * lc2 + moi) + coupling * cos2;
        let phi2 = (m2 * lc2 * g) * sin12;
        let phi1 = ((m1 * lc1 + m2 * l1) * g) * sin1 + phi2
            - coupling * sin2 * (dtheta2 * dtheta2 + two * dtheta2 * dtheta1);
        let ddtheta2 = (torque + d2 / d1 * phi1 - coupling * (dtheta1 * dtheta1) * sin2 - phi2)
            / ((m2 * lc2 * lc2 + moi) - d2 * d2 / d1);
        let ddtheta1 = L::splat(0.0) - (d2 * ddtheta2 + phi1) / d1;
        [dtheta1, dtheta2, ddtheta1, ddtheta2]
    }
}

/// `state + time * slope`
#[inline(always)]
fn ahead<L: Lanes>(state: [L; 4], time: L, slope: [L; 4]) -> [L; 4] {
    std::array::from_fn(|i| state[i] + time * slope[i])
}

impl Task for Acrobot {
    /// Angle of the first link from hanging down, angle of the second from the first, and their
    /// velocities.
    type State = [f32; 4];
    /// Cosine and sine of both angles, and the velocities.
    type Obs = [f32; 6];
    type Action = Discrete<3>;

    /// One step of the classic Runge-Kutta method.
    #[inline(always)]
    fn step<L: Lanes>(params: &Acrobot<L>, state: [L; 4], action: L) -> ([L; 4], L, L::Mask) {
        let &Acrobot {
            dt,
            max_vel_1,
            max_vel_2,
            ..
        } = params;
        let [zero, one, two, six] = [0.0, 1.0, 2.0, 6.0].map(L::splat);
        let half = dt / two;

        let torque = action - one;
        let k1 = params.dsdt(state, torque);
        let k2 = params.dsdt(ahead(state, half, k1), torque);
        let k3 = params.dsdt(ahead(state, half, k2), torque);
        let k4 = params.dsdt(ahead(state, dt, k3), torque);
        let slope = std::array::from_fn(|i| k1[i] + two * k2[i] + two * k3[i] + k4[i]);
        let [theta1, theta2, dtheta1, dtheta2] = ahead(state, dt / six, slope);

        let theta1 = angle_normalize(theta1);
        let theta2 = angle_normalize(theta2);
        let dtheta1 = dtheta1.clip(zero - max_vel_1, max_vel_1);
        let dtheta2 = dtheta2.clip(zero - max_vel_2, max_vel_2);

        let [_, cos1] = theta1.sin_cos();
        let [_, cos12] = (theta2 + theta1).sin_cos();
        let terminated = one.less(zero - cos1 - cos12);
        let reward = zero.select(zero - one, terminated);
        ([theta1, theta2, dtheta1, dtheta2], reward, terminated)
    }

    #[inline(always)]
    fn observe<L: Lanes>([theta1, theta2, dtheta1, dtheta2]: [L; 4]) -> [L; 6] {
        let [sin1, cos1] = theta1.sin_cos();
        let [sin2, cos2] = theta2.sin_cos();
        [cos1, sin1, cos2, sin2, dtheta1, dtheta2]
    }

    #[inline(always)]
    fn initial(&self, words: [u32; 4]) -> [f32; 4] {
        words.map(|word| uniform(word, self.low, self.high))
    }

    #[inline(always)]
    fn random_action(&self, word: u32) -> i64 {
        Discrete::<3>::choice(word)
    }
}
