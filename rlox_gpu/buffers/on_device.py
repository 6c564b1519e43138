"""Replay buffers whose transitions live in torch tensors, on a CUDA device.

``ReplayBuffer(..., device="cuda")`` makes these. Pushing is one launch, sampling another, both on
torch's current stream, and nothing waits for the device: what only it can find, such as a priority
that is NaN, is told by a later call. Calls on one buffer belong on one stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from .._checks import SEEDS, WORDS, described, finite_number, integer
from ..kernels.replay import (
    ALL_ZERO,
    BAD_INDEX,
    BAD_PRIORITY,
    BETA,
    DRAWS,
    LARGEST,
    NO_SEQUENCE,
    PUSHED,
)
from ..kernels.sum_tree import empty_tree, entries_above
from . import _launches
from ._arrays import as_rows, fits_rows
from ._common import Common
from ._specs import Specs, positive

if TYPE_CHECKING:
    from typing_extensions import Self

_SLOTS = 1 << 31
_TERMINATED, _TRUNCATED = 1, 2  # bits of a file's flag bytes
_FLAG, _REAL = np.dtype(np.bool_), np.dtype(np.float32)


class DeviceReplayBuffer(Common):
    """:class:`rlox_gpu.ReplayBuffer` on a device: the same arguments, draws and files.

    Samples are dicts of tensors on the device. Tensors there of the stored dtype are pushed where
    they are; others, arrays and lists are brought there first.
    """

    kind: ClassVar[str] = "ReplayBuffer"

    def __init__(self, specs: Specs, device: torch.device) -> None:
        if specs.numbers["deduplicate"]:
            raise ValueError(
                "deduplicate: expected False for a buffer on a device, got True; keep the buffer "
                "in host memory and prefetch from it with batches()"
            )
        capacity, num_envs = specs.capacity, specs.numbers["num_envs"]
        if capacity >= _SLOTS:
            raise ValueError(f"capacity: expected less than 2**31 on a device, got {capacity}")
        if num_envs > capacity:
            raise ValueError(
                f"capacity: expected at least num_envs = {num_envs} on a device, got {capacity}"
            )
        _check_device(device)
        self.capacity: int = capacity
        self.num_envs: int = num_envs
        self._settings = specs.settings()
        self._seed: int = specs.numbers["seed"]
        self._n_step: int = specs.numbers["n_step"]
        self._gamma: float = specs.numbers["gamma"]
        self._keys = [key for key, _, _ in specs.parts]
        parts = [(dtype, tuple(shape)) for _, dtype, shape in specs.parts]
        action = (specs.action[0], tuple(specs.action[1]))
        ends = [(_FLAG, ()), (_FLAG, ())]
        self._formats = [*parts, *parts, action, (_REAL, ()), *ends]
        self._names = [
            *(self._name_of("obs", key) for key in self._keys),
            *(self._name_of("next_obs", key) for key in self._keys),
            *("actions", "rewards", "terminated", "truncated"),
        ]
        self._fields = [
            torch.zeros((capacity, *shape), dtype=_torch_dtype(dtype), device=device)
            for dtype, shape in self._formats
        ]
        self._state, self._errors_seen = _make_state(capacity, num_envs, device)
        self.device: torch.device = self._fields[0].device
        self._lock = Lock()
        self._pushed = 0
        # Whether a graph holds pushes: then only the device knows how many there have been.
        self._captured = False

    @staticmethod
    def _name_of(what: str, key: str | None) -> str:
        return what if key is None else f"{what}[{key!r}]"

    def push(
        self,
        obs: Any,
        action: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        next_obs: Any = None,
        *,
        env: int = 0,
    ) -> None:
        """Append one transition, see :meth:`rlox_gpu.ReplayBuffer.push`.

        A launch for one row: where steps come in batches, :meth:`push_batch` costs the same.
        """
        self._push_one(obs, action, reward, terminated, truncated, next_obs, env, None)

    def _push_one(
        self,
        obs: Any,
        action: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        next_obs: Any,
        env: int,
        priority: Any,
    ) -> None:
        env = integer("env", env, self.num_envs)
        parts = len(self._keys)
        given = [*self._split("obs", obs), *self._split("next_obs", next_obs)]
        given += [action, reward, terminated, truncated]
        names = [*self._names[: 2 * parts], "action", "reward", "terminated", "truncated"]
        rows = [
            self._row(name, value, *self._formats[at])
            for at, (name, value) in enumerate(zip(names, given, strict=True))
        ]
        envs = np.array([env]) if self.num_envs > 1 else None
        self._store(rows, 1, envs, priority)

    def push_batch(
        self,
        obs: Any,
        next_obs: Any,
        actions: Any,
        rewards: Any,
        terminated: Any,
        truncated: Any,
        *,
        envs: Any = None,
    ) -> None:
        """Append transitions, see :meth:`rlox_gpu.ReplayBuffer.push_batch`.

        ``envs`` are read on the host: give them as an array, or the call waits for the device.
        """
        self._push_many(obs, next_obs, actions, rewards, terminated, truncated, envs, None)

    def _push_many(
        self,
        obs: Any,
        next_obs: Any,
        actions: Any,
        rewards: Any,
        terminated: Any,
        truncated: Any,
        envs: Any,
        priorities: torch.Tensor | None,
    ) -> None:
        parts = len(self._keys)
        reward_rows = self._rows("rewards", rewards, _REAL, (), -1)
        count = len(reward_rows)
        given = [*self._split("obs", obs), *self._split("next_obs", next_obs), actions]
        rows = [
            self._rows(self._names[at], value, *self._formats[at], count)
            for at, value in enumerate(given)
        ]
        rows += [reward_rows]
        rows += [
            self._rows("terminated", terminated, _FLAG, (), count),
            self._rows("truncated", truncated, _FLAG, (), count),
        ]
        if envs is not None:
            envs = self._checked_envs(envs, count)
        elif count % self.num_envs:
            raise ValueError(
                f"rewards: expected a multiple of {self.num_envs} rows, one for each environment "
                f"in turn (or say which with envs=), got {count}"
            )
        if priorities is not None and len(priorities) != count:
            raise ValueError(
                f"priorities: expected {count} rows as in rewards, got {len(priorities)}"
            )
        assert len(rows) == 2 * parts + 4
        self._store(rows, count, envs, priorities)

    def _checked_envs(self, envs: Any, count: int) -> NDArray[Any]:
        array = as_rows("envs", envs, np.dtype(np.int64), [], count)
        bad = array[(array < 0) | (array >= self.num_envs)]
        if bad.size:
            raise ValueError(
                f"envs: expected numbers in [0, {self.num_envs}), the buffer's num_envs, "
                f"got {bad[0]}"
            )
        return array if self.num_envs > 1 else None  # type: ignore[return-value]

    def _store(
        self,
        rows: list[torch.Tensor],
        count: int,
        envs: NDArray[Any] | None,
        priorities: torch.Tensor | None,
    ) -> None:
        block = self.capacity // self.num_envs * self.num_envs
        with self._lock:
            self._raise_found()
            for first in range(0, count, block):
                last = min(first + block, count)
                part = [x[first:last] for x in rows] if count > block else rows
                if envs is not None:
                    self._link(part, envs[first:last])
                linked = self.num_envs if envs is None else 1
                _launches.push(self._state, self._fields, part, linked, envs is None)
                self._weigh(last - first, None if priorities is None else priorities[first:last])
            if self._is_capturing():
                self._captured = True
            else:
                self._pushed += count

    def _weigh(self, count: int, priorities: torch.Tensor | None) -> None:
        """Give the newest rows their priorities, in a buffer that has some."""

    def _link(self, rows: list[torch.Tensor], envs: NDArray[Any]) -> None:
        """Note which transition follows which, for rows of environments in any order."""
        counters, _, next_slot, step, tails = self._state
        # By environment, the rows of each in their order.
        order = np.argsort(envs, kind="stable")
        sorted_envs = envs[order]
        begins = np.append(True, sorted_envs[1:] != sorted_envs[:-1])
        ends_at = np.flatnonzero(np.append(begins[1:], True))
        begins_at = np.flatnonzero(begins)

        def here(array: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

        row, env, first = here(order), here(sorted_envs), here(begins)
        place = torch.arange(len(envs), device=self.device)
        number = counters[PUSHED] + row
        slot = number % self.capacity
        ends = (rows[-2] | rows[-1])[row]
        tail = tails[env]
        followed = first & (tail[:, 1] >= 0)
        # Where the episode of a row began: behind an end, or with its environment's first row.
        cut = first | ends.roll(1)
        begun = torch.where(cut, place, 0).cummax(0).values
        before = torch.where(followed, tail[:, 2] + 1, 0)[begun]
        steps = place - begun + before
        goes_on = ~(first.roll(-1) | ends)
        following = torch.where(goes_on, slot.roll(-1), -1)
        # A tail that these rows overwrite is not linked to them; a row writes its own link then.
        kept = followed & (tail[:, 0] >= counters[PUSHED] + len(envs) - self.capacity)
        step[slot] = steps.int()
        next_slot[torch.where(kept, tail[:, 1], slot)] = torch.where(kept, slot, following).int()
        next_slot[slot] = following.int()
        last = here(ends_at)
        news = torch.stack([number, torch.where(ends, -1, slot), steps], 1)
        tails[env[here(begins_at)]] = news[last]

    def sample(
        self, batch_size: int, seed: int | None = None, *, out: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Draw transitions, see :meth:`rlox_gpu.ReplayBuffer.sample`; tensors on the device.

        ``out``, an earlier sample of that size, is written and returned. A sample under the
        buffer's own seed differs at each replay of a graph that holds it.
        """
        count = positive("batch_size", batch_size, _SLOTS)
        seed = None if seed is None else integer("seed", seed, SEEDS)
        with self._lock:
            self._check_not_empty()
            more = {"discounts": torch.float32} if self._n_step > 1 else {}
            result, tensors, extra = self._results((count,), out, more | self._more)
            _launches.sample(
                self._state,
                self._fields,
                self._tree(),
                None,
                tensors,
                extra,
                seed,
                self._n_step,
                self._gamma,
                own_seed=self._seed,
            )
        return result

    def sample_sequences(
        self,
        batch_size: int,
        length: int,
        *,
        stride: int = 1,
        burn_in: int = 0,
        seed: int | None = None,
        out: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Draw sequences, see :meth:`rlox_gpu.ReplayBuffer.sample_sequences`.

        Four launches. That there is no such sequence, a later call or :meth:`check` tells.
        """
        count = positive("batch_size", batch_size, _SLOTS)
        length = positive("length", length, _SLOTS) + integer("burn_in", burn_in, _SLOTS)
        stride = positive("stride", stride, WORDS)
        seed = None if seed is None else integer("seed", seed, SEEDS)
        with self._lock:
            self._check_not_empty()
            result, tensors, extra = self._results((count, length), out, {})
            slots = torch.empty((count, length), dtype=torch.int64, device=self.device)
            _launches.draw_sequences(
                self._state, self._fields, slots, stride, seed, own_seed=self._seed
            )
            _launches.sample(
                self._state,
                self._fields,
                None,
                slots.flatten(),
                [x.flatten(0, 1) for x in tensors],
                extra,
                seed,
                1,
                self._gamma,
                own_seed=self._seed,
            )
        return result

    def batches(
        self,
        batch_size: int,
        *,
        device: Any = None,
        prefetch: int = 0,
        sample: Callable[..., dict[str, Any]] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Return an endless iterator of samples; see :meth:`rlox_gpu.ReplayBuffer.batches`.

        They are drawn where they are wanted, so nothing is drawn ahead, whatever ``prefetch``.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or ``device`` is another one.
        """
        count = positive("batch_size", batch_size, _SLOTS)
        integer("prefetch", prefetch, WORDS)
        if device is not None and torch.empty(0, device=device).device != self.device:
            raise ValueError(f"device: expected {self.device}, the buffer's own, got {device}")
        draw = self.sample if sample is None else sample
        if not callable(draw):
            raise TypeError(f"sample: expected a function, got {described(draw)}")
        return map(draw, repeat(count))

    def _tree(self) -> list[torch.Tensor] | None:
        return None

    # Entries of a sample beside the fields.
    _more: ClassVar[dict[str, torch.dtype]] = {}

    def _results(
        self,
        leading: tuple[int, ...],
        out: dict[str, Any] | None,
        more: dict[str, torch.dtype],
    ) -> tuple[dict[str, Any], list[torch.Tensor], Any]:
        """A sample's dict, its tensors in the order of the fields, and discounts, weights, indices."""
        found: list[torch.Tensor] = []
        for at, (name, (_, shape)) in enumerate(zip(self._names, self._formats, strict=True)):
            dtype, size = self._fields[at].dtype, (*leading, *shape)
            if out is None:
                found.append(torch.empty(size, dtype=dtype, device=self.device))
            else:
                found.append(self._given(out, name, self._key_of(at), dtype, size))
        extra: dict[str, torch.Tensor] = {}
        for name, dtype in more.items():
            if out is None:
                extra[name] = torch.empty(leading, dtype=dtype, device=self.device)
            else:
                extra[name] = self._given(out, name, None, dtype, leading)
        tensors = tuple(extra.get(name) for name in ("discounts", "weights", "indices"))
        return (self._as_dict(found, extra) if out is None else out), found, tensors

    def _key_of(self, at: int) -> str | None:
        parts = len(self._keys)
        return self._keys[at % parts] if at < 2 * parts else None

    def _given(
        self,
        out: Any,
        name: str,
        key: str | None,
        dtype: torch.dtype,
        size: tuple[int, ...],
    ) -> torch.Tensor:
        """A tensor of ``out``, if it is what a sample would consist of."""
        what = name.partition("[")[0]
        if not isinstance(out, dict):
            raise TypeError(f"out: expected a dict, an earlier sample, got {described(out)}")
        x = out.get(what)
        shown = f'out["{what}"]'
        if key is not None:
            x = x.get(key) if isinstance(x, Mapping) else None
            shown = f'{shown}["{key}"]'
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{shown}: expected a tensor, got {described(x)}")
        wanted = (dtype, size, self.device, True)
        if (x.dtype, tuple(x.shape), x.device, x.is_contiguous()) != wanted:
            raise ValueError(
                f"{shown}: expected a contiguous {dtype} tensor of shape {size} on {self.device}, "
                f"got {x.dtype} of shape {tuple(x.shape)} on {x.device}"
                + ("" if x.is_contiguous() else ", not contiguous")
            )
        return x

    def _as_dict(
        self, found: Sequence[torch.Tensor], extra: Mapping[str, torch.Tensor]
    ) -> dict[str, Any]:
        parts = len(self._keys)
        obs: Any = dict(zip(self._keys, found[:parts], strict=True))
        next_obs: Any = dict(zip(self._keys, found[parts : 2 * parts], strict=True))
        if self._keys == [None]:
            obs, next_obs = obs[None], next_obs[None]
        others = zip(self._names[2 * parts :], found[2 * parts :], strict=True)
        return {"obs": obs, "next_obs": next_obs, **dict(others), **extra}

    def __len__(self) -> int:
        """Transitions that can be sampled; waits for the device if a graph holds pushes."""
        if self._captured and not self._is_capturing():
            self._pushed = int(self._state[0][PUSHED])
        return min(self._pushed, self.capacity)

    def clear(self) -> None:
        """Forget all transitions."""
        with self._lock:
            counters, _, _, _, tails = self._state
            counters[PUSHED : PUSHED + 1].zero_()
            tails[:, 1].fill_(-1)
            self._pushed = 0

    def check(self) -> None:
        """Wait for the device and raise what it has found wrong in earlier calls.

        Raises
        ------
        ValueError
            If a priority was NaN, negative or too large, an index was out of range, all priorities
            were zero, or there was no sequence to draw.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._raise_found()

    def _raise_found(self) -> None:
        """Raise what a kernel has noted by now; reads host memory, without waiting."""
        seen = self._errors_seen
        if seen is None or not seen[0]:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        code, at, bits = seen.tolist()
        seen[:] = 0
        found = {
            BAD_INDEX: f"indices: expected numbers in [0, {min(self._pushed, self.capacity)}), "
            f"got {bits} at index {at}; no priority of that call was set",
            BAD_PRIORITY: "priorities: expected finite numbers >= 0 whose power of alpha is at "
            f"most 1e290, got {np.int64(bits).view(np.float64)} at index {at}; none of that call "
            "was set",
            ALL_ZERO: "batch_size: all priorities were zero, there was nothing to sample; weights "
            "of that sample are zero",
            NO_SEQUENCE: "length: no episode in the buffer had so many consecutive transitions; "
            "that sample is of no use",
        }[code]
        raise ValueError(f"{found} (found by the device in an earlier call)")

    def _check_not_empty(self) -> None:
        self._raise_found()
        if not self._pushed and not self._captured:
            raise ValueError(
                "batch_size: the buffer is empty; push at least one transition before a sample"
            )

    def _is_capturing(self) -> bool:
        return self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()

    def _split(self, what: str, value: Any) -> list[Any]:
        """The parts of observations."""
        if self._keys == [None] or value is None:
            return [value] * len(self._keys)
        if not isinstance(value, Mapping):
            raise TypeError(
                f"{self._name_of(what, self._keys[0])}: expected a dict with this key, "
                f"got {described(value)}"
            )
        for key in self._keys:
            if key not in value:
                raise TypeError(
                    f"{self._name_of(what, key)}: expected a dict with this key, "
                    f"got {described(value)}"
                )
        return [value[key] for key in self._keys]

    def _row(self, name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        """One row ``[1, ...]``."""
        if value is None:
            return self._zeros(dtype, shape, 1)
        if isinstance(value, torch.Tensor) and value.device == self.device:
            fits = tuple(value.shape) == shape or value.numel() == math.prod(shape) == 1
            if not fits:
                raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
            return self._converted(name, value, dtype).reshape(1, *shape)
        array = as_rows(name, value, dtype, list(shape), None)
        return torch.from_numpy(array.reshape(1, *shape)).to(self.device)

    def _rows(
        self, name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...], count: int
    ) -> torch.Tensor:
        """Rows ``[B, ...]``, contiguous and of the stored dtype."""
        if value is None and name.startswith("next_obs"):
            return self._zeros(dtype, shape, count)
        if isinstance(value, torch.Tensor) and value.device == self.device:
            fits_rows(name, tuple(value.shape), shape, count)
            return self._converted(name, value, dtype).reshape(-1, *shape)
        array = as_rows(name, value, dtype, list(shape), count)
        return torch.from_numpy(array.reshape(-1, *shape)).to(self.device)

    def _zeros(self, dtype: np.dtype[Any], shape: tuple[int, ...], count: int) -> torch.Tensor:
        return torch.zeros((count, *shape), dtype=_torch_dtype(dtype), device=self.device)

    def _converted(self, name: str, value: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
        """A tensor of the device in the stored dtype, refused where numbers might be lost."""
        wanted = _torch_dtype(dtype)
        value = value.detach().contiguous()
        if value.dtype == wanted:
            return value
        if value.dtype.is_complex:
            raise TypeError(f"{name}: expected an array of numbers, got {value.dtype}")
        if dtype.kind == "b":
            return value != 0
        if dtype.kind != "f" and (
            value.dtype.is_floating_point
            or not np.can_cast(str(value.dtype).removeprefix("torch."), dtype)
        ):
            raise TypeError(
                f"{name}: expected {wanted} or what it holds all numbers of, got {value.dtype}"
            )
        return value.to(wanted)

    def contents(self) -> dict[str, NDArray[np.uint8]]:
        """The contents as named bytes, those of a buffer on the CPU; waits for the device."""
        self.check()
        counters, _, next_slot, step, tails = (x.cpu().numpy() for x in self._state)
        pushed = int(counters[PUSHED])
        length = min(pushed, self.capacity)
        rows = [x[:length].cpu().numpy() for x in self._fields]
        parts = len(self._keys)
        flags = rows[-2].astype(np.uint8) * _TERMINATED | rows[-1].astype(np.uint8) * _TRUNCATED
        links = tails[: self.num_envs].copy()
        links[links[:, 1] < 0] = (0, WORDS - 1, 0)
        arrays = {
            "pushed": np.array([pushed], np.uint64),
            "actions": rows[2 * parts],
            "rewards": rows[2 * parts + 1],
            "flags": flags,
            **{f"obs.{at}": rows[at] for at in range(parts)},
            **{f"next_obs.{at}": rows[parts + at] for at in range(parts)},
            "links.next": next_slot[:length],
            "links.step": step[:length],
            "links.tails": links,
            "draws": counters[DRAWS : DRAWS + 1].astype(np.uint32),
            **self._weights(length),
        }
        return {name: np.frombuffer(x.tobytes(), np.uint8) for name, x in arrays.items()}

    def _weights(self, length: int) -> dict[str, NDArray[Any]]:
        return {}

    def restore(self, contents: dict[str, NDArray[np.uint8]]) -> None:
        """Take over what ``contents`` of a buffer with the same settings gave.

        Raises
        ------
        ValueError
            If something is missing or does not fit; nothing has changed then.
        """
        # A buffer on the CPU looks through all of it.
        self._remade(self._settings | self._changed_settings(), {}).restore(contents)

        def array(name: str, dtype: Any) -> NDArray[Any]:
            return contents[name].view(dtype)

        with self._lock:
            pushed = int(array("pushed", np.uint64)[0])
            length = min(pushed, self.capacity)
            parts = len(self._keys)
            flags = array("flags", np.uint8)
            sources: list[NDArray[Any]] = [
                *(contents[f"obs.{at}"] for at in range(parts)),
                *(contents[f"next_obs.{at}"] for at in range(parts)),
                *(contents["actions"], contents["rewards"]),
                *(flags & _TERMINATED != 0, flags & _TRUNCATED != 0),
            ]
            for field, (dtype, shape), source in zip(
                self._fields, self._formats, sources, strict=True
            ):
                rows = source.view(dtype).reshape(length, *shape)
                field[:length].copy_(torch.from_numpy(rows.copy()))
            counters, _, next_slot, step, tails = self._state
            links = array("links.tails", np.uint64).astype(np.int64).reshape(-1, 3)
            links[links[:, 1] == WORDS - 1] = (0, -1, 0)
            tails.copy_(torch.from_numpy(links))
            next_slot[:length].copy_(torch.from_numpy(array("links.next", np.int32).copy()))
            step[:length].copy_(torch.from_numpy(array("links.step", np.int32).copy()))
            draws = int(array("draws", np.uint32)[0])
            news = {PUSHED: pushed, DRAWS: draws}
            counters.copy_(torch.tensor([news.get(i, 0) for i in range(len(counters))]))
            self._pushed = pushed
            self._restore_weights(contents, length)

    def _restore_weights(self, contents: Mapping[str, NDArray[np.uint8]], length: int) -> None:
        """Take over weights, in a buffer that has some."""

    @classmethod
    def _remade(cls, settings: dict[str, Any], options: dict[str, Any]) -> Self:
        from . import replay

        made: Self = getattr(replay, cls.kind)(**settings, **options)
        return made

    def __repr__(self) -> str:
        return f"{self.kind}({len(self)} of {self.capacity} transitions on {self.device})"


class DevicePrioritizedReplayBuffer(DeviceReplayBuffer):
    """:class:`rlox_gpu.PrioritizedReplayBuffer` on a device: the same arguments, draws and files.

    ``"indices"`` of samples are int64. Priorities are checked on the device: a call with a bad one
    sets none, and a later call or :meth:`check` tells.
    """

    kind: ClassVar[str] = "PrioritizedReplayBuffer"
    _row_options = ("envs", "priorities")
    _more: ClassVar[dict[str, torch.dtype]] = {"weights": torch.float32, "indices": torch.int64}

    def __init__(self, specs: Specs, device: torch.device, alpha: float, beta: float) -> None:
        super().__init__(specs, device)
        self._settings["alpha"] = alpha
        self.alpha: float = alpha
        self.beta: float = beta
        sums, least = empty_tree(self.capacity, self.device)
        numbers = torch.zeros(2, dtype=torch.float64, device=self.device)
        numbers[LARGEST : LARGEST + 1].fill_(1.0)
        numbers[BETA : BETA + 1].fill_(beta)
        self._sum_tree = [sums, least, numbers]
        self._owners = torch.full((self.capacity,), -1, dtype=torch.int32, device=self.device)

    def _tree(self) -> list[torch.Tensor] | None:
        return self._sum_tree

    def push(  # type: ignore[override]
        self,
        obs: Any,
        action: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        next_obs: Any = None,
        priority: Any = None,
        *,
        env: int = 0,
    ) -> None:
        """Append one transition; ``priority`` is the largest so far if not given."""
        given = None if priority is None else self._priorities([finite_number("priority", priority)])
        self._push_one(obs, action, reward, terminated, truncated, next_obs, env, given)

    def push_batch(  # type: ignore[override]
        self,
        obs: Any,
        next_obs: Any,
        actions: Any,
        rewards: Any,
        terminated: Any,
        truncated: Any,
        priorities: Any = None,
        *,
        envs: Any = None,
    ) -> None:
        """Append transitions; ``priorities`` are the largest so far if not given.

        Where the device finds a bad one, they are the largest so far too.
        """
        given = None if priorities is None else self._priorities(priorities)
        self._push_many(obs, next_obs, actions, rewards, terminated, truncated, envs, given)

    def update_priorities(self, indices: Any, priorities: Any) -> None:
        """Set priorities, see :meth:`rlox_gpu.PrioritizedReplayBuffer.update_priorities`.

        One launch, whatever the number. Of several priorities for one index the last one stays.
        """
        places = self._rows("indices", indices, np.dtype(np.int64), (), -1)
        given = self._priorities(priorities, len(places))
        with self._lock:
            self._raise_found()
            if len(places):
                _launches.update(
                    self._state,
                    self._fields,
                    self._sum_tree,
                    self._owners,
                    places,
                    given,
                    len(places),
                    self.alpha,
                )

    def _priorities(self, priorities: Any, count: int = -1) -> torch.Tensor:
        if isinstance(priorities, torch.Tensor) and priorities.device == self.device:
            fits_rows("priorities", tuple(priorities.shape), (), count)
            kept = priorities.dtype in (torch.float32, torch.float64)
            given = priorities.detach().contiguous()
            return given if kept else given.to(torch.float64)
        return self._rows("priorities", priorities, np.dtype(np.float64), (), count)

    def _weigh(self, count: int, priorities: torch.Tensor | None) -> None:
        _launches.update(
            self._state,
            self._fields,
            self._sum_tree,
            self._owners,
            None,
            priorities,
            count,
            self.alpha,
        )

    def set_beta(self, beta: float) -> None:
        """Set the exponent of importance weights, also for the graphs that hold samples."""
        self.beta = finite_number("beta", beta)
        self._sum_tree[2][BETA : BETA + 1].fill_(self.beta)

    @property
    def total_weight(self) -> float:
        """The sum of all weights ``priority ** alpha``; waits for the device."""
        self.check()
        total = 0.0
        for x in self._sum_tree[0][:8].tolist():
            total += x  # in order: the bits of the CPU
        return total

    def clear(self) -> None:
        """Forget all transitions and priorities."""
        super().clear()
        sums, least, numbers = self._sum_tree
        sums.zero_()
        least.fill_(torch.inf)
        numbers[LARGEST : LARGEST + 1].fill_(1.0)

    def _changed_settings(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def _weights(self, length: int) -> dict[str, NDArray[Any]]:
        sums, _, numbers = self._sum_tree
        first = entries_above(self.capacity)
        return {
            "weights": sums[first : first + length].cpu().numpy(),
            "largest": numbers[LARGEST : LARGEST + 1].cpu().numpy(),
        }

    def _restore_weights(self, contents: Mapping[str, NDArray[np.uint8]], length: int) -> None:
        sums, _, numbers = self._sum_tree
        first = entries_above(self.capacity)
        weights, largest = (contents[name].view(np.float64) for name in ("weights", "largest"))
        sums[first:].zero_()
        sums[first : first + length].copy_(torch.from_numpy(weights.copy()))
        numbers[LARGEST : LARGEST + 1].copy_(torch.from_numpy(largest.copy()))
        self._weigh(0, None)


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _check_device(device: torch.device) -> None:
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"device: {device} was asked for, but torch finds no CUDA device; install a CUDA build "
            "of torch, or keep the buffer in host memory (device=None)"
        )


def _make_state(
    capacity: int, num_envs: int, device: torch.device
) -> tuple[_launches.State, NDArray[np.int64] | None]:
    """Counters and links of an empty buffer, and the host's view of what kernels find wrong."""

    def zeros(*size: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype, device=device)

    tails = zeros(num_envs, 3, dtype=torch.int64)
    tails[:, 1].fill_(-1)
    links = (zeros(capacity, dtype=torch.int32), zeros(capacity, dtype=torch.int32))
    counters = zeros(3, dtype=torch.int64)
    if device.type == "cuda":
        # Memory that kernels write and the host reads without waiting for them.
        errors = torch.zeros(3, dtype=torch.int64, pin_memory=True)
    else:
        errors = zeros(3, dtype=torch.int64)
    seen = errors.numpy() if errors.device.type == "cpu" and type(errors) is torch.Tensor else None
    return (counters, errors, *links, tails), seen
