"""Losses on pairs of a preferred and a rejected answer on the GPU, forward and backward.

With ``h`` the log-ratio of the policy between the two answers minus that of the reference, a loss
is ``-log sigmoid(beta h)``, ``max(0, 1 - beta h)`` or ``(h - 1 / (2 beta))^2``. The forward pass
leaves the derivative by ``h`` of each pair, from which the backward pass makes all gradients.

Minimum traffic per pair in f32: forward 16 bytes read and 12 written, 4 more for a loss per pair;
backward 4 read and 8 written, 4 more read where the gradient from above differs from pair to pair,
1 where it is one number for every warp to read.
"""

import torch
import triton
import triton.language as tl

from ._runtime import current

_BLOCK = 512
# A lane has one pair: narrow accesses, but side by side whatever the number of pairs.
_NUM_WARPS = _BLOCK // 32


@triton.jit
def _log_1p(x):
    """``log(1 + x)`` for ``x`` in [0, 1], with all its digits where it is small."""
    y = 1.0 + x
    # The rounding of the sum cancels in the quotient.
    near = y == 1.0
    return tl.where(near, x, tl.log(y) * (x / tl.where(near, 1.0, y - 1.0)))


@triton.jit
def _loss_and_slope(h, beta, smoothing, KIND: tl.constexpr):
    if KIND == 0:
        x = beta * h
        small = tl.exp(-tl.abs(x))
        tail = _log_1p(small)
        # One quotient for both: a second one in float64 spills.
        near = 1.0 / (1.0 + small)
        above = tl.where(x < 0, small * near, near)
        below = tl.where(x < 0, near, small * near)
        # Comparisons let NaN through, where a maximum might not.
        left = tl.where(x > 0, 0.0, -x) + tail
        right = tl.where(x > 0, x, 0.0) + tail
        loss = (1.0 - smoothing) * left + smoothing * right
        return loss, beta * (smoothing * above - (1.0 - smoothing) * below)
    elif KIND == 1:
        distance = 1.0 - beta * h
        beyond = distance <= 0
        return tl.where(beyond, 0.0, distance), tl.where(beyond, 0.0, -beta)
    else:
        distance = h - 0.5 / beta
        return distance * distance, 2.0 * distance


@triton.jit(do_not_specialize=["pairs", "blocks"])
def _dpo_loss_kernel(
    policy_chosen,
    policy_rejected,
    ref_chosen,
    ref_rejected,
    loss,
    slopes,
    chosen_rewards,
    rejected_rewards,
    pairs,
    blocks,
    beta: "fp64",  # noqa: F821
    label_smoothing: "fp64",  # noqa: F821
    KIND: tl.constexpr,
    REDUCTION: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``blocks`` blocks of pairs; one program has all of them where their sum is wanted."""
    scale = tl.full([], beta, ACCUMULATOR)
    smoothing = tl.full([], label_smoothing, ACCUMULATOR)
    factor = tl.full([], 1.0, ACCUMULATOR)
    if REDUCTION == 2:
        factor = factor / tl.full([], pairs, ACCUMULATOR)
    total = tl.zeros([BLOCK], ACCUMULATOR)
    first = tl.program_id(0).to(tl.int64) * blocks
    for block in range(blocks):
        at = (first + block) * BLOCK + tl.arange(0, BLOCK)
        inside = at < pairs
        chosen = tl.load(policy_chosen + at, mask=inside, other=0.0).to(ACCUMULATOR)
        chosen -= tl.load(ref_chosen + at, mask=inside, other=0.0).to(ACCUMULATOR)
        rejected = tl.load(policy_rejected + at, mask=inside, other=0.0).to(ACCUMULATOR)
        rejected -= tl.load(ref_rejected + at, mask=inside, other=0.0).to(ACCUMULATOR)
        value, slope = _loss_and_slope(chosen - rejected, scale, smoothing, KIND)
        tl.store(slopes + at, slope * factor, mask=inside)
        tl.store(chosen_rewards + at, scale * chosen, mask=inside)
        tl.store(rejected_rewards + at, scale * rejected, mask=inside)
        if REDUCTION == 0:
            tl.store(loss + at, value, mask=inside)
        else:
            total += tl.where(inside, value, 0.0)
    if REDUCTION != 0:
        tl.store(loss, tl.sum(total, 0) * factor)


@triton.jit(do_not_specialize=["pairs", "stride_grad"])
def _dpo_backward_kernel(
    grad,
    slopes,
    rising,
    falling,
    pairs,
    stride_grad,
    GRAD_PER_PAIR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One block: the gradient of what raises ``h``, and that of what lowers it."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < pairs
    slope = tl.load(slopes + at, mask=inside, other=0.0)
    if GRAD_PER_PAIR:
        above = tl.load(grad + at * stride_grad, mask=inside, other=0.0).to(slope.dtype)
    else:
        above = tl.load(grad).to(slope.dtype)
    tl.store(rising + at, above * slope, mask=inside)
    tl.store(falling + at, -above * slope, mask=inside)


def launch_dpo_loss(
    logps: tuple[torch.Tensor, ...],
    results: tuple[torch.Tensor, ...],
    kind: int,
    beta: float,
    label_smoothing: float,
    reduction: int,
) -> None:
    """Fill ``results``: loss, slopes (float32 or float64), chosen and rejected rewards."""
    pairs = logps[0].numel()
    double = logps[0].dtype is torch.float64
    if pairs == 0:
        results[0].zero_()
        return
    blocks = triton.cdiv(pairs, _BLOCK)
    programs = blocks if reduction == 0 else 1
    with current(logps[0].device):
        _dpo_loss_kernel[(programs,)](
            *(x.contiguous() for x in logps),
            *results,
            pairs,
            blocks // programs,
            beta,
            label_smoothing,
            KIND=kind,
            REDUCTION=reduction,
            ACCUMULATOR=tl.float64 if double else tl.float32,
            BLOCK=_BLOCK,
            # More registers for a thread: with the 16 warps of float32 the compiler spills.
            num_warps=8 if double else _NUM_WARPS,
            enable_fp_fusion=True,
        )


def launch_dpo_backward(
    grad: torch.Tensor, slopes: torch.Tensor, rising: torch.Tensor, falling: torch.Tensor
) -> None:
    """Fill contiguous ``rising`` and ``falling``; ``grad`` is one number, or one for each pair."""
    pairs = slopes.numel()
    if pairs == 0:
        return
    per_pair = grad.ndim == 1
    with current(slopes.device):
        _dpo_backward_kernel[(triton.cdiv(pairs, _BLOCK),)](
            grad,
            slopes,
            rising,
            falling,
            pairs,
            grad.stride(0) if per_pair else 0,
            GRAD_PER_PAIR=per_pair,
            BLOCK=_BLOCK,
            num_warps=_NUM_WARPS,
            enable_fp_fusion=True,
        )
