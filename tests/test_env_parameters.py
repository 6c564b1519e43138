"""Parameters and step limits of each environment: those of a batch where all have the same, to the
last bit, on every backend and in every mode."""

import numpy as np
import pytest
import torch
from env_cases import MODES, HostEnv, assert_same_bytes
from env_tasks import CASES
from simulated_cuda import SimulatedModule

import rlox_gpu
from rlox_gpu.envs.array import NumpyVectorEnv
from rlox_gpu.envs.cuda import use_launcher
from rlox_gpu.envs.rollouts import Rollout
from rlox_gpu.envs.tensor import TensorVectorEnv


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


LIMITS = (9, 4)


def variants(case):
    """The parameters of even environments and of odd ones, step limits included."""
    defaults = {name: case.make().task.defaults[name] for name in case.params}
    return [
        {**params, "max_episode_steps": limit}
        for params, limit in zip((defaults, case.params), LIMITS, strict=True)
    ]


def mixed(case, num_envs):
    first, second = variants(case)
    even = np.arange(num_envs) % 2 == 0
    return {name: np.where(even, first[name], second[name]) for name in first}


def make_env(case, num_envs, mode, **arguments):
    env = TensorVectorEnv(case.env_id, num_envs, device="cpu", autoreset_mode=mode, **arguments)
    env.reset(seed=11)
    return env


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_envs", [1, 17, 300])
def test_each_environment_has_its_own(case, mode, num_envs, rng):
    actions = torch.from_numpy(case.actions(rng, 30, num_envs))
    pure = [make_env(case, num_envs, mode, **variant) for variant in variants(case)]
    results = [(env.rollout(actions), env.rollout_random(30, actions=True)) for env in pure]
    env = make_env(case, num_envs, mode, **mixed(case, num_envs))
    for k, result in enumerate((env.rollout(actions), env.rollout_random(30, actions=True))):
        for name, part, *truths in zip(
            Rollout._fields, result, results[0][k], results[1][k], strict=True
        ):
            for parity, truth in enumerate(truths):
                assert_same_bytes(
                    part[:, parity::2].contiguous(), truth[:, parity::2].contiguous(), name
                )
    for index, tensor in enumerate(env._state):
        for parity, other in enumerate(pure):
            assert torch.equal(tensor[parity::2], other._state[index][parity::2])


@pytest.mark.parametrize("mode", MODES)
def test_rust_equals_the_host_build(case, mode, rng):
    env = case.make(130, autoreset_mode=mode, **mixed(case, 130))
    env.reset(seed=11)
    host = HostEnv(env)
    mask = np.ones(130, bool)
    env.reset(options={"reset_mask": mask})
    host.reset(mask)
    for drawn in (False, True):
        actions = case.actions(rng, 20, 130)
        expected = host.rollout(actions.copy(), drawn)
        result = env.rollout_random(20, actions=True) if drawn else env.rollout(actions)
        for name, a, b in zip(Rollout._fields, result, expected, strict=True):
            assert_same_bytes(a, b, name)
        env._arrays.ended[:] = False
        host.arrays[4][:] = False
    actions = case.actions(rng, 130)
    for a, b in zip(env.step(actions)[:4], host.step(actions)[:4], strict=True):
        assert_same_bytes(a, b)
    for array, truth in zip(env._arrays, host.arrays, strict=True):
        assert_same_bytes(array, truth)


@pytest.mark.parametrize("mode", MODES)
def test_simulated_kernels_equal_rust(case, mode):
    checks = {"check_races": True, "check_uninit": True}
    results = []
    for launcher in (None, lambda *a: SimulatedModule(*a, **checks)):
        env = TensorVectorEnv(case.env_id, 70, device="cpu", autoreset_mode=mode, **mixed(case, 70))
        actions = torch.from_numpy(case.actions(np.random.default_rng(5), 7, 70))

        def run(env=env, actions=actions):
            first = env.reset(seed=11)[0]
            step = env.make_buffers()
            env.step_into(actions[0], step)
            drawn = env.make_rollout(6, actions=True)
            parts = [*env.rollout(actions), *env.rollout_random(6, out=drawn)]
            return [first, *step, *parts, *env._state]

        if launcher is None:
            results.append(run())
        else:
            with use_launcher(launcher):
                results.append(run())
    for i, (a, b) in enumerate(zip(*results, strict=True)):
        assert_same_bytes(a, b, i)


@pytest.mark.parametrize("face", ["arrays", "tensors"])
def test_a_snapshot_holds_parameters_and_limits(case, face):
    def make(**arguments):
        if face == "arrays":
            return case.make(6, autoreset_mode="SameStep", **arguments)
        return TensorVectorEnv(case.env_id, 6, device="cpu", autoreset_mode="SameStep", **arguments)

    env = make(**mixed(case, 6))
    env.reset(seed=0)
    env.rollout_random(5)
    snapshot = env.state_dict()
    expected = env.rollout_random(20)
    env.load_state_dict(snapshot)
    other = make()
    other.load_state_dict(snapshot)
    assert other.single_observation_space == env.single_observation_space
    for again in (env.rollout_random(20), other.rollout_random(20)):
        for a, b in zip(again[:7], expected, strict=False):
            assert_same_bytes(a, b)
    shared = make(**case.params)
    shared.reset(seed=0)
    other.load_state_dict(shared.state_dict())
    assert other.params == shared.params


