"""Wrappers of vector environments, named as Gymnasium names them.

They work on NumPy arrays and on torch tensors of any device; there no ``step`` waits for the
device. All three autoreset modes give the same statistics for the same episodes.
"""

from rlox_gpu.envs.wrappers.base import StatefulWrapper
from rlox_gpu.envs.wrappers.episodes import RecordEpisodeStatistics, TimeLimit
from rlox_gpu.envs.wrappers.frames import FrameStack, FrameStackObservation
from rlox_gpu.envs.wrappers.normalize import NormalizeObservation, NormalizeReward
from rlox_gpu.envs.wrappers.rewards import ClipReward

__all__ = [
    "ClipReward",
    "FrameStack",
    "FrameStackObservation",
    "NormalizeObservation",
    "NormalizeReward",
    "RecordEpisodeStatistics",
    "StatefulWrapper",
    "TimeLimit",
]
