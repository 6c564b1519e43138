"""Sequences of consecutive transitions, drawn on the device as on the CPU.

Elements try random starts, usually with success at once. From the first element on that has none
after all its attempts, starts are drawn from all that there are: their number in each block of
slots is counted, and a lane looks for its own in the block that holds it. Where all elements have
found one, the launch that counts ends with reading that.
"""

import torch
import triton
import triton.language as tl

from ._runtime import current
from .random import philox
from .replay import DRAWS, NO_SEQUENCE, PUSHED, Ring, below, report

_PUSHED, _DRAWS = tl.constexpr(PUSHED), tl.constexpr(DRAWS)
_NO_SEQUENCE = tl.constexpr(NO_SEQUENCE)
_STREAM = tl.constexpr(7)
# Attempts at an element before all starts are counted.
_ATTEMPTS = tl.constexpr(64)
_SLOTS = tl.constexpr(1024)  # of a block
_SCAN = tl.constexpr(128)
_ROWS = 8


@triton.jit
def _attempt(row, number, n, seed, step):
    w0, w1, _, _ = philox(seed, row + (number.to(tl.int64) << 32), step, _STREAM)
    return below(n, w0, w1)


@triton.jit
def _begins(next_slot, step_at, slot, inside, length, stride):
    """Whether a sequence begins at slots of any shape."""
    step = tl.load(step_at + slot, mask=inside, other=0).to(tl.uint32, bitcast=True)
    good = inside & (step.to(tl.int64) % stride == 0)
    at = slot
    walked = 1
    while (walked < length) & (tl.max(good.to(tl.int32).ravel(), 0) > 0):
        at = tl.load(next_slot + at, mask=good, other=-1).to(tl.int64)
        good = good & (at >= 0)
        walked += 1
    return good


@triton.jit
def _draw_step(counters, seeded):
    return tl.where(seeded != 0, 0, tl.load(counters + _DRAWS) + 1).to(tl.uint32)


@triton.jit
def _first_without(starts, count):
    """The first element that has no start, ``count`` if all have one."""
    first = tl.full([_SLOTS], 0, tl.int64) + count
    place = tl.arange(0, _SLOTS).to(tl.int64)
    while tl.min(place, 0) < count:
        start = tl.load(starts + place, mask=place < count, other=0)
        first = tl.minimum(first, tl.where(start < 0, place, count))
        place += _SLOTS
    return tl.min(first, 0)


