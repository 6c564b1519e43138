// A walk over ice with holes in it, on Gymnasium's 4 x 4 map, with the names and the order of
// FrozenLakeEnv; rust/src/envs/frozenlake.rs is the same.
#pragma once

#include "rng.cuh"

struct FrozenLake {
    struct Params {
        // A random number below the first turns the action left, one from the second on right.
        float left_below;
        float right_from;
        float reward_goal;
        float reward_hole;
        float reward_frozen;
    };

    // The cell, row after row.
    struct State {
        int cell;
    };

    // One number per cell, 1 at the cell.
    struct alignas(16) Obs {
        float cells[16];
    };

    // Left, down, right, up.
    using Action = i64;

    struct Outcome {
        State state;
        float reward;
        bool terminated;
    };

    static constexpr bool SLIPS = true;
    static constexpr int SIDE = 4;
    // Cells 5, 7, 11 and 12.
    static constexpr u32 HOLES = 1u << 5 | 1u << 7 | 1u << 11 | 1u << 12;
    static constexpr int GOAL = 15;

    HD static bool is_hole(int cell) { return HOLES >> cell & 1u; }

    HD static State initial(const Params&, const Words&) { return {0}; }

    HD static Obs observe(const State& state) {
        Obs obs;
        UNROLL
        for (int i = 0; i < 16; ++i) obs.cells[i] = i == state.cell ? 1.0f : 0.0f;
        return obs;
    }

    HD static i64 random_action(const Params&, u32 word) { return choice(word, 4); }

    // The action that happens. Every action but 1, 2 and 3 is taken like 0.
    HD static i64 slip(const Params& params, i64 action, float noise) {
        const i64 chosen = action >= 0 && action <= 3 ? action : 0;
        if (noise < params.left_below) return (chosen + 3) & 3;
        return noise >= params.right_from ? (chosen + 1) & 3 : chosen;
    }

    HD static Outcome step(const Params& params, const State& state, i64 action) {
        const int cell = state.cell;
        // Whoever is in a hole or at the goal stays there.
        if (is_hole(cell) || cell == GOAL) return {state, 0.0f, true};
        int row = cell / SIDE;
        int col = cell % SIDE;
        if (action == 0 && col > 0) --col;
        if (action == 1 && row < SIDE - 1) ++row;
        if (action == 2 && col < SIDE - 1) ++col;
        if (action == 3 && row > 0) --row;
        const int next = row * SIDE + col;
        const bool in_hole = is_hole(next);
        const bool at_goal = next == GOAL;
        const float reward = at_goal   ? params.reward_goal
                             : in_hole ? params.reward_hole
                                       : params.reward_frozen;
        return {{next}, reward, in_hole || at_goal};
    }
};
