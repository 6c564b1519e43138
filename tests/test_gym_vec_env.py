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
