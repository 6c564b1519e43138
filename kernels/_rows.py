"""How batches of rows are laid over the device: a pure function of sizes."""

from typing import NamedTuple

import torch
import triton.language as tl


class RowTiles(NamedTuple):
    """How rows are cut up: a program owns ``rows`` of them and walks them ``width`` at a time."""

    rows: int
    width: int
    num_warps: int


def row_tiles(rows: int, width: int, sm_count: int) -> RowTiles:
    """Tiles for ``rows`` rows of ``width`` elements: small rows share a program, long ones loop."""
    padded = max(4, 1 << (width - 1).bit_length())
    if padded >= 1024:
        return RowTiles(1, 1024, 8)
    # Few rows spread over more multiprocessors as single warps. Lanes own one group of four.
    num_warps = 4 if rows * padded >= 4 * 512 * sm_count or padded > 128 else 1
    return RowTiles(128 * num_warps // padded, padded, num_warps)


def real(x: torch.Tensor) -> tl.dtype:
    """The type that sums over a row of ``x`` are formed in."""
    return tl.float64 if x.dtype is torch.float64 else tl.float32
