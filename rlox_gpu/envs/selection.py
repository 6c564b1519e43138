"""Which environment a training run steps: a native one where there is one, else Gymnasium's."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from gymnasium import Space
from gymnasium.vector import AutoresetMode
from torch import Tensor

from rlox_gpu.envs.gymnasium import GymnasiumTensorEnv
from rlox_gpu.envs.kernels import StepBuffers
from rlox_gpu.envs.tasks import TASKS
from rlox_gpu.envs.tensor import TensorVectorEnv


class TensorEnv(Protocol):
    """What collection and evaluation ask of an environment: steps written into tensors.

    An environment resets in the step that ends its episode; ``final_obs``, ``episode_return`` and
    ``episode_length`` of the step's buffers then describe the episode that ended. Those that can
    be saved also have ``state_dict()`` and ``load_state_dict(state)``.
    """

    num_envs: int
    single_observation_space: Space[Any]
    single_action_space: Space[Any]

    def reset(self, *, seed: int | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Begin episodes everywhere; return observations ``[N, obs_dim]`` and an info."""
        ...

    def step_into(self, actions: Tensor, buffers: StepBuffers) -> None:
        """Step with ``actions [N]`` and write what happened into ``buffers``."""
        ...

    def close(self) -> None:
        """Release the environments."""
        ...


def make_tensor_env(env_id: str, num_envs: int, *, device: torch.device | str) -> TensorEnv:
    """Make ``num_envs`` environments for training on ``device``.

    Raises
    ------
    ValueError
        If there is no such environment or ``num_envs`` is not positive.
    TypeError
        If ``env_id`` is not a string.
    """
    if env_id in TASKS:
        return TensorVectorEnv(
            env_id, num_envs, device=device, autoreset_mode=AutoresetMode.SAME_STEP
        )
    return GymnasiumTensorEnv(env_id, num_envs, device=device)


def obs_width(env: TensorEnv) -> int:
    """Return the number of entries of one observation.

    Raises
    ------
    ValueError
        If an observation is not a box of one dimension.
    """
    shape = env.single_observation_space.shape
    if shape is None or len(shape) != 1:
        raise ValueError(
            f"env_id: expected a Box observation of one dimension, "
            f"got {env.single_observation_space}"
        )
    return shape[0]
