"""PPO's loss, its parts and its unscaled gradient, from one pass over the samples.

A program owns blocks of samples, a tile ``[BLOCK_N, A]`` of logits each. Traffic per sample for
``A`` actions, in f32: logits 4 A, action 8, and 4 for old log-probability, advantage, return,
value and old value are read, 4 A + 4 of gradient written; a mask adds one byte. Minibatches of a
few blocks are one launch; for more, every program leaves its sums and a second, tiny launch adds
them in order. There are no atomics: the same shapes give the same bits.
"""

import torch
import triton
import triton.language as tl

from ._runtime import current
from .surrogate import clamp, surrogate

MAX_ACTIONS = 4096
_WARPS = 4
_TILE = 2048
# Blocks that one program takes before others are worth a second launch.
_ALONE = 8
_MAX_PROGRAMS = 512
_PARTS = 6


def ppo_config(count: int, width: int, itemsize: int) -> tuple[int, int, int, int]:
    """Rows of a block, blocks of a program, programs, and warps, for ``count`` rows of ``width``.

    A sample per thread, so that columns are read side by side whatever ``count`` is, as long as
    the registers of a thread hold a sample.
    """
    widest, tile = (32, _TILE) if itemsize == 4 else (8, _TILE // 8)
    rows = 32 * _WARPS if width <= widest else max(1, tile // width)
    blocks = triton.cdiv(count, rows)
    turns = blocks if blocks <= _ALONE else triton.cdiv(blocks, _MAX_PROGRAMS)
    return rows, turns, triton.cdiv(blocks, turns), _WARPS if width <= _TILE // 2 else 4 * _WARPS


@triton.jit
def _column(column, n, count, valid, ACCUMULATOR: tl.constexpr):
    """Zero where a sample is not valid. Its memory is read all the same: whole lines are."""
    x = tl.load(column + n, mask=n < count, other=0.0).to(ACCUMULATOR)
    return tl.where(valid, x, 0.0)


@triton.jit
def _valid(mask, n, count):
    valid = n < count
    if mask is not None:
        valid = valid & (tl.load(mask + n, mask=n < count, other=0) != 0)
    return valid


@triton.jit
def _policy_terms(log_prob, old_log_prob, advantage, eps):
    """Policy loss, its derivative with respect to ``log_prob``, divergence, and if outside."""
    log_ratio = log_prob - old_log_prob
    ratio = tl.exp(log_ratio)
    loss, slope, _ = surrogate(ratio, advantage, 1 - eps, 1 + eps)
    return loss, slope, ratio - 1 - log_ratio, tl.where(tl.abs(ratio - 1) > eps, 1.0, 0.0)


@triton.jit
def _value_terms(values, returns, old_values, n, count, valid, eps, ACCUMULATOR: tl.constexpr):
    """Value loss and its derivative."""
    v = _column(values, n, count, valid, ACCUMULATOR)
    target = _column(returns, n, count, valid, ACCUMULATOR)
    error = v - target
    square = error * error
    if old_values is not None:
        old = _column(old_values, n, count, valid, ACCUMULATOR)
        limited = clamp(v - old, -eps, eps)
        clipped = old + limited - target
        # Where the clip is active its error is a constant; where it is not, both errors agree.
        held = (clipped * clipped > square) & (limited != v - old)
        square = tl.where(held, clipped * clipped, square)
        error = tl.where(held, 0.0, error)
    return 0.5 * square, error


@triton.jit
def _add(sums, parts, valid):
    new = ()
    for i in tl.static_range(5):
        new += (sums[i] + tl.where(valid, parts[i], 0.0),)
    return new + (sums[5] + tl.where(valid, 1.0, 0.0),)


@triton.jit
def _finish(totals, loss, parts, scale, vf_coef, ent_coef):
    """Write the results from the totals of policy, value, entropy, divergence, outside, count."""
    weight = 1 / tl.maximum(totals[5], 1.0)
    for i in tl.static_range(5):
        tl.store(parts + i, totals[i] * weight)
    tl.store(scale, weight)
    tl.store(loss, (totals[0] + vf_coef * totals[1] - ent_coef * totals[2]) * weight)


@triton.jit
def _leave(sums, partials, loss, parts, scale, vf_coef, ent_coef):
    """Write the results where there is one program, else this program's sums."""
    totals = ()
    for i in tl.static_range(6):
        totals += (tl.sum(sums[i], 0),)
    if partials is None:
        _finish(totals, loss, parts, scale, vf_coef, ent_coef)
    else:
        for i in tl.static_range(6):
            tl.store(partials + i * tl.num_programs(0) + tl.program_id(0), totals[i])


@triton.jit(do_not_specialize=["programs"])
def _combine_kernel(
    partials,
    loss,
    parts,
    scale,
    programs,
    vf_coef: "fp64",  # noqa: F821
    ent_coef: "fp64",  # noqa: F821
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program adds the sums of all others."""
    at = tl.arange(0, BLOCK)
    totals = ()
    for i in tl.static_range(6):
        row = tl.load(partials + i * programs + at, mask=at < programs, other=0.0)
        totals += (tl.sum(row, 0),)
    value_weight = tl.full([], vf_coef, ACCUMULATOR)
    entropy_weight = tl.full([], ent_coef, ACCUMULATOR)
    _finish(totals, loss, parts, scale, value_weight, entropy_weight)


@triton.jit(do_not_specialize=["count", "turns"])
def _categorical_kernel(
    logits,
    actions,
    old_log_probs,
    advantages,
    returns,
    values,
    old_values,
    mask,
    gradient,
    partials,
    loss,
    parts,
    scale,
    count,
    turns,
    clip_eps: "fp64",  # noqa: F821
    vf_coef: "fp64",  # noqa: F821
    ent_coef: "fp64",  # noqa: F821
    ACCUMULATOR: tl.constexpr,
    ACTIONS: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    eps = tl.full([], clip_eps, ACCUMULATOR)
    value_weight = tl.full([], vf_coef, ACCUMULATOR)
    entropy_weight = tl.full([], ent_coef, ACCUMULATOR)
    zeros = tl.zeros([BLOCK_N], ACCUMULATOR)
    sums = (zeros, zeros, zeros, zeros, zeros, zeros)
    a = tl.arange(0, BLOCK_A)[None, :]
    start = tl.program_id(0).to(tl.int64) * turns * BLOCK_N
    for turn in range(turns):
        n = start + turn * BLOCK_N + tl.arange(0, BLOCK_N)
        valid = _valid(mask, n, count)
        at = n[:, None] * ACTIONS + a
        inside = (n < count)[:, None] & (a < ACTIONS)
        x = tl.load(logits + at, mask=inside, other=-float("inf")).to(ACCUMULATOR)
        x = tl.where(valid[:, None], x, 0.0)
        action = tl.where(valid, tl.load(actions + n, mask=n < count, other=0), 0)
        chosen = a == action[:, None]
        shifted = x - tl.max(x, 1)[:, None]
        weight = tl.exp(shifted)
        total = tl.sum(weight, 1)
        log_total = tl.log(total)
        picked = tl.sum(tl.where(chosen, shifted, 0.0), 1)
        # A class of probability zero, its logit minus infinity perhaps, adds nothing.
        shifted = tl.where(weight != 0, shifted, 0.0)
        entropy = log_total - tl.sum(weight * shifted, 1) / total
        picked = tl.where((action >= 0) & (action < ACTIONS), picked, float("nan"))
        old = _column(old_log_probs, n, count, valid, ACCUMULATOR)
        advantage = _column(advantages, n, count, valid, ACCUMULATOR)
        policy, slope, divergence, outside = _policy_terms(picked - log_total, old, advantage, eps)
        value, value_slope = _value_terms(
            values, returns, old_values, n, count, valid, eps, ACCUMULATOR
        )
        sums = _add(sums, (policy, value, entropy, divergence, outside), valid)
        if gradient is not None:
            log_p = shifted - log_total[:, None]
            pull = entropy_weight * (log_p + entropy[:, None]) - slope[:, None]
            d_logits = weight / total[:, None] * pull + tl.where(chosen, slope[:, None], 0.0)
            d_logits = tl.where(valid[:, None], d_logits, 0.0)
            tl.store(gradient + at, d_logits, mask=inside)
            d_values = tl.where(valid, value_weight * value_slope, 0.0)
            tl.store(gradient + count.to(tl.int64) * ACTIONS + n, d_values, mask=n < count)
    _leave(sums, partials, loss, parts, scale, value_weight, entropy_weight)


def launch_ppo_loss(
    logits: torch.Tensor,
    actions: torch.Tensor,
    columns: tuple[torch.Tensor | None, ...],
    gradient: torch.Tensor | None,
    terms: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    coefficients: tuple[float, float, float],
) -> None:
    """Write loss, parts and scale, and the gradient if it is given; all contiguous.

    ``logits [..., A]``, int64 ``actions``, and the columns: old log-probabilities, advantages,
    returns, values, and old values and a mask of bytes or None.
    """
    size = logits.shape[-1]
    if size > MAX_ACTIONS:
        raise ValueError(f"logits: expected at most {MAX_ACTIONS} actions on a GPU, got {size}")
    width = triton.next_power_of_2(size)
    shape = {"ACTIONS": size, "BLOCK_A": width}
    arrays = (logits, actions, *columns)
    _launch(
        _categorical_kernel, arrays, actions.numel(), width, shape, gradient, terms, coefficients
    )


def _launch(kernel, arrays, count, width, shape, gradient, terms, coefficients):
    if count == 0:
        for x in terms:
            x.zero_()
        return
    loss = terms[0]
    rows, turns, programs, warps = ppo_config(count, width, loss.element_size())
    accumulator = tl.float64 if loss.dtype is torch.float64 else tl.float32
    partials = loss.new_empty(_PARTS * programs) if programs > 1 else None
    with current(loss.device):
        kernel[(programs,)](
            *arrays,
            gradient,
            partials,
            *terms,
            count,
            turns,
            *coefficients,
            ACCUMULATOR=accumulator,
            BLOCK_N=rows,
            num_warps=warps,
            # Lanes that share a row add its products in different orders; only unfused they agree.
            enable_fp_fusion=False,
            **shape,
        )
        if partials is not None:
            _combine_kernel[(1,)](
                partials,
                *terms,
                programs,
                *coefficients[1:],
                ACCUMULATOR=accumulator,
                BLOCK=_MAX_PROGRAMS,
                num_warps=_WARPS,
                enable_fp_fusion=False,
            )
