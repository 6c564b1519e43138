"""Our environments under Stable-Baselines3, beside its own DummyVecEnv."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

from rlox_gpu import make_vec
from rlox_gpu.envs import wrappers
from rlox_gpu.envs.tensor import TensorVectorEnv

sb3 = pytest.importorskip("stable_baselines3")

from stable_baselines3.common.evaluation import evaluate_policy  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize  # noqa: E402

from rlox_gpu.envs.sb3 import SB3VecEnv, make_sb3_vec_env  # noqa: E402

N, LIMIT = 4, 9


@pytest.fixture(autouse=True)
def one_thread():
    """SB3's small networks: threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def on_tensors(env_id="CartPole-v1", **arguments):
    arguments = {"max_episode_steps": LIMIT, **arguments}
    return SB3VecEnv(
        TensorVectorEnv(env_id, N, device="cpu", autoreset_mode="SameStep", **arguments)
    )


def on_arrays(env_id="CartPole-v1", **arguments):
    return make_sb3_vec_env(env_id, N, **{"max_episode_steps": LIMIT, **arguments})


@pytest.fixture(params=[on_arrays, on_tensors], ids=["numpy", "tensor"])
def make(request):
    return request.param


def states(env):
    native = env.env.unwrapped
    return native._arrays.state if hasattr(native, "_arrays") else native._state.state.numpy()


def dummy(env_id):
    def one():
        return Monitor(gym.make(env_id, max_episode_steps=LIMIT))

    return DummyVecEnv([one] * N)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_steps_are_those_of_dummy_vec_env(make, env_id):
    ours, theirs = make(env_id), dummy(env_id)
    assert ours.reset().dtype == theirs.reset().dtype
    rng = np.random.default_rng(0)
    num_ended = num_cut = 0
    for _ in range(60):
        for env, state in zip(theirs.envs, states(ours), strict=True):
            env.unwrapped.state = state.astype(np.float64)
        actions = np.array([ours.action_space.sample() for _ in range(N)])
        if env_id == "CartPole-v1":
            actions = rng.integers(0, 2, N)
            actions[0] = 1
        mine, other = ours.step(actions), theirs.step(actions)
        np.testing.assert_allclose(mine[1], other[1], rtol=1e-5)
        np.testing.assert_array_equal(mine[2], other[2])
        assert [x.dtype for x in mine[:3]] == [x.dtype for x in other[:3]]
        np.testing.assert_allclose(mine[0][~mine[2]], other[0][~mine[2]], atol=1e-5)
        for a, b in zip(mine[3], other[3], strict=True):
            assert set(a) == set(b)
            assert a["TimeLimit.truncated"] is bool(b["TimeLimit.truncated"])
            num_cut += a["TimeLimit.truncated"]
            if "episode" in b:
                num_ended += 1
                assert set(a["episode"]) == set(b["episode"])
                assert a["episode"]["l"] == b["episode"]["l"]
                assert a["episode"]["r"] == pytest.approx(b["episode"]["r"], rel=1e-4)
                assert type(a["episode"]["r"]) is type(b["episode"]["r"]) is float
                np.testing.assert_allclose(
                    a["terminal_observation"], b["terminal_observation"], atol=1e-5
                )
    assert num_ended >= 24
    assert num_cut >= 18


def test_seeds_are_those_of_the_environment(make):
    env = make()
    assert list(env.seed(3)) == [3, 4, 5, 6]
    first, later = env.reset(), env.reset()
    np.testing.assert_array_equal(first, make_vec("CartPole-v1", N).reset(seed=3)[0])
    assert not np.array_equal(first, later)
    np.testing.assert_array_equal(make_sb3_vec_env("CartPole-v1", N, seed=3).reset(), first)


def test_options_reach_the_reset(make):
    env = make()
    env.set_options({"low": 0.01, "high": 0.01})
    np.testing.assert_allclose(env.reset(), 0.01)
    env.set_options([{"low": 0.0}, {}, {}, {}])
    with pytest.raises(ValueError, match="options"):
        env.reset()


def test_attributes(make):
    env = make(gravity=3.0)
    assert env.get_attr("gravity") == [3.0] * N
    assert env.get_attr("max_episode_steps", [1, 2]) == [LIMIT] * 2
    assert env.get_attr("observation_space", 0) == [env.observation_space]
    assert env.has_attr("gravity")
    assert not env.has_attr("no_such_thing")
    env.set_attr("note", "mine")
    assert env.get_attr("note", 3) == ["mine"]
    with pytest.raises(ValueError, match="indices"):
        env.set_attr("note", "other", indices=[0])
    with pytest.raises(AttributeError, match="fixed"):
        env.set_attr("gravity", 9.8)


def test_parameters_of_each_environment_are_told_apart(make):
    env = make(gravity=np.array([1.0, 2.0, 3.0, 4.0]))
    assert env.get_attr("gravity", [1, 3]) == [2.0, 4.0]


