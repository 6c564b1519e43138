"""Divergence estimates of token log-probabilities on the GPU: forward and backward, a launch each.

With ``d = logprob - ref_logprob``: ``k1 = d``, ``k2 = d^2 / 2``, ``k3 = e^-d - 1 + d``, times an
importance ratio. A program owns tiles of ``[rows, cols]``; for a result per row it owns rows.

Minimum traffic per token in f32: 8 bytes read, 1 more for a byte mask, 4 more for a ratio; forward
4 written, or next to nothing for a sum; backward 4 written per gradient, and 4 read where the
gradient from above differs from token to token.

A total takes one launch as well: every program leaves its partial sum, and the one that finishes
last adds them up in their order, so that the result does not depend on who was last.
"""

import torch
import triton
import triton.language as tl

from ._exponential import exp_excess, exp_m1
from ._runtime import current, sm_count, ticket
from ._tiles import NUM_WARPS, as_rows, common_unit, tile_config

K1, K2, K3 = range(3)
NONE, SUM, MEAN, SEQUENCE = range(4)


@triton.jit
def _estimate(difference, KIND: tl.constexpr):
    if KIND == 0:
        return difference
    elif KIND == 1:
        return 0.5 * difference * difference
    else:
        return exp_excess(-difference)


@triton.jit
def _slope(difference, KIND: tl.constexpr):
    """The derivative of the estimate."""
    if KIND == 0:
        return tl.full(difference.shape, 1.0, difference.dtype)
    elif KIND == 1:
        return difference
    else:
        return -exp_m1(-difference)


@triton.jit
def _elements(count, UNIT: tl.constexpr):
    return tl.full([], count, tl.int64) * UNIT


@triton.jit
def _loaded(x, stride, row, col, inside, UNIT: tl.constexpr):
    return tl.load(x + row * _elements(stride, UNIT) + col, mask=inside, other=0)


@triton.jit
def _tile(
    logprobs,
    ref_logprobs,
    ratio,
    mask,
    stride_logprobs,
    stride_ref,
    stride_ratio,
    stride_mask,
    row,
    col,
    inside,
    HAS_RATIO: tl.constexpr,
    HAS_MASK: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    UNIT: tl.constexpr,
):
    """Difference, ratio, and where both count; what does not count reads as zero."""
    logprob = _loaded(logprobs, stride_logprobs, row, col, inside, UNIT).to(ACCUMULATOR)
    ref = _loaded(ref_logprobs, stride_ref, row, col, inside, UNIT).to(ACCUMULATOR)
    valid = inside
    if HAS_MASK:
        # As many neighbouring flags per lane as values: bytes alone would set a lane's share to 16
        # elements, and the wider loads would split sectors.
        share: tl.constexpr = 16 // (logprobs.dtype.element_ty.primitive_bitwidth // 8)
        at = row * _elements(stride_mask, UNIT) + col
        at = tl.max_contiguous(at, [1, share])
        valid = inside & (tl.load(mask + at, mask=inside, other=0) != 0)
    difference = tl.where(valid, logprob - ref, 0.0)
    weight = tl.full(difference.shape, 1.0, ACCUMULATOR)
    if HAS_RATIO:
        weight = _loaded(ratio, stride_ratio, row, col, inside, UNIT).to(ACCUMULATOR)
        weight = tl.where(valid, weight, 0.0)
    return difference, weight, valid


@triton.jit
def _place(first_row, first_col, rows, cols, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr):
    row = first_row + tl.arange(0, BLOCK_ROWS)[:, None]
    col = first_col + tl.arange(0, BLOCK_COLS)[None, :]
    return row, col, (row < rows) & (col < cols)


_SIZES = ["rows", "cols", "splits", "stride_logprobs", "stride_ref", "stride_ratio", "stride_mask"]


@triton.jit(do_not_specialize=_SIZES)
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
    width = _elements(cols, UNIT)
    col_blocks = tl.cdiv(width, BLOCK_COLS)
    tile = tl.program_id(0).to(tl.int64)
    row, col, inside = _place(
        tile // col_blocks * BLOCK_ROWS,
        tile % col_blocks * BLOCK_COLS,
        rows,
        width,
        BLOCK_ROWS,
        BLOCK_COLS,
    )
    difference, weight, _ = _tile(
        logprobs,
        ref_logprobs,
        ratio,
        mask,
        stride_logprobs,
        stride_ref,
        stride_ratio,
        stride_mask,
        row,
        col,
        inside,
        HAS_RATIO,
        HAS_MASK,
        ACCUMULATOR,
        UNIT,
    )
    tl.store(out + row * width + col, weight * _estimate(difference, KIND), mask=inside)


@triton.jit(do_not_specialize=_SIZES)
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
    width = _elements(cols, UNIT)
    program = tl.program_id(0).to(tl.int64)
    first_row = program // splits * BLOCK_ROWS
    first_col = program % splits * BLOCK_COLS
    sums = tl.zeros([BLOCK_ROWS, BLOCK_COLS], ACCUMULATOR)
    counts = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.int32)
    while first_col < width:
        row, col, inside = _place(first_row, first_col, rows, width, BLOCK_ROWS, BLOCK_COLS)
        difference, weight, valid = _tile(
            logprobs,
            ref_logprobs,
            ratio,
            mask,
            stride_logprobs,
            stride_ref,
            stride_ratio,
            stride_mask,
            row,
            col,
            inside,
            HAS_RATIO,
            HAS_MASK,
            ACCUMULATOR,
            UNIT,
        )
        sums += weight * _estimate(difference, KIND)
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


