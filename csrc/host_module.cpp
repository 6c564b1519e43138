// The environment sources compiled for the host: a reference that runs the very text the GPU runs.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "acrobot.cuh"
#include "cartpole.cuh"
#include "frozenlake.cuh"
#include "mountaincar.cuh"
#include "mountaincarcontinuous.cuh"
#include "pendulum.cuh"
#include "vector_env.cuh"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

// Arrays come by address, so whatever does not fit must not get further than this.
template <class T, class Element = T>
Element* data(Array<T>& array, py::ssize_t entries, const char* name) {
    if (array.size() * static_cast<py::ssize_t>(sizeof(T)) !=
        entries * static_cast<py::ssize_t>(sizeof(Element))) {
        throw std::invalid_argument(std::string(name) + " has the wrong size");
    }
    return reinterpret_cast<Element*>(array.mutable_data());
}

// The functions of one task.
template <class Task>
struct Host {
    using Params = typename Task::Params;
    using State = typename Task::State;
    using Obs = typename Task::Obs;
    // NumPy's 64-bit integer is long.
    using Number = std::conditional_t<std::is_same_v<typename Task::Action, i64>, long, float>;

    static Params params_of(const Array<float>& params) {
        if (params.size() * sizeof(float) != sizeof(Params)) {
            throw std::invalid_argument("params has the wrong size");
        }
        Params result;
        std::memcpy(&result, params.data(), sizeof result);
        return result;
    }

    // Rules that all environments share, or with `columns` and `limits` those of each.
    struct AllRules {
        Rules<Task> shared;
        const float* columns = nullptr;
        const int* limits = nullptr;
        py::ssize_t num_envs = 0;

        Rules<Task> operator[](i64 index) const {
            if (!columns) return shared;
            return rules_of_each<Task>(columns, limits, num_envs, index, shared.autoreset);
        }
    };

    static AllRules rules_of(const Array<float>& params, int autoreset, int max_episode_steps,
                             py::ssize_t num_envs, py::object columns, py::object limits) {
        AllRules rules{{params_of(params), static_cast<Autoreset>(autoreset), max_episode_steps}};
        if (!columns.is_none()) {
            auto numbers = columns.cast<Array<float>>();
            auto steps = limits.cast<Array<int>>();
            rules.columns = data(numbers, num_envs * (sizeof(Params) / sizeof(float)), "columns");
            rules.limits = data(steps, num_envs, "limits");
            rules.num_envs = num_envs;
        }
        return rules;
    }

    static Arrays<Task> arrays_of(py::tuple state, py::ssize_t n) {
        if (state.size() != 6) throw std::invalid_argument("state must hold six arrays");
        auto numbers = state[0].cast<py::array>();
        if (numbers.nbytes() != n * static_cast<py::ssize_t>(sizeof(State)) ||
            !(numbers.flags() & py::array::c_style)) {
            throw std::invalid_argument("state has the wrong size or layout");
        }
        auto elapsed = state[1].cast<Array<int>>();
        auto episode = state[2].cast<Array<u32>>();
        auto seed = state[3].cast<Array<unsigned long>>();
        auto ended = state[4].cast<Array<bool>>();
        auto episode_return = state[5].cast<Array<float>>();
        return {static_cast<State*>(numbers.mutable_data()),
                data(elapsed, n, "elapsed"),
                data(episode, n, "episode"),
                data<unsigned long, u64>(seed, n, "seed"),
                data<bool, unsigned char>(ended, n, "ended"),
                data(episode_return, n, "episode_return")};
    }

    static void step(const Array<float>& params, int autoreset, int max_episode_steps,
                     py::tuple state, Array<Number> actions, Array<float> obs, Array<float> rewards,
                     Array<bool> terminated, Array<bool> truncated, Array<float> final_obs,
                     Array<float> final_return, Array<int> final_length, py::object columns,
                     py::object limits) {
        const py::ssize_t n = actions.size();
        const AllRules rules = rules_of(params, autoreset, max_episode_steps, n, columns, limits);
        const Arrays<Task> arrays = arrays_of(state, n);
        const Outputs<Task> outputs = {
            data<float, Obs>(obs, n, "obs"),
            data(rewards, n, "rewards"),
            data<bool, unsigned char>(terminated, n, "terminated"),
            data<bool, unsigned char>(truncated, n, "truncated"),
            data<float, Obs>(final_obs, n, "final_obs"),
            data(final_return, n, "final_return"),
            data(final_length, n, "final_length"),
        };
        const auto* action = data<Number, typename Task::Action>(actions, n, "actions");
        for (i64 i = 0; i < n; ++i) step_batch_entry(rules[i], arrays, i, action, outputs);
    }

