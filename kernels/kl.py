"""Divergence estimates of token log-probabilities on the GPU, in one launch.

With ``d = logprob - ref_logprob``: ``k1 = d``, ``k2 = d^2 / 2``, ``k3 = e^-d - 1 + d``, times an
importance ratio. A program owns tiles of ``[rows, cols]``; for a result per row it owns rows.

Minimum traffic per token in f32: 8 bytes read, 1 more for a byte mask, 4 more for a ratio; 4
written, or next to nothing for a sum.

A total takes one launch as well: every program leaves its partial sum, and the one that finishes
last adds them up in their order, so that the result does not depend on who was last.
"""

import torch
import triton
import triton.language as tl

from ._kl_tiles import (
    SIZES,
    accumulator_of,
    constants_of,
    elements,
    estimate_of,
    own_place,
    place_of,
    row_strides,
    tile_of,
)
from ._runtime import current, sm_count, ticket
from ._tiles import as_rows, common_unit, tile_config

NONE, SUM, MEAN, SEQUENCE = range(4)


@triton.jit(do_not_specialize=SIZES)
def _token_kl_kernel(
    logprobs,
    ref_logprobs,
    ratio,
    mask,
    out,
    rows,
    cols,
    stride_logprobs,
    stride_ref,
    stride_ratio,
    stride_mask,
    KIND: tl.constexpr,
    HAS_RATIO: tl.constexpr,
    HAS_MASK: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    UNIT: tl.constexpr,
):
    """One tile: an estimate per token."""
    width = elements(cols, UNIT)
    row, col, inside = own_place(rows, width, BLOCK_ROWS, BLOCK_COLS)
    difference, weight, _ = tile_of(
        (logprobs, ref_logprobs, ratio, mask),
        (stride_logprobs, stride_ref, stride_ratio, stride_mask),
        row,
        col,
        inside,
        HAS_RATIO,
        HAS_MASK,
        ACCUMULATOR,
        UNIT,
    )
    tl.store(out + row * width + col, weight * estimate_of(difference, KIND), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def _token_kl_sum_kernel(
    logprobs,
    ref_logprobs,
    ratio,
    mask,
    out,
    count_out,
    partial_sums,
    partial_counts,
    counter,
    rows,
    cols,
    splits,
    stride_logprobs,
    stride_ref,
    stride_ratio,
    stride_mask,
    KIND: tl.constexpr,
    REDUCTION: tl.constexpr,
    HAS_RATIO: tl.constexpr,
    HAS_MASK: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    UNIT: tl.constexpr,
):
    """Every ``splits``-th tile of a block of rows; then its row sums, or a part of the total."""
    width = elements(cols, UNIT)
    program = tl.program_id(0).to(tl.int64)
    first_row = program // splits * BLOCK_ROWS
    first_col = program % splits * BLOCK_COLS
    sums = tl.zeros([BLOCK_ROWS, BLOCK_COLS], ACCUMULATOR)
    counts = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.int32)
    while first_col < width:
        row, col, inside = place_of(first_row, first_col, rows, width, BLOCK_ROWS, BLOCK_COLS)
        difference, weight, valid = tile_of(
            (logprobs, ref_logprobs, ratio, mask),
            (stride_logprobs, stride_ref, stride_ratio, stride_mask),
            row,
            col,
            inside,
            HAS_RATIO,
            HAS_MASK,
            ACCUMULATOR,
            UNIT,
        )
        sums += weight * estimate_of(difference, KIND)
        counts += valid.to(tl.int32)
        first_col += splits * BLOCK_COLS
    row_sums = tl.sum(sums, 1)
    if REDUCTION == 3:
        row = first_row + tl.arange(0, BLOCK_ROWS)
        tl.store(out + row, row_sums, mask=row < rows)
    else:
        tl.store(partial_sums + program, tl.sum(row_sums, 0))
        tl.store(partial_counts + program, tl.sum(tl.sum(counts, 1), 0))
        tl.debug_barrier()
        programs = tl.num_programs(0)
        if tl.atomic_add(counter, 1, sem="acq_rel") == programs - 1:
            _finish(
                out,
                count_out,
                partial_sums,
                partial_counts,
                counter,
                programs,
                REDUCTION,
                ACCUMULATOR,
            )


@triton.jit
def _finish(
    out,
    count_out,
    partial_sums,
    partial_counts,
    counter,
    programs,
    REDUCTION: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
):
    """Add up what all programs left; the counter is zero again afterwards."""
    sums = tl.zeros([1024], ACCUMULATOR)
    counts = tl.zeros([1024], tl.int64)
    for start in range(0, programs, 1024):
        index = start + tl.arange(0, 1024)
        sums += tl.load(partial_sums + index, mask=index < programs, other=0.0)
        counts += tl.load(partial_counts + index, mask=index < programs, other=0)
    total = tl.sum(sums, 0)
    count = tl.sum(counts, 0)
    if REDUCTION == 2:
        total = total / tl.maximum(count, 1).to(ACCUMULATOR)
    tl.store(out, total)
    tl.store(count_out, count)
    tl.store(counter, 0)


def launch_token_kl(
    logprobs: torch.Tensor,
    ref_logprobs: torch.Tensor,
    ratio: torch.Tensor | None,
    mask: torch.Tensor | None,
    kind: int,
    reduction: int,
    out: torch.Tensor,
    count: torch.Tensor,
) -> None:
    """Fill contiguous ``out``, and for a sum or mean ``count``, int64."""
    device = logprobs.device
    if logprobs.numel() == 0:
        out.zero_()
        count.zero_()
        return
    arrays = as_rows((logprobs, ref_logprobs, ratio, mask), by_row=reduction == SEQUENCE)
    rows, cols = arrays[0].shape
    config = tile_config(rows, cols, logprobs.itemsize, sm_count(device))
    unit = common_unit(cols, arrays)
    accumulator = accumulator_of(logprobs)
    constants = constants_of(config, unit, ratio, mask, accumulator, kind)
    sizes = rows, cols // unit
    strides = row_strides(arrays, unit)
    row_blocks = config.row_blocks(rows)
    with current(device):
        if reduction == NONE:
            grid = (row_blocks * config.col_blocks(cols),)
            _token_kl_kernel[grid](*arrays, out, *sizes, *strides, **constants)
            return
        splits = 1 if reduction == SEQUENCE else config.splits
        programs = row_blocks * splits
        total = reduction != SEQUENCE
        _token_kl_sum_kernel[(programs,)](
            *arrays,
            out,
            count,
            torch.empty(programs, dtype=accumulator, device=device) if total else None,
            torch.empty(programs, dtype=torch.int32, device=device) if total else None,
            ticket(device) if total else None,
            *sizes,
            splits,
            *strides,
            REDUCTION=reduction,
            **constants,
        )
