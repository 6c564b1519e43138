"""Wrappers that bring observations and rewards to one scale by running statistics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rlox_gpu._checks import positive_number, unit_number
from rlox_gpu.envs.wrappers.base import StatefulWrapper, Step
from rlox_gpu.ops.running_stats import RunningStatsVec
from rlox_gpu.ops.statistics import normalize, update_moments

# Gymnasium's statistics begin with so many samples of mean 0 and variance 1.
_PRIOR_COUNT = 1e-4


class _Normalizing(StatefulWrapper):
    """What both have: statistics that can be frozen, and the prior of Gymnasium's."""

    def __init__(self, env: VectorEnv[Any, Any, Any], dim: int, epsilon: float) -> None:
        super().__init__(env)
        self._epsilon = positive_number("epsilon", epsilon)
        self._statistics = RunningStatsVec(dim, self.device)
        self._statistics.state[0] = _PRIOR_COUNT
        self._statistics.state[2] = _PRIOR_COUNT
        self._updates = True

    @property
    def update_running_mean(self) -> bool:
        """Whether steps and resets are counted; False freezes the statistics, for evaluation."""
        return self._updates

    @update_running_mean.setter
    def update_running_mean(self, setting: bool) -> None:
        self._updates = bool(setting)

    def _count(self, rows: Any, mask: Any) -> None:
        if self._updates:
            update_moments(self._statistics.state, rows, mask=mask)

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "statistics": self._statistics.state}


class NormalizeObservation(_Normalizing):
    """Give observations with mean 0 and variance 1: ``(obs - mean) / sqrt(var + epsilon)``.

    Mean and variance are running statistics of every number of an observation over all
    environments, in float64. Each observation is counted once, before it is normalised: those of
    steps and resets, in the same-step mode also the final ones, which are normalised in
    ``infos["final_obs"]`` too; none of an environment that rests. What is not finite is not
    counted. For environments that never end an episode the results are those of Gymnasium's
    wrapper, which takes the next-step mode alone.

    Parameters
    ----------
    env
        A vector environment with a Box of observations.
    epsilon
        Positive, what is added to the variance.

    Attributes
    ----------
    obs_rms : RunningStatsVec
        The statistics of the flattened observation; ``mean()`` and ``var()`` are arrays.
    update_running_mean : bool
        Set it to False to use the statistics without changing them.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], epsilon: float = 1e-8) -> None:
        space = getattr(env, "single_observation_space", None)
        if isinstance(env, VectorEnv) and not isinstance(space, Box):
            raise ValueError(f"env: expected a Box of observations, got {space}")
        shape = space.shape if isinstance(space, Box) else ()
        super().__init__(env, math.prod(shape), epsilon)
        self.obs_rms = self._statistics
        self.single_observation_space = Box(-np.inf, np.inf, shape, np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def _begin(self, obs: Any, mask: Any) -> Any:
        self._count(self._flat(obs), mask)
        return self._normalized(obs, *self._moments())

    def _advance(self, step: Step, ended: Any) -> Step:
        self._count(self._flat(step.obs), ~self._idle if self._rests else None)
        final = self._final_obs(step)
        if final is not None:
            self._count(self._flat(final), ended)
        moments = self._moments()
        if final is not None:
            normalized = self._normalized(final, *moments)
            step.infos["final_obs"] = self._xp.where(self._rows(ended, final), normalized, 0.0)
        return step._replace(obs=self._normalized(step.obs, *moments))

    def _moments(self) -> tuple[Any, Any]:
        return self.obs_rms.mean(), self.obs_rms.var() + self._epsilon

    def _flat(self, obs: Any) -> Any:
        kind = getattr(obs.dtype, "is_floating_point", None)
        floating = obs.dtype.kind == "f" if kind is None else kind
        if not floating:
            obs = obs.astype(np.float32) if self.device is None else obs.float()
        return obs.reshape(self.num_envs, -1)

    def _normalized(self, obs: Any, mean: Any, variance: Any) -> Any:
        result = normalize(self._flat(obs), mean, variance, eps=0.0).reshape(obs.shape)
        return result.astype(np.float32) if self.device is None else result.float()


class NormalizeReward(_Normalizing):
    """Divide rewards by the standard deviation of the running discounted return.

    The return ``gamma * return + reward`` of each environment begins at 0 in every episode, whether
    the one before was terminated or truncated. Each step of an episode is counted once; those that
    reset an environment or find it at rest are not. In Gymnasium's wrapper the return of a
    terminating step lacks the rewards before it, and one that a time limit ends, or in the
    next-step mode any, runs on into the next episode; while no episode ends both are the same.

    Parameters
    ----------
    env
        A vector environment.
    gamma
        The discount, from 0 to 1.
    epsilon
        Positive, what is added to the variance.

    Attributes
    ----------
    return_rms : RunningStatsVec
        The statistics of the return, of one feature; ``var()`` is an array ``(1,)``.
    update_running_mean : bool
        Set it to False to use the statistics without changing them.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], gamma: float = 0.99, epsilon: float = 1e-8
    ) -> None:
        super().__init__(env, 1, epsilon)
        self.gamma = unit_number("gamma", gamma)
        self.return_rms = self._statistics
        self._returns = self._zeros((self.num_envs,), "float64")
        self._no_mean = self._zeros((1,), "float64")

    def _begin(self, obs: Any, mask: Any) -> Any:
        self._returns[...] = self._xp.where(mask, 0.0, self._returns)
        return obs

    def _advance(self, step: Step, ended: Any) -> Step:
        returns = self._returns * self.gamma + step.rewards
        self._count(returns[:, None], None if self._same_step else ~self._idle)
        self._returns[...] = self._xp.where(ended | self._idle, 0.0, returns)
        variance = self.return_rms.var() + self._epsilon
        rewards = normalize(step.rewards[:, None], self._no_mean, variance, eps=0.0)[:, 0]
        return step._replace(rewards=rewards)

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "returns": self._returns}
