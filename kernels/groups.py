"""Group-relative advantages on the GPU: one launch, no host sync, no atomics.

Of rewards ``x`` in a group: ``u = (x - low) / (high - low)``, ``advantage = (u - mean(u)) *
factor``; the factor holds the deviation or the width. Minimum traffic per reward in f32: 4 bytes
read, 4 written, 1 read with a mask. Over tokens: 1 byte read and 4 written per token.

Short groups are rows of a tile in registers. Otherwise a program owns some rewards and reads those
they are compared with, in two passes more than it has to; what it reads stays in the second-level
cache. Neither needs sums that depend on the order of programs: results are the same in every run.
"""

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ._layout import as_bytes
from ._runtime import current

# The scales, as the callers number them.
_OFF = tl.constexpr(0)
_GROUP = tl.constexpr(1)
_BATCH = tl.constexpr(2)

# Rewards at a time in the moments of all of them: more would not fit in registers.
_ALL = tl.constexpr(256)

_TILE = 512


@dataclass(frozen=True)
class GroupsConfig:
    """One launch: blocks of rewards owned and compared with, and of tokens, 0 without any.

    A program is one warp, so that nothing goes through shared memory.
    """

    own: int
    others: int
    tokens: int


def _longest_row(wide: bool) -> int:
    return 256 if wide else 1024


