"""Pictures of native environments, drawn by Gymnasium's own renderers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rlox_gpu.envs.tasks import Task


class Renderer:
    """Draws states with the Gymnasium environment of the same task.

    Parameters
    ----------
    task
        The task whose states are drawn.

    Raises
    ------
    gymnasium.error.DependencyNotInstalled
        On the first picture, if pygame is missing.
    """

    def __init__(self, task: Task) -> None:
        module, name = task.renderer.split(":")
        self._env = getattr(importlib.import_module(module), name)(render_mode="rgb_array")
        # What a picture needs beside the state, such as "no torque yet", comes with a reset.
        self._env.reset(seed=0)
        self._draws_torque = hasattr(self._env, "last_u")

    def draw(
        self,
        state: npt.NDArray[np.float32],
        action: npt.NDArray[Any] | None,
        params: Mapping[str, Any],
    ) -> npt.NDArray[np.uint8]:
        """Draw one state and, where Gymnasium does, the action that led to it.

        Parameters
        ----------
        state
            float32 ``(state_size,)``.
        action
            None where the episode has just begun.
        params
            The environment's parameters; the picture follows lengths and limits.

        Returns
        -------
        numpy.ndarray
            uint8 ``(height, width, 3)``.
        """
        for key, value in params.items():
            if hasattr(self._env, key):
                setattr(self._env, key, value)
        if state.dtype == np.int32:
            self._env.s = int(state[0])
            self._env.lastaction = None if action is None else int(action)
        else:
            self._env.state = np.asarray(state, dtype=np.float64)
        if self._draws_torque:
            limit = self._env.max_torque
            self._env.last_u = None if action is None else np.clip(action, -limit, limit)[0]
        frame: npt.NDArray[np.uint8] = self._env.render()
        return frame

    def close(self) -> None:
        """Close Gymnasium's surface."""
        self._env.close()


def check_render(
    render_mode: str | None, render_envs: Sequence[int] | None, num_envs: int
) -> tuple[str | None, tuple[int, ...]]:
    """Check the render mode and the indices of the environments to draw."""
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
    if render_envs is None:
        return render_mode, tuple(range(num_envs))
    indices = tuple(int(i) for i in render_envs)
    for i in indices:
        if not 0 <= i < num_envs:
            raise ValueError(f"render_envs must lie in 0 to {num_envs - 1}, got {i}")
    return render_mode, indices
