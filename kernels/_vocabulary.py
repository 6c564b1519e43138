"""How a program walks a row of a vocabulary, whatever the row's length and alignment.

A row of 50,257 elements starts anywhere. Its aligned middle is read in pieces of 16 bytes, what
lies before the first cache line and behind the last whole piece element by element.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
# Two to this is zero, and unlike negative infinity it can be multiplied by zero.
FLOOR = tl.constexpr(-16384.0)
# Bytes of an access and of a cache line.
_ACCESS = 16
_LINE = 128


class RowConfig(NamedTuple):
    """How a program walks its row: its warps, and the elements of an access."""

    num_warps: int
    vector: int


def row_config(vocabulary: int, element_size: int, alignment: int = _ACCESS) -> RowConfig:
    """The shape of the programs for rows of this length.

    ``alignment`` is the number of elements by which all rows of all arrays are apart; it bounds
    the width of an access.
    """
    vector = math.gcd(_ACCESS // element_size, alignment)
    row_bytes = vocabulary * element_size
    if row_bytes <= 4096:
        return RowConfig(1, vector)
    return RowConfig(4 if row_bytes <= 32768 else 8, vector)


def common_alignment(first: torch.Tensor, *others: torch.Tensor | None) -> int:
    """Elements by which rows of ``others`` are apart from those of ``first``, ``[..., V]`` all.

    Zero, which every number divides, if they are not apart at all.
    """
    apart = []
    for x in others:
        if x is None:
            continue
        apart.append((first.data_ptr() - x.data_ptr()) // first.element_size())
        if x.shape == first.shape:
            apart += [first.stride(i) - x.stride(i) for i in (0, 1) if x.shape[i] > 1]
        else:
            apart += [y.stride(i) for y in (first, x) for i in (0, 1) if y.shape[i] > 1]
    return math.gcd(*apart)


def row_constants(x: torch.Tensor, config: RowConfig) -> dict[str, object]:
    """What the kernels are compiled for: the type of ``x`` and how its rows are walked."""
    return {
        "ACCUMULATOR": tl.float64 if x.dtype is torch.float64 else tl.float32,
        "CHUNKS": 32 * config.num_warps,
        "VECTOR": config.vector,
        "LINE": _LINE // x.element_size(),
        "num_warps": config.num_warps,
    }


@triton.jit
def row_start(inner, stride_outer, stride_inner):
    """Where the program's row of ``[outer, inner]`` begins."""
    row = tl.program_id(0).to(tl.int64)
    return row // inner * stride_outer + row % inner * stride_inner


@triton.jit
def head_of(row, vocabulary, LINE: tl.constexpr):
    """Elements before the first cache line that starts inside the row."""
    element = row.to(tl.int64) // (row.dtype.element_ty.primitive_bitwidth // 8)
    return tl.minimum((-element) & (LINE - 1), vocabulary).to(tl.int32)


@triton.jit
def edge_of(step, head, ragged, CHUNKS: tl.constexpr, LINE: tl.constexpr):
    """Columns outside the aligned middle, a lane each: below ``head``, and from ``ragged`` on."""
    lane = step * CHUNKS + tl.arange(0, CHUNKS)[:, None]
    column = tl.where(lane < LINE, lane, lane - LINE + ragged)
    return column, (lane < head) | (lane >= LINE)


@triton.jit
def exp2_of_difference(x, origin, scale):
    """The scaled difference, and two to it."""
    u = (x - origin) * scale
    return u, tl.exp2(u)
