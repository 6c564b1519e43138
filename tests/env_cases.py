"""What the environment tests share: the host build under the faces' state, and comparisons."""

import numpy as np
from gymnasium.vector import AutoresetMode
from random_reference import philox_reference

from rlox_gpu import _host
from rlox_gpu.envs.array import NumpyVectorEnv

MODES = list(AutoresetMode)
ENV_ID = "CartPole-v1"


def policy(obs, rng):
    """Balance most of the time: episodes of all lengths, many past the usual time limit."""
    x, x_dot, theta, theta_dot = obs.T
    right = theta + 0.5 * theta_dot + 0.05 * x_dot + 0.02 * x > 0
    noise = rng.random(len(obs)) < 0.1
    return np.where(noise, rng.integers(0, 2, len(obs)), right).astype(np.int64)


ENV_STEP = 9


def noise_of(env):
    """The random number in [0, 1) of each environment's next step."""
    state = env._arrays if hasattr(env, "_arrays") else env._state
    seed, episode, elapsed = (
        np.asarray(part).astype(np.int64) for part in (state.seed, state.episode, state.elapsed)
    )
    words = [
        philox_reference(int(s) % 2**64, i | (int(e) % 2**32) << 32, int(t), ENV_STEP)[0]
        for i, (s, e, t) in enumerate(zip(seed, episode, elapsed, strict=True))
    ]
    return np.array([(int(word) >> 8) / 2**24 for word in words])


class HostEnv:
    """The host build of the CUDA source on a copy of a NumPy environment's state."""

    def __init__(self, env: NumpyVectorEnv):
        self.arrays = tuple(array.copy() for array in env._arrays)
        self.rules = env._rules(*env._bounds)
        self.host = getattr(_host, self.rules.task)
        self.obs_size = env.single_observation_space.shape[0]
        self.params = np.array(self.rules.params, dtype=np.float32)
        self.own = env._own_rules(*env._bounds) or ()

    def _results(self, *shape):
        width = self.obs_size
        return (
            np.empty((*shape, width), np.float32),
            np.empty(shape, np.float32),
            np.empty(shape, bool),
            np.empty(shape, bool),
            np.zeros((*shape, width), np.float32),
            np.empty(shape, np.float32),
            np.empty(shape, np.int32),
        )

    def step(self, actions):
        results = self._results(len(actions))
        self.host.step(self.params, *self.rules[2:], self.arrays, actions, *results, *self.own)
        return results

    def rollout(self, actions, drawn):
        """Several steps; drawn actions are written to ``actions``."""
        results = self._results(*actions.shape[:2])
        self.host.rollout(
            self.params,
            *self.rules[2:],
            self.arrays,
            len(actions),
            drawn,
            actions,
            *results,
            *self.own,
        )
        return *results, actions

    def reset(self, mask=None):
        obs = np.empty((len(self.arrays[0]), self.obs_size), np.float32)
        self.host.reset(self.params, self.arrays, mask, obs, *self.own)
        return obs


def assert_same_bytes(actual, expected, what=""):
    """Equal to the last bit, the sign of zeros included."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes(), what


def assert_unchanged(env, before):
    """The environment's snapshot is still ``before``."""
    after = env.state_dict()
    assert after.keys() == before.keys()
    for name, value in after.items():
        if name == "params":
            assert value == before[name]
        else:
            assert_same_bytes(value, before[name], name)
