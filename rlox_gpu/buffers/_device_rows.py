"""What is pushed to a device: rows of the stored dtype there, whatever came."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ._arrays import as_rows, fits_rows

# A dtype and the shape of a row.
Format = tuple["np.dtype[Any]", tuple[int, ...]]


def torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    """The dtype of tensors with such numbers."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def is_there(x: Any, device: torch.device) -> bool:
    """Whether ``x`` is a tensor of the device, which is not read on the host."""
    return isinstance(x, torch.Tensor) and x.device == device


def one_row(name: str, value: Any, row: Format, device: torch.device) -> torch.Tensor:
    """One row ``[1, ...]``; zeros for None."""
    dtype, shape = row
    if value is None:
        return _zeros(row, 1, device)
    if is_there(value, device):
        if tuple(value.shape) != shape and not value.numel() == math.prod(shape) == 1:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
        return _converted(name, value, dtype).reshape(1, *shape)
    array = as_rows(name, value, dtype, list(shape), None)
    return torch.from_numpy(array.reshape(1, *shape)).to(device)


def all_rows(
    name: str, value: Any, row: Format, count: int, device: torch.device, *, may_lack: bool = False
) -> torch.Tensor:
    """``count`` rows ``[B, ...]``, -1 for any number, contiguous and of the stored dtype.

    Raises
    ------
    TypeError
        If it is no array of numbers, or some might be changed by the conversion.
    ValueError
        If the shape does not fit.
    """
    dtype, shape = row
    if value is None and may_lack:
        return _zeros(row, count, device)
    if is_there(value, device):
        fits_rows(name, tuple(value.shape), shape, count)
        return _converted(name, value, dtype).reshape(-1, *shape)
    array = as_rows(name, value, dtype, list(shape), count)
    return torch.from_numpy(array.reshape(-1, *shape)).to(device)


def _zeros(row: Format, count: int, device: torch.device) -> torch.Tensor:
    dtype, shape = row
    return torch.zeros((count, *shape), dtype=torch_dtype(dtype), device=device)


def _converted(name: str, value: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
    """A tensor of the device in the stored dtype, refused where numbers might be lost."""
    wanted = torch_dtype(dtype)
    value = value.detach().contiguous()
    if value.dtype == wanted:
        return value
    if value.dtype.is_complex:
        raise TypeError(f"{name}: expected an array of numbers, got {value.dtype}")
    if dtype.kind == "b":
        return value != 0
    if dtype.kind != "f" and (
        value.dtype.is_floating_point
        or not np.can_cast(str(value.dtype).removeprefix("torch."), dtype)
    ):
        # Whether the numbers at hand would fit, only waiting for the device could tell.
        raise TypeError(
            f"{name}: expected {wanted} or what it holds all numbers of, got {value.dtype}"
        )
    return value.to(wanted)
