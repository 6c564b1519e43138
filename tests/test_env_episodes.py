"""What happens at the end of an episode, in every mode and on both faces, against Gymnasium's
SyncVectorEnv driven through the same states."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from env_cases import ENV_ID, MODES
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from simulated_cuda import SimulatedModule

from rlox_gpu.envs.array import NumpyVectorEnv
from rlox_gpu.envs.cuda import use_launcher
from rlox_gpu.envs.tensor import TensorVectorEnv

LIMIT = 12
NUM_ENVS = 6


class ThroughTensors:
    """The tensor face with arrays in and out, optionally through the simulated kernels."""

    def __init__(self, launcher, **arguments):
        self.env = TensorVectorEnv(ENV_ID, NUM_ENVS, device="cpu", **arguments)
        self.launcher = launcher
        self.metadata = self.env.metadata

    def _call(self, function, *arguments, **keywords):
        if self.launcher is None:
            return function(*arguments, **keywords)
        with use_launcher(self.launcher):
            return function(*arguments, **keywords)

    @property
    def states(self):
        return self.env._state.state.numpy()

    def reset(self, **keywords):
        obs, infos = self._call(self.env.reset, **keywords)
        return obs.numpy(), infos

    def step(self, actions):
        *results, infos = self._call(self.env.step, torch.from_numpy(actions))
        return *(r.numpy() for r in results), infos


class ThroughArrays(NumpyVectorEnv):
    def __init__(self, **arguments):
        super().__init__(ENV_ID, NUM_ENVS, **arguments)

    @property
    def states(self):
        return self._arrays.state


FACES = {
    "numpy": ThroughArrays,
    "tensor": lambda **arguments: ThroughTensors(None, **arguments),
    "simulated": lambda **arguments: ThroughTensors(SimulatedModule, **arguments),
}


@pytest.fixture(params=FACES)
def make_env(request):
    return lambda mode: FACES[request.param](autoreset_mode=mode, max_episode_steps=LIMIT)


def make_gymnasium(mode):
    return SyncVectorEnv(
        [lambda: gym.make(ENV_ID, max_episode_steps=LIMIT)] * NUM_ENVS, autoreset_mode=mode
    )


def copy_states(ours, theirs):
    """Gymnasium continues from our states, initial states included."""
    for env, state in zip(theirs.envs, ours.states, strict=True):
        env.unwrapped.state = state.astype(np.float64)


def actions_that_end_episodes(step):
    """Environment 0 is pushed one way and falls early; the others alternate."""
    actions = np.full(NUM_ENVS, step % 2)
    actions[0] = 1
    return actions


@pytest.mark.parametrize("mode", MODES)
def test_flags_rewards_and_observations_follow_gymnasium(make_env, mode):
    ours, theirs = make_env(mode), make_gymnasium(mode)
    ours.reset(seed=0)
    theirs.reset(seed=0)
    num_ended = 0
    for step in range(4 * LIMIT):
        copy_states(ours, theirs)
        actions = actions_that_end_episodes(step)
        obs, rewards, terminated, truncated, infos = ours.step(actions)
        expected = theirs.step(actions)
        np.testing.assert_array_equal(rewards, expected[1])
        np.testing.assert_array_equal(terminated, expected[2])
        np.testing.assert_array_equal(truncated, expected[3])
        ended = terminated | truncated
        num_ended += ended.sum()
        fresh = np.abs(obs).max(axis=1) <= 0.05
        if mode is AutoresetMode.SAME_STEP:
            same = ~ended
            assert fresh[ended].all()
            for i in np.flatnonzero(ended):
                final = np.asarray(infos["final_obs"][i])
                np.testing.assert_allclose(final, expected[4]["final_obs"][i], atol=1e-6)
            if ended.any():
                np.testing.assert_array_equal(infos["_final_obs"], expected[4]["_final_obs"])
        else:
            same = rewards > 0
            assert (fresh | same).all()
        np.testing.assert_allclose(obs[same], expected[0][same], atol=1e-6)
        if mode is AutoresetMode.DISABLED and ended.any():
            ours.reset(options={"reset_mask": ended.copy()})
            theirs.reset(options={"reset_mask": ended.copy()})
    assert num_ended >= 3 * NUM_ENVS
    theirs.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_truncated_step_may_also_terminate(make_env, mode):
    env = make_env(mode)
    env.reset(seed=0)
    for _ in range(LIMIT - 1):
        env.states[:] = 0
        assert not any(flags.any() for flags in env.step(np.zeros(NUM_ENVS, np.int64))[2:4])
    env.states[0] = (3.0, 0, 0, 0)
    _, rewards, terminated, truncated, infos = env.step(np.zeros(NUM_ENVS, np.int64))
    assert terminated.tolist() == [True] + [False] * (NUM_ENVS - 1)
    assert truncated.all()
    assert (rewards == 1).all()
    assert np.asarray(infos["episode"]["l"]).tolist() == [LIMIT] * NUM_ENVS
    assert np.asarray(infos["episode"]["r"]).tolist() == [LIMIT] * NUM_ENVS


def test_the_reset_step_of_next_step_mode_ignores_its_action(make_env):
    env = make_env(AutoresetMode.NEXT_STEP)
    env.reset(seed=0)
    env.states[2] = (3.0, 0, 0, 0)
    assert env.step(np.ones(NUM_ENVS, np.int64))[2][2]
    obs, rewards, terminated, truncated, _ = env.step(np.ones(NUM_ENVS, np.int64))
    assert np.abs(obs[2]).max() <= 0.05
    assert rewards.tolist() == [1, 1, 0, 1, 1, 1]
    assert not (terminated | truncated).any()


@pytest.mark.parametrize("mode", MODES)
def test_statistics_are_zero_where_no_episode_ended(make_env, mode):
    env = make_env(mode)
    env.reset(seed=0)
    env.states[4] = (3.0, 0, 0, 0)
    infos = env.step(np.ones(NUM_ENVS, np.int64))[4]
    assert np.asarray(infos["_episode"]).tolist() == [False] * 4 + [True, False]
    assert np.asarray(infos["episode"]["r"]).tolist() == [0, 0, 0, 0, 1, 0]
    assert np.asarray(infos["episode"]["l"]).tolist() == [0, 0, 0, 0, 1, 0]


def test_a_disabled_environment_rests_on_tensors():
    for launcher in (None, SimulatedModule):
        env = ThroughTensors(launcher, autoreset_mode="Disabled", max_episode_steps=1)
        env.reset(seed=0)
        last = env.step(np.ones(NUM_ENVS, np.int64))[0]
        obs, rewards, terminated, truncated, infos = env.step(np.zeros(NUM_ENVS, np.int64))
        np.testing.assert_array_equal(obs, last)
        assert not rewards.any()
        assert not terminated.any()
        assert not truncated.any()
        assert not infos["_episode"].any()


def test_a_disabled_environment_refuses_arrays():
    env = ThroughArrays(autoreset_mode="Disabled", max_episode_steps=1)
    env.reset(seed=0)
    env.step(np.ones(NUM_ENVS, np.int64))
    with pytest.raises(ResetNeeded, match=r"environments \[0, 1, 2, 3, 4, 5\] have ended"):
        env.step(np.ones(NUM_ENVS, np.int64))
    mask = np.array([True] * 5 + [False])
    env.reset(options={"reset_mask": mask})
    with pytest.raises(ResetNeeded, match=r"environments \[5\] have ended"):
        env.step(np.ones(NUM_ENVS, np.int64))


def test_no_limit_never_truncates():
    env = NumpyVectorEnv(ENV_ID, 2, max_episode_steps=-1)
    env.reset(seed=0)
    for _ in range(1200):
        env._arrays.state[:] = 0
        result = env.step(np.zeros(2, np.int64))
        assert not result[3].any()
    assert env._arrays.elapsed.tolist() == [1200, 1200]
