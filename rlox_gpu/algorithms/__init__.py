"""Training algorithms."""

from rlox_gpu.algorithms.ppo import PPO

__all__ = ["PPO"]
