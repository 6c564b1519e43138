"""Running statistics as objects, with the names of rlox: population variance throughout.

rlox lets one NaN make the statistics NaN for ever; here a number that is not finite is not counted.
``merge``, ``state``, ``state_dict`` and ``load_state_dict`` are not in rlox.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import described, integer
from .statistics import merge_into, normalize, update_moments

_LEAST_DEVIATION = 1e-8


class RunningStats:
    """Mean and variance of numbers that come one by one or in batches, in float64."""

    def __init__(self) -> None:
        self._state: NDArray[Any] = np.zeros((3, 1))

    def update(self, value: float) -> None:
        """Count one number."""
        self.batch_update(np.array([value], np.float64))

    def batch_update(self, values: Any) -> None:
        """Count an array ``(B,)``."""
        values = np.asarray(values, np.float64)
        if values.ndim != 1:
            raise ValueError(f"values: expected shape (B,), got {values.shape}")
        update_moments(self._state, values[:, None])

    def merge(self, other: RunningStats) -> None:
        """Count what ``other`` has counted."""
        merge_into(self._state, other._state)

    def mean(self) -> float:
        """Zero before the first number."""
        return float(self._state[1, 0])

    def var(self) -> float:
        """The population's variance, zero before the first number."""
        return float(self._state[2, 0] / max(self._state[0, 0], 1.0))

    def std(self) -> float:
        """The population's standard deviation, zero before the first number."""
        return math.sqrt(self.var())

    def count(self) -> int:
        """Numbers counted."""
        return int(self._state[0, 0])

    def normalize(self, value: float) -> float:
        """``(value - mean) / std``; zero while all numbers are equal."""
        deviation = self.std()
        return (value - self.mean()) / deviation if deviation >= _LEAST_DEVIATION else 0.0

    def reset(self) -> None:
        """Forget everything."""
        self._state[:] = 0.0

    def state_dict(self) -> dict[str, Any]:
        """A copy of ``[count, mean, sum of squared distances]``."""
        return {"state": self._state.copy()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        _load(self._state, state_dict)


class RunningStatsVec:
    """Mean and variance of each of ``dim`` features, in float64.

    Samples are flat: ``(dim,)``, or ``(batch_size * dim,)`` with their number, as in rlox, or
    ``(batch_size, dim)``.

    Parameters
    ----------
    dim : int
        Features.
    device : torch.device or str, optional
        Where to keep the state as a torch tensor; samples are tensors on this device then, each
        method is one launch there, and only :meth:`count` waits for the device. Not given, samples
        and state are NumPy arrays.

    Attributes
    ----------
    state : array, float64 ``(3, dim)``
        Counts, means and sums of squared distances, as in :mod:`rlox_gpu.ops.statistics`: gather
        it from all ranks and merge.
    """

    def __init__(self, dim: int, device: Any = None) -> None:
        self._dim = integer("dim", dim, 1 << 63)
        self.state: Any
        if device is None:
            self.state = np.zeros((3, self._dim))
        else:
            import torch

            self.state = torch.zeros(3, self._dim, dtype=torch.float64, device=device)

    def update(self, values: Any) -> None:
        """Count one sample ``(dim,)``."""
        update_moments(self.state, self._samples("values", values, 1))

    def batch_update(self, data: Any, batch_size: int) -> None:
        """Count ``batch_size`` samples."""
        update_moments(self.state, self._samples("data", data, batch_size))

    def merge(self, other: RunningStatsVec) -> None:
        """Count what ``other``, of the same dimension and device, has counted."""
        merge_into(self.state, other.state)

    def dim(self) -> int:
        """Features."""
        return self._dim

    def mean(self) -> Any:
        """``(dim,)``, zeros before the first sample."""
        return self.state[1] * 1.0

    def var(self) -> Any:
        """The population's variances ``(dim,)``, zeros before the first sample."""
        count = self.state[0]
        return self.state[2] / (count + (count == 0))

    def std(self) -> Any:
        """The population's standard deviations ``(dim,)``."""
        return self.var() ** 0.5

    def count(self) -> int:
        """Samples counted: the most that any feature has."""
        return int(self.state[0].max()) if self._dim else 0

    def normalize(self, values: Any) -> Any:
        """``(values - mean) / max(std, 1e-8)`` of one sample ``(dim,)``."""
        return self._normalized("values", values, 1)

    def normalize_batch(self, data: Any, batch_size: int) -> Any:
        """:meth:`normalize` of ``batch_size`` samples, in the shape of ``data``."""
        return self._normalized("data", data, batch_size)

    def reset(self) -> None:
        """Forget everything."""
        self.state[:] = 0.0

    def state_dict(self) -> dict[str, Any]:
        """A copy of :attr:`state`, on its device."""
        return {"state": self.state * 1.0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, in place."""
        _load(self.state, state_dict)

    def _samples(self, name: str, data: Any, batch_size: int) -> Any:
        rows = integer("batch_size", batch_size, 1 << 63)
        if isinstance(self.state, np.ndarray):
            data = np.asarray(data)
            data = data if data.dtype.kind == "f" else data.astype(np.float64)
        shape = getattr(data, "shape", None)
        if shape is None or tuple(shape) not in ((rows * self._dim,), (rows, self._dim)):
            raise ValueError(
                f"{name}: expected shape ({rows * self._dim},), {rows} samples of {self._dim} "
                f"features, got {described(data)}"
            )
        return data.reshape(rows, self._dim)

    def _normalized(self, name: str, data: Any, batch_size: int) -> Any:
        samples = self._samples(name, data, batch_size)
        result = normalize(samples, self.mean(), self.var(), eps=_LEAST_DEVIATION)
        return result.reshape(np.shape(data))


def _load(state: Any, state_dict: dict[str, Any]) -> None:
    saved = state_dict["state"]
    if tuple(saved.shape) != tuple(state.shape):
        raise ValueError(f"state: expected shape {tuple(state.shape)}, got {tuple(saved.shape)}")
    state[:] = saved