@triton.jit(do_not_specialize=[*_SIZES, "stride_grad"])
def _token_kl_backward_kernel(
    grad,
    count,
    logprobs,
    ref_logprobs,
    ratio,
    mask,
    grad_logprobs,
    grad_ref,
    grad_ratio,
    rows,
    cols,
    stride_grad,
    stride_logprobs,
    stride_ref,
    stride_ratio,
    stride_mask,
    KIND: tl.constexpr,
    GRAD_PER_TOKEN: tl.constexpr,
    HAS_COUNT: tl.constexpr,
    HAS_RATIO: tl.constexpr,
    HAS_MASK: tl.constexpr,
    WANT_LOGPROBS: tl.constexpr,
    WANT_REF: tl.constexpr,
    WANT_RATIO: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    UNIT: tl.constexpr,
):
    """One tile: the gradients of its tokens."""
    width = _elements(cols, UNIT)
    col_blocks = tl.cdiv(width, BLOCK_COLS)
    tile = tl.program_id(0).to(tl.int64)
    row, col, inside = _place(
        tile // col_blocks * BLOCK_ROWS,
        tile % col_blocks * BLOCK_COLS,
        rows,
        width,
        BLOCK_ROWS,
        BLOCK_COLS,
    )
    difference, weight, valid = _tile(
        logprobs,
        ref_logprobs,
        ratio,
        mask,
        stride_logprobs,
        stride_ref,
        stride_ratio,
        stride_mask,
        row,
        col,
        inside,
        HAS_RATIO,
        HAS_MASK,
        ACCUMULATOR,
        UNIT,
    )
    if GRAD_PER_TOKEN:
        above = _loaded(grad, stride_grad, row, col, inside, UNIT).to(ACCUMULATOR)
    else:
        # The row stride of such a gradient counts in elements.
        above = tl.load(grad + row * stride_grad, mask=row < rows, other=0.0).to(ACCUMULATOR)
    if HAS_COUNT:
        above = above / tl.maximum(tl.load(count), 1).to(ACCUMULATOR)
    above = tl.where(valid, above, 0.0)
    at = row * width + col
    slope = above * weight * _slope(difference, KIND)
    if WANT_LOGPROBS:
        tl.store(grad_logprobs + at, slope, mask=inside)
    if WANT_REF:
        tl.store(grad_ref + at, -slope, mask=inside)
    if WANT_RATIO:
        tl.store(grad_ratio + at, above * _estimate(difference, KIND), mask=inside)


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
    accumulator = torch.float64 if logprobs.dtype is torch.float64 else torch.float32
    constants = _constants(config, unit, ratio, mask, accumulator, kind)
    sizes = rows, cols // unit
    strides = _row_strides(arrays, unit)
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


def launch_token_kl_backward(
    grad: torch.Tensor,
    count: torch.Tensor | None,
    logprobs: torch.Tensor,
    ref_logprobs: torch.Tensor,
    ratio: torch.Tensor | None,
    mask: torch.Tensor | None,
    kind: int,
    gradients: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
) -> None:
    """Fill those contiguous ``gradients`` that are there.

    ``grad`` is expanded to the shape of ``logprobs``; with ``count`` it is divided by it.
    """
    if logprobs.numel() == 0:
        return
    per_token = logprobs.ndim > 0 and grad.stride(-1) != 0
    if per_token:
        *arrays, grad = as_rows((logprobs, ref_logprobs, ratio, mask, grad))
        unit = common_unit(arrays[0].shape[1], (*arrays, grad))
        stride_grad = grad.stride(0) // unit
    else:
        scalar = all(stride == 0 for stride in grad.stride())
        arrays = as_rows((logprobs, ref_logprobs, ratio, mask), by_row=not scalar)
        unit = common_unit(arrays[0].shape[1], arrays)
        # One element for each row, or the same for all of them.
        grad = grad if scalar else grad[..., 0].reshape(-1)
        stride_grad = 0 if scalar else grad.stride(0)
    rows, cols = arrays[0].shape
    config = tile_config(rows, cols, logprobs.itemsize, sm_count(logprobs.device))
    accumulator = torch.float64 if logprobs.dtype is torch.float64 else torch.float32
    want_logprobs, want_ref, want_ratio = (x is not None for x in gradients)
    with current(logprobs.device):
        _token_kl_backward_kernel[(config.row_blocks(rows) * config.col_blocks(cols),)](
            grad,
            count,
            *arrays,
            *gradients,
            rows,
            cols // unit,
            stride_grad,
            *_row_strides(arrays, unit),
            GRAD_PER_TOKEN=per_token,
            HAS_COUNT=count is not None,
            WANT_LOGPROBS=want_logprobs,
            WANT_REF=want_ref,
            WANT_RATIO=want_ratio,
            **_constants(config, unit, ratio, mask, accumulator, kind),
        )


def _row_strides(arrays, unit):
    return tuple(0 if x is None or x.shape[0] == 1 else x.stride(0) // unit for x in arrays)


def _constants(config, unit, ratio, mask, accumulator, kind):
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
