"""CartPole is the same to the last bit in Rust, in the host build and as simulated PTX."""

import numpy as np
import pytest
import torch
from env_cases import ENV_ID, MODES, HostEnv, assert_same_bytes, policy
from gymnasium.vector import AutoresetMode
from simulated_cuda import SimulatedModule

from rlox_gpu import _rust
from rlox_gpu.envs.array import ArrayState, NumpyVectorEnv
from rlox_gpu.envs.cuda import use_launcher
from rlox_gpu.envs.tensor import TensorVectorEnv

RAGGED = (1, 2, 15, 16, 17, 63, 64, 1000, 1025)


def reset_ended(env, seed=None):
    """What a user of DISABLED does: resets whatever has ended."""
    ended = env._arrays.ended.copy()
    return ended if ended.any() else None


@pytest.mark.parametrize("mode", MODES)
def test_rust_equals_host_build_over_a_thousand_steps(mode, rng):
    env = NumpyVectorEnv(ENV_ID, 4096, autoreset_mode=mode, max_episode_steps=150)
    obs, _ = env.reset(seed=7)
    host = HostEnv(env)
    for step in range(1000):
        mask = reset_ended(env) if mode is AutoresetMode.DISABLED else None
        if mask is not None:
            obs, _ = env.reset(options={"reset_mask": mask})
            assert_same_bytes(host.reset(mask), obs, step)
        actions = policy(obs, rng)
        expected = host.step(actions)
        actual = env._native.step(actions)
        obs = actual[0]
        pairs = zip((*actual[:4], *actual[6:]), (*expected[:4], *expected[5:]), strict=True)
        for result, truth in pairs:
            assert_same_bytes(result, truth, step)
        if mode is AutoresetMode.SAME_STEP:
            assert_same_bytes(actual[5], expected[4], step)
    for array, truth in zip(env._arrays, host.arrays, strict=True):
        assert_same_bytes(array, truth)


@pytest.mark.parametrize("num_envs", RAGGED)
@pytest.mark.parametrize("mode", MODES)
def test_rust_equals_host_build_at_ragged_sizes_and_any_angle(mode, num_envs, rng):
    """Angles up to the largest floats: the scalar path beside the vector path."""
    env = NumpyVectorEnv(
        ENV_ID, num_envs, autoreset_mode=mode, theta_threshold_radians=np.inf, x_threshold=np.inf
    )
    env.reset(seed=1)
    size = 10.0 ** rng.uniform(-3, 38, num_envs)
    env._arrays.state[:, 2] = np.where(rng.random(num_envs) < 0.5, 1, -1) * size
    env._arrays.state[:, 3] = rng.normal(size=num_envs) * 10
    env._arrays.elapsed[:] = rng.integers(490, 500, num_envs)
    host = HostEnv(env)
    for _ in range(20):
        actions = rng.integers(0, 2, num_envs)
        actual, expected = env._native.step(actions), host.step(actions)
        for i in range(4):
            assert_same_bytes(actual[i], expected[i])
    for array, truth in zip(env._arrays, host.arrays, strict=True):
        assert_same_bytes(array, truth)


def test_results_do_not_depend_on_the_batch_size(rng):
    """Environment i is the same among 5 and among 999: vector lanes and remainders agree."""
    large = NumpyVectorEnv(ENV_ID, 999, autoreset_mode="SameStep")
    small = NumpyVectorEnv(ENV_ID, 5, autoreset_mode="SameStep")
    assert_same_bytes(small.reset(seed=3)[0], large.reset(seed=3)[0][:5])
    for _ in range(300):
        actions = rng.integers(0, 2, 999)
        assert_same_bytes(small.step(actions[:5])[0], large.step(actions)[0][:5])


def tensor_env(num_envs, mode, **arguments):
    return TensorVectorEnv(ENV_ID, num_envs, device="cpu", autoreset_mode=mode, **arguments)


