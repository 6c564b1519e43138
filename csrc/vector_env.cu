// The kernels of a task, which two macros select: one thread per environment.
#include "vector_env.cuh"
#include RLOX_TASK_HEADER

using Task = RLOX_TASK;

// With RLOX_RULES_OF_EACH every kernel takes two more arrays, the constants and step limits of each
// environment, and the numbers that all of them share are not looked at.
#ifdef RLOX_RULES_OF_EACH
#define OF_EACH , const float *columns, const int *limits
#define RULES \
    rules_of_each<Task>(columns, limits, num_envs, index, static_cast<Autoreset>(autoreset))
#else
#define OF_EACH
#define RULES {params, static_cast<Autoreset>(autoreset), max_episode_steps}
#endif

__device__ i64 env_index() { return static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; }

extern "C" __global__ void env_step(Task::Params params, int autoreset, int max_episode_steps,
                                    int num_envs, Task::State* state, int* elapsed, u32* episode,
                                    const u64* seed, unsigned char* ended, float* episode_return,
                                    const Task::Action* actions, Task::Obs* obs, float* rewards,
                                    unsigned char* terminated, unsigned char* truncated,
                                    Task::Obs* final_obs, float* final_return,
                                    int* final_length OF_EACH) {
    const i64 index = env_index();
    if (index >= num_envs) return;
    const Rules<Task> rules = RULES;
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
                                       int* final_length OF_EACH) {
    const i64 index = env_index();
    if (index >= num_envs) return;
    const Rules<Task> rules = RULES;
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
    int* final_length OF_EACH) {
    const i64 index = env_index();
    if (index >= num_envs) return;
    const Rules<Task> rules = RULES;
    const Arrays<Task> arrays = {state, elapsed, episode, seed, ended, episode_return};
    const Outputs<Task> outputs = {obs,       rewards,      terminated,  truncated,
                                   final_obs, final_return, final_length};
    rollout_batch_entry<true>(rules, arrays, index, num_envs, num_steps, actions, outputs);
}

extern "C" __global__ void env_reset(Task::Params params, int autoreset, int max_episode_steps,
                                     int num_envs, Task::State* state, int* elapsed, u32* episode,
                                     const u64* seed, unsigned char* ended, float* episode_return,
                                     const unsigned char* mask, Task::Obs* obs OF_EACH) {
    const i64 index = env_index();
    if (index >= num_envs) return;
    const Arrays<Task> arrays = {state, elapsed, episode, seed, ended, episode_return};
    const Rules<Task> rules = RULES;
    reset_batch_entry(rules.params, arrays, index, mask, obs);
}
