"""How kernels without an order of their own are laid over ``[rows, cols]``, and the views for it.

A program owns a tile of a thousand elements, half as many in float64. Arrays of any shape become
one row where all of them are contiguous, else as many rows as the dimensions before the last one
have elements.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

NUM_WARPS = 4
_TILE_BYTES = 4096
_PROGRAMS_PER_SM = 4


@dataclass(frozen=True)
class TileConfig:
    """Block sizes, and among how many programs the columns of a row are dealt out."""

    block_rows: int
    block_cols: int
    splits: int

    def row_blocks(self, rows: int) -> int:
        """Number of blocks for ``rows`` rows."""
        return -(-rows // self.block_rows)

    def col_blocks(self, cols: int) -> int:
        """Number of blocks for ``cols`` columns."""
        return -(-cols // self.block_cols)


def tile_config(rows: int, cols: int, itemsize: int, sm_count: int) -> TileConfig:
    """The tiles for ``[rows, cols]``: wide ones where there are columns enough."""
    # Half types are computed in four bytes.
    elements = _TILE_BYTES // max(itemsize, 4)
    # No narrower than a lane's share of the widest access.
    block_cols = min(elements, max(16, _power_of_two(cols)))
    block_rows = min(elements // block_cols, _power_of_two(rows))
    row_blocks = -(-rows // block_rows)
    splits = min(-(-cols // block_cols), max(1, _PROGRAMS_PER_SM * sm_count // row_blocks))
    return TileConfig(block_rows, block_cols, splits)


def as_rows(
    arrays: Sequence[torch.Tensor | None], *, by_row: bool = False
) -> tuple[torch.Tensor | None, ...]:
    """Views ``[rows, cols]`` with neighbouring columns; copies of what cannot be seen so.

    ``by_row`` keeps the last dimension as the columns even where all are contiguous.
    """
    if not by_row and all(x is None or x.is_contiguous() for x in arrays):
        return tuple(None if x is None else x.view(1, -1) for x in arrays)
    return tuple(None if x is None else _matrix(x) for x in arrays)


def _matrix(x: torch.Tensor) -> torch.Tensor:
    matrix = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    return matrix if matrix.shape[1] == 1 or matrix.stride(1) == 1 else matrix.contiguous()


def common_unit(cols: int, arrays: Sequence[torch.Tensor | None]) -> int:
    """The most elements, up to 16, that divide ``cols`` and the row strides of ``arrays``.

    Sizes and strides that count in such units show the compiler how far accesses are aligned.
    """
    strides = (x.stride(0) for x in arrays if x is not None and x.shape[0] > 1)
    return math.gcd(16, cols, *strides)


def _power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()
