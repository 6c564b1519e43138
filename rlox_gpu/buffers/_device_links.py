"""Which transition follows which, for rows of environments in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def _by_environment(
    envs: NDArray[Any],
) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[np.bool_]]:
    """Rows by environment, those of each in their order; their environments; where one begins."""
    order = np.argsort(envs, kind="stable")
    sorted_envs = envs[order]
    return order, sorted_envs, np.append(True, sorted_envs[1:] != sorted_envs[:-1])


def origins(envs: NDArray[Any], device: torch.device) -> torch.Tensor:
    """For each row its environment, its row before or -1, and whether it is its last: [3, B]."""
    order, _, begins = _by_environment(envs)
    before, last = np.full(len(envs), -1), np.ones(len(envs), np.int64)
    follows = ~begins[1:]
    before[order[1:][follows]] = order[:-1][follows]
    last[order[:-1][follows]] = 0
    return torch.from_numpy(np.stack([envs, before, last])).to(device)


def link(
    pushed: torch.Tensor,
    next_slot: torch.Tensor,
    step: torch.Tensor,
    tails: torch.Tensor,
    ends: torch.Tensor,
    envs: NDArray[Any],
) -> None:
    """Note the links of rows that are about to be pushed, as the push of rows in turn does itself.

    ``pushed`` is the number of pushes before them, a tensor of one number; ``ends`` says which rows
    end an episode, ``envs`` on the host whose they are. The rows fit into the ring.
    """
    capacity, device = len(next_slot), next_slot.device
    order, sorted_envs, begins = _by_environment(envs)
    ends_at = np.flatnonzero(np.append(begins[1:], True))
    begins_at = np.flatnonzero(begins)

    def here(array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    row, env, first = here(order), here(sorted_envs), here(begins)
    place = torch.arange(len(envs), device=device)
    number = pushed + row
    slot = number % capacity
    ends = ends[row]
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
    kept = followed & (tail[:, 0] >= pushed + len(envs) - capacity)
    step[slot] = steps.int()
    next_slot[torch.where(kept, tail[:, 1], slot)] = torch.where(kept, slot, following).int()
    next_slot[slot] = following.int()
    last = here(ends_at)
    news = torch.stack([number, torch.where(ends, -1, slot), steps], 1)
    tails[env[here(begins_at)]] = news[last]