@triton.jit(do_not_specialize=["count", "length", "stride", "capacity", "seed", "seeded"])
def _attempt_kernel(
    counters,
    next_slot,
    step_at,
    starts,
    count,
    length,
    stride,
    capacity,
    seed: "u64",  # noqa: F821
    seeded,
    ROWS: tl.constexpr,
):
    """A lane tries until it has a start, -1 if it finds none."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    inside = row < count
    transitions = tl.minimum(tl.load(counters + _PUSHED), capacity)
    step = _draw_step(counters, seeded)
    start = tl.full([ROWS, 1], -1, tl.int64)
    number = tl.full([], 0, tl.int32)
    searching = inside
    while (number < _ATTEMPTS) & (tl.max(searching.to(tl.int32).ravel(), 0) > 0):
        slot = _attempt(row, number, transitions, seed, step)
        good = _begins(next_slot, step_at, slot, searching, length, stride)
        start = tl.where(good, slot, start)
        searching = searching & (good == 0)
        number += 1
    tl.store(starts + row, start, mask=inside)


@triton.jit(do_not_specialize=["count", "length", "stride", "capacity"])
def _count_kernel(counters, next_slot, step_at, starts, found, count, length, stride, capacity):
    """Where an element has no start, the number of starts in each block of slots."""
    if _first_without(starts, count) < count:
        transitions = tl.minimum(tl.load(counters + _PUSHED), capacity)
        slot = tl.program_id(0).to(tl.int64) * _SLOTS + tl.arange(0, _SLOTS)
        good = _begins(next_slot, step_at, slot, slot < transitions, length, stride)
        tl.store(found + tl.program_id(0), tl.sum(good.to(tl.int32), 0))


@triton.jit
def _block_of(found, blocks, target, ROWS: tl.constexpr):
    """The block that holds start ``target [R, 1]``, and the starts before it."""
    block = tl.zeros([ROWS, 1], tl.int64)
    before = tl.zeros([ROWS, 1], tl.int64)
    passed = tl.full([], 0, tl.int64)
    first = tl.full([], 0, tl.int64)
    while first < blocks:
        place = first + tl.arange(0, _SCAN)[None, :]
        here = tl.load(found + place, mask=place < blocks, other=0).to(tl.int64)
        until = passed + tl.cumsum(here, 1)
        behind = (until <= target) & (place < blocks)
        block += tl.sum(behind.to(tl.int64), 1, keep_dims=True)
        before = tl.maximum(before, tl.max(tl.where(behind, until, 0), 1, keep_dims=True))
        passed += tl.sum(here.ravel(), 0)
        first += _SCAN
    return block, before


@triton.jit
def _total_of(found, blocks):
    total = tl.full([], 0, tl.int64)
    first = tl.full([], 0, tl.int64)
    while first < blocks:
        place = first + tl.arange(0, _SCAN)
        total += tl.sum(tl.load(found + place, mask=place < blocks, other=0).to(tl.int64), 0)
        first += _SCAN
    return total


@triton.jit(do_not_specialize=["count", "length", "stride", "capacity", "blocks", "seed", "seeded"])
def _follow_kernel(
    counters,
    errors,
    next_slot,
    step_at,
    starts,
    found,
    slots,
    count,
    length,
    stride,
    capacity,
    blocks,
    seed: "u64",  # noqa: F821
    seeded,
    ROWS: tl.constexpr,
):
    """A lane writes the slots of its sequence; without a start, it takes one of all there are."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    inside = row < count
    start = tl.load(starts + row, mask=inside, other=0)
    first = _first_without(starts, count)
    if first < count:
        total = _total_of(found, blocks)
        if total == 0:
            start = tl.zeros([ROWS, 1], tl.int64)
            if tl.program_id(0) == 0:
                report(errors, _NO_SEQUENCE, 0, 0)
        else:
            transitions = tl.minimum(tl.load(counters + _PUSHED), capacity)
            step = _draw_step(counters, seeded)
            number = tl.full([], _ATTEMPTS, tl.int32)
            target = _attempt(row, number, total, seed, step)
            block, before = _block_of(found, blocks, target, ROWS)
            wanted = inside & (row >= first)
            offset = 0
            while offset < _SLOTS:
                slot = block * _SLOTS + offset + tl.arange(0, _SCAN)[None, :]
                there = wanted & (slot < transitions)
                good = _begins(next_slot, step_at, slot, there, length, stride)
                rank = before + tl.cumsum(good.to(tl.int64), 1)
                hit = good & (rank == target + 1)
                here = tl.max(tl.where(hit, slot, -1), 1, keep_dims=True)
                start = tl.where(wanted & (here >= 0), here, start)
                before = tl.max(rank, 1, keep_dims=True)
                offset += _SCAN
    at = start
    for walked in range(0, length):
        tl.store(slots + row * length + walked, at, mask=inside)
        at = tl.load(next_slot + at, mask=inside, other=0).to(tl.int64)
        at = tl.where(at < 0, 0, at)


def launch_sequences(ring: Ring, slots: torch.Tensor, stride: int, seed: int, seeded: bool) -> None:
    """Write the slots of uniformly drawn sequences to int64 ``slots [B, L]``."""
    count, length = slots.shape
    capacity = len(ring.next_slot)
    device = slots.device
    blocks = triton.cdiv(capacity, _SLOTS.value)
    starts = torch.empty(count, dtype=torch.int64, device=device)
    found = torch.empty(blocks, dtype=torch.int32, device=device)
    links = (ring.next_slot, ring.step)
    sizes = (count, length, stride, capacity)
    grid = (triton.cdiv(count, _ROWS),)
    draw = (seed, int(seeded))
    with current(device):
        _attempt_kernel[grid](
            ring.counters,
            *links,
            starts,
            *sizes,
            *draw,
            ROWS=_ROWS,
            num_warps=1,
            enable_fp_fusion=False,
        )
        _count_kernel[(blocks,)](
            ring.counters, *links, starts, found, *sizes, num_warps=4, enable_fp_fusion=False
        )
        _follow_kernel[grid](
            ring.counters,
            ring.errors,
            *links,
            starts,
            found,
            slots,
            *sizes,
            blocks,
            *draw,
            ROWS=_ROWS,
            num_warps=4,
            enable_fp_fusion=False,
        )
