"""Wrappers that change rewards one by one."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from gymnasium.vector import VectorEnv

from rlox_gpu.envs.wrappers.base import StatefulWrapper, Step


class ClipReward(StatefulWrapper):
    """Keep rewards within bounds.

    Parameters
    ----------
    env
        A vector environment.
    min_reward, max_reward
        The bounds; None for none, at least one is given.

    Raises
    ------
    TypeError
        If a bound is no plain number.
    ValueError
        If both are None, one is NaN, or the least is above the greatest.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        min_reward: float | None = None,
        max_reward: float | None = None,
    ) -> None:
        super().__init__(env)
        self.min_reward = _bound("min_reward", min_reward)
        self.max_reward = _bound("max_reward", max_reward)
        if self.min_reward is None and self.max_reward is None:
            raise ValueError("min_reward, max_reward: expected at least one of them, got None")
        if (
            self.min_reward is not None
            and self.max_reward is not None
            and self.min_reward > self.max_reward
        ):
            raise ValueError(
                f"min_reward: expected at most max_reward ({max_reward}), got {min_reward}"
            )

    def _begin(self, obs: Any, mask: Any) -> Any:
        return obs

    def _advance(self, step: Step, ended: Any) -> Step:
        rewards = self._xp.clip(step.rewards, self.min_reward, self.max_reward)
        return step._replace(rewards=rewards)


def _bound(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a plain number or None, got {value!r}")
    if math.isnan(value):
        raise ValueError(f"{name}: expected a number, got NaN")
    return float(value)
