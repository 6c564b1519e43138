"""The divergence of categorical distributions on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import positive_number
from ._arguments import address
from ._full_kl_arguments import Place, check_full_kl, check_reduction, forward_in_rust
from ._kl_numpy import reduced
from ._logprobs_numpy import laid_out, real_dtype


def full_kl(
    logits: NDArray[Any], ref_logits: Any, temperature: float, mask: Any, reduction: int
) -> NDArray[Any]:
    """``rlox_gpu.full_kl`` for NumPy arrays; ``reduction`` is a code."""
    temperature = positive_number("temperature", temperature)
    check_full_kl(logits, ref_logits, mask)
    check_reduction(logits, reduction)
    divergences = np.empty(logits.shape[:-1], real_dtype(logits))
    if divergences.size:
        statistics = np.empty((divergences.size, 4), divergences.dtype)
        flags = None if mask is None else np.ascontiguousarray(mask != 0)
        # Rows may be those of copies, which live as long as they are named here.
        (_first, place), (_second, ref_place) = _placed(logits), _placed(ref_logits)
        places = (place, ref_place)
        forward_in_rust(places, logits, flags, temperature, divergences, statistics)
    return reduced(divergences, mask, reduction)


def _placed(logits: NDArray[Any]) -> tuple[NDArray[Any], Place]:
    """``logits`` with contiguous rows, and where these lie."""
    rows, shape, strides = laid_out(logits)
    return rows, (address(rows), shape, strides)
