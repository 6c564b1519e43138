"""What PPO's losses share, whatever the policy: value and surrogate terms, sums, and the launch.

A program owns blocks of samples, a tile ``[BLOCK_N, A]`` of the policy's numbers each. Minibatches
of a few blocks are one launch; for more, every program leaves its sums and a second, tiny launch
adds them in order. There are no atomics: the same shapes give the same bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ._runtime import current
from .surrogate import clamp, surrogate

MAX_ACTIONS = 4096
_WARPS = 4
# Actions from which a block has more warps.
_WIDE = 2048
# Blocks that one program takes before others are worth a second launch.
_ALONE = 8
_MAX_PROGRAMS = 512
_PARTS = tl.constexpr(6)
# Gradients that all samples share, of one program of the second launch.
_SHARED = 8


class Tiles(NamedTuple):
    """The tiles that the registers of a policy's kernel hold, in f32."""

    # Of a sample in one thread.
    widest: int
    # Of all samples of a block that is wider.
    elements: int


def ppo_config(count: int, width: int, itemsize: int, tiles: Tiles) -> tuple[int, int, int, int]:
    """Rows of a block, blocks of a program, programs, and warps, for ``count`` rows of ``width``.

    A sample per thread, so that columns are read side by side whatever ``count`` is, as long as
    the registers of a thread hold a sample.
    """
    widest, elements = tiles if itemsize == 4 else (tiles.widest // 4, tiles.elements // 8)
    rows = 32 * _WARPS if width <= widest else max(1, elements // width)
    blocks = triton.cdiv(count, rows)
    turns = blocks if blocks <= _ALONE else triton.cdiv(blocks, _MAX_PROGRAMS)
    return rows, turns, triton.cdiv(blocks, turns), _WARPS if width < _WIDE else 4 * _WARPS


@triton.jit
def valid_samples(mask, n, count):
    """Which of the samples ``n`` count."""
    valid = n < count
    if mask is not None:
        valid = valid & (tl.load(mask + n, mask=n < count, other=0) != 0)
    return valid


@triton.jit
def column(x, n, count, valid, ACCUMULATOR: tl.constexpr):
    """Zero where a sample is not valid. Its memory is read all the same: whole lines are."""
    x = tl.load(x + n, mask=n < count, other=0.0).to(ACCUMULATOR)
    return tl.where(valid, x, 0.0)


@triton.jit
def policy_terms(log_prob, old_log_prob, advantage, eps):
    """Policy loss, its derivative with respect to ``log_prob``, divergence, and if outside."""
    log_ratio = log_prob - old_log_prob
    ratio = tl.exp(log_ratio)
    loss, slope, _ = surrogate(ratio, advantage, 1 - eps, 1 + eps)
    return loss, slope, ratio - 1 - log_ratio, tl.where(tl.abs(ratio - 1) > eps, 1.0, 0.0)


@triton.jit
def value_terms(values, returns, old_values, n, count, valid, eps, ACCUMULATOR: tl.constexpr):
    """Value loss and its derivative."""
    v = column(values, n, count, valid, ACCUMULATOR)
    target = column(returns, n, count, valid, ACCUMULATOR)
    error = v - target
    square = error * error
    if old_values is not None:
        old = column(old_values, n, count, valid, ACCUMULATOR)
        limited = clamp(v - old, -eps, eps)
        clipped = old + limited - target
        # Where the clip is active its error is a constant; where it is not, both errors agree.
        held = (clipped * clipped > square) & (limited != v - old)
        square = tl.where(held, clipped * clipped, square)
        error = tl.where(held, 0.0, error)
    return 0.5 * square, error


@triton.jit
def no_sums(BLOCK_N: tl.constexpr, ACCUMULATOR: tl.constexpr):
    """Zeros for policy, value, entropy, divergence, outside and count."""
    zeros = tl.zeros([BLOCK_N], ACCUMULATOR)
    return zeros, zeros, zeros, zeros, zeros, zeros


@triton.jit
def add(sums, parts, valid):
    """The sums with the five parts of a block, and the number of its samples."""
    new = ()
    for i in tl.static_range(5):
        new += (sums[i] + tl.where(valid, parts[i], 0.0),)
    return new + (sums[5] + tl.where(valid, 1.0, 0.0),)


@triton.jit
def store_value_gradient(gradient, slope, vf_coef, n, count, valid):
    """Write that of the values."""
    tl.store(gradient + n, tl.where(valid, vf_coef * slope, 0.0), mask=n < count)


@triton.jit
def _finish(totals, loss, parts, scale, vf_coef, ent_coef):
    """Write the results from the totals."""
    weight = 1 / tl.maximum(totals[5], 1.0)
    for i in tl.static_range(5):
        tl.store(parts + i, totals[i] * weight)
    tl.store(scale, weight)
    tl.store(loss, (totals[0] + vf_coef * totals[1] - ent_coef * totals[2]) * weight)


@triton.jit
def leave(sums, partials, loss, parts, scale, vf_coef, ent_coef):
    """Write the results where there is one program, else this program's sums.

    Returns the number of valid samples, of this program.
    """
    totals = ()
    for i in tl.static_range(_PARTS):
        totals += (tl.sum(sums[i], 0),)
    if partials is None:
        _finish(totals, loss, parts, scale, vf_coef, ent_coef)
    else:
        for i in tl.static_range(_PARTS):
            tl.store(partials + i * tl.num_programs(0) + tl.program_id(0), totals[i])
    return totals[5]


@triton.jit
def leave_shared(shared, partials, out, samples, at, size):
    """The same for the gradient, ``size`` numbers, that all samples share."""
    inside = at < size
    if partials is None:
        tl.store(out + at, shared / tl.maximum(samples, 1.0), mask=inside)
    else:
        row = _PARTS * tl.num_programs(0) + tl.program_id(0) * size
        tl.store(partials + row + at, shared, mask=inside)


@triton.jit(do_not_specialize=["programs", "size"])
def _combine_kernel(
    partials,
    loss,
    parts,
    scale,
    shared,
    programs,
    size,
    vf_coef: "fp64",  # noqa: F821
    ent_coef: "fp64",  # noqa: F821
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
    SHARED: tl.constexpr,
):
    """Add the sums of all programs: one program the parts, and each some of what is shared."""
    at = tl.arange(0, BLOCK)
    totals = ()
    for i in tl.static_range(_PARTS):
        row = tl.load(partials + i * programs + at, mask=at < programs, other=0.0)
        totals += (tl.sum(row, 0),)
    if tl.program_id(0) == 0:
        value_weight = tl.full([], vf_coef, ACCUMULATOR)
        entropy_weight = tl.full([], ent_coef, ACCUMULATOR)
        _finish(totals, loss, parts, scale, value_weight, entropy_weight)
    if shared is not None:
        place = tl.program_id(0) * SHARED + tl.arange(0, SHARED)
        row = _PARTS * programs + at[:, None] * size
        inside = (at < programs)[:, None] & (place < size)[None, :]
        sums = tl.sum(tl.load(partials + row + place[None, :], mask=inside, other=0.0), 0)
        tl.store(shared + place, sums / tl.maximum(totals[5], 1.0), mask=place < size)


def launch(
    kernel: triton.JITFunction,
    arrays: Sequence[torch.Tensor | None],
    gradients: Sequence[torch.Tensor | None],
    terms: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    coefficients: tuple[float, float, float],
    *,
    count: int,
    actions: int,
    tiles: Tiles,
    shared: torch.Tensor | None = None,
    **constants: bool,
) -> None:
    """Run ``kernel`` over ``count`` samples of ``actions``, and the second launch if it needs one.

    ``shared`` is the one of the gradients that all samples share.
    """
    loss = terms[0]
    if count == 0:
        for x in terms:
            x.zero_()
        if shared is not None:
            shared.zero_()
        return
    width = triton.next_power_of_2(actions)
    rows, turns, programs, warps = ppo_config(count, width, loss.element_size(), tiles)
    accumulator = tl.float64 if loss.dtype is torch.float64 else tl.float32
    size = 0 if shared is None else shared.numel()
    partials = loss.new_empty((6 + size) * programs) if programs > 1 else None
    with current(loss.device):
        kernel[(programs,)](
            *arrays,
            *gradients,
            partials,
            *terms,
            count,
            turns,
            *coefficients,
            ACCUMULATOR=accumulator,
            ACTIONS=actions,
            BLOCK_A=width,
            BLOCK_N=rows,
            **constants,
            num_warps=warps,
            # Left to itself the assembler spills a float64 or two to fit more blocks in.
            maxnreg=128 if accumulator is tl.float64 else None,
            # Lanes that share a row add its products in different orders; only unfused they agree.
            enable_fp_fusion=False,
        )
        if partials is not None:
            _combine_kernel[(max(1, triton.cdiv(size, _SHARED)),)](
                partials,
                *terms,
                shared,
                programs,
                size,
                *coefficients[1:],
                ACCUMULATOR=accumulator,
                BLOCK=_MAX_PROGRAMS,
                SHARED=_SHARED,
                num_warps=_WARPS,
                enable_fp_fusion=False,
            )


def check_actions(name: str, actions: int) -> None:
    """ValueError if a program cannot hold a sample of ``actions``."""
    if actions > MAX_ACTIONS:
        raise ValueError(f"{name}: expected at most {MAX_ACTIONS} actions on a GPU, got {actions}")
