"""Observations that hold the last few ones."""

from __future__ import annotations

from typing import Any

from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rlox_gpu._checks import choice, integer
from rlox_gpu.envs.wrappers.base import StatefulWrapper, Step

_PADDINGS = {"reset": 0, "zero": 1}


class FrameStackObservation(StatefulWrapper):
    """Give the last ``stack_size`` observations, oldest first: ``(N, stack_size, *obs_shape)``.

    A new episode begins with a stack of its own, in every autoreset mode; the stack of an episode
    that ended in the same step is ``infos["final_obs"]``. Gymnasium has this wrapper for single
    environments; ``FrameStack``, its name before Gymnasium 1.0, is the same class.

    Parameters
    ----------
    env
        A vector environment with a Box of observations.
    stack_size
        Number of observations, at least 1.
    padding_type
        What precedes the first observation of an episode: ``"reset"`` for copies of it, or
        ``"zero"``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        stack_size: int,
        *,
        padding_type: str = "reset",
    ) -> None:
        super().__init__(env)
        size = integer("stack_size", stack_size, 1 << 31)
        if size == 0:
            raise ValueError("stack_size: expected at least 1, got 0")
        self.stack_size = size
        self._pads_with_zeros = choice("padding_type", padding_type, _PADDINGS) == 1
        space = env.single_observation_space
        if not isinstance(space, Box):
            raise ValueError(f"env: expected a Box of observations, got {space}")
        self.single_observation_space = batch_space(space, size)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self._stack = self._zeros((self.num_envs, size, *space.shape), str(space.dtype))

    def _begin(self, obs: Any, mask: Any) -> Any:
        return self._kept(self._where(mask, self._fresh(obs), self._stack))

    def _advance(self, step: Step, ended: Any) -> Step:
        final = self._final_obs(step)
        last = step.obs if final is None else self._where(ended, final, step.obs)
        pushed = self._xp.concat([self._stack[:, 1:], last[:, None]], 1)
        if self._rests:
            stack = self._where(self._idle, self._stack, pushed)
        elif not self._same_step:
            stack = self._where(self._idle, self._fresh(step.obs), pushed)
        elif final is None:
            stack = pushed
        else:
            step.infos["final_obs"] = self._where(ended, pushed, self._xp.zeros_like(pushed))
            stack = self._where(ended, self._fresh(step.obs), pushed)
        return step._replace(obs=self._kept(stack))

    def _kept(self, stack: Any) -> Any:
        """``stack``, which is the caller's own, after a copy has become the wrapper's."""
        self._stack[...] = stack
        return stack

    def _fresh(self, obs: Any) -> Any:
        """The stack of an episode that begins with ``obs``."""
        before = self._xp.zeros_like(obs) if self._pads_with_zeros else obs
        return self._xp.stack([*[before] * (self.stack_size - 1), obs], 1)

    def _where(self, mask: Any, chosen: Any, other: Any) -> Any:
        return self._xp.where(self._rows(mask, chosen), chosen, other)

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "stack": self._stack}


FrameStack = FrameStackObservation
