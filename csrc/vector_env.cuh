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
HD Env<Task> begin_episode(const typename Task::Params& params, const Arrays<Task>& arrays,
                           i64 index) {
    const u32 episode = arrays.episode[index] + 1;
    arrays.episode[index] = episode;
    const Words words = philox(arrays.seed[index], index, episode, ENV_RESET);
    return {Task::initial(params, words), 0, false, 0.0f};
}

// One step of environment `index`, whose results go to entry `slot` of the outputs.
template <class Task>
HD void step(const Rules<Task>& rules, const Arrays<Task>& arrays, i64 index,
             typename Task::Action action, Env<Task>& env, const Outputs<Task>& outputs, i64 slot) {
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
    if (rules.autoreset == NEXT_STEP ? rests : rules.autoreset == SAME_STEP && ends) {
        env = begin_episode(rules.params, arrays, index);
    }
    outputs.obs[slot] = Task::observe(env.state);
}

template <class Task>
HD void step_batch_entry(const Rules<Task>& rules, const Arrays<Task>& arrays, i64 index,
                         const typename Task::Action* actions, const Outputs<Task>& outputs) {
    Env<Task> env = load(arrays, index);
    step(rules, arrays, index, actions[index], env, outputs, index);
    store(arrays, index, env);
}

// A new episode where the mask (null: everywhere) is set; the observation is copied in any case.
template <class Task>
HD void reset_batch_entry(const typename Task::Params& params, const Arrays<Task>& arrays,
                          i64 index, const unsigned char* mask, typename Task::Obs* obs) {
    if (!mask || mask[index]) {
        store(arrays, index, begin_episode(params, arrays, index));
    }
    obs[index] = Task::observe(arrays.state[index]);
}
