"""Observations that a replay buffer on the device stores once.

A frame is the observation of a slot, the next observation of an environment's newest transition, or
one at a break: a next observation that the environment's following transition does not begin with,
as at an episode's end. They have numbers in this order: ``capacity`` slots, ``num_envs`` tails, the
breaks. Whether a transition begins with the frame before it, the bytes decide.

A push compares each row's observation with the frame before it, settles in one program which frame
each next observation is, and stores those that no slot holds: it reads both observations twice at
most and writes what is new. The observations of the slots themselves are the push's other business.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ._runtime import current
from .replay import PUSHED, Ring, load_row, place, store_row, tiles_of

_PUSHED = tl.constexpr(PUSHED)
_TILE = tl.constexpr(1024)
_WORD = tl.constexpr(0xFFFFFFFF)
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Frames(NamedTuple):
    """Which frames are whose.

    ``next_frame [capacity]``, int32, is the frame of each slot's next observation. ``newest [N]``,
    int64, is the number of each environment's newest transition, -1 for none. ``free``, int32, has
    the breaks that are free from ``used [1]``, int64, on. ``seen [1]``, int64 that the host reads
    without waiting, is ``used`` and, 32 bits above it, the number of pushes by then. ``differs
    [capacity]`` and ``moved [N]``, int32, carry news from one launch to the next.
    """

    next_frame: torch.Tensor
    newest: torch.Tensor
    free: torch.Tensor
    used: torch.Tensor
    seen: torch.Tensor
    differs: torch.Tensor
    moved: torch.Tensor


@triton.jit
def _origin(whose, row, inside, count, num_envs):
    """The environment of rows, its row before each or -1, and whether a row is its last one."""
    if whose is None:
        env = row % num_envs
        before = tl.where(row < num_envs, -1, row - num_envs)
        last = row >= count - num_envs
    else:
        env = tl.load(whose + row, mask=inside, other=0)
        before = tl.load(whose + count + row, mask=inside, other=-1)
        last = tl.load(whose + 2 * count + row, mask=inside, other=0) != 0
    return env, before, last


@triton.jit
def _number_before(newest, env, before, inside, pushed, count, capacity):
    """The number of the environment's transition before a row, -1 if it is none or overwritten."""
    old = tl.load(newest + env, mask=inside & (before < 0), other=-1)
    old = tl.where(old >= pushed + count - capacity, old, -1)
    return tl.where(inside, tl.where(before < 0, old, pushed + before), -1)


