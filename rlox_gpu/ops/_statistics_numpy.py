"""Running moments of NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .statistics import merge_into


def update_moments(state: NDArray[Any], x: NDArray[Any], mask: NDArray[Any] | None) -> None:
    """``rlox_gpu.update_moments`` for checked arrays."""
    if x.size == 0:
        return
    x = x.astype(np.float64)
    counted = np.isfinite(x)
    if mask is not None:
        counted &= (mask != 0)[:, None]
    count = counted.sum(0)
    # Distances from the least number: those of equal numbers are exactly zero.
    low = np.where(counted, x, np.inf).min(0)
    low[count == 0] = 0.0
    with np.errstate(invalid="ignore"):
        distance = np.where(counted, x - low, 0.0)
    mean = distance.sum(0) / np.maximum(count, 1)
    m2 = np.square(np.where(counted, distance - mean, 0.0)).sum(0)
    merge_into(state, np.stack([count, low + mean, m2]))


def normalize(
    x: NDArray[Any], mean: NDArray[Any], var: NDArray[Any], clip: float, eps: float
) -> NDArray[Any]:
    """``rlox_gpu.normalize`` for checked arrays."""
    result = x - mean
    result /= np.maximum(np.sqrt(var), eps)
    np.clip(result, -clip, clip, out=result)
    narrowed: NDArray[Any] = result.astype(x.dtype, copy=False)
    return narrowed