def test_bounds_of_the_initial_state_reach_every_environment(case):
    if not case.make().task.reset_options:
        return
    first, second = case.make().task.reset_options
    results = []
    for arguments in ({}, {"max_episode_steps": [3] * 8}):
        env = case.make(8, **({"max_episode_steps": 3} | arguments))
        results.append([env.reset(seed=0, options={first: 0.01, second: 0.02})[0]])
        results[-1].append(env.rollout_random(8).obs)
    for a, b in zip(*results, strict=True):
        assert_same_bytes(a, b)


def test_flags_may_differ_too():
    flags = np.array([False, True, False])
    env = rlox_gpu.make_vec("CartPole-v1", 3, sutton_barto_reward=flags, gravity=[9.0, 9.5, 10])
    env.reset(seed=0)
    env._arrays.state[:, 0] = 3.0
    assert env.step(np.zeros(3, np.int64))[1].tolist() == [1, -1, 1]


def test_spaces_hold_those_of_all():
    env = rlox_gpu.make_vec("CartPole-v1", 2, x_threshold=[1.0, 3.0])
    assert env.single_observation_space.high[0] == 6
    env = rlox_gpu.make_vec(
        "MountainCarContinuous-v0", 2, min_position=[-1.0, -2.0], max_action=[1.0, 0.5]
    )
    assert env.single_observation_space.low[0] == -2
    assert env.single_action_space.high[0] == 1


def test_tensors_are_taken_on_both_faces():
    gravity = torch.tensor([9.0, 10.0])
    for make in (NumpyVectorEnv, lambda *a, **k: TensorVectorEnv(*a, device="cpu", **k)):
        env = make("CartPole-v1", 2, gravity=gravity, max_episode_steps=torch.tensor([-1, 5]))
        env.reset(seed=0)
        assert env.params["gravity"].tolist() == [9, 10]
        assert np.asarray(env.rollout_random(5).truncated)[-1].tolist() == [False, True]


def test_a_limit_of_a_wrapper_leaves_lower_ones():
    env = rlox_gpu.make_vec("CartPole-v1", 3, max_episode_steps=[4, 9, 20])
    env.limit_episodes(9)
    assert env.max_episode_steps.tolist() == [4, 9, 9]
    env.reset(seed=0)


def test_pictures_show_the_environments_own():
    pytest.importorskip("pygame")
    env = CASES["CartPole"].make(2, length=[0.5, 1.5], render_mode="rgb_array")
    env.reset(seed=0)
    env._arrays.state[:] = 0
    short, long = env.render()
    assert not np.array_equal(short, long)
    env.close()


WRONG = {
    "too few": (
        ValueError,
        r"gravity must be a number or have shape \(3,\)",
        {"gravity": [9.0, 9]},
    ),
    "two dimensions": (ValueError, "gravity must be", {"gravity": np.ones((3, 1))}),
    "ragged": (TypeError, "gravity must be a number", {"gravity": [[1.0], [1.0, 2.0], [3.0]]}),
    "text": (TypeError, "gravity must be a number", {"gravity": ["a", "b", "c"]}),
    "flags for numbers": (TypeError, "gravity must be a number", {"gravity": [True] * 3}),
    "NaN": (ValueError, "other than NaN, got nan at index 1", {"gravity": [1, np.nan, 2]}),
    "not positive": (
        ValueError,
        "length must be positive, got -1.0 at index 2",
        {"length": [1, 2, -1]},
    ),
    "0 in float32": (ValueError, "length must be positive, got 1e-60", {"length": 1e-60}),
    "numbers for flags": (
        TypeError,
        "sutton_barto_reward must be a bool",
        {"sutton_barto_reward": [0, 1, 0]},
    ),
    "limit of 0": (
        ValueError,
        "max_episode_steps must be .* got 0 at index 1",
        {"max_episode_steps": [5, 0, 5]},
    ),
    "fractional limits": (TypeError, "max_episode_steps", {"max_episode_steps": [5.0] * 3}),
    "too many limits": (ValueError, "max_episode_steps", {"max_episode_steps": [5] * 4}),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("face", ["arrays", "tensors"])
def test_wrong_parameters_are_named(face, wrong):
    error, message, arguments = WRONG[wrong]
    device = {} if face == "arrays" else {"device": "cpu"}
    make = NumpyVectorEnv if face == "arrays" else TensorVectorEnv
    with pytest.raises(error, match=message):
        make("CartPole-v1", 3, **device, **arguments)


def test_a_snapshot_of_another_task_is_refused():
    car, engine = CASES["MountainCar"].make(2), CASES["MountainCarContinuous"].make(2)
    with pytest.raises(ValueError, match=r"state\['params'\] is another task's"):
        engine.load_state_dict(car.state_dict())


@pytest.mark.unpoisoned
def test_operators_pass_opcheck():
    env = make_env(CASES["Pendulum"], 4, "SameStep", **mixed(CASES["Pendulum"], 4))
    arguments, own = (*env._batch_rules, *env._state), env._own
    results = env.make_rollout(3)[:7]
    actions, operators = torch.zeros(3, 4, 1), torch.ops.rlox_gpu
    for operator, middle in (
        (operators.env_step, (actions[0].clone(), *env.make_buffers())),
        (operators.env_rollout, (actions, *results)),
        (operators.env_rollout_random, (3, None, *results)),
        (operators.env_reset, (None, torch.empty(4, 3))),
    ):
        torch.library.opcheck(operator.default, (*arguments, *middle, *own))
