"""What every task must show: it follows Gymnasium's, is the same on every backend to the last bit,
and answers wrong actions by name."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from env_cases import MODES, HostEnv, assert_same_bytes, assert_unchanged, noise_of
from env_tasks import CASES
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from simulated_cuda import SimulatedModule

import rlox_gpu
from rlox_gpu.envs.cuda import use_launcher
from rlox_gpu.envs.tasks import TASKS
from rlox_gpu.envs.tensor import TensorVectorEnv


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def test_every_task_has_a_row():
    assert {task.name for task, _ in TASKS.values()} == set(CASES)


def test_spaces_limits_and_pictures_are_gymnasiums(case):
    theirs = gym.make(case.env_id)
    ours = case.make(2)
    if case.cells is None:
        assert ours.single_observation_space == theirs.observation_space
    else:
        assert ours.single_observation_space.shape == (theirs.observation_space.n,)
    assert ours.single_action_space == theirs.action_space
    assert ours.max_episode_steps == theirs.spec.max_episode_steps
    assert ours.metadata["render_fps"] == theirs.metadata["render_fps"]
    theirs.close()


@pytest.mark.parametrize("changed", [False, True], ids=["defaults", "parameters"])
def test_a_step_from_any_state_equals_gymnasium(case, changed, rng):
    params = dict(case.params) if changed else {}
    states, actions = case.states(rng, 1000), case.actions(rng, 1000)
    env, reference = case.make(1000, **params), case.make_reference(params)
    env.reset(seed=0)
    env._arrays.state[:] = states
    noise = noise_of(env)
    obs, rewards, terminated, truncated, _ = env.step(actions)
    reference.reset(seed=0)
    for i, action in enumerate(actions):
        reference.steps_beyond_terminated = None
        case.place(reference, states[i], noise[i])
        expected = reference.step(action if action.ndim else int(action))
        close = {"rtol": case.tolerance, "atol": case.tolerance, "err_msg": str(states[i])}
        np.testing.assert_allclose(obs[i], case.observe(expected[0]), **close)
        np.testing.assert_allclose(rewards[i], expected[1], **close)
        assert terminated[i] == expected[2]
    assert not truncated.any()
    assert terminated.any() == (case.ending is not None)


LIMIT, NUM_ENVS = 7, 5


class Face:
    """One face with arrays in and out: "arrays", or tensors under a launcher."""

    def __init__(self, case, launcher, mode):
        arguments = {"autoreset_mode": mode, "max_episode_steps": LIMIT}
        self.launcher = launcher
        if launcher == "arrays":
            self.env = case.make(NUM_ENVS, **arguments)
            self.states = self.env._arrays.state
        else:
            self.env = TensorVectorEnv(case.env_id, NUM_ENVS, device="cpu", **arguments)
            self.states = self.env._state.state.numpy()

    def _call(self, function, *arguments, **keywords):
        if self.launcher in ("arrays", None):
            return function(*arguments, **keywords)
        with use_launcher(self.launcher):
            return function(*arguments, **keywords)

    def reset(self, **keywords):
        return np.asarray(self._call(self.env.reset, **keywords)[0])

    def step(self, actions):
        actions = actions if self.launcher == "arrays" else torch.from_numpy(actions)
        *results, infos = self._call(self.env.step, actions)
        return *map(np.asarray, results), infos


@pytest.mark.parametrize("launcher", ["arrays", None, SimulatedModule])
@pytest.mark.parametrize("mode", MODES)
def test_episodes_end_like_gymnasiums(case, mode, launcher, rng):
    ours = Face(case, launcher, mode)
    theirs = SyncVectorEnv(
        [lambda: gym.make(case.env_id, max_episode_steps=LIMIT)] * NUM_ENVS, autoreset_mode=mode
    )
    ours.reset(seed=0)
    theirs.reset(seed=0)
    rests = np.zeros(NUM_ENVS, bool)
    num_ended = num_terminated = 0
    for step in range(4 * LIMIT):
        if case.ending and step % 5 == 2:
            ours.states[1] = case.ending
        moment = zip(theirs.envs, ours.states, noise_of(ours.env), strict=True)
        for env, state, noise in moment:
            case.place(env.unwrapped, state, noise)
        actions = case.actions(rng, NUM_ENVS)
        actions[1] = 0
        obs, rewards, terminated, truncated, infos = ours.step(actions)
        expected = theirs.step(actions)
        close = {"rtol": case.tolerance, "atol": case.tolerance}
        np.testing.assert_allclose(rewards, expected[1], **close)
        np.testing.assert_array_equal(terminated, expected[2])
        np.testing.assert_array_equal(truncated, expected[3])
        ended = terminated | truncated
        num_ended, num_terminated = num_ended + ended.sum(), num_terminated + terminated.sum()
        fresh = {AutoresetMode.NEXT_STEP: rests, AutoresetMode.SAME_STEP: ended}.get(mode)
        same = np.ones(NUM_ENVS, bool) if fresh is None else ~fresh
        np.testing.assert_allclose(obs[same], case.observe(expected[0])[same], **close)
        if mode is AutoresetMode.SAME_STEP and ended.any():
            np.testing.assert_array_equal(infos["_final_obs"], expected[4]["_final_obs"])
            for i in np.flatnonzero(ended):
                final = np.asarray(infos["final_obs"][i])
                truth = case.observe(expected[4]["final_obs"][i])
                np.testing.assert_allclose(final, truth, **close)
        rests = ended & (mode is AutoresetMode.NEXT_STEP)
        if mode is AutoresetMode.DISABLED and ended.any():
            ours.reset(options={"reset_mask": ended.copy()})
            theirs.reset(options={"reset_mask": ended.copy()})
    assert num_ended >= 3 * NUM_ENVS - 1
    assert (num_terminated > 0) == (case.ending is not None)
    theirs.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_envs", [1, 17, 1025])
def test_rust_equals_host_build(case, mode, num_envs, rng):
    env = case.make(num_envs, autoreset_mode=mode, max_episode_steps=40, **case.params)
    env.reset(seed=7)
    env._arrays.state[:] = case.states(rng, num_envs)
    host = HostEnv(env)
    for step in range(300):
        actions = case.actions(rng, num_envs)
        actual, expected = env._native.step(actions), host.step(actions)
        pairs = zip((*actual[:4], *actual[6:]), (*expected[:4], *expected[5:]), strict=True)
        for result, truth in pairs:
            assert_same_bytes(result, truth, step)
        if mode is AutoresetMode.SAME_STEP:
            assert_same_bytes(actual[5], expected[4], step)
    for array, truth in zip(env._arrays, host.arrays, strict=True):
        assert_same_bytes(array, truth)


def roll(case, mode, actions, **arguments):
    """Reset, then step; in DISABLED mode what has ended is reset before each step."""
    env = TensorVectorEnv(
        case.env_id, actions.shape[1], device="cpu", autoreset_mode=mode, **arguments
    )
    results = [env.reset(seed=11)[0]]
    for action in actions:
        if mode is AutoresetMode.DISABLED and bool(env._state.ended.any()):
            mask = env._state.ended.clone()
            results.append(env.reset(options={"reset_mask": mask})[0])
        *step, infos = env.step(action)
        results += [*step, *infos["episode"].values(), infos.get("final_obs", step[0])]
    return [*results, *env._state]


def assert_simulated_equals_rust(case, mode, num_envs, num_steps, launcher=SimulatedModule):
    """Parameters and limits are every environment's own."""
    rng = np.random.default_rng(5)
    actions = torch.from_numpy(case.actions(rng, num_steps, num_envs))
    limits = max(2, num_steps // 3) + np.arange(num_envs) % 50
    params = {name: value * rng.uniform(0.8, 1.0, num_envs) for name, value in case.params.items()}
    expected = roll(case, mode, actions, max_episode_steps=limits, **params)
    with use_launcher(launcher):
        actual = roll(case, mode, actions, max_episode_steps=limits, **params)
    for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
        assert_same_bytes(a.numpy(), b.numpy(), i)


@pytest.mark.parametrize("mode", MODES)
def test_simulated_kernels_equal_rust(case, mode):
    assert_simulated_equals_rust(case, mode, 1024, 300)


@pytest.mark.parametrize("block", [32, 256])
def test_simulated_kernels_touch_only_their_own_memory(case, block):
    checks = {"check_races": True, "check_uninit": True, "schedule": "random", "seed": 1}
    launcher = lambda *a: SimulatedModule(*a, block=block, **checks)  # noqa: E731
    assert_simulated_equals_rust(case, AutoresetMode.SAME_STEP, 70, 4, launcher)


def episodes(step, reset, case, rng, num_steps):
    """Returns and lengths of the episodes of a batch that its ``step`` resets."""
    obs = reset()
    returns, lengths = [], []
    running = np.zeros((2, len(obs)))
    for _ in range(num_steps):
        obs, rewards, ended = step(case.policy(obs, rng))
        running += (rewards, np.ones(len(obs)))
        returns.extend(running[0, ended])
        lengths.extend(running[1, ended])
        running[:, ended] = 0
    return np.array(returns), np.array(lengths)


def reference_batch(case, num_envs, limit):
    """Gymnasium's environments in a plain loop, reset in the step that ends an episode."""
    envs = [case.make_reference() for _ in range(num_envs)]
    elapsed = np.zeros(num_envs, int)

    def reset():
        return np.stack([env.reset(seed=i)[0] for i, env in enumerate(envs)])

    def step(actions):
        obs, rewards, ended = [], [], []
        for i, (env, action) in enumerate(zip(envs, actions, strict=True)):
            seen, reward, terminated, *_ = env.step(action)
            elapsed[i] += 1
            ended.append(terminated or elapsed[i] >= limit)
            if ended[-1]:
                seen, elapsed[i] = env.reset()[0], 0
            obs.append(seen)
            rewards.append(reward)
        return np.stack(obs), np.array(rewards), np.array(ended)

    return step, reset


def kolmogorov_smirnov(first, second):
    """Two-sample statistic over its bound at the 0.1% level."""
    # Sums of rewards like 0.1 are a lattice, which float32 shifts by less than this.
    first, second = np.round(first, 3), np.round(second, 3)
    grid = np.unique(np.concatenate([first, second]))
    below = [np.searchsorted(np.sort(s), grid, "right") / len(s) for s in (first, second)]
    bound = 1.95 * np.sqrt(1 / len(first) + 1 / len(second))
    return np.abs(below[0] - below[1]).max() / bound


def distances(case, num_steps):
    """Statistics of returns and lengths after ``num_steps`` of Gymnasium's steps."""
    limit = case.make().max_episode_steps
    env = case.make(4096, autoreset_mode="SameStep")

    def step(actions):
        obs, rewards, terminated, truncated, _ = env.step(actions)
        return obs, rewards, terminated | truncated

    ours = episodes(step, lambda: env.reset(seed=3)[0], case, np.random.default_rng(0), limit)
    reference = reference_batch(case, num_steps // limit, limit)
    theirs = episodes(*reference, case, np.random.default_rng(1), limit)
    assert len(ours[0]) >= 4096
    return [kolmogorov_smirnov(*samples) for samples in zip(ours, theirs, strict=True)]


def test_returns_and_lengths_are_distributed_like_gymnasiums(case):
    assert max(distances(case, 60_000)) < 1


class Single(gym.Env):
    """One environment of a batch as Gymnasium's checker takes it."""

    def __init__(self, case):
        self.env = case.make(1, autoreset_mode=AutoresetMode.DISABLED)
        self.observation_space = self.env.single_observation_space
        self.action_space = self.env.single_action_space
        self.metadata = self.env.metadata

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        obs, infos = self.env.reset(seed=seed, options=options)
        return obs[0], infos

    def step(self, action):
        obs, rewards, terminated, truncated, infos = self.env.step(np.array([action]))
        return obs[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), infos


@pytest.mark.filterwarnings("ignore:.*A Box (action|observation) space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*For Box action spaces:UserWarning")
@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version:UserWarning")
def test_gymnasiums_checker_is_content(case):
    check_env(Single(case), skip_render_check=True)


def wrong_actions(case):
    """Actions of four environments beside the exception that each ends in."""
    good = case.actions(np.random.default_rng(0), 4)
    wrong = [
        (TypeError, np.full(good.shape, "a")),
        (TypeError, good.astype(bool)),
        (TypeError, None),
        (ValueError, good[:3]),
        (ValueError, good[:, None]),
    ]
    if good.dtype == np.int64:
        too_large = case.make().single_action_space.n
        return [
            *wrong,
            (TypeError, good.astype(np.float32)),
            (ValueError, np.where(np.arange(4) == 2, too_large, good)),
            (ValueError, np.where(np.arange(4) == 1, -1, good)),
        ]
    return [
        *wrong,
        (ValueError, good[:, 0]),
        (ValueError, np.where(np.arange(4)[:, None] == 2, np.nan, good)),
        (ValueError, np.where(np.arange(4)[:, None] == 1, np.inf, good)),
        (ValueError, np.full((4, 1), 1e300)),
    ]


@pytest.mark.parametrize("face", ["arrays", "tensors"])
def test_wrong_actions_are_named_and_move_nothing(case, face):
    env = case.make(4)
    if face == "tensors":
        env = TensorVectorEnv(case.env_id, 4, device="cpu")
    env.reset(seed=0)
    before = env.state_dict()
    for error, actions in wrong_actions(case):
        if face == "tensors" and isinstance(actions, np.ndarray):
            if actions.dtype.kind == "U":
                continue
            actions = torch.from_numpy(actions)
        with pytest.raises(error, match=r"actions must"):
            env.step(actions)
        assert_unchanged(env, before)


def test_actions_of_other_dtypes_and_layouts_are_taken(case, rng):
    actions = case.actions(rng, 4)
    exact = np.round(actions)
    dtypes = (np.int8, np.int32) if actions.dtype == np.int64 else (np.float64, np.int32)
    variants = [exact.astype(dtype) for dtype in dtypes]
    variants += [exact.tolist(), np.repeat(exact, 2, axis=0)[::2]]
    results = []
    for variant in (exact, *variants):
        env = case.make(4)
        env.reset(seed=0)
        results.append(env.step(variant)[0])
        if isinstance(variant, np.ndarray):
            tensors = TensorVectorEnv(case.env_id, 4, device="cpu")
            tensors.reset(seed=0)
            assert_same_bytes(tensors.step(torch.from_numpy(variant))[0], results[0])
    for result in results:
        assert_same_bytes(result, results[0])


def test_pictures_are_gymnasiums(case, rng):
    pytest.importorskip("pygame")
    env = case.make(2, render_mode="rgb_array", render_envs=[1])
    env.reset(seed=0)
    env._arrays.state[:] = case.states(rng, 2)
    (frame,) = env.render()
    reference = case.make_reference({"render_mode": "rgb_array"})
    reference.reset(seed=0)
    case.place(reference, env._arrays.state[1], 0.0)
    np.testing.assert_array_equal(frame, reference.render())
    env.close()
    reference.close()


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_a_step_are_gymnasiums(case, rng, mode):
    pytest.importorskip("pygame")
    arguments = {"autoreset_mode": mode, "render_mode": "rgb_array", "max_episode_steps": 3}
    arrays = case.make(2, render_envs=[1], **arguments)
    tensors = TensorVectorEnv(case.env_id, 2, device="cpu", render_envs=[1], **arguments)
    reference = case.make_reference({"render_mode": "rgb_array"})
    reference.reset(seed=0)
    for env in (arrays, tensors):
        env.reset(seed=0)
    for step in range(5):
        actions = case.actions(rng, 2)
        ended = np.logical_or(*arrays.step(actions)[2:4])
        tensors.step(torch.from_numpy(actions))
        action = actions[1].copy()
        actions *= 0  # the caller's own again
        if arrays._arrays.elapsed[1] == 0 or step == 0:
            reference.reset(seed=0)
        if arrays._arrays.elapsed[1] > 0:
            reference.step(action)
        case.place(reference, arrays._arrays.state[1], 0.0)
        expected = reference.render()
        for env in (arrays, tensors):
            np.testing.assert_array_equal(env.render()[0], expected)
        if mode is AutoresetMode.DISABLED and ended.any():
            for env in (arrays, tensors):
                env.reset(options={"reset_mask": ended})
    for env in (arrays, tensors, reference):
        env.close()


def test_only_a_step_leads_to_a_picture_with_its_torque():
    pytest.importorskip("pygame")
    env = CASES["Pendulum"].make(render_mode="rgb_array", max_episode_steps=2)
    env.reset(seed=0)
    saved = env.state_dict()
    env.step(np.full((1, 1), 2.0, np.float32))
    with_torque = env.render()[0]
    state = env._arrays.state.copy()
    env.rollout(np.full((3, 1, 1), 2.0, np.float32))  # to the same step of the next episode
    assert env._arrays.elapsed[0] == 1
    env._arrays.state[:] = state
    without = env.render()[0]
    assert not np.array_equal(with_torque, without)
    env.load_state_dict(saved)
    env._arrays.state[:] = state
    np.testing.assert_array_equal(env.render()[0], without)
    env.close()


def test_bounds_of_the_initial_state_have_gymnasiums_names(case):
    env = case.make(64)
    if not env.task.reset_options:
        with pytest.raises(ValueError, match=r"options may hold 'reset_mask', got 'low'"):
            env.reset(options={"low": 0.0})
        return
    first, second = env.task.reset_options
    env.reset(seed=0, options={first: 0.01, second: 0.02})
    states = env._arrays.state
    assert np.abs(states).max() <= np.float32(0.02)
    if first == "low":
        assert states[:, 0].min() >= np.float32(0.01)
        with pytest.raises(ValueError, match="must not be above"):
            env.reset(options={"low": 1.0, "high": 0.5})
    else:
        assert np.abs(states[:, 0]).max() <= np.float32(0.01)
        with pytest.raises(ValueError, match="must not be negative"):
            env.reset(options={first: -1.0})
    with pytest.raises(ValueError, match=f"'{first}' and '{second}'"):
        env.reset(options={"middle": 0.0})


@pytest.mark.unpoisoned
def test_operators_take_every_task(case, rng):
    env = TensorVectorEnv(case.env_id, 4, device="cpu", autoreset_mode="SameStep")
    obs, _ = env.reset(seed=0)
    actions = torch.from_numpy(case.actions(rng, 4))
    arguments = (*env._batch_rules, *env._state, actions, *env.make_buffers())
    torch.library.opcheck(torch.ops.rlox_gpu.env_step.default, arguments)
    reset = (*env._batch_rules, *env._state, None, torch.empty_like(obs))
    torch.library.opcheck(torch.ops.rlox_gpu.env_reset.default, reset)


@pytest.mark.parametrize("face", ["arrays", "tensors"])
def test_extreme_states_and_actions_give_no_nan(case, face, rng):
    """Ten thousand random steps from states and with actions of any size."""
    env = case.make(100, max_episode_steps=-1)
    if face == "tensors":
        env = TensorVectorEnv(case.env_id, 100, device="cpu", max_episode_steps=-1)
    env.reset(seed=0)
    state = env._arrays.state if face == "arrays" else env._state.state.numpy()
    for _ in range(100):
        if case.cells is None:
            state *= (10.0 ** rng.uniform(-2, 2, state.shape)).astype(np.float32)
            np.clip(state, -1e6, 1e6, out=state)
        actions = case.actions(rng, 100)
        if actions.dtype == np.float32:
            actions *= (10.0 ** rng.uniform(-30, 15, actions.shape)).astype(np.float32)
        obs, rewards, *_ = env.step(actions if face == "arrays" else torch.from_numpy(actions))
        assert np.isfinite(np.asarray(obs)).all()
        assert np.isfinite(np.asarray(rewards)).all()


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_the_registry_of_gymnasium_has_every_id():
    for env_id in TASKS:
        env = gym.make_vec(f"rlox_gpu/{env_id}", num_envs=2)
        assert env.reset(seed=0)[0] in env.observation_space
        env.close()


def test_the_environments_of_rlox_are_cart_poles():
    with pytest.raises(ValueError, match=r"expected CartPole, got 'Pendulum-v1'.*make_vec"):
        rlox_gpu.VecEnv(2, env_id="Pendulum-v1")
