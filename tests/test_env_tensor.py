"""The tensor face: equal to the NumPy face on the CPU, an operator for torch, ready for devices."""

import numpy as np
import pytest
import torch
from env_cases import ENV_ID, MODES, assert_same_bytes
from fake_device import run_on_fake_device
from gymnasium.vector import AutoresetMode, VectorEnv
from simulated_cuda import SimulatedModule

from rlox_gpu.envs import kernels
from rlox_gpu.envs.array import NumpyVectorEnv
from rlox_gpu.envs.cuda import use_launcher
from rlox_gpu.envs.tensor import StepBuffers, TensorVectorEnv


def make_env(num_envs=16, **arguments):
    return TensorVectorEnv(ENV_ID, num_envs, device="cpu", **arguments)


@pytest.mark.parametrize("mode", MODES[:2])
@pytest.mark.parametrize("num_envs", [1, 63, 300])
def test_tensors_equal_arrays(mode, num_envs, rng):
    tensors = make_env(num_envs, autoreset_mode=mode, gravity=5.0)
    arrays = NumpyVectorEnv(ENV_ID, num_envs, autoreset_mode=mode, gravity=5.0)
    assert isinstance(tensors, VectorEnv)
    assert tensors.metadata == arrays.metadata
    assert tensors.observation_space == arrays.observation_space
    assert tensors.action_space == arrays.action_space
    assert_same_bytes(tensors.reset(seed=4)[0], arrays.reset(seed=4)[0])
    for step in range(120):
        if step % 40 == 39:
            mask = rng.random(num_envs) < 0.3
            mask[0] = True
            options = {"reset_mask": mask, "low": -0.1}
            seed = step if step > 40 else None
            obs = tensors.reset(seed=seed, options=options)[0]
            assert_same_bytes(obs, arrays.reset(seed=seed, options=options)[0])
        actions = rng.integers(0, 2, num_envs)
        *results, infos = tensors.step(torch.from_numpy(actions))
        *expected, expected_infos = arrays.step(actions)
        for result, truth in zip(results, expected, strict=True):
            assert_same_bytes(result, truth)
        if not expected_infos:
            assert not infos["_episode"].any()
            continue
        assert infos.keys() == expected_infos.keys()
        for name in ("r", "l"):
            assert_same_bytes(infos["episode"][name], expected_infos["episode"][name])
        for name in ("_episode", "final_obs", "_final_obs"):
            if name in infos:
                assert_same_bytes(infos[name], expected_infos[name])


def test_rollout_storage_is_written_in_place():
    env = make_env(8, autoreset_mode="SameStep", max_episode_steps=7)
    storage = env.make_buffers(20)
    addresses = [tensor.data_ptr() for tensor in storage]
    actions = torch.randint(0, 2, (20, 8), generator=torch.Generator().manual_seed(0))
    env.reset(seed=1)
    for t in range(20):
        env.step_into(actions[t], StepBuffers(*(tensor[t] for tensor in storage)))
    assert addresses == [tensor.data_ptr() for tensor in storage]
    other = make_env(8, autoreset_mode="SameStep", max_episode_steps=7)
    other.reset(seed=1)
    for t in range(20):
        obs, rewards, terminated, truncated, infos = other.step(actions[t])
        assert_same_bytes(storage.obs[t], obs)
        assert_same_bytes(storage.rewards[t], rewards)
        assert_same_bytes(storage.terminated[t], terminated)
        assert_same_bytes(storage.truncated[t], truncated)
        assert_same_bytes(storage.final_obs[t], infos["final_obs"])
        assert_same_bytes(storage.episode_return[t], infos["episode"]["r"])
        assert_same_bytes(storage.episode_length[t], infos["episode"]["l"])
    assert storage.truncated.any()


@pytest.mark.parametrize("launcher", [None, SimulatedModule], ids=["rust", "simulated"])
def test_optional_buffers_may_be_left_out(launcher):
    env = make_env(5, autoreset_mode="SameStep", max_episode_steps=1)
    env.reset(seed=0)
    before = env.state_dict()
    full, few = env.make_buffers(), env.make_buffers()
    few = few._replace(final_obs=None, episode_return=None, episode_length=None)
    for out in (full, few):
        env.load_state_dict(before)
        if launcher is None:
            env.step_into(torch.ones(5, dtype=torch.int64), out)
        else:
            with use_launcher(launcher):
                env.step_into(torch.ones(5, dtype=torch.int64), out)
    for first, second in zip(full[:4], few[:4], strict=True):
        assert_same_bytes(first, second)


def test_step_takes_other_integer_actions():
    expected = None
    dtypes = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    variants = [torch.tensor([0, 1, 1, 0], dtype=dtype) for dtype in dtypes]
    for actions in [*variants, torch.tensor([[0, 7], [1, 7], [1, 7], [0, 7]])[:, 0]]:
        env = make_env(4)
        env.reset(seed=0)
        obs = env.step(actions)[0]
        expected = obs if expected is None else expected
        assert_same_bytes(obs, expected)


@pytest.mark.parametrize("mode", MODES[:2])
def test_a_snapshot_continues_exactly(mode):
    actions = torch.randint(0, 2, (80, 9), generator=torch.Generator().manual_seed(3))
    env = make_env(9, autoreset_mode=mode)
    env.reset(seed=2, options={"high": 0.06})
    for t in range(30):
        env.step(actions[t])
    snapshot = env.state_dict()
    expected = torch.stack([env.step(a)[0] for a in actions[30:]])
    fresh = make_env(9, autoreset_mode=mode)
    fresh.load_state_dict(snapshot)
    assert_same_bytes(torch.stack([fresh.step(a)[0] for a in actions[30:]]), expected)


