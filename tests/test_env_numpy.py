"""The NumPy face: Gymnasium's contract, seeds, partial resets, snapshots, pictures, the plugin."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from env_cases import ENV_ID, MODES, assert_same_bytes
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv

import rlox_gpu
from rlox_gpu.envs.array import NumpyVectorEnv


def rollout(env, num_steps=60, seed=0):
    rng = np.random.default_rng(seed)
    results = [env.step(rng.integers(0, 2, env.num_envs))[:4] for _ in range(num_steps)]
    return [np.array(part) for part in zip(*results, strict=True)]


def assert_rollouts_equal(first, second):
    for a, b in zip(first, second, strict=True):
        assert_same_bytes(a, b)


@pytest.mark.parametrize("mode", MODES)
def test_the_contract_of_gymnasium(mode, rng):
    env = rlox_gpu.make_vec(ENV_ID, 5, autoreset_mode=mode)
    theirs = gym.make_vec(ENV_ID, num_envs=5, vectorization_mode="sync")
    assert isinstance(env, VectorEnv)
    assert env.metadata["autoreset_mode"] is mode
    assert env.num_envs == 5
    assert env.single_observation_space == theirs.single_observation_space
    assert env.observation_space == theirs.observation_space
    assert env.single_action_space == theirs.single_action_space
    assert env.action_space == theirs.action_space
    obs, infos = env.reset(seed=1)
    assert obs in env.observation_space
    assert infos == {}
    env.action_space.seed(0)
    obs, rewards, terminated, truncated, infos = env.step(env.action_space.sample())
    assert obs in env.observation_space
    assert rewards.shape == terminated.shape == truncated.shape == (5,)
    assert terminated.dtype == truncated.dtype == np.bool_
    assert isinstance(infos, dict)
    assert env.unwrapped is env
    env.close()
    env.close()
    assert env.closed
    theirs.close()


def test_results_are_fresh_arrays():
    env = NumpyVectorEnv(ENV_ID, 4)
    env.reset(seed=0)
    kept = env.step(np.zeros(4, np.int64))[:4]
    copies = [array.copy() for array in kept]
    env.step(np.ones(4, np.int64))
    assert_rollouts_equal(kept, copies)


def test_default_limits_are_those_of_the_versions():
    assert NumpyVectorEnv("CartPole-v0", 1).max_episode_steps == 200
    assert NumpyVectorEnv("CartPole-v1", 1).max_episode_steps == 500
    assert NumpyVectorEnv("CartPole-v1", 1, max_episode_steps=7).max_episode_steps == 7


def test_a_seed_fixes_the_rollout():
    rollouts = []
    for seed in (3, 3, 4):
        env = NumpyVectorEnv(ENV_ID, 64)
        env.reset(seed=seed)
        rollouts.append(rollout(env))
    assert_rollouts_equal(rollouts[0], rollouts[1])
    assert not np.array_equal(rollouts[0][0], rollouts[2][0])


def test_an_integer_seed_stands_for_consecutive_seeds():
    env = NumpyVectorEnv(ENV_ID, 3)
    first = env.reset(seed=7)[0]
    assert_same_bytes(env.reset(seed=[7, 8, 9])[0], first)
    assert_same_bytes(env.reset(seed=np.array([7, 8, 9]))[0], first)
    assert not (env.reset(seed=[8, 7, 9])[0][:2] == first[:2]).any()
    assert env.np_random_seed == 7


def test_environments_without_a_seed_differ():
    first, second = (NumpyVectorEnv(ENV_ID, 2).reset()[0] for _ in range(2))
    assert not (first == second).any()


def test_a_gap_in_the_seeds_goes_on_with_the_old_one():
    env = NumpyVectorEnv(ENV_ID, 2)
    env.reset(seed=1)
    second_episode = env.reset()[0]
    env.reset(seed=1)
    obs = env.reset(seed=[1, None])[0]
    assert_same_bytes(obs[0], env.reset(seed=1)[0][0])
    assert_same_bytes(obs[1], second_episode[1])


def test_a_reset_without_a_seed_begins_the_next_episode():
    env = NumpyVectorEnv(ENV_ID, 8)
    first = env.reset(seed=0)[0]
    second = env.reset()[0]
    assert not (first == second).any()
    assert_same_bytes(env.reset(seed=0)[0], first)
    assert_same_bytes(env.reset()[0], second)


def test_a_masked_reset_leaves_the_others_alone():
    env = NumpyVectorEnv(ENV_ID, 6)
    env.reset(seed=0)
    rollout(env, 5)
    before = env.state_dict()
    mask = np.array([True, False, True, False, False, True])
    obs, _ = env.reset(seed=50, options={"reset_mask": mask})
    after = env.state_dict()
    for name in ("state", "elapsed", "episode", "seed", "ended", "episode_return"):
        assert_same_bytes(after[name][~mask], before[name][~mask])
    assert_same_bytes(obs, after["state"])
    assert (after["elapsed"][mask] == 0).all()
    assert after["seed"].tolist()[0] == 50
    assert after["seed"].tolist()[2] == 52
    fresh = NumpyVectorEnv(ENV_ID, 6)
    assert_same_bytes(fresh.reset(seed=50)[0][mask], obs[mask])


def test_bounds_of_the_initial_state_hold_until_the_next_reset():
    env = NumpyVectorEnv(ENV_ID, 100, max_episode_steps=1, autoreset_mode="SameStep")
    obs = env.reset(seed=0, options={"low": 0.1, "high": 0.2})[0]
    assert obs.min() >= 0.1
    assert obs.max() <= 0.2
    obs = env.step(np.zeros(100, np.int64))[0]
    assert obs.min() >= 0.1
    obs = env.reset()[0]
    assert np.abs(obs).max() <= 0.05


def test_options_are_not_changed():
    env = NumpyVectorEnv(ENV_ID, 2)
    env.reset(seed=0)
    options = {"reset_mask": np.array([True, False]), "low": 0.0}
    env.reset(options=options)
    assert set(options) == {"reset_mask", "low"}


@pytest.mark.parametrize("mode", MODES[:2])
def test_a_snapshot_continues_exactly(mode):
    env = NumpyVectorEnv(ENV_ID, 33, autoreset_mode=mode)
    env.reset(seed=0, options={"low": -0.02, "high": 0.1})
    rollout(env, 30)
    snapshot = env.state_dict()
    expected = rollout(env, 60, seed=1)
    assert_rollouts_equal(restored(snapshot, env), expected)
    other = NumpyVectorEnv(ENV_ID, 33, autoreset_mode=mode)
    assert_rollouts_equal(restored(snapshot, other), expected)


def restored(snapshot, env):
    env.load_state_dict(snapshot)
    return rollout(env, 60, seed=1)


def test_integer_actions_of_any_layout_are_taken():
    expected = None
    actions = np.array([0, 1, 1, 0])
    variants = [actions.astype(t) for t in (np.int8, np.uint8, np.int32, np.uint64)]
    variants += [np.repeat(actions, 2)[::2], actions.tolist(), tuple(actions.tolist())]
    for variant in [actions, *variants]:
        env = NumpyVectorEnv(ENV_ID, 4)
        env.reset(seed=0)
        obs = env.step(variant)[0]
        expected = obs if expected is None else expected
        assert_same_bytes(obs, expected)


def test_step_needs_a_reset_and_an_open_environment():
    env = NumpyVectorEnv(ENV_ID, 2)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(np.zeros(2, np.int64))
    with pytest.raises(ResetNeeded, match="reset_mask"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(seed=0)
    env.close()
    for call in (lambda: env.step(np.zeros(2, np.int64)), env.reset, env.render):
        with pytest.raises(ClosedEnvironmentError, match="closed"):
            call()


def test_render_draws_the_chosen_environments():
    pytest.importorskip("pygame")
    env = NumpyVectorEnv(ENV_ID, 5, render_mode="rgb_array", render_envs=[1, 3])
    with pytest.raises(ResetNeeded, match="render"):
        env.render()
    env.reset(seed=0)
    env._arrays.state[1] = (1.0, 0.0, 0.1, 0.0)
    frames = env.render()
    assert [frame.shape for frame in frames] == [(400, 600, 3)] * 2
    assert frames[0].dtype == np.uint8
    reference = gym.make(ENV_ID, render_mode="rgb_array")
    reference.reset(seed=0)
    for frame, i in zip(frames, (1, 3), strict=True):
        reference.unwrapped.state = env._arrays.state[i].astype(np.float64)
        np.testing.assert_array_equal(frame, reference.render())
    assert NumpyVectorEnv(ENV_ID, 5).render() is None
    env.close()
    reference.close()


def test_statistics_can_be_left_to_gymnasiums_wrapper():
    rng = np.random.default_rng(0)
    ours = NumpyVectorEnv(ENV_ID, 16)
    wrapped = gym.wrappers.vector.RecordEpisodeStatistics(
        NumpyVectorEnv(ENV_ID, 16, episode_statistics=False)
    )
    ours.reset(seed=0)
    wrapped.reset(seed=0)
    ended = 0
    for _ in range(100):
        actions = rng.integers(0, 2, 16)
        mine, theirs = ours.step(actions)[4], wrapped.step(actions)[4]
        assert ("episode" in mine) == ("episode" in theirs)
        if "episode" in mine:
            ended += 1
            np.testing.assert_array_equal(mine["_episode"], theirs["_episode"])
            np.testing.assert_array_equal(mine["episode"]["r"], theirs["episode"]["r"])
            np.testing.assert_array_equal(mine["episode"]["l"], theirs["episode"]["l"])
    assert ended > 20


def test_wrappers_of_gymnasium_take_the_final_observations():
    env = NumpyVectorEnv(ENV_ID, 4, autoreset_mode=AutoresetMode.SAME_STEP, max_episode_steps=3)
    env = gym.wrappers.vector.DictInfoToList(env)
    env.reset(seed=0)
    for _ in range(3):
        infos = env.step(np.zeros(4, np.int64))[4]
    assert [info["final_obs"].shape for info in infos] == [(4,)] * 4
    assert [info["episode"]["l"] for info in infos] == [3] * 4


def run_python(program):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )


def test_gymnasium_finds_our_environments_without_an_import_of_ours():
    program = """
import gymnasium, numpy
env = gymnasium.make_vec("rlox_gpu:rlox_gpu/CartPole-v1", num_envs=32, autoreset_mode="SameStep")
assert env.spec.id == "rlox_gpu/CartPole-v1" and env.max_episode_steps == 500
env = gymnasium.wrappers.vector.RecordEpisodeStatistics(env)
env.reset(seed=0)
for _ in range(40):
    infos = env.step(numpy.ones(32, dtype=int))[4]
assert env.episode_count > 32
short = gymnasium.make_vec("rlox_gpu/CartPole-v0", num_envs=2, max_episode_steps=9)
assert short.max_episode_steps == 9
"""
    done = run_python(program)
    assert done.returncode == 0, done.stderr


def test_the_numpy_face_loads_neither_torch_nor_cupy():
    program = """
import sys, numpy, rlox_gpu
env = rlox_gpu.make_vec("CartPole-v1", 3)
env.reset(seed=0)
env.step(numpy.zeros(3, dtype=int))
rlox_gpu.VecEnv(2, seed=0).reset_all()
assert not {"torch", "triton", "cupy"} & set(sys.modules), sys.modules.keys()
"""
    done = run_python(program)
    assert done.returncode == 0, done.stderr
