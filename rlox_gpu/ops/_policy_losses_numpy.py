"""The policy losses on NumPy arrays: the numbers, without a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._policy_losses_common import (
    GRPORules,
    check_gaussian,
    check_grpo,
    check_ppo,
    gaussian_into_rust,
    grpo_into_rust,
    ppo_into_rust,
    real_name,
)


def ppo_loss(logits: Any, actions: Any, *rest: Any) -> tuple[Any, ...]:
    """``rlox_gpu.ppo_loss`` for arrays; ``rest`` is the six columns and the three coefficients."""
    columns, coefficients = rest[:6], rest[6:]
    check_ppo(logits, actions, columns)
    logits, actions, *numbers = map(_contiguous, (logits, actions, *columns[:5]))
    loss, parts, scale = (np.empty(n, real_name(logits)) for n in (1, 5, 1))
    columns = (*numbers, _flags(columns[5]))
    ppo_into_rust(logits, actions, columns, None, (loss, parts, scale), coefficients)
    return _scalars(loss, parts)


def gaussian_ppo_loss(mean: Any, log_std: Any, actions: Any, *rest: Any) -> tuple[Any, ...]:
    """``rlox_gpu.gaussian_ppo_loss`` for arrays; ``rest`` is as for ``ppo_loss``."""
    columns, coefficients = rest[:6], rest[6:]
    check_gaussian(mean, log_std, actions, columns)
    mean, log_std, actions, *numbers = map(_contiguous, (mean, log_std, actions, *columns[:5]))
    loss, parts, scale = (np.empty(n, real_name(mean)) for n in (1, 5, 1))
    columns = (*numbers, _flags(columns[5]))
    policy, terms = (mean, log_std, actions), (loss, parts, scale)
    gaussian_into_rust(policy, columns, (None, None), terms, coefficients)
    return _scalars(loss, parts)


def grpo_loss(*arguments: Any) -> tuple[Any, ...]:
    """``rlox_gpu.grpo_loss`` for arrays: the five of them and the rules."""
    check_grpo(*arguments[:5])
    arrays = (*map(_contiguous, arguments[:4]), _flags(arguments[4]))
    loss, parts, scale = (np.empty(n, real_name(arrays[0])) for n in (1, 3, len(arrays[0])))
    grpo_into_rust(arrays, None, (loss, parts, scale), GRPORules(*arguments[5:]))
    return _scalars(loss, parts)


def _contiguous(x: Any) -> Any:
    return x if x is None else np.ascontiguousarray(x)


def _flags(mask: Any) -> Any:
    """The mask as contiguous bytes, one where a sample counts."""
    if mask is None:
        return None
    return np.ascontiguousarray(mask if mask.dtype == np.bool_ else mask != 0)


def _scalars(*rows: Any) -> tuple[Any, ...]:
    """Every element as an array without dimensions."""
    return tuple(row[i, ...] for row in rows for i in range(len(row)))
