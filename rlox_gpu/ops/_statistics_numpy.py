"""Running moments of NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._results_numpy import results_beside
from ._statistics_rust import normalize_in_rust, update_in_rust


def update_moments(state: NDArray[Any], x: NDArray[Any], mask: NDArray[Any] | None) -> None:
    """``rlox_gpu.update_moments`` for checked arrays."""
    if not state.flags.writeable:
        raise ValueError("state: expected an array that can be written, got a read-only one")
    if x.size == 0:
        return
    contiguous = np.ascontiguousarray(state)
    update_in_rust(contiguous, x, mask)
    if contiguous is not state:
        state[:] = contiguous


def normalize(
    x: NDArray[Any], mean: NDArray[Any], var: NDArray[Any], clip: float, eps: float
) -> NDArray[Any]:
    """``rlox_gpu.normalize`` for checked arrays."""
    (out,) = results_beside(x)
    if out.size:
        mean, var = np.ascontiguousarray(mean), np.ascontiguousarray(var)
        normalize_in_rust(x, mean, var, out, clip, eps)
    return out
