// Cart and pole (Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve
// difficult learning control problems", 1983), with the names and the order of operations of
// Gymnasium's CartPoleEnv, in f32; rust/src/envs/cartpole.rs is the same text.
#pragma once

#include "rng.cuh"
#include "trigonometry.cuh"

struct CartPole {
    struct Params {
        float gravity;
        float masspole;
        float total_mass;
        float length;
        float polemass_length;
        float force_mag;
        float tau;
        float theta_threshold_radians;
        float x_threshold;
        // Reward of a step that does not terminate, and of one that does.
        float reward;
        float terminal_reward;
        // Bounds of the initial state.
        float low;
        float high;
    };

    // The observation is the state: one 16-byte access.
    struct alignas(16) State {
        float x, x_dot, theta, theta_dot;
    };
    using Obs = State;
    using Action = i64;

    static constexpr bool SLIPS = false;

    struct Outcome {
        State state;
        float reward;
        bool terminated;
    };

    HD static Obs observe(const State& state) { return state; }

    HD static State initial(const Params& params, const Words& words) {
        return {uniform(words.word[0], params.low, params.high),
                uniform(words.word[1], params.low, params.high),
                uniform(words.word[2], params.low, params.high),
                uniform(words.word[3], params.low, params.high)};
    }

    HD static i64 random_action(const Params&, u32 word) { return choice(word, 2); }

    // Every action but 1 pushes to the left.
    HD static Outcome step(const Params& params, const State& state, i64 action) {
        const auto [x, x_dot, theta, theta_dot] = state;
        const float force = action == 1 ? params.force_mag : 0.0f - params.force_mag;
        const auto [sintheta, costheta] = sin_cos(theta);

        const float temp = (force + params.polemass_length * (theta_dot * theta_dot) * sintheta) /
                           params.total_mass;
        const float thetaacc =
            (params.gravity * sintheta - costheta * temp) /
            (params.length *
             (4.0f / 3.0f - params.masspole * (costheta * costheta) / params.total_mass));
        const float xacc = temp - params.polemass_length * thetaacc * costheta / params.total_mass;

        const State next = {x + params.tau * x_dot, x_dot + params.tau * xacc,
                            theta + params.tau * theta_dot, theta_dot + params.tau * thetaacc};
        const bool terminated = next.x < -params.x_threshold || next.x > params.x_threshold ||
                                next.theta < -params.theta_threshold_radians ||
                                next.theta > params.theta_threshold_radians;
        return {next, terminated ? params.terminal_reward : params.reward, terminated};
    }
};
