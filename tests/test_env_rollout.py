"""Several steps in one call: the same as single steps to the last bit on every backend, with given
actions and with actions drawn in place."""

import numpy as np
import pytest
import torch
from env_cases import MODES, HostEnv, assert_same_bytes, assert_unchanged
from env_tasks import CASES
from fake_device import run_on_fake_device
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from simulated_cuda import SimulatedModule

from rlox_gpu.envs.array import NumpyVectorEnv
from rlox_gpu.envs.cuda import use_launcher
from rlox_gpu.envs.rollouts import Rollout
from rlox_gpu.envs.tensor import StepBuffers, TensorVectorEnv


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def make_env(case, num_envs, mode="SameStep", **arguments):
    env = TensorVectorEnv(
        case.env_id, num_envs, device="cpu", autoreset_mode=mode, **{**case.params, **arguments}
    )
    env.reset(seed=11)
    return env


def by_steps(env, actions):
    """What a rollout must give: single steps in Rust, row by row."""
    storage = env.make_buffers(len(actions))
    for t, action in enumerate(actions):
        env.step_into(action, StepBuffers(*(part[t] for part in storage)))
    return storage


def assert_same_rollout(actual, expected, env, other):
    for name, a, b in zip(StepBuffers._fields, actual, expected, strict=False):
        assert_same_bytes(a, b, name)
    states = [e._state if hasattr(e, "_state") else e._arrays for e in (env, other)]
    for name, a, b in zip(states[0]._fields, *states, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("num_envs", "num_steps"), [(1, 60), (17, 50), (700, 30)])
def test_a_rollout_equals_its_steps(case, mode, num_envs, num_steps, rng):
    actions = case.actions(rng, num_steps, num_envs)
    tensors = make_env(case, num_envs, mode, max_episode_steps=13)
    expected = by_steps(tensors, torch.from_numpy(actions))
    for face in (TensorVectorEnv, NumpyVectorEnv):
        on_tensors = face is TensorVectorEnv
        device = {"device": "cpu"} if on_tensors else {}
        env = face(
            case.env_id,
            num_envs,
            autoreset_mode=mode,
            max_episode_steps=13,
            **case.params,
            **device,
        )
        env.reset(seed=11)
        given = torch.from_numpy(actions) if on_tensors else actions
        result = env.rollout(given)
        assert result.actions is given
        assert_same_rollout(result[:7], expected, env, tensors)
        assert (np.asarray(result.episode_length) > 0).sum() == np.sum(
            np.asarray(result.terminated | result.truncated)
        )


def random_rollout(env, num_steps, launcher=None):
    out = env.make_rollout(num_steps, actions=True)
    if launcher is None:
        return env.rollout_random(num_steps, out=out)
    with use_launcher(launcher):
        return env.rollout_random(num_steps, out=out)


@pytest.mark.parametrize("mode", MODES)
def test_a_random_rollout_equals_steps_with_its_actions(case, mode):
    env, other = (make_env(case, 333, mode, max_episode_steps=9) for _ in range(2))
    result = random_rollout(env, 40)
    assert_same_rollout(result, by_steps(other, result.actions), env, other)
    assert result.truncated.any()


def test_random_rollouts_go_on_where_the_last_one_ended(case):
    env, other = (make_env(case, 50, max_episode_steps=9) for _ in range(2))
    whole = random_rollout(env, 30)
    parts = [random_rollout(other, k) for k in (1, 12, 17)]
    for name, a, *b in zip(Rollout._fields, whole, *parts, strict=True):
        assert_same_bytes(a, torch.cat(b), name)
    fresh = make_env(case, 3, max_episode_steps=9)
    few = random_rollout(fresh, 30)
    assert_same_bytes(few.actions, whole.actions[:, :3])
    without = make_env(case, 50, max_episode_steps=9).rollout_random(30)
    assert without.actions is None
    assert_same_bytes(without.obs, whole.obs)


