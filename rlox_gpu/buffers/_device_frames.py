"""Observations that a buffer on a device stores once, see ``kernels.replay_frames``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._checks import WORDS
from . import _launches
from ._device_links import origins
from ._device_rows import Format, torch_dtype
from ._device_state import is_capturing, shared_numbers, wait_for

NONE = WORDS - 1  # no frame, no slot
# Breaks that there is room for at first, as a share of the capacity.
_SHARE = 8
_CHUNK = 1 << 22  # bytes by which files divide frames


class StoredOnce:
    """The frames of a buffer: those of slots and tails, and room for the breaks.

    ``parts [capacity + num_envs, ...]`` and ``breaks [E, ...]`` have a tensor for each part of an
    observation.
    """

    def __init__(
        self, capacity: int, num_envs: int, formats: Sequence[Format], device: torch.device
    ) -> None:
        self._capacity, self._num_envs = capacity, num_envs
        self._device = device

        def made(rows: int) -> list[torch.Tensor]:
            return [
                torch.zeros((rows, *shape), dtype=torch_dtype(dtype), device=device)
                for dtype, shape in formats
            ]

        self.parts = made(capacity + num_envs)
        room = min(capacity, max(capacity // _SHARE, num_envs, 16))
        self.breaks = made(room)
        self._seen_tensor, self._seen = shared_numbers(1, device)
        self._next_frame = torch.zeros(capacity, dtype=torch.int32, device=device)
        self._newest = torch.full((num_envs,), -1, dtype=torch.int64, device=device)
        self._free = torch.arange(room, dtype=torch.int32, device=device)
        self._used = torch.zeros(1, dtype=torch.int64, device=device)
        self._differs = torch.zeros(capacity, dtype=torch.int32, device=device)
        self._moved = torch.zeros(num_envs, dtype=torch.int32, device=device)
        # Whether a graph holds samples: then the memory that they read must stay where it is.
        self._sampled_by_graph = False

    @property
    def block(self) -> int:
        """Rows that are stored at a time; each of them might end with a break."""
        return self._capacity if len(self._free) == self._capacity else len(self._free) // 2

    def store(
        self,
        state: _launches.State,
        fields: list[torch.Tensor],
        rows: list[torch.Tensor],
        envs: NDArray[Any] | None,
        pushed: int,
    ) -> None:
        """Store the next observations of ``rows``, before a push stores the others.

        Raises
        ------
        RuntimeError
            If memory may be needed and a captured graph rules that out.
        """
        if is_capturing(self._device):
            raise RuntimeError(
                "push_batch: a push with deduplicate=True may need memory, which a captured graph "
                "cannot get; push outside of the graph, or with deduplicate=False"
            )
        count = len(rows[0])
        if self._lacks_room(pushed, count):
            if self._sampled_by_graph:
                raise RuntimeError(
                    "push_batch: so many episodes need more memory than there is, which a captured "
                    "graph reads where it is; capture no samples, or use deduplicate=False"
                )
            self._grow(count)
        parts = len(self.parts)
        whose = None if envs is None else origins(envs, self._device)
        self._launch(state, fields, whose, rows[:parts], rows[parts : 2 * parts])

    def settle(self, state: _launches.State, fields: list[torch.Tensor]) -> None:
        """Tell the host how many breaks there are, after :meth:`clear` or :meth:`take_over`."""
        nothing = [x[:0] for x in self.parts]
        self._launch(state, fields, None, nothing, nothing)

    def _launch(
        self,
        state: _launches.State,
        fields: list[torch.Tensor],
        whose: torch.Tensor | None,
        obs: list[torch.Tensor],
        next_obs: list[torch.Tensor],
    ) -> None:
        _launches.store_once(state, fields, self._frames(), self.breaks, whose, obs, next_obs)

    def _frames(self) -> list[torch.Tensor]:
        """In the order of ``kernels.replay_frames.Frames``."""
        return [
            self._next_frame,
            self._newest,
            self._free,
            self._used,
            self._seen_tensor,
            self._differs,
            self._moved,
        ]

    def others(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """What a push stores besides: ``tensors`` are one for each field."""
        parts = len(self.parts)
        return [*tensors[:parts], *tensors[2 * parts :]]

    def to_sample(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The frame of each slot's next observation, and the breaks."""
        self._sampled_by_graph |= is_capturing(self._device)
        return self._next_frame, self.breaks

    def _lacks_room(self, pushed: int, count: int) -> bool:
        """Whether ``count`` more rows might not find room; waits for the device if it must know.

        Every row that the device has not told of may have ended with a break.
        """
        room = len(self._free)
        if self._seen is None or room == self._capacity:
            return False
        if self._used_at_most(pushed) + count <= room:
            return False
        wait_for(self._device)
        return self._used_at_most(pushed) + count > room

    def _used_at_most(self, pushed: int) -> int:
        assert self._seen is not None
        told = int(self._seen[0])
        return (told & WORDS - 1) + (pushed - (told >> 32)) % WORDS

    def _grow(self, more: int) -> None:
        """Make room for at least ``more`` breaks, up to as many as there are slots."""
        room = len(self._free)
        wanted = min(self._capacity, max(2 * room, room + more))
        grown = [x.new_zeros((wanted, *x.shape[1:])) for x in self.breaks]
        for new, old in zip(grown, self.breaks, strict=True):
            new[:room].copy_(old)
        self.breaks = grown
        added = torch.arange(room, wanted, dtype=torch.int32, device=self._device)
        self._free = torch.cat([self._free, added])

    def clear(self) -> None:
        """Forget all; what the host sees of it, the next launch brings up to date."""
        self._newest.fill_(-1)
        self._used.zero_()
        self._free.copy_(torch.arange(len(self._free), dtype=torch.int32, device=self._device))

    def contents(self, pushed: int) -> dict[str, NDArray[Any]]:
        """Arrays by the names that the compiled core has for them; waits for the device."""
        length = min(pushed, self._capacity)
        frame = self._next_frame[:length].cpu().numpy().astype(np.int64)
        alone = np.flatnonzero(frame >= self._capacity)
        first_break = self._capacity + self._num_envs
        following = frame.copy()
        following[alone] = length + np.arange(len(alone))
        newest = self._newest.cpu().numpy()
        alive = newest >= max(0, pushed - self._capacity)
        tails = np.full(self._num_envs, NONE)
        tails[alive] = following[newest[alive] % self._capacity]
        pairs = np.stack([np.arange(length), following], 1).astype(np.uint32)
        found: dict[str, NDArray[Any]] = {}
        where = torch.from_numpy(frame[alone]).to(self._device)
        for at, (part, breaks) in enumerate(zip(self.parts, self.breaks, strict=True)):
            single = part[where.clamp(max=first_break - 1)]
            is_break = where >= first_break
            single[is_break] = breaks[where[is_break] - first_break]
            frames = torch.cat([part[:length], single]).cpu().numpy()
            found[f"frames.{at}"] = np.array([len(frames)], np.uint64)
            width = part[0].nbytes
            rows = 1 << (max(_CHUNK // width, 1).bit_length() - 1)
            for number in range(-(-len(frames) // rows)):
                chunk = np.zeros((rows, *frames.shape[1:]), frames.dtype)
                piece = frames[number * rows : (number + 1) * rows]
                chunk[: len(piece)] = piece
                found[f"frames.{at}.{number}"] = chunk
            found[f"pairs.{at}"] = pairs
            found[f"tails.{at}"] = tails.astype(np.uint32)
        return found

    def take_over(
        self, contents: Mapping[str, NDArray[np.uint8]], formats: Sequence[Format], pushed: int
    ) -> None:
        """Write contents that fit to the device."""
        length = min(pushed, self._capacity)
        pairs = [
            contents[f"pairs.{at}"].view(np.uint32).reshape(-1, 2).astype(np.int64)
            for at in range(len(self.parts))
        ]
        tails = contents["tails.0"].view(np.uint32)
        followers = np.stack([_owner_of(pair[:, 1], pair[:, 0]) for pair in pairs])
        newest_slot = _owner_of(tails.astype(np.int64), pairs[0][:, 1])
        # Stored once are observations of which all parts are one transition's.
        frame = np.where((followers == followers[0]).all(0), followers[0], -1)
        envs = np.flatnonzero(newest_slot >= 0)
        frame[newest_slot[envs]] = self._capacity + envs
        alone = np.flatnonzero(frame < 0)
        self.clear()
        if len(alone) > len(self._free):
            self._grow(len(alone))
        first_break = self._capacity + self._num_envs
        frame[alone] = first_break + np.arange(len(alone))
        for at, (dtype, shape) in enumerate(formats):
            frames = _frames_of(contents, at).view(dtype).reshape(-1, *shape)
            obs, following = (torch.from_numpy(frames[pairs[at][:, i]]) for i in range(2))
            self.parts[at][:length].copy_(obs)
            self.parts[at][self._capacity + envs] = following[newest_slot[envs]].to(self._device)
            self.breaks[at][: len(alone)].copy_(following[alone])
        self._next_frame[:length].copy_(torch.from_numpy(frame.astype(np.int32)))
        slots = newest_slot + (pushed - 1 - newest_slot) // self._capacity * self._capacity
        self._newest.copy_(torch.from_numpy(np.where(newest_slot >= 0, slots, -1)))
        self._used.fill_(len(alone))


def _owner_of(frames: NDArray[np.int64], owned: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each frame the slot whose it is, -1 for none; ``owned`` has the frame of each slot."""
    order = np.argsort(owned, kind="stable")
    if not len(owned):
        return np.full(len(frames), -1)
    at = np.minimum(np.searchsorted(owned[order], frames), len(owned) - 1)
    return np.where(owned[order][at] == frames, order[at], -1)


def _frames_of(contents: Mapping[str, NDArray[np.uint8]], part: int) -> NDArray[np.uint8]:
    chunks: list[NDArray[np.uint8]] = []
    while (name := f"frames.{part}.{len(chunks)}") in contents:
        chunks.append(contents[name])
    return np.concatenate(chunks) if chunks else np.zeros(0, np.uint8)
