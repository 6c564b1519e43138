"""A fixed dataset of transitions, for offline learning."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _rust
from .._checks import SEEDS, WORDS, described, integer
from ._arrays import as_rows
from ._specs import positive
from .replay import ReplayBuffer

if TYPE_CHECKING:
    from typing_extensions import Self

_FLOAT, _FLAG = np.dtype(np.float32), np.dtype(np.bool_)
_KEYS = ("obs", "next_obs", "actions", "rewards", "terminated", "truncated")
# What other tools call the columns.
_ALIASES = {
    "obs": ("observations",),
    "next_obs": ("next_observations",),
    "actions": ("action",),
    "rewards": ("reward",),
    "terminated": ("terminals", "terminations", "dones"),
    "truncated": ("timeouts", "truncations"),
}
# Draws of one seed that are for different things.
_EPISODE, _START = 0, 1


class OfflineDatasetBuffer:
    """Transitions in the order in which they were made, to be sampled and never changed.

    An episode ends where ``terminated`` or ``truncated`` is set, and with the last transition.

    Parameters
    ----------
    obs, next_obs : array, ``(N, *shape)``
        Or flat ``(N * d,)``, as in rlox. Kept in float32.
    actions : array, ``(N, act_dim)``, ``(N,)`` or flat
    rewards, terminated, truncated : array, ``(N,)``
    normalize : bool
        Whether to sample ``(obs - mean) / max(std, 1e-8)``, mean and standard deviation being those
        of ``obs`` over the dataset; see :attr:`obs_mean` and :attr:`obs_std`.
    seed : int, optional
        Determines the samples that are drawn without a seed of their own.

    Attributes
    ----------
    obs_mean, obs_std : array, float32, of the shape of an observation
        Zeros and ones without ``normalize``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, dtype or shape; the message names it.
    """

    def __init__(
        self,
        obs: Any,
        next_obs: Any,
        actions: Any,
        rewards: Any,
        terminated: Any,
        truncated: Any,
        normalize: bool = False,
        *,
        seed: int | None = None,
    ) -> None:
        if not isinstance(normalize, bool):
            raise TypeError(f"normalize: expected a bool, got {described(normalize)}")
        self._rewards = as_rows("rewards", rewards, _FLOAT, [], -1).reshape(-1).copy()
        count = len(self._rewards)
        if count == 0:
            raise ValueError("rewards: expected at least one transition, got none")
        flags = [
            as_rows(name, x, _FLAG, [], count).reshape(-1)
            for name, x in (("terminated", terminated), ("truncated", truncated))
        ]
        shape, act_shape = _row_shape("obs", obs, count), _row_shape("actions", actions, count)
        self._obs = as_rows("obs", obs, _FLOAT, shape, count).reshape(count, *shape)
        following = as_rows("next_obs", next_obs, _FLOAT, shape, count).reshape(count, *shape)
        self._actions = as_rows("actions", actions, _FLOAT, act_shape, count).reshape(
            count, *act_shape
        )
        self.obs_mean, self.obs_std = np.zeros(shape, _FLOAT), np.ones(shape, _FLOAT)
        if normalize:
            mean = self._obs.mean(0, dtype=np.float64)
            deviation = np.sqrt(((self._obs - mean) ** 2).mean(0))
            self.obs_mean = mean.astype(_FLOAT)
            self.obs_std = np.maximum(deviation, 1e-8).astype(_FLOAT)
        self._obs = (self._obs - self.obs_mean) / self.obs_std
        following = (following - self.obs_mean) / self.obs_std
        self._store = ReplayBuffer(count, shape, act_shape, seed=seed)
        self._store.push_batch(self._obs, following, self._actions, self._rewards, *flags)
        ends = np.flatnonzero(flags[0] | flags[1]) + 1
        self._ends = ends if len(ends) and ends[-1] == count else np.append(ends, count)
        self._starts = np.concatenate([[0], self._ends[:-1]])
        self._to_go = _returns_to_go(self._rewards, self._starts, self._ends)
        self._draws = 0

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Self:
        """Read an ``.npz`` file, or a Parquet file if pyarrow is installed.

        Columns have the names of the constructor's arguments, or those of D4RL and Minari
        (``observations``, ``terminals``, ``timeouts`` and the like). Without next observations
        each one is that of the row that follows, and the last one of an episode its own: right
        where it does not matter, at termination. Pickled objects are refused.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ImportError
            If pyarrow is needed and not installed.
        ValueError
            If the file is something else, or a column is missing.
        """
        path = Path(path)
        if path.suffix == ".npz":
            columns = _npz(path)
        elif path.suffix == ".parquet":
            columns = _parquet(path)
        else:
            raise ValueError(f"{path}: expected the ending .npz or .parquet")
        return cls._from_columns(str(path), columns, options)

    @classmethod
    def from_minari(cls, dataset: Any, **options: Any) -> Self:
        """Take a Minari dataset, or the id of one that is installed (``minari download``).

        Raises
        ------
        ImportError
            If an id is given and minari is not installed.
        """
        if isinstance(dataset, str):
            dataset = importlib.import_module("minari").load_dataset(dataset)
        episodes = list(dataset.iterate_episodes())
        if not episodes:
            raise ValueError("dataset: expected at least one episode, got none")

        def joined(part: Any) -> NDArray[Any]:
            return np.concatenate([np.asarray(part(episode)) for episode in episodes])

        truncated = joined(lambda episode: episode.truncations)
        # An episode whose recording stops is cut off there.
        lasts = np.cumsum([len(episode.rewards) for episode in episodes]) - 1
        terminated = joined(lambda episode: episode.terminations)
        truncated[lasts] |= ~terminated[lasts].astype(bool)
        return cls(
            joined(lambda episode: episode.observations[:-1]),
            joined(lambda episode: episode.observations[1:]),
            joined(lambda episode: episode.actions),
            joined(lambda episode: episode.rewards),
            terminated,
            truncated,
            **options,
        )

    @classmethod
    def _from_columns(cls, source: str, columns: dict[str, Any], options: dict[str, Any]) -> Self:
        found = {}
        for name in _KEYS:
            names = [each for each in (name, *_ALIASES[name]) if each in columns]
            if names:
                found[name] = columns[names[0]]
        if "truncated" not in found and "rewards" in found:
            found["truncated"] = np.zeros(len(found["rewards"]), bool)
        missing = [name for name in _KEYS if name not in found and name != "next_obs"]
        if missing:
            raise ValueError(f"{source}: expected the columns {missing}, got {sorted(columns)}")
        if "next_obs" not in found:
            ends = np.asarray(found["terminated"]) != 0
            ends = ends | (np.asarray(found["truncated"]) != 0)
            at = np.arange(len(ends)) + 1
            at[ends], at[-1] = np.flatnonzero(ends), len(ends) - 1
            found["next_obs"] = np.asarray(found["obs"])[at]
        return cls(**found, **options)

    def __len__(self) -> int:
        return len(self._rewards)

    def n_episodes(self) -> int:
        """Episodes, an unfinished last one included."""
        return len(self._ends)

    def stats(self) -> dict[str, float]:
        """Numbers of transitions and episodes, their sizes, returns (undiscounted) and lengths."""
        returns = np.add.reduceat(self._rewards.astype(np.float64), self._starts)
        return {
            "n_transitions": len(self),
            "n_episodes": self.n_episodes(),
            "obs_dim": int(np.prod(self._obs.shape[1:])),
            "act_dim": int(np.prod(self._actions.shape[1:])),
            "mean_return": float(returns.mean()),
            "std_return": float(returns.std(ddof=min(1, len(returns) - 1))),
            "min_return": float(returns.min()),
            "max_return": float(returns.max()),
            "mean_episode_length": len(self) / self.n_episodes(),
        }

    def sample(self, batch_size: int, seed: int | None = None) -> dict[str, Any]:
        """Draw transitions; see :meth:`rlox_gpu.ReplayBuffer.sample`, whose keys these are."""
        return self._store.sample(batch_size, seed)

    def sample_trajectories(
        self, batch_size: int, seq_len: int, seed: int | None = None
    ) -> dict[str, Any]:
        """Draw pieces of episodes, as the Decision Transformer does.

        Every episode is as likely as the others, and so is every start in it from which
        ``seq_len`` transitions follow; a shorter episode comes whole, with zeros behind it.

        Returns
        -------
        dict
            ``"obs"``, ``"actions"`` ``(batch_size, seq_len, *shape)``, ``"rewards"`` and
            ``"returns_to_go"`` (undiscounted, to the episode's end) float32, ``"timesteps"`` (steps
            since the episode's start) uint32 and ``"mask"`` bool, each ``(batch_size, seq_len)``.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        """
        count = positive("batch_size", batch_size, WORDS)
        length = positive("seq_len", seq_len, WORDS)
        if seed is None:
            seed = self._store._settings["seed"] + self._draws
            self._draws += 1
        seed = integer("seed", seed % SEEDS if seed >= SEEDS else seed, SEEDS)
        episode = _rust.draw_slots(count, self.n_episodes(), seed, _EPISODE).astype(np.int64)
        first, end = self._starts[episode], self._ends[episode]
        choices = np.maximum(end - first - length, 0) + 1
        # A number below 2**32, scaled down to the choices.
        drawn = _rust.draw_slots(count, WORDS, seed, _START).astype(np.uint64)
        start = first + ((drawn * choices.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
        at = start[:, None] + np.arange(length)
        mask = at < end[:, None]
        at = np.minimum(at, end[:, None] - 1)

        def taken(x: NDArray[Any]) -> NDArray[Any]:
            inside = mask.reshape(*mask.shape, *[1] * (x.ndim - 1))
            return np.asarray(np.where(inside, x[at], x.dtype.type(0)))

        return {
            "obs": taken(self._obs),
            "actions": taken(self._actions),
            "rewards": taken(self._rewards),
            "returns_to_go": taken(self._to_go),
            "timesteps": np.where(mask, at - first[:, None], 0).astype(np.uint32),
            "mask": mask,
        }


def _returns_to_go(rewards: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> NDArray[Any]:
    """Sums of the rewards from each transition to the end of its episode."""
    sums = np.cumsum(rewards[::-1], dtype=np.float64)[::-1]
    after = np.append(sums, 0.0)[ends]
    to_go: NDArray[Any] = (sums - np.repeat(after, ends - starts)).astype(np.float32)
    return to_go


def _row_shape(name: str, x: Any, count: int) -> list[int]:
    """The shape of a row of ``x``, which may be flat."""
    shape = tuple(np.shape(x))
    if len(shape) > 1:
        return list(shape[1:])
    if len(shape) == 0 or shape[0] == 0 or shape[0] % count:
        raise ValueError(f"{name}: expected {count} rows as in rewards, got shape {shape}")
    return [shape[0] // count]


def _npz(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file):
            file.seek(0)
            arrays = np.load(file, allow_pickle=False)
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not an .npz file of arrays ({error})") from error


def _parquet(path: Path) -> dict[str, Any]:
    table = importlib.import_module("pyarrow.parquet").read_table(path)
    columns = {}
    for name in table.column_names:
        values = table.column(name).to_numpy()
        columns[name] = np.stack(values) if values.dtype == object else values
    return columns
