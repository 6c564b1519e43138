"""CartPole and VecEnv as rlox's users know them."""

import numpy as np
import pytest
from env_cases import assert_same_bytes
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

import rlox_gpu
from rlox_gpu.envs.array import NumpyVectorEnv


def test_cartpole_gives_what_the_documentation_says():
    env = rlox_gpu.CartPole(seed=0)
    assert env.render() is None
    obs = env.reset()
    assert obs.shape == (4,)
    assert obs.dtype == np.float32
    result = env.step(1)
    assert list(result) == ["obs", "reward", "terminated", "truncated"]
    assert result["obs"].shape == (4,)
    assert type(result["reward"]) is float
    assert type(result["terminated"]) is type(result["truncated"]) is bool
    assert env.render().startswith("CartPole | step=1 | x=")


def test_cartpole_follows_gymnasium():
    env, reference = rlox_gpu.CartPole(seed=3), CartPoleEnv()
    reference.reset(seed=0)
    reference.state = env.reset().astype(np.float64)
    for step in range(20):
        result = env.step(step % 2)
        obs, reward, terminated, _, _ = reference.step(step % 2)
        np.testing.assert_allclose(result["obs"], obs, atol=1e-5)
        assert (result["reward"], result["terminated"]) == (reward, terminated)


def test_cartpole_seeds():
    first = rlox_gpu.CartPole(seed=5).reset()
    env = rlox_gpu.CartPole(5)
    assert_same_bytes(env.reset(), first)
    assert not (env.reset() == first).all()
    assert_same_bytes(env.reset(seed=5), first)
    assert not (rlox_gpu.CartPole().reset() == rlox_gpu.CartPole().reset()).all()


def test_cartpole_is_truncated_after_500_steps():
    env = rlox_gpu.CartPole(seed=0)
    obs, num_steps, result = env.reset(), 0, {"terminated": False, "truncated": False}
    while not (result["terminated"] or result["truncated"]):
        x, x_dot, theta, theta_dot = obs
        right = theta + 0.5 * theta_dot + 0.05 * x_dot + 0.02 * x > 0
        result = env.step(int(right))
        obs, num_steps = result["obs"], num_steps + 1
    assert (num_steps, result["truncated"], result["terminated"]) == (500, True, False)
    with pytest.raises(RuntimeError, match="ended"):
        env.step(0)


@pytest.mark.parametrize("num_envs", [1, 16, 300])
def test_vec_env_equals_the_vector_env(num_envs):
    env = rlox_gpu.VecEnv(num_envs, seed=7)
    vector = NumpyVectorEnv("CartPole-v1", num_envs, autoreset_mode="SameStep")
    assert env.num_envs() == num_envs
    assert env.action_space == {"type": "discrete", "n": 2}
    assert_same_bytes(env.reset_all(), vector.reset(seed=7)[0])
    rng = np.random.default_rng(0)
    ended = 0
    for step in range(200):
        actions = rng.integers(0, 2, num_envs)
        result = env.step_all(actions if step % 2 else actions.tolist())
        obs, rewards, terminated, truncated, infos = vector.step(actions)
        assert list(result) == ["obs", "rewards", "terminated", "truncated", "terminal_obs"]
        assert_same_bytes(result["obs"], obs)
        assert_same_bytes(result["rewards"], rewards.astype(np.float64))
        assert_same_bytes(result["terminated"], terminated)
        assert_same_bytes(result["truncated"], truncated)
        assert len(result["terminal_obs"]) == num_envs
        for i, final in enumerate(result["terminal_obs"]):
            assert (final is not None) == (terminated[i] or truncated[i])
            if final is not None:
                ended += 1
                assert_same_bytes(final, infos["final_obs"][i])
    assert ended > num_envs


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint32, np.int32, np.int64])
def test_vec_env_takes_integer_arrays(dtype):
    env = rlox_gpu.VecEnv(n=4, seed=0, env_id="CartPole-v1")
    env.reset_all()
    obs = env.step_all(np.array([0, 1, 1, 0], dtype))["obs"]
    env.reset_all(seed=0)
    assert_same_bytes(env.step_all([0, 1, 1, 0])["obs"], obs)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "GymVecEnv", lambda: rlox_gpu.VecEnv(2, env_id="HalfCheetah-v4")),
        (ValueError, "n must be at least 1", lambda: rlox_gpu.VecEnv(0)),
        (TypeError, "n must be an integer", lambda: rlox_gpu.VecEnv(2.0)),
        (TypeError, "seed must be an integer", lambda: rlox_gpu.VecEnv(2, seed="0")),
        (ValueError, "seed must be between", lambda: rlox_gpu.CartPole(seed=-1)),
        (RuntimeError, "reset", lambda: rlox_gpu.VecEnv(2).step_all([0, 1])),
        (RuntimeError, "reset", lambda: rlox_gpu.CartPole().step(0)),
    ],
)
def test_wrong_arguments_are_named(error, message, call):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("error", "actions"),
    [
        (ValueError, [0]),
        (ValueError, [0, 1, 2]),
        (ValueError, [0, -1]),
        (ValueError, np.array([0, 2])),
        (ValueError, np.array([[0, 1]])),
        (TypeError, [0, "1"]),
        (TypeError, [0, 1.0]),
        (TypeError, np.array([0.0, 1.0])),
    ],
)
def test_wrong_actions_move_nothing(error, actions):
    env = rlox_gpu.VecEnv(2, seed=0)
    env.reset_all()
    with pytest.raises(error, match="actions"):
        env.step_all(actions)
    obs = env.step_all([0, 1])["obs"]
    env.reset_all(seed=0)
    assert_same_bytes(env.step_all([0, 1])["obs"], obs)


@pytest.mark.parametrize(("error", "action"), [(ValueError, 2), (ValueError, -1), (TypeError, 0.0)])
def test_a_wrong_action_moves_nothing(error, action):
    env = rlox_gpu.CartPole(seed=0)
    env.reset()
    with pytest.raises(error, match="action"):
        env.step(action)
    assert env.render().startswith("CartPole | step=0")