def test_random_actions_fill_the_action_space_evenly(case):
    env = case.make(64)
    env.reset(seed=0)
    actions = env.rollout_random(500, actions=True).actions
    space = env.single_action_space
    if actions.dtype == np.int64:
        shares = np.bincount(actions.ravel(), minlength=space.n) / actions.size
        assert len(shares) == space.n
        np.testing.assert_allclose(shares, 1 / space.n, atol=0.012)
    else:
        unit = (actions.ravel() - space.low) / (space.high - space.low)
        assert 0 <= unit.min() < 0.001
        assert 0.999 < unit.max() <= 1
        np.testing.assert_allclose(np.histogram(unit, 10)[0] / unit.size, 0.1, atol=0.012)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("drawn", [False, True], ids=["given", "drawn"])
def test_rust_equals_the_host_build(case, mode, drawn, rng):
    env = case.make(130, autoreset_mode=mode, max_episode_steps=9, **case.params)
    env.reset(seed=11)
    host = HostEnv(env)
    actions = case.actions(rng, 40, 130)
    expected = host.rollout(actions.copy(), drawn)
    result = env.rollout_random(40, actions=True) if drawn else env.rollout(actions)
    for name, a, b in zip(Rollout._fields, result, expected, strict=True):
        assert_same_bytes(a, b, name)
    for array, truth in zip(env._arrays, host.arrays, strict=True):
        assert_same_bytes(array, truth)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("drawn", [False, True], ids=["given", "drawn"])
def test_simulated_kernels_equal_rust(case, mode, drawn):
    env, other = (make_env(case, 129, mode, max_episode_steps=6) for _ in range(2))
    actions = torch.from_numpy(case.actions(np.random.default_rng(5), 20, 129))
    expected = random_rollout(other, 20) if drawn else other.rollout(actions)
    with use_launcher(SimulatedModule):
        actual = random_rollout(env, 20, SimulatedModule) if drawn else env.rollout(actions)
    assert_same_rollout(actual, expected, env, other)
    assert_same_bytes(actual.actions, expected.actions)


@pytest.mark.parametrize("drawn", [False, True], ids=["given", "drawn"])
@pytest.mark.parametrize("block", [32, 256])
def test_simulated_kernels_touch_only_their_own_memory(case, drawn, block):
    checks = {"check_races": True, "check_uninit": True, "schedule": "random", "seed": 1}
    launcher = lambda *a: SimulatedModule(*a, block=block, **checks)  # noqa: E731
    env, other = (make_env(case, 70, max_episode_steps=2) for _ in range(2))
    actions = torch.from_numpy(case.actions(np.random.default_rng(5), 5, 70))
    expected = random_rollout(other, 5) if drawn else other.rollout(actions)
    with use_launcher(launcher):
        out = env.make_rollout(5, actions=drawn)
        actual = env.rollout_random(5, out=out) if drawn else env.rollout(actions, out=out)
    assert_same_rollout(actual, expected, env, other)


class CountingModule(SimulatedModule):
    """Keeps the statistics of the launches."""

    launches: list = []  # noqa: RUF012 - cleared by the test that reads it

    def launch(self, kernel, grid, block, arguments, device):
        arguments = [a.tobytes() if isinstance(a, np.ndarray) else a for a in arguments]
        self.launches.append(self.module.launch(kernel, grid, block, arguments))


