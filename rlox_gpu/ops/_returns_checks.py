"""Checks of tensor arguments that the estimators share, and the codes of their dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .._checks import described

_Tensor = torch.Tensor

# rewards, values, terminated, last_values, truncated or None, final_values or None
Inputs = Sequence[Any]

# What the compiled core calls the dtypes.
VALUE_CODES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
_NAMES = (
    "rewards",
    "values",
    "terminated",
    "last_values",
    "truncated",
    "final_values",
    "out[0]",
    "out[1]",
)
FLAG_CODES = {
    **VALUE_CODES,
    torch.bool: 4,
    torch.uint8: 4,
    torch.int8: 4,
    torch.int16: 5,
    torch.uint16: 5,
    torch.int32: 6,
    torch.uint32: 6,
    torch.int64: 7,
    torch.uint64: 7,
}


def check_inputs(inputs: Inputs, time_dim: Any) -> None:
    """Raise unless the six inputs fit each other; ``rewards`` sets shape, dtype and device."""
    rewards, values, terminated, last_values, truncated, final_values = inputs
    shape, dtype, device = rewards.shape, rewards.dtype, rewards.device
    ndim = len(shape)
    if ndim not in (1, 2):
        raise ValueError(f"rewards: expected 1 or 2 dimensions, got shape {tuple(shape)}")
    if dtype not in VALUE_CODES:
        raise TypeError(f"rewards: expected float16, bfloat16, float32 or float64, got {dtype}")
    if time_dim != 0 and time_dim != -1 and not (time_dim == 1 and ndim == 2):
        raise ValueError(f"time_dim: expected 0 or -1 (or 1 in two dimensions), got {time_dim!r}")
    _check_one("values", values, shape, dtype, device)
    _check_one("terminated", terminated, shape, None, device)
    last_shape = shape[:0] if ndim == 1 else shape[1:] if time_dim == 0 else shape[:1]
    _check_one("last_values", last_values, last_shape, dtype, device)
    if truncated is not None:
        _check_one("truncated", truncated, shape, None, device)
        _check_one("final_values", final_values, shape, dtype, device)


def _check_one(
    name: str,
    x: Any,
    shape: torch.Size,
    dtype: torch.dtype | None,
    device: torch.device,
) -> None:
    if type(x) is not _Tensor and not isinstance(x, _Tensor):
        raise TypeError(f"{name}: expected a torch tensor like rewards, got {described(x)}")
    if x.shape != shape:
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(x.shape)}")
    if dtype is None:
        if x.dtype not in FLAG_CODES:
            raise TypeError(f"{name}: expected bool, integer or float flags, got {x.dtype}")
    elif x.dtype is not dtype:
        raise TypeError(f"{name}: expected {dtype} like rewards, got {x.dtype}")
    if x.device != device:
        raise ValueError(f"{name}: expected a tensor on {device} like rewards, got {x.device}")


def check_out(out: Any, rewards: torch.Tensor) -> None:
    """Raise unless ``out`` is a pair of tensors like ``rewards`` that can be written to."""
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise TypeError(f"out: expected a pair (advantages, returns), got {described(out)}")
    shape = rewards.shape
    for name, x in zip(("out[0]", "out[1]"), out, strict=True):
        _check_one(name, x, shape, rewards.dtype, rewards.device)
        if 0 in x.stride() and any(
            step == 0 and size > 1 for step, size in zip(x.stride(), shape, strict=True)
        ):
            raise ValueError(f"{name}: expected distinct elements, got an expanded tensor")


def check_overlap(inputs: Inputs, advantages: torch.Tensor, returns: torch.Tensor) -> None:
    """Raise if an output spans memory of another argument."""
    spans = [None if x is None else _span(x) for x in (*inputs, advantages, returns)]
    for at in (6, 7):
        start, stop = spans[at] or (0, 0)
        for other in range(at):
            span = spans[other]
            if span is not None and start < span[1] and span[0] < stop:
                raise ValueError(
                    f"{_NAMES[at]}: expected memory of its own, got some of {_NAMES[other]}"
                )


def _span(x: torch.Tensor) -> tuple[int, int]:
    """First address and the one past the last; empty for a tensor without elements."""
    start = x.data_ptr()
    if x.is_contiguous():
        return start, start + x.nbytes
    if x.numel() == 0:
        return start, start
    reach = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
    return start, start + (reach + 1) * x.element_size()