def test_snapshots_of_both_faces_hold_the_same_numbers():
    tensors, arrays = make_env(6), NumpyVectorEnv(ENV_ID, 6)
    tensors.reset(seed=1)
    arrays.reset(seed=1)
    first, second = tensors.state_dict(), arrays.state_dict()
    assert first.keys() == second.keys()
    for name, array in second.items():
        if isinstance(array, np.ndarray):
            assert first[name].numpy().tobytes() == array.tobytes()


def operator_arguments(env):
    actions = torch.zeros(env.num_envs, dtype=torch.int64)
    return (*env._batch_rules, *env._state, actions, *env.make_buffers())


@pytest.mark.unpoisoned
@pytest.mark.parametrize("mode", MODES)
def test_operators_pass_opcheck(mode):
    env = make_env(8, autoreset_mode=mode, max_episode_steps=2)
    env.reset(seed=0)
    arguments = operator_arguments(env)
    torch.library.opcheck(torch.ops.rlox_gpu.env_step.default, arguments)
    few = (*arguments[:-3], None, None, None)
    torch.library.opcheck(torch.ops.rlox_gpu.env_step.default, few)
    mask = torch.tensor([True, False] * 4)
    for chosen in (mask, None):
        reset = (*env._batch_rules, *env._state, chosen, torch.empty(8, 4))
        torch.library.opcheck(torch.ops.rlox_gpu.env_reset.default, reset)


def test_the_operator_equals_the_direct_call():
    direct, operator = make_env(8), make_env(8)
    actions = torch.tensor([0, 1] * 4)
    obs = direct.reset(seed=5)[0]
    operator.reset(seed=5)
    through = torch.empty(8, 4)
    torch.ops.rlox_gpu.env_reset(*operator._batch_rules, *operator._state, None, through)
    assert_same_bytes(through, direct.reset()[0])
    assert not torch.equal(through, obs)
    first, second = direct.make_buffers(), operator.make_buffers()
    direct.step_into(actions, first)
    torch.ops.rlox_gpu.env_step(*operator._batch_rules, *operator._state, actions, *second)
    for a, b in zip((*first, *direct._state), (*second, *operator._state), strict=True):
        assert_same_bytes(a, b)


@pytest.mark.unpoisoned
def test_a_compiled_function_may_hold_a_step():
    env, other = make_env(8), make_env(8)
    env.reset(seed=1)
    other.reset(seed=1)
    out, expected = env.make_buffers(), other.make_buffers()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(actions):
        kernels.step(env._batch_rules, env._state, actions, out)
        return out.obs * 2

    actions = torch.tensor([1, 0] * 4)
    doubled = step(actions)
    other.step_into(actions, expected)
    assert_same_bytes(doubled, expected.obs * 2)


def rollout_on_a_device_that_does_not_exist():
    import pytest
    import torch

    from rlox_gpu.envs.tensor import StepBuffers, TensorVectorEnv

    for mode in ("NextStep", "SameStep", "Disabled"):
        env = TensorVectorEnv("CartPole-v1", 32, device="gpu", autoreset_mode=mode)
        obs, _ = env.reset(seed=3)
        assert obs.device.type == "gpu"
        storage = env.make_buffers(4)
        actions = torch.zeros((4, 32), dtype=torch.int64, device="gpu")
        for t in range(4):
            env.step_into(actions[t], StepBuffers(*(tensor[t] for tensor in storage)))
        *results, infos = env.step(actions[0])
        tensors = [*results, infos["_episode"], *infos["episode"].values(), *env._state]
        assert {tensor.device.type for tensor in tensors} == {"gpu"}
        mask = torch.ones(32, dtype=torch.bool, device="gpu")
        env.reset(options={"reset_mask": mask})
        env.load_state_dict(env.state_dict())
        elsewhere = torch.zeros(32, dtype=torch.int64)
        with pytest.raises(ValueError, match="actions must be on gpu"):
            env.step(elsewhere)
        arguments = (*env._batch_rules, *env._state, elsewhere, *env.make_buffers())
        with pytest.raises(ValueError, match="on one device"):
            torch.ops.rlox_gpu.env_step(*arguments)


def test_nothing_waits_for_a_device_and_devices_do_not_mix():
    run_on_fake_device(rollout_on_a_device_that_does_not_exist)


def test_render_copies_the_chosen_states():
    pytest.importorskip("pygame")
    tensors = make_env(4, render_mode="rgb_array", render_envs=[2])
    arrays = NumpyVectorEnv(ENV_ID, 4, render_mode="rgb_array", render_envs=[2])
    tensors.reset(seed=0)
    arrays.reset(seed=0)
    np.testing.assert_array_equal(tensors.render()[0], arrays.render()[0])
    tensors.close()
    arrays.close()


def test_every_mode_is_in_the_metadata():
    for mode in AutoresetMode:
        assert make_env(2, autoreset_mode=mode).metadata["autoreset_mode"] is mode
        assert make_env(2, autoreset_mode=mode.value).autoreset_mode is mode


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_a_cuda_device_equals_the_cpu(mode):
    actions = torch.randint(0, 2, (300, 1000), generator=torch.Generator().manual_seed(1))
    cpu = make_env(1000, autoreset_mode=mode, max_episode_steps=60)
    cuda = TensorVectorEnv(ENV_ID, 1000, device="cuda", autoreset_mode=mode, max_episode_steps=60)
    assert_same_bytes(cuda.reset(seed=2)[0].cpu(), cpu.reset(seed=2)[0])
    for action in actions:
        for result, truth in zip(cuda.step(action.cuda())[:4], cpu.step(action)[:4], strict=True):
            assert_same_bytes(result.cpu(), truth)
    for tensor, truth in zip(cuda._state, cpu._state, strict=True):
        assert_same_bytes(tensor.cpu(), truth)
