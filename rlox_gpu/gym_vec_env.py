"""rlox's module name of :class:`~rlox_gpu.envs.gymnasium.GymVecEnv`."""

from rlox_gpu.envs.gymnasium import GymVecEnv

__all__ = ["GymVecEnv"]
