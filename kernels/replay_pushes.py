"""Pushes into a replay buffer on the device, one launch each.

A transition is copied once: a push reads and writes its bytes and 32 of the links.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from ._layout import as_bytes
from ._runtime import current
from .replay import PUSHED, Ring, leave, load_row, store_row, tiles_of

_PUSHED = tl.constexpr(PUSHED)


@triton.jit
def _latest(a, b):
    return tl.maximum(a, b)


@triton.jit
def _link(
    next_slot,
    step_at,
    tails,
    terminated,
    truncated,
    pushed,
    count,
    capacity,
    num_envs,
    STEPS: tl.constexpr,
    ENVS: tl.constexpr,
):
    """Note which transition follows which; a program walks its environments through the rows."""
    env = tl.program_id(0).to(tl.int64) * ENVS + tl.arange(0, ENVS)[None, :]
    there = env < num_envs
    number = tl.load(tails + 3 * env, mask=there, other=0)
    slot = tl.load(tails + 3 * env + 1, mask=there, other=-1)
    step = tl.load(tails + 3 * env + 2, mask=there, other=0)
    # One that these rows overwrite is not linked to them.
    linked = there & (slot >= 0) & (number >= pushed + count - capacity)
    tl.store(next_slot + slot, ((pushed + env) % capacity).to(tl.int32), mask=linked)
    # The place, in rows of the environment, at which its running episode began.
    begun = tl.where(slot >= 0, -1 - step, 0)
    ended = tl.zeros([1, ENVS], tl.int64)
    steps = count // num_envs
    start = tl.full([], 0, tl.int64)
    while start < steps:
        place = start + tl.arange(0, STEPS)[:, None]
        inside = there & (place < steps)
        row = place * num_envs + env
        before = inside & (place > 0)
        cut = tl.load(terminated + row - num_envs, mask=before, other=0)
        cut = cut | tl.load(truncated + row - num_envs, mask=before, other=0)
        begins = tl.where(cut != 0, place, begun)
        begins = tl.associative_scan(begins, 0, _latest)
        here = (pushed + row) % capacity
        ends = tl.load(terminated + row, mask=inside, other=0)
        ends = ends | tl.load(truncated + row, mask=inside, other=0)
        follows = (ends == 0) & (place + 1 < steps)
        following = tl.where(follows, (here + num_envs) % capacity, -1)
        tl.store(next_slot + here, following.to(tl.int32), mask=inside)
        tl.store(step_at + here, (place - begins).to(tl.int32), mask=inside)
        begun = tl.max(begins, 0, keep_dims=True)
        ended = tl.max(tl.where(place == steps - 1, ends.to(tl.int64), 0), 0, keep_dims=True)
        start += STEPS
    final = (steps - 1) * num_envs + env
    # Lanes that hold the same environment have read its tail before one of them writes it.
    tl.debug_barrier()
    tl.store(tails + 3 * env, pushed + final, mask=there)
    tl.store(tails + 3 * env + 1, tl.where(ended != 0, -1, (pushed + final) % capacity), mask=there)
    tl.store(tails + 3 * env + 2, steps - 1 - begun, mask=there)


@triton.jit(do_not_specialize=["count", "capacity", "num_envs"])
def _push_kernel(
    counters,
    next_slot,
    step_at,
    tails,
    rows,
    fields,
    count,
    capacity,
    num_envs,
    WIDTHS: tl.constexpr,
    SPANS: tl.constexpr,
    ROWS: tl.constexpr,
    STEPS: tl.constexpr,
    ENVS: tl.constexpr,
):
    """A program copies a piece of some rows; the first ones walk environments as well."""
    pushed = tl.load(counters + _PUSHED)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    inside = row < count
    slot = (pushed + row) % capacity
    loaded = ()
    for f in tl.static_range(len(WIDTHS)):
        loaded = loaded + (load_row(rows[f], row, inside, WIDTHS[f], SPANS[f]),)
    for f in tl.static_range(len(WIDTHS)):
        store_row(fields[f], slot, inside, loaded[f], WIDTHS[f], SPANS[f])
    if next_slot is not None:  # noqa: SIM102 - the compiler's decision, then the program's
        if (tl.program_id(1) == 0) & (tl.program_id(0) * ENVS < num_envs):
            FLAGS: tl.constexpr = len(WIDTHS) - 2
            _link(
                next_slot,
                step_at,
                tails,
                rows[FLAGS],
                rows[FLAGS + 1],
                pushed,
                count,
                capacity,
                num_envs,
                STEPS,
                ENVS,
            )
    leave(counters, _PUSHED, pushed + count)


def launch_push(ring: Ring, rows: Sequence[torch.Tensor], num_envs: int, *, link: bool) -> None:
    """Append contiguous ``rows [B, ...]``, at most as many as there are slots.

    Row ``i`` is of environment ``i % num_envs``; with ``link=False`` the links are the caller's.
    """
    count, capacity = rows[0].shape[0], len(ring.next_slot)
    tiles = tiles_of(ring.fields)
    envs = min(128, triton.next_power_of_2(num_envs))
    with current(ring.counters.device):
        _push_kernel[(triton.cdiv(count, tiles.rows), tiles.pieces)](
            ring.counters,
            ring.next_slot if link else None,
            ring.step,
            ring.tails,
            tuple(map(as_bytes, rows)),
            tuple(map(as_bytes, ring.fields)),
            count,
            capacity,
            num_envs,
            WIDTHS=tiles.widths,
            SPANS=tiles.spans,
            ROWS=tiles.rows,
            STEPS=min(128 // envs * 4, triton.next_power_of_2(-(-count // num_envs))),
            ENVS=envs,
            num_warps=tiles.num_warps,
            enable_fp_fusion=False,
        )
