"""Native environments in Gymnasium's registry, under ``rlox_gpu/``."""

from __future__ import annotations

from typing import Any

import gymnasium

from rlox_gpu.envs.tasks import TASKS


def register() -> None:
    """Register every native environment with Gymnasium.

    ``gymnasium.make_vec("rlox_gpu/CartPole-v1", num_envs=4096)`` works once ``rlox_gpu.envs`` is
    imported, and ``gymnasium.make_vec("rlox_gpu:rlox_gpu/CartPole-v1", num_envs=4096)`` without
    an import: the part before the colon names the package that Gymnasium loads. Episode
    statistics are left to Gymnasium's ``RecordEpisodeStatistics``, which refuses an environment
    that already has them; ``episode_statistics=True`` switches ours on.
    """
    for env_id, (_, max_episode_steps) in TASKS.items():
        if f"rlox_gpu/{env_id}" not in gymnasium.registry:
            gymnasium.register(
                f"rlox_gpu/{env_id}",
                vector_entry_point="rlox_gpu.envs.plugin:make_vector_env",
                max_episode_steps=max_episode_steps,
                kwargs={"env_id": env_id},
            )


def make_vector_env(
    env_id: str, num_envs: int, *, device: Any = "cpu", **arguments: Any
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """Make a native environment for ``gymnasium.make_vec``; see ``rlox_gpu.make_vec``."""
    from rlox_gpu.envs import make_vec

    if str(device) == "cpu":
        arguments.setdefault("episode_statistics", False)
    return make_vec(env_id, num_envs, device=device, **arguments)
