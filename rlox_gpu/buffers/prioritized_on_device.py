"""The replay buffer with priorities whose transitions live in torch tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from .._checks import finite_number
from ..kernels.replay import BETA, LARGEST
from ..kernels.sum_tree import empty_tree, entries_above
from . import _launches
from ._arrays import as_rows, fits_rows
from ._device_rows import all_rows, is_there
from ._device_samples import Entry
from ._specs import Specs
from .on_device import DeviceBuffer

_INDEX, _PRIORITY = np.dtype(np.int64), np.dtype(np.float64)
_MOST = 1e290


class DevicePrioritizedReplayBuffer(DeviceBuffer):
    """:class:`rlox_gpu.PrioritizedReplayBuffer` on a device: the same arguments, draws and files.

    ``"indices"`` of samples are int64. Priorities are checked on the device: a call with a bad one
    sets none, and a later call or :meth:`check` tells.
    """

    kind = "PrioritizedReplayBuffer"
    _row_options = ("envs", "priorities")
    _more: ClassVar[list[Entry]] = [
        Entry("weights", None, torch.float32, ()),
        Entry("indices", None, torch.int64, ()),
    ]

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

    def push(
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
        given = (
            None if priority is None else self._priorities([finite_number("priority", priority)])
        )
        self._push_one(obs, action, reward, terminated, truncated, next_obs, env, given)

    def push_batch(
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

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or shape, or holds something bad in host memory;
            what is bad in tensors of the device, a later call tells.
        """
        if not is_there(indices, self.device):
            indices = as_rows("indices", indices, _INDEX, [], -1)
            length = len(self)
            for at in np.flatnonzero((indices < 0) | (indices >= length))[:1]:
                raise ValueError(
                    f"indices: expected numbers in [0, {length}), below the buffer's length, got "
                    f"{indices[at]} at index {at}"
                )
        places = all_rows("indices", indices, (_INDEX, ()), -1, self.device)
        given = self._priorities(priorities, len(places))
        with self._lock:
            self._raise_found()
            if len(places):
                self._weigh(len(places), given, places)

    def _priorities(self, priorities: Any, count: int = -1) -> torch.Tensor:
        """On the device, as they came there; those of the host are looked through first."""
        if is_there(priorities, self.device) and priorities.dtype is torch.float32:
            fits_rows("priorities", tuple(priorities.shape), (), count)
            kept: torch.Tensor = priorities.detach().contiguous()
            return kept
        if not is_there(priorities, self.device):
            priorities = as_rows("priorities", priorities, _PRIORITY, [], count)
            with np.errstate(all="ignore"):
                good = (priorities >= 0.0) & (priorities < np.inf)
                good &= priorities**self.alpha <= _MOST
            for at in np.flatnonzero(~good)[:1]:
                raise ValueError(
                    "priorities: expected finite numbers >= 0 whose power of alpha is at most "
                    f"1e290, got {priorities[at]} at index {at}"
                )
        return all_rows("priorities", priorities, (_PRIORITY, ()), count, self.device)

    def _weigh(
        self, count: int, priorities: torch.Tensor | None, indices: torch.Tensor | None = None
    ) -> None:
        _launches.update(
            self._state,
            self._fields,
            self._sum_tree,
            self._owners,
            indices,
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

    def _weights(self) -> dict[str, NDArray[Any]]:
        sums, _, numbers = self._sum_tree
        first = entries_above(self.capacity)
        return {
            "weights": sums[first : first + len(self)].cpu().numpy(),
            "largest": numbers[LARGEST : LARGEST + 1].cpu().numpy(),
        }

    def _take_over_weights(self, contents: Mapping[str, NDArray[np.uint8]]) -> None:
        sums, _, numbers = self._sum_tree
        first = entries_above(self.capacity)
        weights, largest = (contents[name].view(np.float64) for name in ("weights", "largest"))
        sums[first:].zero_()
        sums[first : first + len(weights)].copy_(torch.from_numpy(weights.copy()))
        numbers[LARGEST : LARGEST + 1].copy_(torch.from_numpy(largest.copy()))
        self._weigh(0, None)
