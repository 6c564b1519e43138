"""Fresh NumPy arrays for results."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .. import _rust
from ._arguments import FLOATS, address, dtype_name


def results_beside(like: NDArray[Any], *others: NDArray[Any], count: int = 1) -> list[NDArray[Any]]:
    """One or two C-contiguous arrays, still to be written, of the shape and dtype of ``like``.

    They lie where writing to them does not slow down reading from ``like`` and ``others``.
    """
    places = [address(x) for x in (like, *others)]
    return _rust.empty_results(count, like.shape, FLOATS[dtype_name(like)], places)
