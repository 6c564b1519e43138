"""What the preference losses of arrays and tensors have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from .. import _rust
from .._checks import described
from ._arguments import FLOATS, address, check_dtype, check_like, dtype_name

LOSS_TYPES = {"sigmoid": 0, "hinge": 1, "ipo": 2}
REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}
NONE = 0
NAMES = (
    "policy_chosen_logps",
    "policy_rejected_logps",
    "ref_chosen_logps",
    "ref_rejected_logps",
)


def positive_number(name: str, value: Any) -> float:
    """``value`` as a float; TypeError or ValueError unless it is positive and finite."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a plain positive number, got {described(value)}")
    number = float(value)
    if not 0.0 < number < math.inf:
        raise ValueError(f"{name}: expected a positive, finite number, got {number}")
    return number


def check_logps(logps: Sequence[Any]) -> None:
    """Raise unless the four fit each other; the first sets shape, dtype and device."""
    first = logps[0]
    check_dtype(NAMES[0], first, FLOATS)
    if first.ndim != 1:
        raise ValueError(f"{NAMES[0]}: expected shape [B], got {tuple(first.shape)}")
    for name, x in zip(NAMES[1:], logps[1:], strict=True):
        check_like(name, x, NAMES[0], first)


def loss_in_rust(
    logps: Sequence[Any],
    strides: Sequence[int],
    results: Sequence[Any],
    kind: int,
    beta: float,
    label_smoothing: float,
    reduction: int,
) -> None:
    """Fill contiguous ``results``: loss, slopes, chosen and rejected rewards."""
    first, second, third, fourth = zip(map(address, logps), strides, strict=True)
    loss, slopes, chosen, rejected = map(address, results)
    _rust.dpo_loss_raw(
        (first, second, third, fourth),
        (loss, slopes, chosen, rejected),
        len(logps[0]),
        FLOATS[dtype_name(logps[0])],
        kind,
        beta,
        label_smoothing,
        reduction,
    )
