"""The loss of GRPO and its relatives, its parts and its unscaled gradient, from one pass.

A program owns a stretch of one sequence, or all of it where the ratio is the sequence's. Traffic
per token in f32: log-probability 4, old one 4, mask 1 are read and 4 of gradient written; a
reference and advantages per token add 4 each. A sequence's ratio needs a pass ahead: it reads the
mask again, and with a reference the log-probabilities; with advantages per token those too, and
the mask a third time. Every program leaves its sums; a second, tiny launch turns them, in order,
into the results and the scale of each sequence. There are no atomics: the same shapes give the
same bits.
"""

import torch
import triton
import triton.language as tl

from ._runtime import current
from .surrogate import surrogate

_MOST_BYTES = 4096
_LEAST_TOKENS = 128
_ENOUGH_PROGRAMS = 512
_ROWS = 128


def grpo_config(rows: int, length: int, itemsize: int, per_sequence: bool) -> tuple[int, int, int]:
    """Tokens of a block, blocks of a program, and programs of a sequence."""
    block = min(_MOST_BYTES // itemsize, max(_LEAST_TOKENS, triton.next_power_of_2(length)))
    blocks = max(1, triton.cdiv(length, block))
    wanted = 1 if per_sequence else max(1, _ENOUGH_PROGRAMS // max(rows, 1))
    turns = triton.cdiv(blocks, min(blocks, wanted))
    return block, turns, triton.cdiv(blocks, turns)


@triton.jit
def _load(x, at, inside, valid, ACCUMULATOR: tl.constexpr):
    """Zero where a token is not valid. Its memory is read all the same: whole lines are."""
    return tl.where(valid, tl.load(x + at, mask=inside, other=0.0).to(ACCUMULATOR), 0.0)


@triton.jit
def _valid(mask, at, inside):
    if mask is not None:
        inside = inside & (tl.load(mask + at, mask=inside, other=0) != 0)
    return inside


@triton.jit
def _advantages(
    advantages, row, at, inside, valid, PER_TOKEN: tl.constexpr, ACCUMULATOR: tl.constexpr
):
    if PER_TOKEN:
        return _load(advantages, at, inside, valid, ACCUMULATOR)
    else:
        one = tl.load(advantages + row).to(ACCUMULATOR)
        return tl.where(valid, one, 0.0)


@triton.jit
def _divergence(d, KIND: tl.constexpr):
    """The estimate and its derivative."""
    if KIND == 0:
        return d, tl.full(d.shape, 1.0, d.dtype)
    elif KIND == 1:
        return 0.5 * d * d, d
    else:
        e = tl.exp(-d)
        return e - 1 + d, 1 - e


@triton.jit
def _as_one(
    logprobs,
    old_logprobs,
    advantages,
    mask,
    row,
    length,
    turns,
    low,
    high,
    PER_TOKEN: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """A sequence's ratio, and the derivative of its policy terms with respect to each token."""
    log_ratio = tl.zeros([BLOCK], ACCUMULATOR)
    count = tl.zeros([BLOCK], ACCUMULATOR)
    for turn in range(turns):
        t = turn * BLOCK + tl.arange(0, BLOCK)
        at = tl.max_contiguous(row * length + t, VECTOR)
        inside = t < length
        valid = _valid(mask, at, inside)
        new = _load(logprobs, at, inside, valid, ACCUMULATOR)
        log_ratio += new - _load(old_logprobs, at, inside, valid, ACCUMULATOR)
        count += tl.where(valid, 1.0, 0.0)
    total = tl.maximum(tl.sum(count, 0), 1.0)
    ratio = tl.exp(tl.sum(log_ratio, 0) / total)
    if PER_TOKEN:
        slopes = tl.zeros([BLOCK], ACCUMULATOR)
        for turn in range(turns):
            t = turn * BLOCK + tl.arange(0, BLOCK)
            at = tl.max_contiguous(row * length + t, VECTOR)
            inside = t < length
            valid = _valid(mask, at, inside)
            advantage = _load(advantages, at, inside, valid, ACCUMULATOR)
            _, slope, _ = surrogate(ratio, advantage, low, high)
            slopes += tl.where(valid, slope, 0.0)
        slope = tl.sum(slopes, 0) / total
    else:
        _, slope, _ = surrogate(ratio, tl.load(advantages + row).to(ACCUMULATOR), low, high)
    return ratio, slope


@triton.jit(do_not_specialize=["turns", "splits"])
def _grpo_kernel(
    logprobs,
    old_logprobs,
    advantages,
    ref_logprobs,
    mask,
    gradient,
    partials,
    rows,
    length,
    turns,
    splits,
    low: "fp64",  # noqa: F821
    high: "fp64",  # noqa: F821
    kl_coef: "fp64",  # noqa: F821
    KIND: tl.constexpr,
    PER_SEQUENCE: tl.constexpr,
    PER_TOKEN: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) // splits
    split = tl.program_id(0).to(tl.int64) % splits
    least = tl.full([], low, ACCUMULATOR)
    most = tl.full([], high, ACCUMULATOR)
    weight = tl.full([], kl_coef, ACCUMULATOR)
    if PER_SEQUENCE:
        whole, shared = _as_one(
            logprobs,
            old_logprobs,
            advantages,
            mask,
            row,
            length,
            turns,
            least,
            most,
            PER_TOKEN,
            ACCUMULATOR,
            BLOCK,
            VECTOR,
        )
    zeros = tl.zeros([BLOCK], ACCUMULATOR)
    policy = zeros
    divergence = zeros
    clipped = zeros
    count = zeros
    for turn in range(turns):
        # Without the hint the mask's bytes would set a lane's share, and wide loads split sectors.
        t = (split * turns + turn) * BLOCK + tl.arange(0, BLOCK)
        at = tl.max_contiguous(row * length + t, VECTOR)
        inside = t < length
        valid = _valid(mask, at, inside)
        advantage = _advantages(advantages, row, at, inside, valid, PER_TOKEN, ACCUMULATOR)
        if PER_SEQUENCE:
            ratio = tl.where(valid, whole, 1.0)
        else:
            new = _load(logprobs, at, inside, valid, ACCUMULATOR)
            ratio = tl.exp(new - _load(old_logprobs, at, inside, valid, ACCUMULATOR))
        loss, slope, held = surrogate(ratio, advantage, least, most)
        policy += tl.where(valid, loss, 0.0)
        clipped += tl.where(valid & held, 1.0, 0.0)
        count += tl.where(valid, 1.0, 0.0)
        if PER_SEQUENCE:
            slope = tl.where(valid, shared, 0.0)
        if ref_logprobs is not None:
            if PER_SEQUENCE:
                new = _load(logprobs, at, inside, valid, ACCUMULATOR)
            kl, kl_slope = _divergence(
                new - _load(ref_logprobs, at, inside, valid, ACCUMULATOR), KIND
            )
            divergence += tl.where(valid, kl, 0.0)
            # Without a coefficient an infinite slope is no part of the gradient.
            slope += tl.where(weight == 0, 0.0, weight * kl_slope)
        if gradient is not None:
            tl.store(gradient + at, tl.where(valid, slope, 0.0), mask=inside)
    place = partials + split * rows + row
    step = splits.to(tl.int64) * rows
    tl.store(place, tl.sum(policy, 0))
    tl.store(place + step, tl.sum(divergence, 0))
    tl.store(place + 2 * step, tl.sum(clipped, 0))
    tl.store(place + 3 * step, tl.sum(count, 0))


@triton.jit
def _row_sum(partials, which, row, rows, splits, ACCUMULATOR: tl.constexpr, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], ACCUMULATOR)
    for split in range(splits):
        at = (which * splits + split).to(tl.int64) * rows + row
        total += tl.load(partials + at, mask=row < rows, other=0.0)
    return total


@triton.jit(do_not_specialize=["rows", "splits", "turns"])
def _combine_kernel(
    partials,
    loss,
    parts,
    scale,
    rows,
    splits,
    turns,
    kl_coef: "fp64",  # noqa: F821
    max_tokens: "fp64",  # noqa: F821
    AGGREGATION: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program adds the sums of all others and says how much each sequence's tokens count."""
    count = tl.zeros([BLOCK], ACCUMULATOR)
    for turn in range(turns):
        row = turn * BLOCK + tl.arange(0, BLOCK)
        count += _row_sum(partials, 3, row, rows, splits, ACCUMULATOR, BLOCK)
    tokens = tl.maximum(tl.sum(count, 0), 1.0)
    sequences = tl.full([], rows, ACCUMULATOR)
    constant = tl.full([], max_tokens, ACCUMULATOR)
    weight = tl.full([], kl_coef, ACCUMULATOR)
    policy = tl.zeros([BLOCK], ACCUMULATOR)
    divergence = tl.zeros([BLOCK], ACCUMULATOR)
    clipped = tl.zeros([BLOCK], ACCUMULATOR)
    for turn in range(turns):
        row = turn * BLOCK + tl.arange(0, BLOCK)
        if AGGREGATION == 0:
            own = _row_sum(partials, 3, row, rows, splits, ACCUMULATOR, BLOCK)
            by = 1 / (sequences * tl.maximum(own, 1.0))
        elif AGGREGATION == 1:
            by = tl.zeros([BLOCK], ACCUMULATOR) + 1 / (sequences * constant)
        else:
            by = tl.zeros([BLOCK], ACCUMULATOR) + 1 / tokens
        tl.store(scale + row, by, mask=row < rows)
        policy += by * _row_sum(partials, 0, row, rows, splits, ACCUMULATOR, BLOCK)
        divergence += by * _row_sum(partials, 1, row, rows, splits, ACCUMULATOR, BLOCK)
        clipped += _row_sum(partials, 2, row, rows, splits, ACCUMULATOR, BLOCK)
    policy_loss = tl.sum(policy, 0)
    kl = tl.sum(divergence, 0)
    # Without a coefficient an infinite divergence is no part of the loss.
    penalty = tl.where(weight == 0, 0.0, weight * kl)
    tl.store(loss, policy_loss + penalty)
    tl.store(parts, policy_loss)
    tl.store(parts + 1, kl)
    tl.store(parts + 2, tl.sum(clipped, 0) / tokens)


def launch_grpo_loss(
    arrays: tuple[torch.Tensor | None, ...],
    gradient: torch.Tensor | None,
    terms: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    rules: tuple,
) -> None:
    """Write loss, parts and scales, and the gradient if it is given; all contiguous.

    ``arrays`` are log-probabilities ``[B, T]``, old ones, advantages, and the reference's and a
    mask of bytes or None; ``rules`` the settings, with choices as numbers.
    """
    low, high, kl_coef, kind, per_sequence, aggregation, max_tokens = rules
    loss = terms[0]
    rows, length = arrays[0].shape
    if rows * length == 0:
        for x in terms:
            x.zero_()
        return
    block, turns, splits = grpo_config(rows, length, loss.element_size(), per_sequence)
    common = {
        "ACCUMULATOR": tl.float64 if loss.dtype is torch.float64 else tl.float32,
        "num_warps": 4,
        "enable_fp_fusion": False,
    }
    partials = loss.new_empty(4 * splits * rows)
    with current(loss.device):
        _grpo_kernel[(rows * splits,)](
            *arrays,
            gradient,
            partials,
            rows,
            length,
            turns,
            splits,
            low,
            high,
            kl_coef,
            KIND=kind,
            PER_SEQUENCE=per_sequence,
            PER_TOKEN=arrays[2].ndim == 2,
            BLOCK=block,
            VECTOR=16 // arrays[0].element_size(),
            **common,
        )
        _combine_kernel[(1,)](
            partials,
            *terms,
            rows,
            splits,
            triton.cdiv(rows, _ROWS),
            kl_coef,
            max_tokens,
            AGGREGATION=aggregation,
            BLOCK=_ROWS,
            **common,
        )
