"""What algorithms share: seeds, threads, episode statistics, observations from outside."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

PURPOSES = ("weights", "episodes")
WINDOW = 100  # episodes that a mean return is taken over
WORTH_THREADS = 2**24  # multiply-adds


def derive_seed(seed: int, purpose: str, counter: int = 0) -> int:
    """Return a seed below 2^63 of its own for each purpose.

    Environment i of a run takes the run's seed plus i: with the run's plain number, runs 0 and 1
    would share most of their environments.
    """
    words = np.random.SeedSequence([seed, PURPOSES.index(purpose), counter])
    return int(words.generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def suitable_threads(work: int) -> Iterator[None]:
    """Keep torch to one CPU thread while the products inside are small.

    Splitting a product of a few hundred microseconds over threads gains nothing, and costs a
    factor of ten where another process keeps one of the cores busy: every product waits for it.

    Parameters
    ----------
    work : int
        Multiply-adds of a forward pass over a minibatch.
    """
    before = torch.get_num_threads()
    if work < WORTH_THREADS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class EpisodeWindow:
    """Mean return and length of the most recent episodes, kept as sums per iteration."""

    def __init__(self, entries: Iterable[Iterable[float]] = ()) -> None:
        self._entries: deque[tuple[float, float, float]] = deque()
        for count, returns, lengths in entries:
            self.add(count, returns, lengths)

    def add(self, count: float, returns: float, lengths: float) -> None:
        """Add the totals of an iteration and forget those that the window no longer needs."""
        if count:
            self._entries.append((count, returns, lengths))
        while len(self._entries) > 1 and self._count() - self._entries[0][0] >= WINDOW:
            self._entries.popleft()

    def means(self) -> dict[str, float]:
        """Return ``mean_reward`` and ``mean_length``, NaN if no episode has finished."""
        count = self._count()
        if not count:
            return {"mean_reward": math.nan, "mean_length": math.nan}
        return {
            "mean_reward": sum(entry[1] for entry in self._entries) / count,
            "mean_length": sum(entry[2] for entry in self._entries) / count,
        }

    def entries(self) -> list[list[float]]:
        """Return the state, for saving."""
        return [list(entry) for entry in self._entries]

    def _count(self) -> float:
        return sum(entry[0] for entry in self._entries)


def prepare_obs(obs: Any, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, bool]:
    """Return observations from outside as f32 ``(B, *shape)`` and whether one came alone.

    Raises
    ------
    TypeError
        If ``obs`` holds no numbers.
    ValueError
        If the shape does not fit or an entry of host data is NaN.
    """
    if not isinstance(obs, Tensor):
        array = np.asarray(obs)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"obs: expected numbers, got {array.dtype}")
        if np.isnan(array).any():
            raise ValueError("obs: an entry is NaN")
        obs = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if tuple(obs.shape) != shape and tuple(obs.shape[1:]) != shape:
        raise ValueError(f"obs: expected shape {shape} or (B, *{shape}), got {tuple(obs.shape)}")
    single = tuple(obs.shape) == shape
    rows = obs.to(device=device, dtype=torch.float32)
    return (rows.unsqueeze(0) if single else rows), single
