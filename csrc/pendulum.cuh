// Pendulum with a motor at its joint, with the names and the order of operations of Gymnasium's
// PendulumEnv, in f32; rust/src/envs/pendulum.rs is the same text.
#pragma once

#include "rng.cuh"
#include "trigonometry.cuh"

struct Pendulum {
    struct Params {
        float max_speed;
        float max_torque;
        float dt;
        // 3 g / (2 l) and 3 / (m l^2).
        float gravity_factor;
        float torque_factor;
        // Bounds of the initial angle and velocity, on both sides of 0.
        float x_init;
        float y_init;
    };

    struct alignas(8) State {
        float th, thdot;
    };

    struct Obs {
        float cos, sin, thdot;
    };

    using Action = float;

    static constexpr bool SLIPS = false;

    struct Outcome {
        State state;
        float reward;
        bool terminated;
    };

    HD static State initial(const Params& params, const Words& words) {
        return {uniform(words.word[0], -params.x_init, params.x_init),
                uniform(words.word[1], -params.y_init, params.y_init)};
    }

    HD static Obs observe(const State& state) {
        const auto [sin, cos] = sin_cos(state.th);
        return {cos, sin, state.thdot};
    }

    HD static float random_action(const Params& params, u32 word) {
        return uniform(word, -params.max_torque, params.max_torque);
    }

    HD static Outcome step(const Params& params, const State& state, float action) {
        const float u = clip(action, -params.max_torque, params.max_torque);
        // Gymnasium's angle grows from turn to turn, which costs f32 its accuracy.
        const float th = angle_normalize(state.th);
        const float thdot = state.thdot;
        const auto [sin, cos] = sin_cos(th);
        const float costs = th * th + 0.1f * (thdot * thdot) + 0.001f * (u * u);

        const float newthdot =
            clip(thdot + (params.gravity_factor * sin + params.torque_factor * u) * params.dt,
                 -params.max_speed, params.max_speed);
        const float newth = th + newthdot * params.dt;
        return {{newth, newthdot}, 0.0f - costs, false};
    }
};