def test_attributes_of_wrappers_are_found():
    inner = wrappers.NormalizeReward(make_vec("CartPole-v1", N, autoreset_mode="SameStep"))
    env = SB3VecEnv(wrappers.FrameStack(inner, 2))
    env.set_attr("update_running_mean", False)
    assert inner.update_running_mean is False
    assert env.get_attr("stack_size", 0) == [2]


def test_methods(make):
    env = make(render_mode="rgb_array")
    env.reset()
    frames = env.env_method("render")
    assert len(frames) == N
    assert frames[0].shape == (400, 600, 3)
    with pytest.raises(ValueError, match="env_method"):
        env.env_method("render", indices=[0])
    with pytest.raises(AttributeError, match="fly"):
        env.env_method("fly")


def test_wrappers_are_found(make):
    env = make()
    assert env.env_is_wrapped(Monitor) == [True] * N
    assert env.env_is_wrapped(wrappers.FrameStack, [0]) == [False]
    stacked = SB3VecEnv(wrappers.FrameStack(env.env, 2))
    assert stacked.env_is_wrapped(wrappers.FrameStack, [0, 1]) == [True, True]
    bare = SB3VecEnv(gym.make_vec("rlox_gpu/CartPole-v1", 2, autoreset_mode="SameStep"))
    assert bare.env_is_wrapped(Monitor) == [False] * 2
    assert SB3VecEnv(wrappers.RecordEpisodeStatistics(bare.env)).env_is_wrapped(Monitor)[0]


def test_frames_are_tiled(make):
    env = make(render_mode="rgb_array")
    env.reset()
    assert env.render().shape == (800, 1200, 3)
    assert env.get_images()[3].dtype == np.uint8
    env.close()


def test_sb3s_wrappers_go_around(make):
    env = VecNormalize(VecFrameStack(make(), 3))
    env.reset()
    for _ in range(12):
        obs, _, dones, infos = env.step(np.ones(N, np.int64))
    assert obs.shape == (N, 12)
    assert all(info["terminal_observation"].shape == (12,) for info in np.array(infos)[dones])


def test_environments_are_checked():
    with pytest.raises(TypeError, match="vector environment"):
        SB3VecEnv(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="SameStep"):
        SB3VecEnv(make_vec("CartPole-v1", 2))
    with pytest.raises(ValueError, match="native"):
        make_sb3_vec_env("LunarLander-v3")


def test_gymnasiums_vector_environments_do_as_well():
    env = SB3VecEnv(
        wrappers.RecordEpisodeStatistics(
            SyncVectorEnv(
                [lambda: gym.make("CartPole-v1", max_episode_steps=2)] * 2,
                autoreset_mode="SameStep",
            )
        )
    )
    env.reset()
    env.step(np.zeros(2, np.int64))
    *_, infos = env.step(np.zeros(2, np.int64))
    assert [info["episode"]["l"] for info in infos] == [2, 2]
    assert infos[0]["terminal_observation"].shape == (4,)


@pytest.mark.parametrize(
    ("algorithm", "env_id"), [("PPO", "CartPole-v1"), ("SAC", "Pendulum-v1"), ("DQN", "Acrobot-v1")]
)
def test_algorithms_take_the_environment(algorithm, env_id):
    env = make_sb3_vec_env(env_id, 2, seed=0, max_episode_steps=20)
    settings = {"n_steps": 32} if algorithm == "PPO" else {"learning_starts": 120}
    agent = getattr(sb3, algorithm)("MlpPolicy", env, seed=0, device="cpu", **settings).learn(128)
    assert len(agent.ep_info_buffer) >= 6
    assert {episode["l"] for episode in agent.ep_info_buffer} <= set(range(8, 21))


@pytest.mark.slow
def test_ppo_learns_on_our_cartpole():
    env = make_sb3_vec_env("CartPole-v1", 8, seed=0)
    agent = sb3.PPO(
        "MlpPolicy", env, n_steps=64, batch_size=256, n_epochs=10, gamma=0.98, gae_lambda=0.8,
        learning_rate=1e-3, ent_coef=0.0, seed=0, device="cpu",
    ).learn(10_000)  # fmt: skip
    mean, _ = evaluate_policy(agent, make_sb3_vec_env("CartPole-v1", 10, seed=9), 10)
    assert mean > 100  # a random policy lasts 22 steps


def test_without_sb3_the_extra_is_named():
    code = (
        "import sys; sys.modules['stable_baselines3'] = None\n"
        "import rlox_gpu.envs, rlox_gpu.envs.wrappers\n"
        "try:\n    import rlox_gpu.envs.sb3\n"
        "except ImportError as error:\n    assert 'rlox-gpu[sb3]' in str(error)\n"
        "else:\n    raise SystemExit('imported')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
