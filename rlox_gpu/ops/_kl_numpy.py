"""The divergences on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._kl_arguments import K1, NONE, check_token_kl, forward_in_rust, reduced_shape


def token_kl(
    logprobs: np.ndarray[Any, Any],
    ref_logprobs: Any,
    ratio: Any,
    mask: Any,
    kind: int,
    reduction: int,
) -> np.ndarray[Any, Any]:
    """``rlox_gpu.token_kl`` for arrays; ``kind`` and ``reduction`` are codes."""
    check_token_kl(logprobs, ref_logprobs, ratio, mask, reduction)
    out = np.empty(reduced_shape(logprobs.shape, reduction), logprobs.dtype)
    forward_in_rust(logprobs, ref_logprobs, ratio, mask, kind, reduction, out)
    return out


def reduced(divergences: np.ndarray[Any, Any], mask: Any, reduction: int) -> np.ndarray[Any, Any]:
    """Any divergences, reduced as ``token_kl`` reduces its own."""
    if reduction == NONE:
        return divergences
    # Against a reference of zero, k1 is what it is given.
    zeros = np.broadcast_to(np.zeros((), divergences.dtype), divergences.shape)
    return token_kl(divergences, zeros, None, mask, K1, reduction)
