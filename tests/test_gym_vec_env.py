import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlox_gpu import GymVecEnv
from rlox_gpu.batch import RolloutStorage
from rlox_gpu.envs.gymnasium import GymnasiumTensorEnv


class Ticker(gym.Env):
    """Observation: steps since the reset. Terminates after 3 steps if even-numbered."""

    observation_space = spaces.Box(0, 100, (1,), np.float64)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1), {}

    def step(self, action):
        self.steps += 1
        return np.array([float(self.steps)]), float(action), self.steps == 3, False, {}


gym.register("RloxGpuTicker-v0", Ticker, max_episode_steps=5)


@pytest.fixture
def ticker():
    env = GymVecEnv("RloxGpuTicker-v0", 2)
    env.reset_all()
    yield env
    env.close()


def test_step_gives_what_rlox_gives(ticker):
    assert ticker.num_envs == len(ticker) == 2
    result = ticker.step_all([0, 1])
    assert result["obs"].tolist() == [[1.0], [1.0]]
    assert result["rewards"].tolist() == [0.0, 1.0]
    assert result["terminated"].dtype == result["truncated"].dtype == np.bool_
    assert result["terminal_obs"] == [None, None]


def test_an_episode_that_ends_is_reset_in_the_same_step(ticker):
    for _ in range(3):
        result = ticker.step_all(np.zeros(2, np.int64))
    assert result["terminated"].all()
    assert result["obs"].tolist() == [[0.0], [0.0]]
    assert [obs.tolist() for obs in result["terminal_obs"]] == [[3.0], [3.0]]
    assert ticker.step_all([0, 0])["obs"].tolist() == [[1.0], [1.0]]


def test_results_are_copies(ticker):
    first = ticker.step_all([0, 0])
    ticker.step_all([1, 1])
    assert first["obs"].tolist() == [[1.0], [1.0]]
    assert first["rewards"].tolist() == [0.0, 0.0]


def test_seeds_determine_episodes():
    starts = []
    for seed in (0, 0, 1):
        env = GymVecEnv("CartPole-v1", 3, seed=seed)
        starts.append((env.reset_all(), env.reset_all()))
        env.close()
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0][0], starts[2][0])
    assert not np.array_equal(starts[0][0], starts[0][1])
    assert len(np.unique(starts[0][0], axis=0)) == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_continuous_actions_in_both_precisions(dtype):
    env = GymVecEnv("Pendulum-v1", 2)
    env.reset_all()
    result = env.step_all(np.full((2, 1), 0.5, dtype))
    assert result["obs"].shape == (2, 3)
    assert env.step_all(torch.zeros(2, 1, dtype=torch.float64))["rewards"].shape == (2,)
    assert env.action_space.shape == (1,)
    env.close()


@pytest.mark.parametrize(
    ("env_id", "actions", "error", "message"),
    [
        ("CartPole-v1", [0, 1, 0], ValueError, r"shape \(2,\)"),
        ("CartPole-v1", [[0], [1]], ValueError, r"shape \(2,\)"),
        ("CartPole-v1", [0.0, 1.0], TypeError, "integers"),
        ("CartPole-v1", [0, 2], ValueError, "0 to 1"),
        ("CartPole-v1", [-1, 0], ValueError, "0 to 1"),
        ("Pendulum-v1", [0.0, 0.0], ValueError, r"shape \(2, 1\)"),
        ("Pendulum-v1", [[np.nan], [0.0]], ValueError, "NaN"),
        ("Pendulum-v1", [["a"], ["b"]], TypeError, "numbers"),
    ],
    ids=["long", "wide", "float", "high", "negative", "narrow", "nan", "text"],
)
def test_actions_are_checked(env_id, actions, error, message):
    env = GymVecEnv(env_id, 2)
    env.reset_all()
    with pytest.raises(error, match=message):
        env.step_all(actions)
    env.close()


def test_wrong_order_of_calls_is_refused():
    env = GymVecEnv("CartPole-v1", 1)
    with pytest.raises(RuntimeError, match="not reset"):
        env.step_all([0])
    env.reset_all()
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.step_all([0])
    with pytest.raises(RuntimeError, match="closed"):
        env.reset_all()


@pytest.mark.parametrize(
    ("env_id", "n_envs", "message"),
    [("NoSuchEnv-v0", 1, "env_id"), ("CartPole-v1", 0, "n_envs"), ("CartPole-v1", 1.5, "n_envs")],
    ids=["unknown", "zero", "fraction"],
)
def test_construction_is_checked(env_id, n_envs, message):
    with pytest.raises(ValueError, match=message):
        GymVecEnv(env_id, n_envs)


