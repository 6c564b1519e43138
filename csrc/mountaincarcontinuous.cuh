// Car between two hills with an engine of any power (Moore, "Efficient memory-based learning for
// robot control", 1990), with the names and the order of operations of Gymnasium's
// Continuous_MountainCarEnv, in f32; rust/src/envs/mountaincarcontinuous.rs is the same text.
#pragma once

#include "rng.cuh"
#include "trigonometry.cuh"

struct MountainCarContinuous {
    struct Params {
        float min_action;
        float max_action;
        float min_position;
        float max_position;
        float max_speed;
        float goal_position;
        float goal_velocity;
        float power;
        // Bounds of the initial position.
        float low;
        float high;
    };

    struct alignas(8) State {
        float position, velocity;
    };
    using Obs = State;
    using Action = float;

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

    HD static float random_action(const Params& params, u32 word) {
        return uniform(word, params.min_action, params.max_action);
    }

    HD static Outcome step(const Params& params, const State& state, float action) {
        const float force = clip(action, params.min_action, params.max_action);
        const auto [sin, cos] = sin_cos(3.0f * state.position);
        float velocity = state.velocity + (force * params.power - 0.0025f * cos);
        velocity = clip(velocity, -params.max_speed, params.max_speed);
        const float position =
            clip(state.position + velocity, params.min_position, params.max_position);
        if (position <= params.min_position && velocity < 0.0f) velocity = 0.0f;

        const bool terminated =
            position >= params.goal_position && velocity >= params.goal_velocity;
        // The action as it came, not as it was clipped.
        const float reward = (terminated ? 100.0f : 0.0f) - (action * action) * 0.1f;
        return {{position, velocity}, reward, terminated};
    }
};
