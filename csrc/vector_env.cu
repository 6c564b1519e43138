// The kernels of a task, which two macros select: one thread per environment.
#include "vector_env.cuh"
#include RLOX_TASK_HEADER

using Task = RLOX_TASK;

__device__ i64 env_index() { return static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; }

extern "C" __global__ void env_step(Task::Params params, int autoreset, int max_episode_steps,
                                    int num_envs, Task::State* state, int* elapsed, u32* episode,
                                    const u64* seed, unsigned char* ended, float* episode_return,
                                    const Task::Action* actions, Task::Obs* obs, float* rewards,
                                    unsigned char* terminated, unsigned char* truncated,
                                    Task::Obs* final_obs, float* final_return, int* final_length) {
    const i64 index = env_index();
    if (index >= num_envs) return;
    const Rules<Task> rules = {params, static_cast<Autoreset>(autoreset), max_episode_steps};
    const Arrays<Task> arrays = {state, elapsed, episode, seed, ended, episode_return};
    const Outputs<Task> outputs = {obs,       rewards,      terminated,  truncated,
                                   final_obs, final_return, final_length};
    step_batch_entry(rules, arrays, index, actions, outputs);
}

// Row t of actions and outputs, `num_envs` entries long, belongs to step t.
extern "C" __global__ void env_rollout(Task::Params params, int autoreset, int max_episode_steps,
                                       int num_envs, int num_steps, Task::State* state,
                                       int* elapsed, u32* episode, const u64* seed,
                                       unsigned char* ended, float* episode_return,
                                       Task::Action* actions, Task::Obs* obs, float* rewards,
                                       unsigned char* terminated, unsigned char* truncated,
                                       Task::Obs* final_obs, float* final_return,
                                       int* final_length) {
    const i64 index = env_index();
    if (index >= num_envs) return;
    const Rules<Task> rules = {params, static_cast<Autoreset>(autoreset), max_episode_steps};
    const Arrays<Task> arrays = {state, elapsed, episode, seed, ended, episode_return};
    const Outputs<Task> outputs = {obs,       rewards,      terminated,  truncated,
                                   final_obs, final_return, final_length};
    rollout_batch_entry<false>(rules, arrays, index, num_envs, num_steps, actions, outputs);
}

// The same with actions from the environments' own streams; `actions` may be null.
extern "C" __global__ void env_rollout_random(
    Task::Params params, int autoreset, int max_episode_steps, int num_envs, int num_steps,
    Task::State* state, int* elapsed, u32* episode, const u64* seed, unsigned char* ended,
    float* episode_return, Task::Action* actions, Task::Obs* obs, float* rewards,
    unsigned char* terminated, unsigned char* truncated, Task::Obs* final_obs, float* final_return,
    int* final_length) {
    const i64 index = env_index();
    if (index >= num_envs) return;
    const Rules<Task> rules = {params, static_cast<Autoreset>(autoreset), max_episode_steps};
    const Arrays<Task> arrays = {state, elapsed, episode, seed, ended, episode_return};
    const Outputs<Task> outputs = {obs,       rewards,      terminated,  truncated,
                                   final_obs, final_return, final_length};
    rollout_batch_entry<true>(rules, arrays, index, num_envs, num_steps, actions, outputs);
}

extern "C" __global__ void env_reset(Task::Params params, int num_envs, Task::State* state,
                                     int* elapsed, u32* episode, const u64* seed,
                                     unsigned char* ended, float* episode_return,
                                     const unsigned char* mask, Task::Obs* obs) {
    const i64 index = env_index();
    if (index >= num_envs) return;
    const Arrays<Task> arrays = {state, elapsed, episode, seed, ended, episode_return};
    reset_batch_entry(params, arrays, index, mask, obs);
}