@pytest.mark.parametrize("drawn", [False, True], ids=["given", "drawn"])
def test_a_rollout_moves_its_actions_and_results_alone(drawn):
    """The state stays in registers: within 5% of what the caller asks for, at 128 steps."""
    case, num_envs, num_steps = CASES["CartPole"], 256, 128
    env = make_env(case, num_envs, "NextStep")
    out = env.make_rollout(num_steps, actions=drawn)._replace(final_obs=None)
    actions = torch.from_numpy(case.actions(np.random.default_rng(5), num_steps, num_envs))
    CountingModule.launches.clear()
    with use_launcher(CountingModule):
        env.rollout_random(num_steps, out=out) if drawn else env.rollout(actions, out=out)
    (launch,) = CountingModule.launches
    moved = 32 * (launch.global_load_sectors + launch.global_store_sectors)
    # Action, observation, reward, two flags, return and length of the episode.
    asked = num_steps * num_envs * (8 + 16 + 4 + 2 + 4 + 4)
    assert moved <= 1.05 * asked
    assert launch.global_bytes <= 1.05 * asked


def test_results_go_to_the_callers_storage(case):
    for face in ("arrays", "tensors"):
        env = make_env(case, 6) if face == "tensors" else case.make(6)
        env.reset(seed=1)
        out = env.make_rollout(4, actions=True)
        result = env.rollout_random(4, out=out)
        assert all(a is b for a, b in zip(result, out, strict=True))
        few = out._replace(final_obs=None, episode_return=None, episode_length=None, actions=None)
        result = env.rollout_random(4, out=few)
        assert result[4:] == (None,) * 4
        again = env.rollout(out.actions, out=few)
        assert again.obs is out.obs


BUFFERS = {
    "obs": np.zeros((3, 4, 3), np.float32),
    "rewards": np.zeros((3, 4)),
    "terminated": np.zeros((3, 4), np.uint8),
    "truncated": np.zeros((3, 8), bool)[:, ::2],
    "final_obs": np.zeros((2, 4, 4), np.float32),
    "episode_return": [0.0],
    "episode_length": np.zeros((3, 4), np.int64),
    "actions": np.zeros((3, 4, 1), np.int64),
}


@pytest.mark.parametrize("face", ["arrays", "tensors"])
@pytest.mark.parametrize("name", BUFFERS)
def test_unfit_storage_is_named_and_nothing_moves(face, name):
    case = CASES["CartPole"]
    env = case.make(4) if face == "arrays" else make_env(case, 4)
    env.reset(seed=0)
    before = env.state_dict()
    wrong = BUFFERS[name]
    if face == "tensors" and isinstance(wrong, np.ndarray):
        wrong = torch.from_numpy(wrong)
    out = env.make_rollout(3, actions=True)._replace(**{name: wrong})
    with pytest.raises((TypeError, ValueError), match=rf"out\.{name} must"):
        env.rollout_random(3, out=out)
    assert_unchanged(env, before)


@pytest.mark.parametrize("face", ["arrays", "tensors"])
def test_wrong_calls_are_named(face):
    case = CASES["CartPole"]
    as_face = np.asarray if face == "arrays" else torch.as_tensor
    env = case.make(4) if face == "arrays" else TensorVectorEnv(case.env_id, 4, device="cpu")
    with pytest.raises(ResetNeeded, match="reset"):
        env.rollout_random(3)
    env.reset(seed=0)
    before = env.state_dict()
    bad = np.zeros((3, 4), np.int64)
    bad[2, 1] = 2
    wrong = [
        (ValueError, "actions must be 0 or 1, got 2", lambda: env.rollout(as_face(bad))),
        (ValueError, "actions must have shape", lambda: env.rollout(as_face(bad[:, :3]))),
        (ValueError, "actions must have shape", lambda: env.rollout(as_face(bad[0]))),
        (ValueError, "at least 1", lambda: env.rollout(as_face(bad[:0]))),
        (TypeError, "actions must", lambda: env.rollout(as_face(bad.astype(np.float64)))),
        (TypeError, "actions must", lambda: env.rollout(None)),
        (ValueError, "num_steps must be at least 1", lambda: env.rollout_random(0)),
        (TypeError, "num_steps must be an integer", lambda: env.rollout_random(2.0)),
        (TypeError, "num_steps must be an integer", lambda: env.make_rollout(True)),
        (TypeError, "out must be a Rollout", lambda: env.rollout_random(2, out=())),
        (ValueError, "out.obs must", lambda: env.rollout_random(2, out=env.make_rollout(3))),
    ]
    for error, message, call in wrong:
        with pytest.raises(error, match=message):
            call()
        assert_unchanged(env, before)
    env.close()
    with pytest.raises(ClosedEnvironmentError):
        env.rollout_random(3)


