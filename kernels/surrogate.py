"""The clipped surrogate, shared by the policy losses, and the scaling of their gradients.

The losses' forward passes leave the gradient of a plain sum; how much a sample counts is known only
when all have been seen, so the backward pass multiplies by it: each element read and written once.
"""

import torch
import triton
import triton.language as tl

from ._runtime import current

_BLOCK = 1024


@triton.jit
def surrogate(ratio, advantage, low, high):
    """``-min(r A, clip(r, low, high) A)``, its slope in ``log r``, and whether the clip holds.

    The first two are NaN where an input is.
    """
    weighted = ratio * advantage
    limited = clamp(ratio, low, high) * advantage
    held = weighted > limited
    return -tl.where(held, limited, weighted), tl.where(held, 0.0, -weighted), held


@triton.jit
def clamp(x, low, high):
    """``x`` within ``[low, high]``; NaN stays NaN."""
    x = tl.where(x < low, low, x)
    return tl.where(x > high, high, x)


@triton.jit(do_not_specialize=["blocks_per_row"])
def _scaled_kernel(gradient, scale, factor, out, columns, blocks_per_row, BLOCK: tl.constexpr):
    """A program scales a block of one row."""
    row = tl.program_id(0).to(tl.int64) // blocks_per_row
    column = (tl.program_id(0).to(tl.int64) % blocks_per_row) * BLOCK + tl.arange(0, BLOCK)
    at = row * columns + column
    inside = column < columns
    by = tl.load(scale + row) * tl.load(factor)
    tl.store(out + at, tl.load(gradient + at, mask=inside).to(by.dtype) * by, mask=inside)


def launch_scaled(
    gradient: torch.Tensor, scale: torch.Tensor, factor: torch.Tensor, out: torch.Tensor
) -> None:
    """``out[r, c] = gradient[r, c] * scale[r] * factor``, contiguous, ``factor`` a scalar."""
    if gradient.numel() == 0:
        return
    columns = gradient.numel() // scale.numel()
    blocks = triton.cdiv(columns, _BLOCK)
    with current(gradient.device):
        _scaled_kernel[(scale.numel() * blocks,)](
            gradient,
            scale,
            factor,
            out,
            columns,
            blocks,
            BLOCK=_BLOCK,
            num_warps=4,
            enable_fp_fusion=True,
        )
