"""Fresh tensors for results."""

from __future__ import annotations

import torch

from .. import _rust
from ._arguments import FLOATS, dtype_name

# Bytes from which NumPy asks the system for large pages. Without them the page faults of a large
# result take longer than most of what it is computed by.
LARGE = 1 << 22


def results_beside(like: torch.Tensor, *others: torch.Tensor, count: int = 1) -> list[torch.Tensor]:
    """One or two contiguous tensors, still to be written, like ``like``.

    On the CPU large ones lie in NumPy's memory, where writing to them does not slow down reading
    from ``like`` and ``others``.
    """
    if type(like) is not torch.Tensor or like.device.type != "cpu" or like.nbytes < LARGE:
        kept = torch.contiguous_format
        return [torch.empty_like(like, memory_format=kept) for _ in range(count)]
    places = [x.data_ptr() for x in (like, *others)]
    code = FLOATS[dtype_name(like)]
    results = map(torch.from_numpy, _rust.empty_results(count, like.shape, code, places))
    return [x if x.dtype is like.dtype else x.view(like.dtype) for x in results]
