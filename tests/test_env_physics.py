"""CartPole against Gymnasium's own: single steps, episode lengths, and sine and cosine."""

import gymnasium as gym
import numpy as np
import pytest
from env_cases import ENV_ID
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from rlox_gpu import _host
from rlox_gpu.envs.array import NumpyVectorEnv


def gymnasium_steps(states, actions, **arguments):
    """One step of Gymnasium's environment from each state."""
    env = CartPoleEnv(**arguments)
    results = []
    for state, action in zip(states, actions, strict=True):
        env.reset(seed=0)
        env.state = np.array(state, dtype=np.float64)
        results.append(env.step(int(action))[:3])
    obs, rewards, terminated = zip(*results, strict=True)
    return np.array(obs), np.array(rewards), np.array(terminated)


def random_states(rng, num_envs):
    """Over the whole range and beyond it, so that some steps terminate."""
    scale = np.array([2.5, 3.0, 0.22, 3.0])
    return rng.uniform(-scale, scale, (num_envs, 4)).astype(np.float32)


@pytest.mark.parametrize("sutton_barto_reward", [False, True])
def test_a_step_from_any_state_equals_gymnasium(rng, sutton_barto_reward):
    states, actions = random_states(rng, 1000), rng.integers(0, 2, 1000)
    env = NumpyVectorEnv(ENV_ID, 1000, sutton_barto_reward=sutton_barto_reward)
    env.reset(seed=0)
    env._arrays.state[:] = states
    obs, rewards, terminated, truncated, _ = env.step(actions)
    expected = gymnasium_steps(states, actions, sutton_barto_reward=sutton_barto_reward)
    np.testing.assert_allclose(obs, expected[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(terminated, expected[2])
    np.testing.assert_array_equal(rewards, expected[1])
    assert not truncated.any()
    assert 0 < terminated.sum() < 1000


def test_parameters_reach_the_physics(rng):
    states, actions = random_states(rng, 200), rng.integers(0, 2, 200)
    params = {"gravity": 3.7, "masscart": 2.0, "masspole": 0.3, "length": 0.8, "force_mag": 7.0}
    params |= {"tau": 0.01}
    env = NumpyVectorEnv(ENV_ID, 200, **params)
    env.reset(seed=0)
    env._arrays.state[:] = states
    obs = env.step(actions)[0]
    reference = CartPoleEnv()
    for name, value in params.items():
        setattr(reference, name, value)
    reference.total_mass = reference.masspole + reference.masscart
    reference.polemass_length = reference.masspole * reference.length
    for i in range(200):
        reference.reset(seed=0)
        reference.state = states[i].astype(np.float64)
        expected = reference.step(int(actions[i]))[0]
        np.testing.assert_allclose(obs[i], expected, rtol=1e-6, atol=1e-6)


def episode_lengths(env, rng, num_steps):
    lengths = []
    running = np.zeros(env.num_envs, dtype=int)
    fresh = np.zeros(env.num_envs, dtype=bool)
    for _ in range(num_steps):
        result = env.step(rng.integers(0, 2, env.num_envs))
        ended = result[2] | result[3]
        running = np.where(fresh, 0, running + 1)
        lengths.extend(running[ended])
        fresh = ended
    return np.array(lengths)


def test_episode_lengths_are_distributed_like_gymnasiums():
    """Two-sample Kolmogorov-Smirnov at the 0.1% level, thousands of episodes, fixed seeds."""
    ours = NumpyVectorEnv(ENV_ID, 512)
    theirs = gym.make_vec(ENV_ID, num_envs=512, vectorization_mode="vector_entry_point")
    samples = []
    for seed, env in enumerate((ours, theirs)):
        env.reset(seed=5)
        samples.append(episode_lengths(env, np.random.default_rng(seed), 600))
    sizes = [len(sample) for sample in samples]
    assert min(sizes) > 5000
    grid = np.arange(1, 501)
    first, second = (np.searchsorted(np.sort(s), grid, "right") / len(s) for s in samples)
    bound = 1.95 * np.sqrt(sum(sizes) / np.prod(sizes, dtype=float))
    assert np.abs(first - second).max() < bound


def test_initial_states_are_uniform_in_their_bounds():
    env = NumpyVectorEnv(ENV_ID, 4096)
    obs, _ = env.reset(seed=0)
    assert obs.min() >= -0.05
    assert obs.max() < 0.05
    for column in obs.T:
        counts, _ = np.histogram(column, bins=16, range=(-0.05, 0.05))
        chi_square = ((counts - 256.0) ** 2 / 256.0).sum()
        assert chi_square < 44.3  # 15 degrees of freedom at the 0.01% level
    assert np.abs(np.corrcoef(obs.T) - np.eye(4)).max() < 0.08


def ulps(actual, exact):
    return np.abs(actual - exact) / np.spacing(np.abs(exact).astype(np.float32))


@pytest.mark.parametrize(
    ("angles", "bound"),
    [
        (np.linspace(-np.pi / 4, np.pi / 4, 200_001), 1.0),
        (np.linspace(-1000, 1000, 200_001), 2.0),
        (np.pi / 2 * np.arange(-5000, 5000), 2.0),
        (10.0 ** np.linspace(0, 38.5, 200_001), 2.0),
        (np.array([0.0, -0.0, np.finfo(np.float32).tiny, 1e-45]), 1.0),
    ],
    ids=["near", "turns", "quarters", "huge", "tiny"],
)
def test_sine_and_cosine_are_accurate(angles, bound):
    angles = angles.astype(np.float32)
    sin, cos = _host.sin_cos(angles)
    assert ulps(sin, np.sin(angles.astype(np.float64))).max() < bound
    assert ulps(cos, np.cos(angles.astype(np.float64))).max() < bound


def test_sine_and_cosine_of_no_number_are_no_number():
    sin, cos = _host.sin_cos(np.array([np.inf, -np.inf, np.nan], np.float32))
    assert np.isnan(sin).all()
    assert np.isnan(cos).all()
