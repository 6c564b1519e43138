"""Wrappers about whole episodes: their statistics and their length."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from gymnasium.vector import VectorEnv

from rlox_gpu._checks import integer
from rlox_gpu.envs.base import NativeVectorEnv
from rlox_gpu.envs.wrappers.base import StatefulWrapper, Step, copied


class RecordEpisodeStatistics(StatefulWrapper):
    """Put return, length and duration of each episode that ends into the infos.

    ``infos[stats_key]`` holds ``"r"`` (float64), ``"l"`` (int64) and ``"t"`` (float64, seconds on
    the host's clock), each ``(N,)`` and zero where no episode ended, with the mask
    ``infos["_" + stats_key]``. On NumPy arrays they are there at steps that end an episode, on
    tensors at every step. An entry of that name from inside is replaced: the native environments
    have one of their own, without ``"t"``.

    Parameters
    ----------
    env
        A vector environment.
    buffer_length
        Episodes that the queues hold, at least 1.
    stats_key
        The name of the entry.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        buffer_length: int = 100,
        stats_key: str = "episode",
    ) -> None:
        super().__init__(env)
        self._length = integer("buffer_length", buffer_length, 1 << 31)
        if self._length == 0:
            raise ValueError("buffer_length: expected at least 1, got 0")
        if not isinstance(stats_key, str):
            raise TypeError(f"stats_key: expected a string, got {stats_key!r}")
        self._stats_key = stats_key
        # Seconds since the start of the wrapper: what is left of a clock in a saved state.
        self._origin = time.perf_counter()
        self._started = self._zeros((self.num_envs,), "float64")
        self._returns = self._zeros((self.num_envs,), "float64")
        self._lengths = self._zeros((self.num_envs,), "int64")
        # Rings of the last episodes, with one more place for what is not to be kept.
        self._finished = self._zeros((1,), "int64")
        self._rings = {
            name: self._zeros((self._length + 1,), dtype)
            for name, dtype in (("r", "float64"), ("l", "int64"), ("t", "float64"))
        }

    @property
    def episode_count(self) -> int:
        """Episodes that have ended; reading it waits for the device."""
        return int(self._finished[0])

    @property
    def return_queue(self) -> deque[float]:
        """Returns of the last ``buffer_length`` episodes, oldest first, copied from the device."""
        return self._queue("r")

    @property
    def length_queue(self) -> deque[int]:
        """Their lengths in steps."""
        return self._queue("l")

    @property
    def time_queue(self) -> deque[float]:
        """Their durations in seconds."""
        return self._queue("t")

    def _queue(self, name: str) -> deque[Any]:
        count = self.episode_count
        kept = min(count, self._length)
        values = self._rings[name][: self._length].tolist()
        return deque((values[i % self._length] for i in range(count - kept, count)), self._length)

    def _begin(self, obs: Any, mask: Any) -> Any:
        self._restart(mask)
        return obs

    def _restart(self, mask: Any) -> None:
        where = self._xp.where
        self._started[...] = where(mask, time.perf_counter() - self._origin, self._started)
        self._returns[...] = where(mask, 0.0, self._returns)
        self._lengths[...] = where(mask, 0, self._lengths)

    def _advance(self, step: Step, ended: Any) -> Step:
        active = ~self._idle
        self._returns += self._xp.where(active, step.rewards, 0.0)
        self._lengths += active
        if self.device is not None or ended.any():
            self._record(step.infos, ended)
        # In the next-step mode episodes begin with the step that resets the environment.
        if self._same_step:
            self._restart(ended)
        elif not self._rests:
            self._restart(self._idle)
        return step

    def _record(self, infos: dict[str, Any], ended: Any) -> None:
        where = self._xp.where
        now = time.perf_counter() - self._origin
        totals = {"r": self._returns, "l": self._lengths, "t": now - self._started}
        infos[self._stats_key] = {name: where(ended, x, 0) for name, x in totals.items()}
        infos[f"_{self._stats_key}"] = copied(ended)
        nth = self._xp.cumsum(ended, 0)
        total = nth[-1:]
        place = (self._finished + nth - 1) % self._length
        kept = ended & (nth > total - self._length)
        place = where(kept, place, self._length)
        for name, values in totals.items():
            self._rings[name][place] = values
        self._finished += total

    def _state(self) -> dict[str, Any]:
        return {
            **super()._state(),
            "returns": self._returns,
            "lengths": self._lengths,
            "finished": self._finished,
            **{f"ring_{name}": ring for name, ring in self._rings.items()},
        }


class TimeLimit(StatefulWrapper):
    """Truncate episodes of a native environment after so many steps.

    The limit is handed to the native environment inside, which then has it for good: its
    autoreset, final observations and episode statistics follow it, at no cost. It is the same as
    to make the environment with ``max_episode_steps``, and never raises a limit.

    Parameters
    ----------
    env
        A native environment or a wrapper of one.
    max_episode_steps
        Steps, at least 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; ``gymnasium.make_vec`` takes ``max_episode_steps`` for
        other environments.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], max_episode_steps: int) -> None:
        super().__init__(env)
        native = env.unwrapped
        if not isinstance(native, NativeVectorEnv):
            raise TypeError(
                f"env: expected a native environment, got {type(native).__name__}; "
                "gymnasium.make_vec(id, max_episode_steps=...) limits any other"
            )
        limit = integer("max_episode_steps", max_episode_steps, 1 << 31)
        if limit == 0:
            raise ValueError("max_episode_steps: expected at least 1, got 0")
        native.limit_episodes(limit)

    def _begin(self, obs: Any, mask: Any) -> Any:
        return obs

    def _advance(self, step: Step, ended: Any) -> Step:
        return step
