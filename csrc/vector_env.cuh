// Episodes of a batch of environments: automatic reset, time limit and statistics, for any task.
#pragma once

#include "rng.cuh"

enum Autoreset : int {
    // The next step resets: its action is ignored, the reward is 0, no flag is set.
    NEXT_STEP = 0,
    // The step that ends the episode also resets.
    SAME_STEP = 1,
    // An ended environment rests until it is reset: reward 0, no flag.
    DISABLED = 2,
};

template <class Task>
struct Rules {
    typename Task::Params params;
    Autoreset autoreset;
    int max_episode_steps;
};

// The rules of environment `index` where each has its own: a row of `num_envs` numbers per
// constant, and step limits.
template <class Task>
HD Rules<Task> rules_of_each(const float* columns, const int* limits, i64 num_envs, i64 index,
                             Autoreset autoreset) {
    constexpr int count = sizeof(typename Task::Params) / sizeof(float);
    Rules<Task> rules;
    rules.autoreset = autoreset;
    rules.max_episode_steps = limits[index];
    float* constants = reinterpret_cast<float*>(&rules.params);
    UNROLL
    for (int i = 0; i < count; ++i) constants[i] = columns[i * num_envs + index];
    return rules;
}

// The caller's arrays, one entry per environment.
template <class Task>
struct Arrays {
    typename Task::State* state;
    int* elapsed;
    u32* episode;
    const u64* seed;
    unsigned char* ended;
    float* episode_return;
};

// Where results go; the last three may be null.
template <class Task>
struct Outputs {
    typename Task::Obs* obs;
    float* rewards;
    unsigned char* terminated;
    unsigned char* truncated;
    typename Task::Obs* final_obs;
    float* final_return;
    int* final_length;
};

// What a thread keeps in registers from step to step.
template <class Task>
struct Env {
    typename Task::State state;
    int elapsed;
    bool ended;
    float episode_return;
};

template <class Task>
HD Env<Task> load(const Arrays<Task>& arrays, i64 index) {
    return {arrays.state[index], arrays.elapsed[index], arrays.ended[index] != 0,
            arrays.episode_return[index]};
}

template <class Task>
HD void store(const Arrays<Task>& arrays, i64 index, const Env<Task>& env) {
    arrays.state[index] = env.state;
    arrays.elapsed[index] = env.elapsed;
    arrays.ended[index] = env.ended;
    arrays.episode_return[index] = env.episode_return;
}

template <class Task>
HD Env<Task> begin_episode(const typename Task::Params& params, u64 seed, i64 index, u32 episode) {
    const Words words = philox(seed, index, episode, ENV_RESET);
    return {Task::initial(params, words), 0, false, 0.0f};
}

template <class Task>
HD Env<Task> begin_next_episode(const typename Task::Params& params, const Arrays<Task>& arrays,
                                i64 index) {
    const u32 episode = arrays.episode[index] + 1;
    arrays.episode[index] = episode;
    return begin_episode<Task>(params, arrays.seed[index], index, episode);
}

// The action that happens in a task in which chance has a part in steps.
template <class Task>
HD typename Task::Action slip(const typename Task::Params& params, u64 seed, i64 index, u32 episode,
                              int elapsed, typename Task::Action action) {
    if constexpr (Task::SLIPS) {
        const u64 draw = static_cast<u64>(index) | static_cast<u64>(episode) << 32;
        const Words words = philox(seed, draw, static_cast<u32>(elapsed), ENV_STEP);
        return Task::slip(params, action, unit(words.word[0]));
    } else {
        return action;
    }
}

// One step of an environment, whose results but the observation go to entry `slot` of the outputs;
// gives whether a new episode begins now.
template <class Task>
HD bool step(const Rules<Task>& rules, typename Task::Action action, Env<Task>& env,
             const Outputs<Task>& outputs, i64 slot) {
    const bool rests = env.ended;
    float reward = 0.0f;
    bool terminated = false;
    bool truncated = false;
    if (!rests) {
        const auto outcome = Task::step(rules.params, env.state, action);
        env.state = outcome.state;
        reward = outcome.reward;
        terminated = outcome.terminated;
        env.elapsed = static_cast<int>(static_cast<u32>(env.elapsed) + 1u);
        env.episode_return += reward;
        truncated = env.elapsed >= rules.max_episode_steps;
    }
    const bool ends = terminated || truncated;
    env.ended = rests || ends;
    outputs.rewards[slot] = reward;
    outputs.terminated[slot] = terminated;
    outputs.truncated[slot] = truncated;
    if (outputs.final_return) {
        outputs.final_return[slot] = ends ? env.episode_return : 0.0f;
    }
    if (outputs.final_length) {
        outputs.final_length[slot] = ends ? env.elapsed : 0;
    }
    if (rules.autoreset == SAME_STEP && ends && outputs.final_obs) {
        outputs.final_obs[slot] = Task::observe(env.state);
    }
    return rules.autoreset == NEXT_STEP ? rests : rules.autoreset == SAME_STEP && ends;
}

template <class Task>
HD void step_batch_entry(const Rules<Task>& rules, const Arrays<Task>& arrays, i64 index,
                         const typename Task::Action* actions, const Outputs<Task>& outputs) {
    Env<Task> env = load(arrays, index);
    const auto action = slip<Task>(rules.params, arrays.seed[index], index, arrays.episode[index],
                                   env.elapsed, actions[index]);
    if (step(rules, action, env, outputs, index)) {
        env = begin_next_episode(rules.params, arrays, index);
    }
    outputs.obs[index] = Task::observe(env.state);
    store(arrays, index, env);
}

// `num_steps` steps of one environment, which stays in registers; row t of actions and outputs
// belongs to step t. With DRAWN the environment's own stream gives the actions, which are written
// to `actions` unless that is null. A draw depends on seed, index, episode and elapsed steps.
template <bool DRAWN, class Task>
HD void rollout_batch_entry(const Rules<Task>& rules, const Arrays<Task>& arrays, i64 index,
                            i64 num_envs, int num_steps, typename Task::Action* actions,
                            const Outputs<Task>& outputs) {
    Env<Task> env = load(arrays, index);
    const u64 seed = arrays.seed[index];
    const u32 first_episode = arrays.episode[index];
    u32 episode = first_episode;
    i64 slot = index;
    for (int t = 0; t < num_steps; ++t, slot += num_envs) {
        typename Task::Action action;
        if (DRAWN) {
            const u64 draw = static_cast<u64>(index) | static_cast<u64>(episode) << 32;
            const Words words = philox(seed, draw, static_cast<u32>(env.elapsed), ACTION);
            action = Task::random_action(rules.params, words.word[0]);
            if (actions) actions[slot] = action;
        } else {
            action = actions[slot];
        }
        action = slip<Task>(rules.params, seed, index, episode, env.elapsed, action);
        if (step(rules, action, env, outputs, slot)) {
            env = begin_episode<Task>(rules.params, seed, index, ++episode);
        }
        outputs.obs[slot] = Task::observe(env.state);
    }
    if (episode != first_episode) arrays.episode[index] = episode;
    store(arrays, index, env);
}

// A new episode where the mask (null: everywhere) is set; the observation is copied in any case.
template <class Task>
HD void reset_batch_entry(const typename Task::Params& params, const Arrays<Task>& arrays,
                          i64 index, const unsigned char* mask, typename Task::Obs* obs) {
    if (!mask || mask[index]) {
        store(arrays, index, begin_next_episode(params, arrays, index));
    }
    obs[index] = Task::observe(arrays.state[index]);
}