def test_tensor_face_tells_terminated_from_truncated():
    env = GymnasiumTensorEnv("RloxGpuTicker-v0", 2)
    storage = RolloutStorage.allocate(4, 2, 1, "cpu")
    storage.obs[0].copy_(env.reset(seed=0)[0])
    for row in storage.rows:
        env.step_into(torch.tensor([0, 1]), row.results)
    assert storage.obs[:, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert storage.terminated[:, 0].tolist() == [False, False, True, False]
    assert not storage.truncated.any()
    assert storage.final_obs[2].tolist() == [[3.0], [3.0]]
    assert storage.episode_returns[2].tolist() == [0.0, 3.0]
    assert storage.episode_lengths[:, 0].tolist() == [0, 0, 3, 0]
    env.close()


def test_tensor_face_counts_a_time_limit_as_truncation():
    env = GymnasiumTensorEnv("Acrobot-v1", 1)
    storage = RolloutStorage.allocate(500, 1, 6, "cpu")
    storage.obs[0].copy_(env.reset(seed=0)[0])
    for row in storage.rows:
        env.step_into(torch.tensor([1]), row.results)
    assert storage.truncated[:, 0].nonzero().tolist() == [[499]]
    assert storage.episode_returns[499].item() == -500
    assert not torch.equal(storage.final_obs[499], storage.obs[500])
    env.close()


def test_tensor_face_needs_a_box():
    with pytest.raises(ValueError, match="Box observation"):
        GymnasiumTensorEnv("FrozenLake-v1", 1)


MODES = ("sync", "async")
# Gymnasium starts the processes by fork, of which newer versions of Python warn.
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Reusing(gym.Env):
    """Gives the same array each time: steps since the reset."""

    observation_space = spaces.Box(0, 100, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float64)

    def __init__(self, length=2):
        self.length = length
        self.obs = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.obs[:] = 0
        return self.obs, {}

    def step(self, action):
        if action[0] == 0.5:
            raise ValueError("a broken environment")
        self.obs += 1
        # What float64 alone can hold.
        reward = float(action[1] == 1 / 3)
        return self.obs, reward, False, bool(self.obs[0] == self.length), {}


# Gymnasium's checker would warn of it.
gym.register("RloxGpuReusing-v0", Reusing, disable_env_checker=True)


@forks
@pytest.mark.parametrize("mode", MODES)
def test_final_observations_outlive_the_reset(mode):
    env = GymVecEnv("RloxGpuReusing-v0", 2, vectorization_mode=mode, length=3)
    assert env.reset_all().tolist() == [[0.0], [0.0]]
    for _ in range(3):
        result = env.step_all(np.full((2, 2), 1 / 3))
        assert result["rewards"].tolist() == [1.0, 1.0]
    assert result["truncated"].all()
    assert not result["terminated"].any()
    assert result["obs"].tolist() == [[0.0], [0.0]]
    assert [obs.tolist() for obs in result["terminal_obs"]] == [[3.0], [3.0]]
    env.step_all(np.zeros((2, 2), np.float32))
    assert [obs.tolist() for obs in result["terminal_obs"]] == [[3.0], [3.0]]
    env.close()


def trajectory(env_id, mode, steps, dtype=None, **arguments):
    env = GymVecEnv(env_id, 3, seed=5, vectorization_mode=mode, **arguments)
    rng = np.random.default_rng(0)
    results = [{"obs": env.reset_all()}]
    for _ in range(steps):
        if isinstance(env.action_space, spaces.Discrete):
            actions = rng.integers(0, env.action_space.n, 3)
        else:
            actions = rng.uniform(-1, 1, (3, *env.action_space.shape)).astype(np.float32)
        results.append(env.step_all(actions if dtype is None else actions.astype(dtype)))
    env.close()
    return results


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for name in x.keys() - {"terminal_obs"}:
            np.testing.assert_array_equal(x[name], y[name])
            assert x[name].dtype == y[name].dtype
        for p, q in zip(x.get("terminal_obs", []), y.get("terminal_obs", []), strict=True):
            assert (p is None) == (q is None)
            np.testing.assert_array_equal(p, q)


@forks
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_processes_give_the_same_numbers(env_id):
    runs = [trajectory(env_id, mode, 60, max_episode_steps=25) for mode in MODES]
    assert_same(*runs)
    ended = sum(obs is not None for step in runs[0][1:] for obs in step["terminal_obs"])
    assert ended >= 6


@pytest.mark.parametrize("mode", MODES)
@forks
def test_results_are_copies_in_either_mode(mode):
    env = GymVecEnv("CartPole-v1", 2, vectorization_mode=mode)
    first = env.reset_all()
    kept = first.copy()
    second = env.step_all([0, 1])
    again = {name: np.array(second[name]) for name in ("obs", "rewards")}
    env.step_all([1, 1])
    np.testing.assert_array_equal(first, kept)
    for name, value in again.items():
        np.testing.assert_array_equal(second[name], value)
    env.close()


@forks
def test_observations_come_through_shared_memory():
    env = GymVecEnv("CartPole-v1", 2, vectorization_mode="async")
    assert env._envs.shared_memory
    assert GymVecEnv("CartPole-v1", 2)._envs.metadata["autoreset_mode"].value == "SameStep"
    without = {"shared_memory": False}
    assert_same(
        trajectory("CartPole-v1", "async", 10),
        trajectory("CartPole-v1", "async", 10, vector_kwargs=without),
    )
    env.close()


@forks
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:.*ERROR:UserWarning")
def test_an_error_inside_reaches_the_caller(mode):
    env = GymVecEnv("RloxGpuReusing-v0", 2, vectorization_mode=mode)
    env.reset_all()
    with pytest.raises(ValueError, match="a broken environment"):
        env.step_all(np.full((2, 2), 0.5))
    env.close()


class Pair(gym.Env):
    observation_space = spaces.Dict({"a": spaces.Box(0, 9, (2,)), "b": spaces.Discrete(4)})
    action_space = spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"a": np.zeros(2, np.float32), "b": 1}, {}

    def step(self, action):
        return {"a": np.ones(2, np.float32), "b": 2}, 1.0, True, False, {}


