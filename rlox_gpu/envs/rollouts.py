"""Several steps in one call, on either face: with given actions, or with actions drawn in place."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from rlox_gpu.envs.base import NativeVectorEnv


class Rollout(NamedTuple):
    """The results of K steps of N environments: contiguous arrays or tensors of one device.

    Attributes
    ----------
    obs
        float32 ``(K, N, obs_size)``, the observations after each step.
    rewards
        float32 ``(K, N)``.
    terminated, truncated
        bool ``(K, N)``.
    final_obs
        float32 ``(K, N, obs_size)`` or None: the last observation of an episode, written only
        where the same step began the next one.
    episode_return
        float32 ``(K, N)`` or None: the return of the episode that ended, 0 elsewhere.
    episode_length
        int32 ``(K, N)`` or None: the length of the episode that ended, 0 elsewhere.
    actions
        int64 ``(K, N)``, or float32 ``(K, N, 1)`` where actions are continuous, or None: the
        actions that were taken.
    """

    obs: Any
    rewards: Any
    terminated: Any
    truncated: Any
    final_obs: Any = None
    episode_return: Any = None
    episode_length: Any = None
    actions: Any = None


class RolloutVectorEnv(NativeVectorEnv):
    """The part of both faces that takes several steps in one call."""

    def rollout(self, actions: Any, *, out: Rollout | None = None) -> Rollout:
        """Take K steps with given actions, in one call of Rust or one launch.

        The results are those of K calls of ``step``, to the last bit. With autoreset disabled, an
        environment whose episode ends rests for the remaining steps: reward 0, no flag.

        Parameters
        ----------
        actions
            Integers ``(K, N)``, or numbers ``(K, N, 1)`` where actions are continuous; K at
            least 1.
        out
            Where the results go; ``final_obs`` and the episode statistics may be None, and
            ``actions`` is left alone. None allocates, as ``make_rollout`` does.

        Returns
        -------
        Rollout
            ``out`` or fresh storage, with the actions.

        Raises
        ------
        gymnasium.error.ResetNeeded
            Before the first reset; on arrays also if autoreset is disabled and an episode has
            ended.
        gymnasium.error.ClosedEnvironmentError
            After ``close``.
        TypeError, ValueError
            If an array has another dtype, shape, device or layout, or, on the CPU, an action is
            out of range; no environment has then moved.
        """
        self._check_ready()
        actions = self._rollout_actions(actions)
        num_steps = check_num_steps(len(actions), "the number of rows in actions")
        if out is None:
            out = self.make_rollout(num_steps)
        else:
            self._check_rollout(out._replace(actions=None), num_steps)
        self._roll(num_steps, actions, False, out)
        return out._replace(actions=actions)

    def rollout_random(
        self, num_steps: int, *, out: Rollout | None = None, actions: bool = False
    ) -> Rollout:
        """Take K steps with random actions, drawn where the environments are stepped.

        Actions are uniform over the action space. Each environment has its own stream: a draw
        depends on the environment's seed, its index, the number of its episode and the steps since
        that began, so that every device draws the same and a snapshot goes on with the same draws.
        Otherwise as ``rollout``.

        Parameters
        ----------
        num_steps
            K, at least 1.
        out
            Where the results go; ``final_obs``, the episode statistics and ``actions`` may be
            None. None allocates, as ``make_rollout`` does.
        actions
            Whether storage that is allocated has room for the actions.

        Returns
        -------
        Rollout
            ``out`` or fresh storage.

        Raises
        ------
        gymnasium.error.ResetNeeded, gymnasium.error.ClosedEnvironmentError
            As ``rollout``.
        TypeError, ValueError
            If ``num_steps`` is not a positive integer, an array has another dtype, shape, device
            or layout, or the action space has no bounds; no environment has then moved.
        """
        self._check_ready()
        num_steps = check_num_steps(num_steps, "num_steps")
        space = self.single_action_space
        if isinstance(space, spaces.Box) and not space.is_bounded():
            raise ValueError(f"rollout_random needs an action space with bounds, got {space}")
        if out is None:
            out = self.make_rollout(num_steps, actions=actions)
        else:
            self._check_rollout(out, num_steps)
        self._roll(num_steps, out.actions, True, out)
        return out

    def make_rollout(self, num_steps: int, *, actions: bool = False) -> Rollout:
        """Allocate storage for ``num_steps`` steps; ``final_obs`` is zeros, the rest is not set.

        Parameters
        ----------
        num_steps
            K, at least 1.
        actions
            Whether to make room for the actions of ``rollout_random``; None otherwise.
        """
        layout = self._rollout_layout(check_num_steps(num_steps, "num_steps"))
        if not actions:
            del layout["actions"]
        return Rollout(
            **{
                name: self._allocate(dtype, shape, zeros=name == "final_obs")
                for name, (dtype, shape) in layout.items()
            }
        )

    def _rollout_layout(self, num_steps: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        shape = (num_steps, self.num_envs)
        wide = (*shape, self._obs_size)
        action_dtype = np.dtype(self.action_space.dtype)
        layout = {
            "obs": (np.float32, wide),
            "rewards": (np.float32, shape),
            "terminated": (np.bool_, shape),
            "truncated": (np.bool_, shape),
            "final_obs": (np.float32, wide),
            "episode_return": (np.float32, shape),
            "episode_length": (np.int32, shape),
            "actions": (action_dtype, (num_steps, *self._action_shape)),
        }
        return {name: (np.dtype(dtype), shape) for name, (dtype, shape) in layout.items()}

    def _check_rollout(self, out: Rollout, num_steps: int) -> None:
        if not isinstance(out, Rollout):
            raise TypeError(f"out must be a Rollout, got {type(out).__name__}")
        for i, (name, (dtype, shape)) in enumerate(self._rollout_layout(num_steps).items()):
            if i < _NUM_REQUIRED or out[i] is not None:
                self._check_result(f"out.{name}", out[i], dtype, shape)

    @abstractmethod
    def _check_ready(self) -> None:
        """Raise what ``step`` raises where no step can be taken."""

    @abstractmethod
    def _rollout_actions(self, actions: Any) -> Any:
        """Check actions and convert them as ``step`` does."""

    @abstractmethod
    def _allocate(self, dtype: np.dtype[Any], shape: tuple[int, ...], zeros: bool) -> Any:
        """Allocate one array of storage."""

    @abstractmethod
    def _check_result(
        self, name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> None:
        """Check one array of the caller's storage."""

    @abstractmethod
    def _roll(self, num_steps: int, actions: Any, drawn: bool, out: Rollout) -> None:
        """Take the steps; ``actions`` are given, or where drawn ones go (None: nowhere)."""


_NUM_REQUIRED = len(Rollout._fields) - len(Rollout._field_defaults)


def check_num_steps(num_steps: Any, name: str) -> int:
    """Check a number of steps."""
    if isinstance(num_steps, bool) or not isinstance(num_steps, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {num_steps!r}")
    if not 1 <= num_steps < 2**31:
        raise ValueError(f"{name} must be at least 1 and below 2**31, got {num_steps}")
    return int(num_steps)