@triton.jit(do_not_specialize=["count", "capacity", "num_envs"])
def _compare_kernel(
    counters,
    newest,
    differs,
    whose,
    obs,
    following,
    frames,
    count,
    capacity,
    num_envs,
    WIDTHS: tl.constexpr,
    SPANS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Mark the rows that do not begin with the frame before them; a program has pieces of some."""
    pushed = tl.load(counters + _PUSHED)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    inside = row < count
    env, before, _ = _origin(whose, row, inside, count, num_envs)
    followed = _number_before(newest, env, before, inside, pushed, count, capacity) >= 0
    different = tl.zeros([ROWS, 1], tl.int32)
    for p in tl.static_range(len(WIDTHS)):
        at, there = place(row, followed, WIDTHS[p], SPANS[p])
        x = tl.load(obs[p] + at, mask=there, other=0)
        at, there = place(before, followed & (before >= 0), WIDTHS[p], SPANS[p])
        y = tl.load(following[p] + at, mask=there, other=0)
        at, there = place(capacity + env, followed & (before < 0), WIDTHS[p], SPANS[p])
        y = y | tl.load(frames[p] + at, mask=there, other=0)
        different = different | tl.max((x != y).to(tl.int32), 1, keep_dims=True)
    tl.atomic_or(differs + row, 1, mask=different != 0, sem="relaxed")


@triton.jit(do_not_specialize=["count", "capacity", "num_envs"])
def _settle_kernel(
    counters,
    next_frame,
    newest,
    free,
    used_at,
    seen,
    differs,
    moved,
    whose,
    count,
    capacity,
    num_envs,
):
    """One program: frees the breaks of overwritten transitions, gives the new ones theirs."""
    pushed = tl.load(counters + _PUSHED)
    used = tl.load(used_at)
    first_break = tl.full([], capacity, tl.int64) + num_envs
    start = tl.full([], 0, tl.int64)
    while start < count:
        row = start + tl.arange(0, _TILE)
        overwrites = (row < count) & (pushed + row >= capacity)
        old = tl.load(next_frame + (pushed + row) % capacity, mask=overwrites, other=0)
        given_back = old >= first_break
        rank = tl.cumsum(given_back.to(tl.int64), 0)
        tl.store(free + used - rank, (old - first_break).to(tl.int32), mask=given_back)
        used -= tl.sum(given_back.to(tl.int64), 0)
        start += _TILE

    tl.debug_barrier()
    start = tl.full([], 0, tl.int64)
    while start < count:
        row = start + tl.arange(0, _TILE)
        inside = row < count
        env, before, last = _origin(whose, row, inside, count, num_envs)
        number = _number_before(newest, env, before, inside, pushed, count, capacity)
        broken = (number >= 0) & (tl.load(differs + row, mask=inside, other=0) != 0)
        rank = tl.cumsum(broken.to(tl.int64), 0) - 1
        frame = tl.load(free + used + rank, mask=broken, other=0)
        slot = (pushed + row) % capacity
        following = tl.where(broken, first_break + frame, slot).to(tl.int32)
        tl.store(next_frame + number % capacity, following, mask=number >= 0)
        tl.store(next_frame + slot, (capacity + env).to(tl.int32), mask=inside & last)
        tl.store(moved + env, tl.where(broken, frame, -1), mask=inside & (before < 0))
        tl.store(differs + row, 0, mask=inside)
        used += tl.sum(broken.to(tl.int64), 0)
        start += _TILE

    # The newest ones have been read for all rows.
    tl.debug_barrier()
    start = tl.full([], 0, tl.int64)
    while start < count:
        row = start + tl.arange(0, _TILE)
        env, _, last = _origin(whose, row, row < count, count, num_envs)
        tl.store(newest + env, pushed + row, mask=(row < count) & last)
        start += _TILE
    tl.store(used_at, used)
    tl.store(seen, (((pushed + count) & _WORD) << 32) | used)


@triton.jit(do_not_specialize=["count", "capacity", "num_envs"])
def _move_kernel(
    counters,
    next_frame,
    moved,
    following,
    frames,
    breaks,
    count,
    capacity,
    num_envs,
    WIDTHS: tl.constexpr,
    SPANS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Store the next observations that are no slot's; a program has pieces of some."""
    pushed = tl.load(counters + _PUSHED)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    inside = row < count
    frame = tl.load(next_frame + (pushed + row) % capacity, mask=inside, other=0).to(tl.int64)
    first_break = tl.full([], capacity, tl.int64) + num_envs
    is_tail = (frame >= capacity) & (frame < first_break)
    is_break = frame >= first_break
    moved_to = tl.load(moved + frame - capacity, mask=is_tail, other=-1).to(tl.int64)
    for p in tl.static_range(len(WIDTHS)):
        x = load_row(frames[p], frame, moved_to >= 0, WIDTHS[p], SPANS[p])
        store_row(breaks[p], moved_to, moved_to >= 0, x, WIDTHS[p], SPANS[p])
        x = load_row(following[p], row, is_tail | is_break, WIDTHS[p], SPANS[p])
        # A tail has moved before it is written.
        tl.debug_barrier()
        store_row(frames[p], frame, is_tail, x, WIDTHS[p], SPANS[p])
        store_row(breaks[p], frame - first_break, is_break, x, WIDTHS[p], SPANS[p])


def launch_frames(
    ring: Ring,
    frames: Frames,
    breaks: Sequence[torch.Tensor],
    whose: torch.Tensor | None,
    obs: Sequence[torch.Tensor],
    following: Sequence[torch.Tensor],
) -> None:
    """Store the next observations ``following [B, ...]`` of rows that are about to be pushed.

    ``obs [B, ...]`` and ``following`` are contiguous, one for each part; ``breaks [E, ...]`` have
    room for those that may come. Row ``i`` is of environment ``i % num_envs``, or as int64 ``whose
    [3, B]`` says: the environment, its row before or -1, whether it is its last row.
    """
    count, capacity, num_envs = obs[0].shape[0], len(ring.next_slot), len(frames.newest)
    fields = ring.fields[: len(obs)]
    tiles = tiles_of(fields)
    grid = (triton.cdiv(count, tiles.rows), tiles.pieces)
    sizes = (count, capacity, num_envs)
    shapes = {"WIDTHS": tiles.widths, "SPANS": tiles.spans, "ROWS": tiles.rows}
    options = {"num_warps": tiles.num_warps, "enable_fp_fusion": False}
    with current(ring.counters.device):
        if count:
            _compare_kernel[grid](
                ring.counters,
                frames.newest,
                frames.differs,
                whose,
                _as_integers(obs),
                _as_integers(following),
                _as_integers(fields),
                *sizes,
                **shapes,
                **options,
            )
        _settle_kernel[(1,)](
            ring.counters, *frames, whose, *sizes, num_warps=4, enable_fp_fusion=False
        )
        if count:
            _move_kernel[grid](
                ring.counters,
                frames.next_frame,
                frames.moved,
                _as_integers(following),
                _as_integers(fields),
                _as_integers(breaks),
                *sizes,
                **shapes,
                **options,
            )


def _as_integers(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The same bits, which are compared and copied whatever number they are."""
    return tuple(x.view(_INTEGERS[x.element_size()]) for x in tensors)
