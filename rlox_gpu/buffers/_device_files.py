"""The contents of a buffer on a device as those of one on the CPU, which files hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..kernels.replay import DRAWS, PUSHED
from ._device_frames import NONE, StoredOnce
from ._device_rows import Format
from ._launches import State

_TERMINATED, _TRUNCATED = 1, 2  # bits of a flag byte


def _names(parts: int) -> list[str]:
    """What observations that are stored twice are called."""
    return [f"{name}.{at}" for name in ("obs", "next_obs") for at in range(parts)]


def contents_of(
    state: State, fields: list[torch.Tensor], once: StoredOnce | None
) -> dict[str, NDArray[Any]]:
    """Arrays by the names that the compiled core has for them; waits for the device."""
    counters, _, next_slot, step, tails = (x.cpu().numpy() for x in state)
    pushed = int(counters[PUSHED])
    length = min(pushed, len(next_slot))
    actions, rewards, terminated, truncated = (x[:length].cpu().numpy() for x in fields[-4:])
    if once is None:
        twice = zip(_names((len(fields) - 4) // 2), fields[:-4], strict=True)
        observations = {name: x[:length].cpu().numpy() for name, x in twice}
    else:
        observations = once.contents(pushed)
    links = tails.copy()
    links[links[:, 1] < 0] = (0, NONE, 0)
    return {
        "pushed": np.array([pushed], np.uint64),
        "actions": actions,
        "rewards": rewards,
        "flags": terminated.astype(np.uint8) * _TERMINATED
        | truncated.astype(np.uint8) * _TRUNCATED,
        **observations,
        "links.next": next_slot[:length],
        "links.step": step[:length],
        "links.tails": links,
        "draws": counters[DRAWS : DRAWS + 1].astype(np.uint32),
    }


def take_over(
    contents: Mapping[str, NDArray[np.uint8]],
    state: State,
    fields: list[torch.Tensor],
    formats: list[Format],
    once: StoredOnce | None,
) -> int:
    """Write contents that fit to a device; the number of pushes that they are the result of."""

    def array(name: str, dtype: Any) -> NDArray[Any]:
        return contents[name].view(dtype)

    counters, _, next_slot, step, tails = state
    pushed = int(array("pushed", np.uint64)[0])
    length = min(pushed, len(next_slot))
    parts = (len(fields) - 4) // 2
    flags = array("flags", np.uint8)
    sources: list[NDArray[Any]] = [
        contents["actions"],
        contents["rewards"],
        flags & _TERMINATED != 0,
        flags & _TRUNCATED != 0,
    ]
    if once is None:
        sources = [*(contents[name] for name in _names(parts)), *sources]
    else:
        once.take_over(contents, formats[:parts], pushed)
        fields, formats = fields[2 * parts :], formats[2 * parts :]
    for field, (dtype, shape), source in zip(fields, formats, sources, strict=True):
        rows = source.view(dtype).reshape(length, *shape)
        field[:length].copy_(torch.from_numpy(rows.copy()))
    links = array("links.tails", np.uint64).astype(np.int64).reshape(-1, 3)
    links[links[:, 1] == NONE] = (0, -1, 0)
    tails.copy_(torch.from_numpy(links))
    next_slot[:length].copy_(torch.from_numpy(array("links.next", np.int32).copy()))
    step[:length].copy_(torch.from_numpy(array("links.step", np.int32).copy()))
    numbers = np.zeros(len(counters), np.int64)
    numbers[PUSHED], numbers[DRAWS] = pushed, array("draws", np.uint32)[0]
    counters.copy_(torch.from_numpy(numbers))
    return pushed