def groups_config(size: int, width: int | None, ids: bool, wide: bool) -> GroupsConfig:
    """Blocks for groups of ``size`` rewards (with ids: all), and ``width`` tokens or None.

    ``wide`` sums in float64, for which there are fewer registers.
    """
    if width is not None:
        return GroupsConfig(own=1, others=128, tokens=1024)
    if ids:
        return GroupsConfig(own=2 if wide else 8, others=64 if wide else 32, tokens=0)
    if size > _longest_row(wide):
        return GroupsConfig(own=128 if wide else 512, others=128 if wide else 512, tokens=0)
    row = triton.next_power_of_2(size)
    return GroupsConfig(own=max(1, (_TILE // 2 if wide else _TILE) // row), others=row, tokens=0)


@triton.jit
def _elements(count, UNIT: tl.constexpr):
    return tl.full([], count, tl.int64) * UNIT


@triton.jit
def _shift(low, high, TINY: tl.constexpr):
    """What rewards are shifted and multiplied by, and the width: nothing if there are none."""
    width = tl.maximum(high - low, TINY)
    return tl.where(low < float("inf"), low, 0.0), 1.0 / width, width


@triton.jit
def _scaled(x, counted, low, inverse):
    return tl.where(counted, x - low, 0.0) * inverse


@triton.jit
def _rows_moments(x, counted, ACCUMULATOR: tl.constexpr, TINY: tl.constexpr):
    """``count, low, width, mean, m2`` of each row, ``[R, 1]``."""
    low = tl.min(tl.where(counted, x, float("inf")), 1, keep_dims=True)
    high = tl.max(tl.where(counted, x, float("-inf")), 1, keep_dims=True)
    low, inverse, width = _shift(low, high, TINY)
    count = tl.sum(counted.to(ACCUMULATOR), 1, keep_dims=True)
    scaled = _scaled(x, counted, low, inverse)
    mean = tl.sum(scaled, 1, keep_dims=True) / tl.maximum(count, 1.0)
    centred = tl.where(counted, scaled - mean, 0.0)
    m2 = tl.sum(centred * centred, 1, keep_dims=True)
    return count, low, width, mean, m2


@triton.jit
def _others(
    rewards,
    mask,
    ids,
    own_id,
    start,
    stop,
    MASK: tl.constexpr,
    IDS: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    OTHERS: tl.constexpr,
):
    """Rewards ``[1, OTHERS]`` from ``start`` on, and which of them count for each owner."""
    at = start + tl.arange(0, OTHERS)[None, :]
    inside = at < stop
    x = tl.load(rewards + at, mask=inside, other=0.0).to(ACCUMULATOR)
    counted = inside & (tl.abs(x) < float("inf"))
    if MASK:
        counted = counted & (tl.load(mask + at, mask=inside, other=0) != 0)
    if IDS:
        counted = counted & (tl.load(ids + at, mask=inside, other=0).to(tl.int64) == own_id)
    return x, counted


@triton.jit
def _moments(
    rewards,
    mask,
    ids,
    own_id,
    first,
    stop,
    MASK: tl.constexpr,
    IDS: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    TINY: tl.constexpr,
    ROWS: tl.constexpr,
    OTHERS: tl.constexpr,
):
    """``count, low, width, mean, m2`` of the rewards in ``[first, stop)``, ``[ROWS, 1]``.

    With ids: of those whose id is that of the row.
    """
    low = tl.full([ROWS, OTHERS], float("inf"), ACCUMULATOR)
    high = tl.full([ROWS, OTHERS], float("-inf"), ACCUMULATOR)
    count = tl.zeros([ROWS, OTHERS], ACCUMULATOR)
    start = first
    while start < stop:
        x, counted = _others(
            rewards, mask, ids, own_id, start, stop, MASK, IDS, ACCUMULATOR, OTHERS
        )
        low = tl.minimum(low, tl.where(counted, x, float("inf")))
        high = tl.maximum(high, tl.where(counted, x, float("-inf")))
        count += counted.to(ACCUMULATOR)
        start += OTHERS
    low, inverse, width = _shift(
        tl.min(low, 1, keep_dims=True), tl.max(high, 1, keep_dims=True), TINY
    )
    count = tl.sum(count, 1, keep_dims=True)
    sums = tl.zeros([ROWS, OTHERS], ACCUMULATOR)
    start = first
    while start < stop:
        x, counted = _others(
            rewards, mask, ids, own_id, start, stop, MASK, IDS, ACCUMULATOR, OTHERS
        )
        sums += _scaled(x, counted, low, inverse)
        start += OTHERS
    mean = tl.sum(sums, 1, keep_dims=True) / tl.maximum(count, 1.0)
    squares = tl.zeros([ROWS, OTHERS], ACCUMULATOR)
    start = first
    while start < stop:
        x, counted = _others(
            rewards, mask, ids, own_id, start, stop, MASK, IDS, ACCUMULATOR, OTHERS
        )
        centred = tl.where(counted, _scaled(x, counted, low, inverse) - mean, 0.0)
        squares += centred * centred
        start += OTHERS
    return count, low, width, mean, tl.sum(squares, 1, keep_dims=True)


@triton.jit
def _factor(
    count,
    width,
    m2,
    all_count,
    all_width,
    all_m2,
    ddof,
    eps,
    least,
    LEAVE_ONE_OUT: tl.constexpr,
    SCALE: tl.constexpr,
):
    """What centred rewards are multiplied by."""
    varied = (count > 1.0) & (m2 > 0.0)
    factor = width
    if SCALE == _GROUP:
        deviation = tl.sqrt(m2 / tl.maximum(count - ddof, 1.0))
        varied = varied & (deviation * width >= least)
        factor = 1.0 / tl.where(varied, deviation + eps / width, 1.0)
    elif SCALE == _BATCH:
        deviation = tl.sqrt(all_m2 / tl.maximum(all_count - ddof, 1.0)) * all_width
        varied = varied & (deviation >= least)
        factor = width / tl.where(varied, deviation + eps, 1.0)
    if LEAVE_ONE_OUT:
        factor *= count / tl.maximum(count - 1.0, 1.0)
    return tl.where(varied, factor, 0.0)


@triton.jit
def _advantage(x, counted, kept, low, width, mean, factor):
    """Zero where a reward is masked, NaN where it is kept and does not count."""
    centred = _scaled(x, counted, low, 1.0 / width) - mean
    # Adding zero takes the sign off a negative one.
    advantage = tl.where(counted, centred * factor + 0.0, float("nan"))
    return tl.where(kept, advantage, 0.0)


@triton.jit(do_not_specialize=["groups", "size", "count"])
def _rows_kernel(
    rewards,
    mask,
    out,
    groups,
    size,
    count,
    ddof: "fp64",  # noqa: F821
    eps: "fp64",  # noqa: F821
    least: "fp64",  # noqa: F821
    MASK: tl.constexpr,
    LEAVE_ONE_OUT: tl.constexpr,
    SCALE: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    TINY: tl.constexpr,
    OWN: tl.constexpr,
    OTHERS: tl.constexpr,
    UNIT: tl.constexpr,
):
    """A program owns groups, each of them a row; ``size`` counts in units of ``UNIT``."""
    length = _elements(size, UNIT)
    row = tl.program_id(0).to(tl.int64) * OWN + tl.arange(0, OWN)[:, None]
    column = tl.arange(0, OTHERS)[None, :]
    inside = (row < groups) & (column < length)
    at = row * length + column
    x = tl.load(rewards + at, mask=inside, other=0.0).to(ACCUMULATOR)
    kept = inside
    if MASK:
        kept = inside & (tl.load(mask + at, mask=inside, other=0) != 0)
    counted = kept & (tl.abs(x) < float("inf"))
    number, low, width, mean, m2 = _rows_moments(x, counted, ACCUMULATOR, TINY)
    all_number, all_width, all_m2 = number, width, m2
    if SCALE == _BATCH:
        stop = tl.full([], count, tl.int64)
        all_number, _, all_width, _, all_m2 = _moments(
            rewards, mask, rewards, 0, stop * 0, stop, MASK, False, ACCUMULATOR, TINY, 1, _ALL
        )
    factor = _factor(
        number,
        width,
        m2,
        all_number,
        all_width,
        all_m2,
        tl.full([], ddof, ACCUMULATOR),
        tl.full([], eps, ACCUMULATOR),
        tl.full([], least, ACCUMULATOR),
        LEAVE_ONE_OUT,
        SCALE,
    )
    advantage = _advantage(x, counted, kept, low, width, mean, factor)
    tl.store(out + at, advantage, mask=inside)


@triton.jit
def _range_of(ids, own_id, stop, OTHERS: tl.constexpr):
    """From the first to behind the last reward whose id lies between the least and the most owned.

    Sorted ids leave little to compare; in any other order it is still correct.
    """
    least = tl.min(own_id)
    most = tl.max(own_id)
    first = tl.full([OTHERS], 0, tl.int64) + stop
    last = tl.full([OTHERS], 0, tl.int64)
    start = stop * 0
    while start < stop:
        at = start + tl.arange(0, OTHERS)
        other = tl.load(ids + at, mask=at < stop, other=0).to(tl.int64)
        near = (at < stop) & (other >= least) & (other <= most)
        first = tl.minimum(first, tl.where(near, at, stop))
        last = tl.maximum(last, tl.where(near, at + 1, 0))
        start += OTHERS
    return tl.min(first), tl.max(last)


@triton.jit(do_not_specialize=["size", "count", "width", "stride_tokens"])
def _own_kernel(
    rewards,
    mask,
    ids,
    tokens,
    out,
    size,
    count,
    width,
    stride_tokens,
    ddof: "fp64",  # noqa: F821
    eps: "fp64",  # noqa: F821
    least: "fp64",  # noqa: F821
    MASK: tl.constexpr,
    IDS: tl.constexpr,
    LEAVE_ONE_OUT: tl.constexpr,
    SCALE: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    TINY: tl.constexpr,
    OWN: tl.constexpr,
    OTHERS: tl.constexpr,
    TOKENS: tl.constexpr,
    UNIT: tl.constexpr,
):
    """A program owns rewards of one group, or with ids any, or one reward and some of its tokens.

    ``width`` and the stride of the tokens count in units of ``UNIT``.
    """
    program = tl.program_id(0).to(tl.int64)
    length = tl.full([], size, tl.int64)
    if TOKENS:
        row = _elements(width, UNIT)
        pieces = tl.cdiv(row, TOKENS)
        own = (program // pieces) + tl.arange(0, OWN)[:, None]
        first = (program // pieces) // length * length
        inside = own >= 0
    else:
        blocks = tl.cdiv(length, OWN)
        first = program // blocks * length
        within = (program % blocks) * OWN + tl.arange(0, OWN)[:, None]
        own = first + within
        inside = within < length
    stop = first + length
    x = tl.load(rewards + own, mask=inside, other=0.0).to(ACCUMULATOR)
    kept = inside
    if MASK:
        kept = inside & (tl.load(mask + own, mask=inside, other=0) != 0)
    counted = kept & (tl.abs(x) < float("inf"))
    own_id = first
    ROWS: tl.constexpr = OWN if IDS else 1
    if IDS:
        # Lanes past the end repeat the last reward.
        last = tl.full([], count, tl.int64) - 1
        own_id = tl.load(ids + tl.minimum(own, last)).to(tl.int64)
        first, stop = _range_of(ids, own_id, stop, _ALL)
    number, low, spread, mean, m2 = _moments(
        rewards, mask, ids, own_id, first, stop, MASK, IDS, ACCUMULATOR, TINY, ROWS, OTHERS
    )
    all_number, all_spread, all_m2 = number, spread, m2
    if SCALE == _BATCH:
        end = tl.full([], count, tl.int64)
        all_number, _, all_spread, _, all_m2 = _moments(
            rewards, mask, ids, own_id, end * 0, end, MASK, False, ACCUMULATOR, TINY, 1, _ALL
        )
    factor = _factor(
        number,
        spread,
        m2,
        all_number,
        all_spread,
        all_m2,
        tl.full([], ddof, ACCUMULATOR),
        tl.full([], eps, ACCUMULATOR),
        tl.full([], least, ACCUMULATOR),
        LEAVE_ONE_OUT,
        SCALE,
    )
    advantage = _advantage(x, counted, kept, low, spread, mean, factor)
    if TOKENS:
        row = _elements(width, UNIT)
        token = (program % tl.cdiv(row, TOKENS)) * TOKENS + tl.arange(0, TOKENS)[None, :]
        there = token < row
        at = own * _elements(stride_tokens, UNIT) + token
        at = tl.max_contiguous(at, [1, 4])
        flag = tl.load(tokens + at, mask=there, other=0)
        tl.store(out + own * row + token, tl.where(flag != 0, advantage, 0.0), mask=there)
    else:
        tl.store(out + own, advantage, mask=inside)


def launch_group_advantages(
    rewards: torch.Tensor,
    group_ids: torch.Tensor | None,
    mask: torch.Tensor | None,
    token_mask: torch.Tensor | None,
    out: torch.Tensor,
    size: int,
    leave_one_out: bool,
    scale: int,
    ddof: float,
    eps: float,
    least: float,
) -> None:
    """Write ``out``; ``rewards``, ids and mask are ``[N]``, ``token_mask`` is ``[N, T]`` or None.

    ``size`` is that of the groups, of no account with ids. What is not contiguous is copied once.
    """
    count = rewards.numel()
    length = count if group_ids is not None else size
    width = None if token_mask is None else token_mask.shape[1]
    wide = rewards.dtype is torch.float64
    config = groups_config(length, width, group_ids is not None, wide)
    options = {
        "MASK": mask is not None,
        "LEAVE_ONE_OUT": leave_one_out,
        "SCALE": scale,
        "ACCUMULATOR": tl.float64 if wide else tl.float32,
        "TINY": torch.finfo(torch.float64 if wide else torch.float32).tiny,
        "OWN": config.own,
        "OTHERS": config.others,
        "num_warps": 1,
        "enable_fp_fusion": True,
    }
    rewards = rewards.contiguous()
    flags = rewards if mask is None else as_bytes(mask.contiguous())
    if token_mask is None and group_ids is None and size <= _longest_row(wide):
        groups, unit = count // size, math.gcd(size, 4)
        grid = (triton.cdiv(groups, config.own),)
        with current(rewards.device):
            _rows_kernel[grid](
                rewards,
                flags,
                out,
                groups,
                size // unit,
                count,
                ddof,
                eps,
                least,
                UNIT=unit,
                **options,
            )
        return
    ids = rewards if group_ids is None else group_ids.contiguous()
    tokens, stride, unit = rewards, 0, 1
    if token_mask is None:
        programs = count // length * triton.cdiv(length, config.own)
    else:
        tokens = as_bytes(token_mask if token_mask.stride(1) == 1 else token_mask.contiguous())
        stride = tokens.stride(0)
        unit = math.gcd(width, stride, 16)
        programs = count * triton.cdiv(width, config.tokens)
    with current(rewards.device):
        _own_kernel[(programs,)](
            rewards,
            flags,
            ids,
            tokens,
            out,
            length,
            count,
            (width or 0) // unit,
            stride // unit,
            ddof,
            eps,
            least,
            IDS=group_ids is not None,
            TOKENS=config.tokens,
            UNIT=unit,
            **options,
        )