gym.register("RloxGpuPair-v0", Pair)


def test_dictionaries_stay_dictionaries():
    env = GymVecEnv("RloxGpuPair-v0", 2)
    assert env.reset_all()["a"].shape == (2, 2)
    result = env.step_all([[0, 1], [1, 2]])
    assert result["obs"]["b"].tolist() == [1, 1]
    assert [final["b"] for final in result["terminal_obs"]] == [2, 2]
    env.close()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"vectorization_mode": "threads"}, ValueError, "vectorization_mode"),
        ({"vector_kwargs": {"autoreset_mode": "Disabled"}}, ValueError, "vector_kwargs"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": "one"}, TypeError, "seed"),
    ],
)
def test_modes_and_seeds_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        GymVecEnv("CartPole-v1", 2, **arguments)


def test_tensor_face_takes_continuous_actions_in_both_precisions():
    for dtype in (torch.float32, torch.float64):
        env = GymnasiumTensorEnv("RloxGpuReusing-v0", 2)
        storage = RolloutStorage.allocate(2, 2, 1, "cpu")
        storage.obs[0].copy_(env.reset(seed=0)[0])
        for row in storage.rows:
            env.step_into(torch.full((2, 2), 1 / 3, dtype=dtype), row.results)
        assert storage.final_obs[1].tolist() == [[2.0], [2.0]]
        assert storage.episode_returns[1].tolist() == [2.0 * (dtype is torch.float64)] * 2
        env.close()


@forks
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mujoco(mode, dtype):
    pytest.importorskip("mujoco")
    results = trajectory("Hopper-v5", mode, 60, dtype, max_episode_steps=30)
    assert results[0]["obs"].shape == (3, 11)
    assert results[0]["obs"].dtype == np.float64
    assert_same(results, trajectory("Hopper-v5", "sync", 60, np.float32, max_episode_steps=30))
    finals = [obs for step in results[1:] for obs in step["terminal_obs"] if obs is not None]
    assert len(finals) >= 6
    # A hopper starts within 5e-3 of standing still; where an episode ends it moves.
    assert min(np.abs(final[5:]).max() for final in finals) > 0.1


@forks
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("continuous", [False, True])
def test_box2d(mode, continuous):
    pytest.importorskip("Box2D")
    arguments = {"continuous": continuous, "max_episode_steps": 40}
    results = trajectory("LunarLander-v3", mode, 90, **arguments)
    assert results[0]["obs"].shape == (3, 8)
    assert_same(results, trajectory("LunarLander-v3", "sync", 90, **arguments))
    assert sum(step["truncated"].sum() for step in results[1:]) >= 6