def roll(env, actions, **options):
    """Reset, then step through ``actions`` with whatever has ended reset in DISABLED mode."""
    results = [env.reset(seed=11)[0]]
    for action in actions:
        if env.autoreset_mode is AutoresetMode.DISABLED and bool(env._state.ended.any()):
            mask = env._state.ended.clone()
            results.append(env.reset(options={"reset_mask": mask})[0])
        obs, rewards, terminated, truncated, infos = env.step(action)
        results += [obs, rewards, terminated, truncated, *infos["episode"].values()]
        results += [infos["final_obs"]] if "final_obs" in infos else []
    return [*results, *env._state]


def assert_rolls_equal(actual, expected):
    assert len(actual) == len(expected)
    for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
        assert_same_bytes(a.numpy(), b.numpy(), i)


@pytest.mark.parametrize("mode", MODES)
def test_simulated_kernels_equal_rust(mode):
    actions = torch.from_numpy(np.random.default_rng(5).integers(0, 2, (300, 1024)))
    expected = roll(tensor_env(1024, mode, max_episode_steps=40), actions)
    with use_launcher(SimulatedModule):
        actual = roll(tensor_env(1024, mode, max_episode_steps=40), actions)
    assert_rolls_equal(actual, expected)


@pytest.mark.parametrize("block", [32, 96, 256, 1024])
@pytest.mark.parametrize("num_envs", [1, 63, 1000])
def test_simulated_kernels_equal_rust_for_any_launch(num_envs, block):
    actions = torch.from_numpy(np.random.default_rng(6).integers(0, 2, (12, num_envs)))
    expected = roll(tensor_env(num_envs, "SameStep", max_episode_steps=5), actions)
    with use_launcher(lambda *a: SimulatedModule(*a, block=block)):
        actual = roll(tensor_env(num_envs, "SameStep", max_episode_steps=5), actions)
    assert_rolls_equal(actual, expected)


@pytest.mark.parametrize("mode", MODES)
def test_simulated_kernels_touch_only_their_own_memory(mode):
    """Races, bounds and reads of outputs that nothing wrote."""
    actions = torch.from_numpy(np.random.default_rng(7).integers(0, 2, (4, 100)))
    checks = {"check_races": True, "check_uninit": True, "schedule": "random", "seed": 1}
    with use_launcher(lambda *a: SimulatedModule(*a, block=64, **checks)):
        roll(tensor_env(100, mode, max_episode_steps=2), actions)


def test_simulated_kernels_take_any_angle():
    rng = np.random.default_rng(8)
    angles = np.concatenate([rng.uniform(-50, 50, 64), 10.0 ** rng.uniform(0, 38, 64)])
    rolls = []
    for launcher in (SimulatedModule, None):
        env = tensor_env(128, "Disabled", theta_threshold_radians=np.inf, x_threshold=np.inf)
        env.reset(seed=0)
        env._state.state[:, 2] = torch.from_numpy(angles.astype(np.float32))
        out = env.make_buffers()
        if launcher is None:
            env.step_into(torch.zeros(128, dtype=torch.int64), out)
        else:
            with use_launcher(launcher):
                env.step_into(torch.zeros(128, dtype=torch.int64), out)
        rolls.append(out.obs.numpy())
    assert_same_bytes(*rolls)


@pytest.mark.parametrize("action", [-1, 2, 2**40])
def test_kernels_take_an_action_out_of_range_as_a_push_to_the_left(action):
    observations = []
    for value in (action, 0):
        with use_launcher(SimulatedModule):
            env = tensor_env(3, "NextStep")
            env.reset(seed=0)
            observations.append(env.step(torch.full((3,), value))[0].numpy())
    assert_same_bytes(*observations)


def test_state_layouts_of_the_backends_agree():
    env = NumpyVectorEnv(ENV_ID, 4)
    batch = _rust.EnvBatch(*env._rules(-0.05, 0.05))
    arrays = ArrayState(*(array.copy() for array in env._arrays))
    bound = batch.bind(*arrays)
    assert bound.reset().shape == (4, 4)
    with pytest.raises(ValueError, match="elapsed"):
        batch.bind(*arrays._replace(elapsed=np.zeros(8, np.int32)[::2]))
    with pytest.raises(ValueError, match="state"):
        batch.bind(*arrays._replace(state=np.zeros((4, 3), np.float32)))
