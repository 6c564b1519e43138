"""A replay buffer in a file: larger than memory, and still there when the process is not."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _rust
from .._checks import SEEDS, WORDS, described, integer
from ._arrays import as_rows
from ._common import extend_with
from ._mapped_file import Column, MappedFile
from ._specs import Specs, positive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

# Rows beyond the capacity: those that are being written are none of those that count.
_SPARE = 1024
# What push calls them.
_SINGLE = {"actions": "action", "rewards": "reward"}
_REWARD, _FLAG = np.dtype(np.float32), np.dtype(np.bool_)


class MmapReplayBuffer:
    """A ring of transitions in a memory-mapped file, sampled uniformly with replacement.

    If ``cold_path`` exists it is opened with all that it holds, else it is made (as a sparse file:
    disk space is taken as it fills). A process that is killed in the middle of a push loses at most
    the transitions of that push; what was pushed before is there, whole, when the file is opened
    again. Against a crash of the machine :meth:`flush` helps.

    Parameters
    ----------
    hot_capacity : int
        Of rlox's signature, where so many transitions stay in memory. Here the operating system
        keeps in memory what is used and fits, so the number is checked and not used.
    total_capacity : int
        Transitions that are kept; the oldest are overwritten.
    obs_dim, act_dim, obs_dtype, act_dtype, seed
        As for :class:`rlox_gpu.ReplayBuffer`.
    cold_path : str or Path
        The file. One process at a time may have it open.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or the file is something else, that of
        another buffer, truncated, or in use.
    OSError
        If the file cannot be opened or made.
    """

    def __init__(
        self,
        hot_capacity: int,
        total_capacity: int,
        obs_dim: Any,
        act_dim: Any,
        cold_path: str | Path,
        *,
        obs_dtype: Any = np.float32,
        act_dtype: Any = np.float32,
        seed: int | None = None,
    ) -> None:
        self._capacity = positive("total_capacity", total_capacity, WORDS)
        positive("hot_capacity", hot_capacity, self._capacity + 1)
        specs = Specs(
            total_capacity, obs_dim, act_dim, obs_dtype, act_dtype, 1, False, 1, 1.0, seed
        )
        self._parts, self._action = specs.parts, specs.action
        self._seed, self._draws = specs.numbers["seed"], 0
        self._rows = self._capacity + _SPARE
        columns: list[Column] = []
        for which in ("obs", "next_obs"):
            columns += [(_name(which, key), dtype, shape) for key, dtype, shape in self._parts]
        columns += [
            ("actions", *self._action),
            ("rewards", _REWARD, []),
            ("terminated", _FLAG, []),
            ("truncated", _FLAG, []),
        ]
        self._columns = columns
        settings = {"kind": type(self).__name__, "capacity": self._capacity}
        self._file: MappedFile | None = MappedFile(cold_path, self._rows, columns, settings)
        self._lock = Lock()

    def push(
        self,
        obs: Any,
        action: Any,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_obs: Any = None,
    ) -> None:
        """Append one transition; see :meth:`rlox_gpu.ReplayBuffer.push`."""
        self._store(None, obs, next_obs, action, reward, terminated, truncated)

    def push_batch(
        self,
        obs: Any,
        next_obs: Any,
        actions: Any,
        rewards: Any,
        terminated: Any,
        truncated: Any,
    ) -> None:
        """Append transitions; see :meth:`rlox_gpu.ReplayBuffer.push_batch`."""
        count = len(as_rows("rewards", rewards, _REWARD, [], -1))
        self._store(count, obs, next_obs, actions, rewards, terminated, truncated)

    def extend(self, batch: Mapping[str, Any]) -> None:
        """Append the transitions of a dict; see :meth:`rlox_gpu.ReplayBuffer.extend`."""
        extend_with(self.push_batch, batch, ())

    def _store(self, count: int | None, obs: Any, next_obs: Any, *others: Any) -> None:
        values: dict[str, Any] = {}
        for which, given in (("obs", obs), ("next_obs", next_obs)):
            for key, _, _ in self._parts:
                values[_name(which, key)] = _part(which, given, key)
        names = ("actions", "rewards", "terminated", "truncated")
        values |= dict(zip(names, others, strict=True))
        rows = {
            name: None
            if values[name] is None and name.startswith("next_obs")
            else as_rows(
                _SINGLE.get(name, name) if count is None else name,
                values[name],
                dtype,
                shape,
                count,
            ).reshape(-1, *shape)
            for name, dtype, shape in self._columns
        }
        with self._lock:
            file = self._opened()
            for start in range(0, 1 if count is None else count, _SPARE):
                self._write(file, rows, start, 1 if count is None else count)

    def _write(
        self, file: MappedFile, rows: dict[str, NDArray[Any] | None], start: int, count: int
    ) -> None:
        """At most as many rows as are spare, then the counter."""
        number = min(count - start, _SPARE)
        at = file.committed % self._rows
        here = min(number, self._rows - at)
        for name, values in rows.items():
            column = file.columns[name]
            if values is None:
                column[at : at + here] = 0
                column[: number - here] = 0
            else:
                block = values[start : start + number]
                column[at : at + here] = block[:here]
                column[: number - here] = block[here:]
        file.committed += number

    def sample(self, batch_size: int, seed: int | None = None) -> dict[str, Any]:
        """Draw transitions; see :meth:`rlox_gpu.ReplayBuffer.sample`, whose keys these are."""
        count = positive("batch_size", batch_size, WORDS)
        key, step = self._seed, 0
        if seed is not None:
            key = integer("seed", seed, SEEDS)
        with self._lock:
            file = self._opened()
            length = min(file.committed, self._capacity)
            if length == 0:
                raise ValueError(
                    "batch_size: the buffer is empty; push at least one transition before a sample"
                )
            if seed is None:
                step = self._draws = (self._draws + 1) % WORDS
            drawn = _rust.draw_slots(count, length, key, step).astype(np.int64)
            slots = (drawn + (file.committed - length)) % self._rows
            found = {name: column.take(slots, axis=0) for name, column in file.columns.items()}
        if self._parts[0][0] is None:
            return found
        return {
            **{
                which: {part: found.pop(_name(which, part)) for part, _, _ in self._parts}
                for which in ("obs", "next_obs")
            },
            **found,
        }

    def __len__(self) -> int:
        with self._lock:
            return min(self._opened().committed, self._capacity)

    @property
    def capacity(self) -> int:
        """The most transitions that the buffer holds."""
        return self._capacity

    def flush(self) -> None:
        """Wait until everything is on the disk."""
        with self._lock:
            self._opened().flush()

    def close(self) -> None:
        """Write everything to the disk and give the file back; the buffer is of no use then."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _opened(self) -> MappedFile:
        if self._file is None:
            raise ValueError("the buffer has been closed")
        return self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _name(which: str, key: str | None) -> str:
    return which if key is None else f"{which}[{key!r}]"


def _part(which: str, obs: Any, key: str | None) -> Any:
    if key is None or obs is None:
        return obs
    try:
        return obs[key]
    except (KeyError, IndexError, TypeError) as error:
        name = _name(which, key)
        raise TypeError(f"{name}: expected a dict with this key, got {described(obs)}") from error
