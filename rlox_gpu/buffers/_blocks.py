"""Samples as blocks of bytes: what lies together takes one copy to a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Arrays or tensors by their keys, dicts of these for dict observations.
Sample = dict[str, Any]

# Bytes; vector loads of every width begin at multiples.
_ALIGNMENT = 256


class _Part(NamedTuple):
    bytes: slice
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    torch_dtype: torch.dtype


class Layout:
    """Where the arrays of a sample lie in a block; ``size`` is that of the block in bytes."""

    def __init__(self, sample: Sample) -> None:
        self.size = 0
        self._parts = _each(sample, self._place)

    def _place(self, x: NDArray[Any]) -> _Part:
        start = self.size
        self.size += -(-x.nbytes // _ALIGNMENT) * _ALIGNMENT
        return _Part(slice(start, start + x.nbytes), x.shape, x.dtype, _as_tensor(x).dtype)

    def arrays(self, block: NDArray[np.uint8]) -> Sample:
        """The sample that a block in the host's memory is."""
        return _each(self._parts, lambda p: block[p.bytes].view(p.dtype).reshape(p.shape))

    def tensors(self, block: Tensor) -> Sample:
        """The sample that a copy of the block is."""
        return _each(self._parts, lambda p: block[p.bytes].view(p.torch_dtype).view(p.shape))


def as_tensors(sample: Sample, device: torch.device) -> Sample:
    """Tensors on a device; on the CPU they have the memory of the arrays."""
    return _each(sample, lambda x: _as_tensor(x).to(device))


def _as_tensor(x: NDArray[Any]) -> Tensor:
    # There is little that torch does with uint64.
    return torch.from_numpy(x.view(np.int64) if x.dtype == np.uint64 else x)


def _each(sample: Sample, make: Callable[[Any], Any]) -> Sample:
    return {key: _each(x, make) if isinstance(x, dict) else make(x) for key, x in sample.items()}


def write(arrays: Sample, sample: Sample) -> None:
    """Copy a sample's arrays into those of another.

    Raises
    ------
    ValueError
        If their shapes differ.
    """
    for key, to in arrays.items():
        x = sample[key]
        if isinstance(to, dict):
            write(to, x)
        elif x.shape != to.shape:
            raise ValueError(f"sample: expected {key} of shape {to.shape} again, got {x.shape}")
        else:
            np.copyto(to, x)