    // Actions are given, or drawn and written there.
    static void rollout(const Array<float>& params, int autoreset, int max_episode_steps,
                        py::tuple state, int num_steps, bool drawn, Array<Number> actions,
                        Array<float> obs, Array<float> rewards, Array<bool> terminated,
                        Array<bool> truncated, Array<float> final_obs, Array<float> final_return,
                        Array<int> final_length, py::object columns, py::object limits) {
        const py::ssize_t n = actions.size() / num_steps;
        const py::ssize_t entries = n * num_steps;
        const AllRules rules = rules_of(params, autoreset, max_episode_steps, n, columns, limits);
        const Arrays<Task> arrays = arrays_of(state, n);
        const Outputs<Task> outputs = {
            data<float, Obs>(obs, entries, "obs"),
            data(rewards, entries, "rewards"),
            data<bool, unsigned char>(terminated, entries, "terminated"),
            data<bool, unsigned char>(truncated, entries, "truncated"),
            data<float, Obs>(final_obs, entries, "final_obs"),
            data(final_return, entries, "final_return"),
            data(final_length, entries, "final_length"),
        };
        auto* action = data<Number, typename Task::Action>(actions, entries, "actions");
        for (i64 i = 0; i < n; ++i) {
            if (drawn) {
                rollout_batch_entry<true>(rules[i], arrays, i, n, num_steps, action, outputs);
            } else {
                rollout_batch_entry<false>(rules[i], arrays, i, n, num_steps, action, outputs);
            }
        }
    }

    static void reset(const Array<float>& params, py::tuple state, py::object mask,
                      Array<float> obs, py::object columns, py::object limits) {
        const py::ssize_t n = obs.size() * sizeof(float) / sizeof(Obs);
        const Arrays<Task> arrays = arrays_of(state, n);
        const unsigned char* chosen = nullptr;
        if (!mask.is_none()) {
            auto flags = mask.cast<Array<bool>>();
            chosen = data<bool, unsigned char>(flags, n, "mask");
        }
        Obs* target = data<float, Obs>(obs, n, "obs");
        const AllRules rules = rules_of(params, DISABLED, 0, n, columns, limits);
        for (i64 i = 0; i < n; ++i) {
            reset_batch_entry(rules[i].params, arrays, i, chosen, target);
        }
    }

    // Adds the functions to the module, as `<name>.step`, `<name>.rollout` and `<name>.reset`.
    static void define(py::module_& parent, const char* name) {
        py::module_ module = parent.def_submodule(name);
        module.def("step", &step, py::arg("params").noconvert(), py::arg("autoreset"),
                   py::arg("max_episode_steps"), py::arg("state"), py::arg("actions").noconvert(),
                   py::arg("obs").noconvert(), py::arg("rewards").noconvert(),
                   py::arg("terminated").noconvert(), py::arg("truncated").noconvert(),
                   py::arg("final_obs").noconvert(), py::arg("final_return").noconvert(),
                   py::arg("final_length").noconvert(), py::arg("columns") = py::none(),
                   py::arg("limits") = py::none(), "Step every environment, in place.");
        module.def("rollout", &rollout, py::arg("params").noconvert(), py::arg("autoreset"),
                   py::arg("max_episode_steps"), py::arg("state"), py::arg("num_steps"),
                   py::arg("drawn"), py::arg("actions").noconvert(), py::arg("obs").noconvert(),
                   py::arg("rewards").noconvert(), py::arg("terminated").noconvert(),
                   py::arg("truncated").noconvert(), py::arg("final_obs").noconvert(),
                   py::arg("final_return").noconvert(), py::arg("final_length").noconvert(),
                   py::arg("columns") = py::none(), py::arg("limits") = py::none(),
                   "Take several steps, in place.");
        module.def("reset", &reset, py::arg("params").noconvert(), py::arg("state"),
                   py::arg("mask"), py::arg("obs").noconvert(), py::arg("columns") = py::none(),
                   py::arg("limits") = py::none(),
                   "Begin new episodes, everywhere or where the mask is set.");
    }
};

py::tuple sin_cos_array(const Array<float>& angles) {
    Array<float> sin(angles.size());
    Array<float> cos(angles.size());
    for (py::ssize_t i = 0; i < angles.size(); ++i) {
        const SinCos result = sin_cos(angles.data()[i]);
        sin.mutable_data()[i] = result.sin;
        cos.mutable_data()[i] = result.cos;
    }
    return py::make_tuple(sin, cos);
}

}  // namespace

PYBIND11_MODULE(_host, module) {
    module.doc() = "Host build of the CUDA environment sources.";
    Host<CartPole>::define(module, "CartPole");
    Host<Pendulum>::define(module, "Pendulum");
    Host<MountainCar>::define(module, "MountainCar");
    Host<MountainCarContinuous>::define(module, "MountainCarContinuous");
    Host<Acrobot>::define(module, "Acrobot");
    Host<FrozenLake>::define(module, "FrozenLake");
    module.def("sin_cos", &sin_cos_array, py::arg("angles").noconvert(),
               "Sine and cosine of float32 angles.");
}
