"""The preference losses on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._preferences_arguments import NONE, check_logps, loss_in_rust

_Array = np.ndarray[Any, Any]


def dpo_loss(
    policy_chosen_logps: _Array,
    policy_rejected_logps: Any,
    ref_chosen_logps: Any,
    ref_rejected_logps: Any,
    kind: int,
    beta: float,
    label_smoothing: float,
    reduction: int,
) -> tuple[_Array, _Array, _Array]:
    """``rlox_gpu.dpo_loss`` for arrays; ``kind`` and ``reduction`` are codes."""
    given = (policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    check_logps(given)
    # A stride that is no whole number of elements is that of a field of records.
    logps = [np.ascontiguousarray(x) if x.strides[0] % x.itemsize else x for x in given]
    shape, dtype = policy_chosen_logps.shape, policy_chosen_logps.dtype
    loss = np.empty(shape if reduction == NONE else (), dtype)
    slopes = np.empty(shape, np.float64 if dtype == np.float64 else np.float32)
    chosen, rejected = np.empty(shape, dtype), np.empty(shape, dtype)
    strides = [x.strides[0] // x.itemsize for x in logps]
    results = (loss, slopes, chosen, rejected)
    loss_in_rust(logps, strides, results, kind, beta, label_smoothing, reduction)
    return loss, chosen, rejected
