"""Draws from categorical distributions on the GPU, and the gradient of what comes with them.

The forward pass reads each logit once and writes 16 bytes a row (24 in float64): action,
log-probability and entropy. The backward pass reads each logit once, writes its gradient once and
reads 24 bytes a row (40 in float64), and the sector of the chosen logit once more.
"""

import torch
import triton
import triton.language as tl

from ._rows import real, row_tiles
from ._runtime import current, sm_count
from .noise import gumbels

_LOG2_E = tl.constexpr(1.4426950408889634)
# The exponential of this is zero, and unlike negative infinity it can be multiplied by zero.
_FLOOR = tl.constexpr(-16384.0)


@triton.jit(do_not_specialize=["rows", "seed", "step"])
def _sample_kernel(
    logits,
    row_stride,
    log_prob,
    entropy,
    actions,
    rows,
    classes,
    seed: "u64",  # noqa: F821
    step: "u32",  # noqa: F821
    step_at,
    REAL: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Each lane keeps the winner and the sums of its own classes until the end of the row."""
    if step_at is not None:
        step = tl.load(step_at).to(tl.uint32)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    groups = (classes + 3) // 4
    group = tl.arange(0, WIDTH // 4)[None, :]
    column = tl.arange(0, WIDTH)[None, :]
    line = logits + row * row_stride
    shape: tl.constexpr = [ROWS, WIDTH]
    best = tl.full(shape, float("-inf"), REAL)
    choice = tl.zeros(shape, tl.int32)
    chosen = tl.full(shape, float("-inf"), REAL)
    peak = tl.full([ROWS, 1], float("-inf"), REAL)
    total = tl.zeros(shape, REAL)
    weighted = tl.zeros(shape, REAL)
    for start in range(0, classes, WIDTH):
        place = start + column
        inside = (row < rows) & (place < classes)
        x = tl.load(line + place, mask=inside, other=float("-inf")).to(REAL)
        noise = gumbels(seed, row * groups + (start // 4 + group), step)
        score = x + noise.to(REAL)
        better = score > best
        best = tl.where(better, score, best)
        choice = tl.where(better, place, choice)
        chosen = tl.where(better, x, chosen)

        higher = tl.maximum(peak, tl.max(x, 1, keep_dims=True))
        origin = tl.where(higher == float("-inf"), 0.0, higher)
        # Nothing was summed up while all was negative infinity.
        lower = tl.where(peak == float("-inf"), 0.0, peak - origin)
        factor = tl.exp2(lower * _LOG2_E)
        below = x - origin
        p = tl.exp2(below * _LOG2_E)
        weighted = factor * (weighted + lower * total) + p * tl.maximum(below, _FLOOR)
        total = factor * total + p
        peak = higher

    score = tl.max(best, 1, keep_dims=True)
    action = tl.min(tl.where(best == score, choice, classes), 1)
    # Without a winner (no logit above negative infinity) every lane still holds class 0.
    logit = tl.max(
        tl.where((best == score) & (choice == action[:, None]), chosen, float("-inf")), 1
    )
    origin = tl.where(peak == float("-inf"), 0.0, peak)
    number = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = number < rows
    total = tl.where(inside, tl.sum(total, 1), 1.0)
    log_total = tl.log(total)
    tl.store(actions + number, action.to(tl.int64), mask=inside)
    tl.store(log_prob + number, (logit - tl.reshape(origin, [ROWS])) - log_total, mask=inside)
    tl.store(entropy + number, log_total - tl.sum(weighted, 1) / total, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def _backward_kernel(
    logits,
    row_stride,
    log_prob,
    entropy,
    actions,
    log_prob_gradients,
    entropy_gradients,
    out,
    out_stride,
    rows,
    classes,
    REAL: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    here = row < rows
    line = logits + row * row_stride
    action = tl.load(actions + row, mask=here, other=0)
    origin = tl.load(line + action, mask=here, other=0.0).to(REAL)
    shift = tl.load(log_prob + row, mask=here, other=0.0)
    for_log_prob = tl.load(log_prob_gradients + row, mask=here, other=0.0)
    for_entropy = tl.load(entropy_gradients + row, mask=here, other=0.0)
    offset = tl.load(entropy + row, mask=here, other=0.0)
    column = tl.arange(0, WIDTH)[None, :]
    for start in range(0, classes, WIDTH):
        place = start + column
        inside = here & (place < classes)
        x = tl.load(line + place, mask=inside, other=float("-inf")).to(REAL)
        log_p = (x - origin) + shift
        p = tl.exp2(log_p * _LOG2_E)
        slope = -p * (for_log_prob + for_entropy * (tl.maximum(log_p, _FLOOR) + offset))
        slope += tl.where(place == action, for_log_prob, 0.0)
        tl.store(out + row * out_stride + place, slope, mask=inside)


def launch_sample(
    logits: torch.Tensor,
    log_prob: torch.Tensor,
    entropy: torch.Tensor,
    actions: torch.Tensor,
    seed: int,
    step: int,
    step_at: torch.Tensor | None,
) -> None:
    """Draw from ``logits [R, V]``, contiguous along V, into contiguous ``[R]``."""
    rows, classes = logits.shape
    tiles = row_tiles(rows, classes, sm_count(logits.device))
    with current(logits.device):
        _sample_kernel[(triton.cdiv(rows, tiles.rows),)](
            logits,
            logits.stride(0),
            log_prob,
            entropy,
            actions,
            rows,
            classes,
            seed,
            step,
            step_at,
            REAL=real(logits),
            ROWS=tiles.rows,
            WIDTH=tiles.width,
            num_warps=tiles.num_warps,
            # The same draws as on the CPU need each operation rounded by itself.
            enable_fp_fusion=False,
        )


def launch_sample_backward(
    logits: torch.Tensor,
    log_prob: torch.Tensor,
    entropy: torch.Tensor,
    actions: torch.Tensor,
    log_prob_gradients: torch.Tensor,
    entropy_gradients: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Write the gradient of ``logits [R, V]``; both contiguous along V, the others ``[R]``."""
    rows, classes = logits.shape
    tiles = row_tiles(rows, classes, sm_count(logits.device))
    with current(logits.device):
        _backward_kernel[(triton.cdiv(rows, tiles.rows),)](
            logits,
            logits.stride(0),
            log_prob,
            entropy,
            actions,
            log_prob_gradients,
            entropy_gradients,
            out,
            out.stride(0),
            rows,
            classes,
            REAL=real(logits),
            ROWS=tiles.rows,
            WIDTH=tiles.width,
            num_warps=tiles.num_warps,
            enable_fp_fusion=True,
        )
