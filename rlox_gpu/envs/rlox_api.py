"""The environments of rlox's API: ``CartPole`` and ``VecEnv``."""

from __future__ import annotations

import secrets
from typing import Any

from typing_extensions import Self

from rlox_gpu import _rust
from rlox_gpu.envs.base import check_num_envs, check_seed
from rlox_gpu.envs.tasks import CARTPOLE, find_task

_ENV_ID = "CartPole-v1"


def _arguments(env_id: str, seed: int | None) -> tuple[tuple[float, ...], int, int]:
    task, max_episode_steps = find_task(env_id)
    if task is not CARTPOLE:
        raise ValueError(
            f"env_id: expected CartPole, got {env_id!r}, which make_vec or GymVecEnv run"
        )
    packed = task.pack(task.defaults, *task.reset_options.values())
    number = secrets.randbits(63) if seed is None else check_seed(seed, "seed")
    return tuple(map(float, packed)), max_episode_steps, number


class CartPole(_rust.CartPoleEnv):
    """One cart-pole with a limit of 500 steps.

    Parameters
    ----------
    seed
        Seed of the initial states; None for a random one.

    Raises
    ------
    TypeError, ValueError
        If ``seed`` is not an integer from 0 to 2**64 - 1.
    """

    def __new__(cls, seed: int | None = None) -> Self:
        """Make an environment that waits for its first reset."""
        return super().__new__(cls, *_arguments(_ENV_ID, seed))


class VecEnv(_rust.CartPoleVec):
    """Many copies of a native environment that are reset in the step that ends an episode.

    Parameters
    ----------
    n
        Number of environments.
    seed
        Environment i starts from ``seed + i``; None for random seeds.
    env_id
        ``"CartPole-v1"``, which None stands for, or ``"CartPole-v0"``.

    Attributes
    ----------
    action_space
        ``{"type": "discrete", "n": 2}``.

    Raises
    ------
    ValueError
        If ``env_id`` is another environment, or a number is out of range.
    TypeError
        If an argument has the wrong type.
    """

    def __new__(cls, n: int, seed: int | None = None, env_id: str | None = None) -> Self:
        """Make environments that wait for their first reset."""
        arguments = _arguments(_ENV_ID if env_id is None else env_id, seed)
        return super().__new__(cls, *arguments, check_num_envs(n, "n"))

    @property
    def action_space(self) -> dict[str, Any]:
        """What an action is, as rlox describes it."""
        return {"type": "discrete", "n": 2}
