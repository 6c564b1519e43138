"""What the policy losses do alike for NumPy arrays and tensors: checks, and calls of the core."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import _rust
from .._checks import finite_number
from ._arguments import FLAGS, FLOATS, address, check_dtype, check_like, dtype_name

# old_log_probs, advantages, returns, values, old_values or None, mask or None
Columns = Sequence[Any]
Coefficients = tuple[float, float, float]
COLUMN_NAMES = ("old_log_probs", "advantages", "returns", "values", "old_values")


def ppo_coefficients(clip_eps: Any, vf_coef: Any, ent_coef: Any) -> Coefficients:
    """The three numbers as floats; TypeError or ValueError if one is none or out of range."""
    return (
        finite_number("clip_eps", clip_eps),
        finite_number("vf_coef", vf_coef),
        finite_number("ent_coef", ent_coef),
    )


def check_ppo(logits: Any, actions: Any, columns: Columns) -> None:
    """Raise unless the arrays of ``ppo_loss`` fit each other; ``logits`` sets the tone."""
    check_dtype("logits", logits, FLOATS)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"logits: expected shape [..., A] with at least one action, got {tuple(logits.shape)}"
        )
    shape = logits.shape[:-1]
    check_like("actions", actions, "logits", logits, dtypes=("int64",), shape=shape)
    _check_columns("logits", logits, shape, columns)


def _check_columns(like_name: str, like: Any, shape: Sequence[int], columns: Columns) -> None:
    *numbers, mask = columns
    for name, x in zip(COLUMN_NAMES, numbers, strict=True):
        if x is not None or name != "old_values":
            check_like(name, x, like_name, like, shape=shape)
    check_mask(mask, like_name, like, shape)


def check_mask(mask: Any, like_name: str, like: Any, shape: Sequence[int]) -> None:
    """Raise unless ``mask`` is None or flags of ``shape``, of the kind and device of ``like``."""
    if mask is not None:
        check_like("mask", mask, like_name, like, dtypes=FLAGS, shape=shape)


def real_name(x: Any) -> str:
    """The dtype that sums of numbers like ``x`` have."""
    return "float64" if dtype_name(x) == "float64" else "float32"


def ppo_into_rust(
    logits: Any,
    actions: Any,
    columns: Columns,
    gradient: Any | None,
    terms: tuple[Any, Any, Any],
    coefficients: Coefficients,
) -> None:
    """Write loss, parts ``[5]`` and scale ``[1]``, and the gradient if it is given.

    All arrays are contiguous, the mask is bool.
    """
    _rust.ppo_loss_raw(
        address(logits),
        address(actions),
        optional_addresses(columns),
        0 if gradient is None else address(gradient),
        optional_addresses(terms),
        math.prod(actions.shape),
        logits.shape[-1],
        FLOATS[dtype_name(logits)],
        coefficients,
    )


def optional_addresses(arrays: Sequence[Any]) -> tuple[int, ...]:
    """The arrays' addresses, 0 for None."""
    return tuple(0 if x is None else address(x) for x in arrays)
