"""Gradients of divergence estimates on the GPU, in one launch: the tiles of ``kl.py``, read again.

Minimum traffic per token in f32: 8 bytes read, 1 more for a byte mask, 4 more for a ratio, 4 more
where the gradient from above differs from token to token; 4 written per gradient.
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
    loaded,
    own_place,
    row_strides,
    slope_of,
    tile_of,
)
from ._runtime import current, sm_count
from ._tiles import as_rows, common_unit, tile_config


@triton.jit(do_not_specialize=[*SIZES, "stride_grad"])
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
    width = elements(cols, UNIT)
    row, col, inside = own_place(rows, width, BLOCK_ROWS, BLOCK_COLS)
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
    if GRAD_PER_TOKEN:
        above = loaded(grad, stride_grad, row, col, inside, UNIT).to(ACCUMULATOR)
    else:
        # The row stride of such a gradient counts in elements.
        above = tl.load(grad + row * stride_grad, mask=row < rows, other=0.0).to(ACCUMULATOR)
    if HAS_COUNT:
        above = above / tl.maximum(tl.load(count), 1).to(ACCUMULATOR)
    above = tl.where(valid, above, 0.0)
    at = row * width + col
    slope = above * weight * slope_of(difference, KIND)
    if WANT_LOGPROBS:
        tl.store(grad_logprobs + at, slope, mask=inside)
    if WANT_REF:
        tl.store(grad_ref + at, -slope, mask=inside)
    if WANT_RATIO:
        tl.store(grad_ratio + at, above * estimate_of(difference, KIND), mask=inside)


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
            *row_strides(arrays, unit),
            GRAD_PER_TOKEN=per_token,
            HAS_COUNT=count is not None,
            WANT_LOGPROBS=want_logprobs,
            WANT_REF=want_ref,
            WANT_RATIO=want_ratio,
            **constants_of(config, unit, ratio, mask, accumulator_of(logprobs), kind),
        )
