"""Tiles of token log-probabilities: what the divergence kernels read, and their estimates."""

import torch
import triton
import triton.language as tl

from ._exponential import exp_excess, exp_m1
from ._tiles import NUM_WARPS

SIZES = ["rows", "cols", "splits", "stride_logprobs", "stride_ref", "stride_ratio", "stride_mask"]


@triton.jit
def estimate_of(difference, KIND: tl.constexpr):
    """k1, k2 or k3 of differences of log-probabilities."""
    if KIND == 0:
        return difference
    elif KIND == 1:
        return 0.5 * difference * difference
    else:
        return exp_excess(-difference)


@triton.jit
def slope_of(difference, KIND: tl.constexpr):
    """The derivative of the estimate."""
    if KIND == 0:
        return tl.full(difference.shape, 1.0, difference.dtype)
    elif KIND == 1:
        return difference
    else:
        return -exp_m1(-difference)


@triton.jit
def elements(count, UNIT: tl.constexpr):
    """A number that counts in units as one of elements."""
    return tl.full([], count, tl.int64) * UNIT


@triton.jit
def loaded(x, stride, row, col, inside, UNIT: tl.constexpr):
    """A tile of ``x``, zero outside."""
    return tl.load(x + row * elements(stride, UNIT) + col, mask=inside, other=0)


@triton.jit
def tile_of(
    arrays,
    strides,
    row,
    col,
    inside,
    HAS_RATIO: tl.constexpr,
    HAS_MASK: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    UNIT: tl.constexpr,
):
    """Difference, ratio, and where both count; what does not count reads as zero."""
    logprobs, ref_logprobs, ratio, mask = arrays
    stride_logprobs, stride_ref, stride_ratio, stride_mask = strides
    logprob = loaded(logprobs, stride_logprobs, row, col, inside, UNIT).to(ACCUMULATOR)
    ref = loaded(ref_logprobs, stride_ref, row, col, inside, UNIT).to(ACCUMULATOR)
    valid = inside
    if HAS_MASK:
        # As many neighbouring flags per lane as values: bytes alone would set a lane's share to 16
        # elements, and the wider loads would split sectors.
        share: tl.constexpr = 16 // (logprobs.dtype.element_ty.primitive_bitwidth // 8)
        at = row * elements(stride_mask, UNIT) + col
        at = tl.max_contiguous(at, [1, share])
        valid = inside & (tl.load(mask + at, mask=inside, other=0) != 0)
    difference = tl.where(valid, logprob - ref, 0.0)
    weight = tl.full(difference.shape, 1.0, ACCUMULATOR)
    if HAS_RATIO:
        weight = loaded(ratio, stride_ratio, row, col, inside, UNIT).to(ACCUMULATOR)
        weight = tl.where(valid, weight, 0.0)
    return difference, weight, valid


@triton.jit
def place_of(first_row, first_col, rows, cols, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr):
    """Rows and columns of a tile, and what of it is inside."""
    row = first_row + tl.arange(0, BLOCK_ROWS)[:, None]
    col = first_col + tl.arange(0, BLOCK_COLS)[None, :]
    return row, col, (row < rows) & (col < cols)


@triton.jit
def own_place(rows, width, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr):
    """Those of the program's tile, where each program has one."""
    col_blocks = tl.cdiv(width, BLOCK_COLS)
    tile = tl.program_id(0).to(tl.int64)
    first_row, first_col = tile // col_blocks * BLOCK_ROWS, tile % col_blocks * BLOCK_COLS
    return place_of(first_row, first_col, rows, width, BLOCK_ROWS, BLOCK_COLS)


def accumulator_of(logprobs: torch.Tensor) -> torch.dtype:
    """What sums are formed in."""
    return torch.float64 if logprobs.dtype is torch.float64 else torch.float32


def row_strides(arrays, unit):
    """Strides of rows, counted in units."""
    return tuple(0 if x is None or x.shape[0] == 1 else x.stride(0) // unit for x in arrays)


def constants_of(config, unit, ratio, mask, accumulator, kind):
    """What the kernels are compiled for."""
    return {
        "KIND": kind,
        "HAS_RATIO": ratio is not None,
        "HAS_MASK": mask is not None,
        "ACCUMULATOR": tl.float64 if accumulator is torch.float64 else tl.float32,
        "BLOCK_ROWS": config.block_rows,
        "BLOCK_COLS": config.block_cols,
        "UNIT": unit,
        "num_warps": NUM_WARPS,
        "enable_fp_fusion": True,
    }
