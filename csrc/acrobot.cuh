// Two links with a motor between them (Sutton, "Generalization in reinforcement learning:
// successful examples using sparse coarse coding", NIPS 1996; the equations of motion of Sutton
// and Barto's book), with the names of Gymnasium's AcrobotEnv, in f32; rust/src/envs/acrobot.rs is
// the same text.
#pragma once

#include "rng.cuh"
#include "trigonometry.cuh"

struct Acrobot {
    struct Params {
        float dt;
        float link_length_1;
        float link_mass_1;
        float link_mass_2;
        float link_com_pos_1;
        float link_com_pos_2;
        float link_moi;
        float max_vel_1;
        float max_vel_2;
        // Bounds of the initial state.
        float low;
        float high;
    };

    // Angle of the first link from hanging down, angle of the second from the first.
    struct alignas(16) State {
        float theta1, theta2, dtheta1, dtheta2;
    };

    struct alignas(8) Obs {
        float cos1, sin1, cos2, sin2, dtheta1, dtheta2;
    };

    using Action = i64;

    static constexpr bool SLIPS = false;

    struct Outcome {
        State state;
        float reward;
        bool terminated;
    };

    HD static State initial(const Params& params, const Words& words) {
        return {uniform(words.word[0], params.low, params.high),
                uniform(words.word[1], params.low, params.high),
                uniform(words.word[2], params.low, params.high),
                uniform(words.word[3], params.low, params.high)};
    }

    HD static Obs observe(const State& state) {
        const SinCos first = sin_cos(state.theta1);
        const SinCos second = sin_cos(state.theta2);
        return {first.cos, first.sin, second.cos, second.sin, state.dtheta1, state.dtheta2};
    }

    // The derivative of the state. Gymnasium's cosine of an angle less a quarter turn is its sine
    // here.
    HD static State dsdt(const Params& params, const State& state, float torque) {
        const float g = 9.8f;
        const float m1 = params.link_mass_1, m2 = params.link_mass_2, l1 = params.link_length_1;
        const float lc1 = params.link_com_pos_1, lc2 = params.link_com_pos_2;
        const float moi = params.link_moi;
        const float coupling = m2 * l1 * lc2;
        const auto [theta1, theta2, dtheta1, dtheta2] = state;
        const auto [sin2, cos2] = sin_cos(theta2);
        const float sin1 = sin_cos(theta1).sin;
        const float sin12 = sin_cos(theta1 + theta2).sin;

        const float d1 =
            (m1 * lc1 * lc1 + m2 * (l1 * l1 + lc2 * lc2) + moi + moi) + 2.0f * coupling * cos2;
        const float d2 = (m2 * lc2 * lc2 + moi) + coupling * cos2;
        const float phi2 = (m2 * lc2 * g) * sin12;
        const float phi1 = ((m1 * lc1 + m2 * l1) * g) * sin1 + phi2 -
                           coupling * sin2 * (dtheta2 * dtheta2 + 2.0f * dtheta2 * dtheta1);
        const float ddtheta2 =
            (torque + d2 / d1 * phi1 - coupling * (dtheta1 * dtheta1) * sin2 - phi2) /
            ((m2 * lc2 * lc2 + moi) - d2 * d2 / d1);
        const float ddtheta1 = 0.0f - (d2 * ddtheta2 + phi1) / d1;
        return {dtheta1, dtheta2, ddtheta1, ddtheta2};
    }

    // state + time * slope
    HD static State ahead(const State& state, float time, const State& slope) {
        return {state.theta1 + time * slope.theta1, state.theta2 + time * slope.theta2,
                state.dtheta1 + time * slope.dtheta1, state.dtheta2 + time * slope.dtheta2};
    }

    HD static float slope(float k1, float k2, float k3, float k4) {
        return k1 + 2.0f * k2 + 2.0f * k3 + k4;
    }

    HD static i64 random_action(const Params&, u32 word) { return choice(word, 3); }

    // One step of the classic Runge-Kutta method. Every action but 1 and 2 is taken like 0.
    HD static Outcome step(const Params& params, const State& state, i64 action) {
        const float torque = action == 1 ? 0.0f : action == 2 ? 1.0f : -1.0f;
        const float half = params.dt / 2.0f;
        const State k1 = dsdt(params, state, torque);
        const State k2 = dsdt(params, ahead(state, half, k1), torque);
        const State k3 = dsdt(params, ahead(state, half, k2), torque);
        const State k4 = dsdt(params, ahead(state, params.dt, k3), torque);
        const State sum = {slope(k1.theta1, k2.theta1, k3.theta1, k4.theta1),
                           slope(k1.theta2, k2.theta2, k3.theta2, k4.theta2),
                           slope(k1.dtheta1, k2.dtheta1, k3.dtheta1, k4.dtheta1),
                           slope(k1.dtheta2, k2.dtheta2, k3.dtheta2, k4.dtheta2)};
        State next = ahead(state, params.dt / 6.0f, sum);
        next.theta1 = angle_normalize(next.theta1);
        next.theta2 = angle_normalize(next.theta2);
        next.dtheta1 = clip(next.dtheta1, -params.max_vel_1, params.max_vel_1);
        next.dtheta2 = clip(next.dtheta2, -params.max_vel_2, params.max_vel_2);

        const float cos1 = sin_cos(next.theta1).cos;
        const float cos12 = sin_cos(next.theta2 + next.theta1).cos;
        const bool terminated = 0.0f - cos1 - cos12 > 1.0f;
        return {next, terminated ? 0.0f : -1.0f, terminated};
    }
};
