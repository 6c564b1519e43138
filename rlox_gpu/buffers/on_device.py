"""Replay buffers whose transitions live in torch tensors, on a CUDA device.

``ReplayBuffer(..., device="cuda")`` makes these. Pushing is one launch, sampling another, both on
torch's current stream, and nothing waits for the device: what only it can find, such as a priority
that is NaN, is told by a later call. Observations that are stored once take three launches more,
and waiting where memory might have to grow. Calls on one buffer belong on one stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from .._checks import SEEDS, WORDS, described, integer
from ..kernels.replay import (
    ALL_ZERO,
    BAD_INDEX,
    BAD_PRIORITY,
    NO_SEQUENCE,
    PUSHED,
)
from . import _launches
from ._arrays import as_rows
from ._common import Common
from ._device_files import contents_of, take_over
from ._device_frames import StoredOnce
from ._device_links import link
from ._device_rows import all_rows, one_row, torch_dtype
from ._device_samples import Entry, given_sample, new_sample
from ._device_state import check_device, is_capturing, make_state, wait_for
from ._specs import Specs, positive

if TYPE_CHECKING:
    from typing_extensions import Self

_SLOTS = 1 << 31
_FLAG, _REAL = np.dtype(np.bool_), np.dtype(np.float32)
_DISCOUNTS = Entry("discounts", None, torch.float32, ())


class DeviceBuffer(Common):
    """What the buffers on a device have in common: the ring, uniform draws, files.

    Samples are dicts of tensors on the device. Tensors there of the stored dtype are pushed where
    they are; others, arrays and lists are brought there first.
    """

    def __init__(self, specs: Specs, device: torch.device) -> None:
        capacity, num_envs = specs.capacity, specs.numbers["num_envs"]
        if capacity >= _SLOTS:
            raise ValueError(f"capacity: expected less than 2**31 on a device, got {capacity}")
        if num_envs > capacity:
            raise ValueError(
                f"capacity: expected at least num_envs = {num_envs} on a device, got {capacity}"
            )
        check_device(device)
        self.capacity: int = capacity
        self.num_envs: int = num_envs
        self._settings = specs.settings()
        self._seed: int = specs.numbers["seed"]
        self._n_step: int = specs.numbers["n_step"]
        self._gamma: float = specs.numbers["gamma"]
        self._keys = [key for key, _, _ in specs.parts]
        parts = [(dtype, tuple(shape)) for _, dtype, shape in specs.parts]
        action = (specs.action[0], tuple(specs.action[1]))
        self._formats = [*parts, *parts, action, (_REAL, ()), (_FLAG, ()), (_FLAG, ())]
        names = [("obs", key) for key in self._keys] + [("next_obs", key) for key in self._keys]
        names += [(name, None) for name in ("actions", "rewards", "terminated", "truncated")]
        self._entries = [
            Entry(*name, torch_dtype(dtype), shape)
            for name, (dtype, shape) in zip(names, self._formats, strict=True)
        ]
        self._once: StoredOnce | None = None
        self._fields: list[torch.Tensor] = []
        if specs.numbers["deduplicate"]:
            self._once = StoredOnce(capacity, num_envs, parts, device)
            self._fields += 2 * self._once.parts
        self._fields += [
            torch.zeros((capacity, *entry.shape), dtype=entry.dtype, device=device)
            for entry in self._entries[len(self._fields) :]
        ]
        self._state, self._errors_seen = make_state(capacity, num_envs, device)
        self.device: torch.device = self._fields[0].device
        self._lock = Lock()
        self._pushed = 0
        # Whether a graph holds pushes: then only the device knows how many there have been.
        self._captured = False

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
        given = [*self._split("obs", obs), *self._split("next_obs", next_obs)]
        given += [action, reward, terminated, truncated]
        parts = len(self._keys)
        names = [self._name_of(at) for at in range(2 * parts)]
        names += ["action", "reward", "terminated", "truncated"]
        rows = [
            one_row(name, value, row, self.device)
            for name, value, row in zip(names, given, self._formats, strict=True)
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
        rewards = all_rows("rewards", rewards, (_REAL, ()), -1, self.device)
        count = len(rewards)
        given = [*self._split("obs", obs), *self._split("next_obs", next_obs)]
        given += [actions, rewards, terminated, truncated]
        parts = len(self._keys)
        rows = [
            all_rows(
                self._name_of(at), value, row, count, self.device, may_lack=parts <= at < 2 * parts
            )
            for at, (value, row) in enumerate(zip(given, self._formats, strict=True))
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
        block = self.capacity if self._once is None else self._once.block
        block = max(1, block // self.num_envs) * self.num_envs
        with self._lock:
            for first in range(0, count, block):
                last = min(first + block, count)
                part = [x[first:last] for x in rows] if count > block else rows
                given = None if envs is None else envs[first:last]
                fields = self._fields
                if self._once is not None:
                    self._once.store(self._state, fields, part, given, self._pushed)
                    part, fields = (self._once.others(x) for x in (part, fields))
                if given is not None:
                    counters, _, next_slot, step, tails = self._state
                    link(counters[PUSHED], next_slot, step, tails, part[-2] | part[-1], given)
                linked = self.num_envs if given is None else 1
                _launches.push(self._state, fields, part, linked, given is None)
                self._weigh(last - first, None if priorities is None else priorities[first:last])
                if is_capturing(self.device):
                    self._captured = True
                else:
                    self._pushed += last - first

    def _weigh(self, count: int, priorities: torch.Tensor | None) -> None:
        """Give the newest rows their priorities, in a buffer that has some."""

    def sample(
        self, batch_size: int, seed: int | None = None, *, out: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Draw transitions, see :meth:`rlox_gpu.ReplayBuffer.sample`; tensors on the device.

        ``out``, an earlier sample of that size, is written and returned. A sample under the
        buffer's own seed differs at each replay of a graph that holds it.
        """
        count = positive("batch_size", batch_size, _SLOTS)
        draw = self._draw(seed)
        with self._lock:
            self._check_not_empty()
            more = [_DISCOUNTS, *self._more] if self._n_step > 1 else self._more
            result, tensors, extra = self._results((count,), out, more)
            _launches.sample(
                self._state,
                self._fields,
                self._tree(),
                None,
                *self._frames(),
                tensors,
                extra,
                draw,
                self._n_step,
                self._gamma,
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
        draw = self._draw(seed)
        with self._lock:
            self._check_not_empty()
            result, tensors, extra = self._results((count, length), out, [])
            slots = torch.empty((count, length), dtype=torch.int64, device=self.device)
            _launches.draw_sequences(self._state, self._fields, slots, stride, draw)
            _launches.sample(
                self._state,
                self._fields,
                None,
                slots.flatten(),
                *self._frames(),
                [x.flatten(0, 1) for x in tensors],
                extra,
                draw,
                1,
                self._gamma,
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

    def _draw(self, seed: Any) -> _launches.Draw:
        """The seed of a sample: its own, or the buffer's."""
        return (self._seed, False) if seed is None else (integer("seed", seed, SEEDS), True)

    def _tree(self) -> list[torch.Tensor] | None:
        return None

    def _frames(self) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """Where next observations are that are stored once."""
        return (None, []) if self._once is None else self._once.to_sample()

    # Entries of a sample beside the fields.
    _more: ClassVar[list[Entry]] = []

    def _results(
        self, leading: tuple[int, ...], out: dict[str, Any] | None, more: list[Entry]
    ) -> tuple[dict[str, Any], list[torch.Tensor], Any]:
        """A sample's dict, its tensors in the order of the fields; discounts, weights, indices."""
        entries = [*self._entries, *more]
        if out is None:
            sample, tensors = new_sample(entries, leading, self.device)
        else:
            sample, tensors = given_sample(out, entries, leading, self.device)
        fields = len(self._fields)
        extra = {entry.name: x for entry, x in zip(more, tensors[fields:], strict=True)}
        named = tuple(extra.get(name) for name in ("discounts", "weights", "indices"))
        return sample, tensors[:fields], named

    def __len__(self) -> int:
        """Transitions that can be sampled; waits for the device if a graph holds pushes."""
        if self._captured and not is_capturing(self.device):
            self._pushed = int(self._state[0][PUSHED])
        return min(self._pushed, self.capacity)

    def clear(self) -> None:
        """Forget all transitions."""
        with self._lock:
            counters, _, _, _, tails = self._state
            counters[PUSHED : PUSHED + 1].zero_()
            tails[:, 1].fill_(-1)
            self._pushed = 0
            if self._once is not None:
                self._once.clear()
                self._once.settle(self._state, self._fields)

    def check(self) -> None:
        """Wait for the device and raise what it has found wrong in earlier calls.

        Raises
        ------
        ValueError
            If a priority was NaN, negative or too large, an index was out of range, all priorities
            were zero, or there was no sequence to draw.
        """
        wait_for(self.device)
        self._raise_found()

    def _raise_found(self) -> None:
        """Raise what a kernel has noted by now; reads host memory, without waiting."""
        seen = self._errors_seen
        if seen is None or not seen[0]:
            return
        wait_for(self.device)
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

    def _name_of(self, at: int) -> str:
        """What messages call what is pushed to a field."""
        name, key, _, _ = self._entries[at]
        return name if key is None else f"{name}[{key!r}]"

    def _split(self, what: str, value: Any) -> list[Any]:
        """The parts of observations."""
        if self._keys == [None] or value is None:
            return [value] * len(self._keys)
        for key in self._keys:
            if not isinstance(value, Mapping) or key not in value:
                raise TypeError(
                    f"{what}[{key!r}]: expected a dict with this key, got {described(value)}"
                )
        return [value[key] for key in self._keys]

    def contents(self) -> dict[str, NDArray[np.uint8]]:
        """The contents as named bytes, those of a buffer on the CPU; waits for the device."""
        self.check()
        arrays = contents_of(self._state, self._fields, self._once) | self._weights()
        return {name: np.frombuffer(x.tobytes(), np.uint8) for name, x in arrays.items()}

    def _weights(self) -> dict[str, NDArray[Any]]:
        return {}

    def restore(self, contents: Mapping[str, NDArray[np.uint8]]) -> None:
        """Take over what ``contents`` of a buffer with the same settings gave.

        Raises
        ------
        ValueError
            If something is missing or does not fit; nothing has changed then.
        """
        # A buffer on the CPU looks through all of it.
        host: Any = self._remade(self._settings | self._changed_settings(), {})
        host.restore(contents)
        with self._lock:
            fields = (self._fields, self._formats)
            self._pushed = take_over(contents, self._state, *fields, self._once)
            self._take_over_weights(contents)
            if self._once is not None:
                self._once.settle(self._state, self._fields)

    def _take_over_weights(self, contents: Mapping[str, NDArray[np.uint8]]) -> None:
        """Take over weights, in a buffer that has some."""

    @classmethod
    def _remade(cls, settings: dict[str, Any], options: dict[str, Any]) -> Self:
        from . import replay

        made: Self = getattr(replay, cls.kind)(**settings, **options)
        return made

    def __repr__(self) -> str:
        return f"{self.kind}({len(self)} of {self.capacity} transitions on {self.device})"


class DeviceReplayBuffer(DeviceBuffer):
    """:class:`rlox_gpu.ReplayBuffer` on a device: the same arguments, draws and files."""

    kind = "ReplayBuffer"
