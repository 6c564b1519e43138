// Car between two hills (Moore, "Efficient memory-based learning for robot control", 1990), with
// the names and the order of operations of Gymnasium's MountainCarEnv, in f32;
// rust/src/envs/mountaincar.rs is the same text.
#pragma once

#include "rng.cuh"
#include "trigonometry.cuh"

struct MountainCar {
    struct Params {
        float min_position;
        float max_position;
        float max_speed;
        float goal_position;
        float goal_velocity;
        float force;
        float gravity;
        // Bounds of the initial position.
        float low;
        float high;
    };

    struct alignas(8) State {
        float position, velocity;
    };
    using Obs = State;
    using Action = i64;

    static constexpr bool SLIPS = false;

    struct Outcome {
        State state;
        float reward;
        bool terminated;
    };

    HD static State initial(const Params& params, const Words& words) {
        return {uniform(words.word[0], params.low, params.high), 0.0f};
    }

    HD static Obs observe(const State& state) { return state; }

    HD static i64 random_action(const Params&, u32 word) { return choice(word, 3); }

    // Every action but 1 and 2 is taken like 0.
    HD static Outcome step(const Params& params, const State& state, i64 action) {
        const float push = action == 1 ? 0.0f : action == 2 ? 1.0f : -1.0f;
        const auto [sin, cos] = sin_cos(3.0f * state.position);
        float velocity = state.velocity + (push * params.force + cos * (0.0f - params.gravity));
        velocity = clip(velocity, -params.max_speed, params.max_speed);
        const float position =
            clip(state.position + velocity, params.min_position, params.max_position);
        if (position <= params.min_position && velocity < 0.0f) velocity = 0.0f;

        const bool terminated =
            position >= params.goal_position && velocity >= params.goal_velocity;
        return {{position, velocity}, -1.0f, terminated};
    }
};