def test_actions_without_bounds_cannot_be_drawn():
    env = CASES["Pendulum"].make(2, max_torque=np.inf)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="needs an action space with bounds"):
        env.rollout_random(3)


def test_arrays_that_rest_refuse_a_rollout():
    env = CASES["CartPole"].make(3, autoreset_mode="Disabled", max_episode_steps=2)
    env.reset(seed=0)
    result = env.rollout_random(4)
    assert result.truncated.sum() == 3
    assert not result.rewards[2:].any()
    with pytest.raises(ResetNeeded, match="have ended"):
        env.rollout_random(1)


def test_threads_change_nothing():
    """As many environments as several threads share, and one by one through the same addresses."""
    case = CASES["CartPole"]
    env = case.make(4097, autoreset_mode="SameStep")
    env.reset(seed=5)
    small = case.make(300, autoreset_mode="SameStep")
    small.reset(seed=5)
    large, few = env.rollout_random(40), small.rollout_random(40)
    assert_same_bytes(np.ascontiguousarray(large.obs[:, :300]), few.obs)
    assert_same_bytes(np.ascontiguousarray(large.episode_return[:, :300]), few.episode_return)


@pytest.mark.unpoisoned
def test_operators_pass_opcheck():
    env = make_env(CASES["Pendulum"], 4)
    actions = torch.zeros(3, 4, 1)
    results = env.make_rollout(3)[:7]
    arguments = (*env._batch_rules, *env._state)
    operators = torch.ops.rlox_gpu
    torch.library.opcheck(operators.env_rollout.default, (*arguments, actions, *results))
    for wanted in (actions, None):
        call = (*arguments, 3, wanted, *results)
        torch.library.opcheck(operators.env_rollout_random.default, call)


def rollouts_on_a_device_that_does_not_exist():
    import pytest
    import torch

    from rlox_gpu.envs.tensor import TensorVectorEnv

    env = TensorVectorEnv("CartPole-v1", 32, device="gpu", autoreset_mode="SameStep")
    env.reset(seed=3)
    actions = torch.zeros((4, 32), dtype=torch.int64, device="gpu")
    for result in (env.rollout(actions), env.rollout_random(4, actions=True)):
        assert {part.device.type for part in result} == {"gpu"}
    with pytest.raises(ValueError, match="actions must be on gpu"):
        env.rollout(torch.zeros((4, 32), dtype=torch.int64))
    arguments = (*env._batch_rules, *env._state, 4, torch.zeros((4, 32), dtype=torch.int64))
    with pytest.raises(ValueError, match="on one device"):
        torch.ops.rlox_gpu.env_rollout_random(*arguments, *env.make_rollout(4)[:7])


def test_nothing_waits_for_a_device_and_devices_do_not_mix():
    run_on_fake_device(rollouts_on_a_device_that_does_not_exist)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_a_cuda_device_equals_the_cpu(case, mode):
    cpu = make_env(case, 1000, mode, max_episode_steps=60)
    cuda = TensorVectorEnv(
        case.env_id,
        1000,
        device="cuda",
        autoreset_mode=mode,
        **{**case.params, "max_episode_steps": 60},
    )
    cuda.reset(seed=11)
    result = cuda.rollout_random(300, actions=True)
    for part, truth in zip(result, random_rollout(cpu, 300), strict=True):
        assert_same_bytes(part.cpu(), truth)
    actions = result.actions.cpu()
    for part, truth in zip(cuda.rollout(result.actions), cpu.rollout(actions), strict=True):
        assert_same_bytes(part.cpu(), truth)
