"""Samples of a replay buffer on the device, one launch each.

Draws are those of the CPU, word for word. A transition is copied once: a sample reads and writes
its bytes; a prioritised draw reads two lines of 64 bytes of each level of the tree, most of which
stay in the caches.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from ._launch import REGISTERS
from ._layout import as_bytes
from ._runtime import current
from .random import philox
from .replay import (
    ALL_ZERO,
    BETA,
    DRAWS,
    PUSHED,
    Ring,
    below,
    leave,
    load_row,
    report,
    store_row,
    tiles_of,
)
from .sum_tree import find, levels_of, total_and_least
from .transcendental import exp_64, ln_64

_PUSHED, _DRAWS = tl.constexpr(PUSHED), tl.constexpr(DRAWS)
_BETA, _ALL_ZERO = tl.constexpr(BETA), tl.constexpr(ALL_ZERO)
_UNIFORM_STREAM, _PRIORITY_STREAM = tl.constexpr(5), tl.constexpr(6)


@triton.jit
def _uniform_slots(row, length, seed, step):
    w0, w1, w2, w3 = philox(seed, row // 2, step, _UNIFORM_STREAM)
    even = row % 2 == 0
    return below(length, tl.where(even, w0, w2), tl.where(even, w1, w3))


@triton.jit
def _unit_64(high, low):
    bits = ((high >> 5).to(tl.uint64) << 26) | (low >> 6).to(tl.uint64)
    return bits.to(tl.float64) * (1.0 / 9007199254740992.0)


@triton.jit
def _slots_by_priority(
    errors, sums, least, numbers, row, inside, count, capacity, seed, step, LEVELS: tl.constexpr
):
    """A slot from each stratum, and its importance weight."""
    total, lowest = total_and_least(sums, least, LEVELS)
    w0, w1, _, _ = philox(seed, row, step, _PRIORITY_STREAM)
    stratum = total / tl.full([1, 1], count, tl.int64).to(tl.float64)
    target = (row.to(tl.float64) + _unit_64(w0, w1)) * stratum
    slot, weight = find(sums, target, inside, capacity, LEVELS)
    ratio = tl.where(inside & (weight > 0.0), weight / lowest, 1.0)
    importance = exp_64(-tl.load(numbers + _BETA) * ln_64(ratio)).to(tl.float32)
    nothing = tl.max(total.ravel(), 0) == 0.0
    if (tl.program_id(0) == 0) & (tl.program_id(1) == 0) & nothing:
        report(errors, _ALL_ZERO, 0, 0)
    return slot, tl.where(nothing, 0.0, importance)


@triton.jit
def _slots(tree, given, row, inside, sizes, seed, step, LEVELS: tl.constexpr):
    """The slots of rows, given or drawn, and importance weights where there are priorities."""
    errors, sums, least, numbers = tree
    count, length, capacity = sizes
    importance = 1.0
    if given is not None:
        slot = tl.load(given + row, mask=inside, other=0)
    elif sums is None:
        slot = _uniform_slots(row, length, seed, step)
    else:
        slot, importance = _slots_by_priority(
            errors, sums, least, numbers, row, inside, count, capacity, seed, step, LEVELS
        )
    return slot, importance


@triton.jit
def _walk_on(next_slot, rewards, slot, inside, n_step, gamma):
    """The last of up to ``n_step`` transitions from ``slot`` on, their reward, its discount."""
    last = slot
    total = tl.load(rewards + slot, mask=inside, other=0.0).to(tl.float64)
    rate = tl.full(slot.shape, gamma, tl.float64)
    discount = rate
    going = inside
    for _ in range(1, n_step):
        following = tl.load(next_slot + last, mask=going, other=-1).to(tl.int64)
        going = going & (following >= 0)
        last = tl.where(going, following, last)
        reward = tl.load(rewards + last, mask=going, other=0.0).to(tl.float64)
        total = tl.where(going, total + discount * reward, total)
        discount = tl.where(going, discount * rate, discount)
    return last, total, discount


@triton.jit
def _load_frame(
    frames, breaks, frame, first_break, inside, WIDTH: tl.constexpr, SPAN: tl.constexpr
):
    is_break = frame >= first_break
    x = load_row(frames, frame, inside & (is_break == 0), WIDTH, SPAN)
    y = load_row(breaks, frame - first_break, inside & is_break, WIDTH, SPAN)
    return tl.where(is_break, y, x)


@triton.jit(do_not_specialize=["count", "capacity", "first_break", "seed", "seeded", "n_step"])
def _sample_kernel(
    counters,
    errors,
    sums,
    least,
    numbers,
    given,
    next_slot,
    next_frame,
    fields,
    breaks,
    results,
    discounts,
    weights,
    indices,
    count,
    capacity,
    first_break,
    seed: "u64",  # noqa: F821
    seeded,
    n_step,
    gamma: "fp64",  # noqa: F821
    PARTS: tl.constexpr,
    WIDTHS: tl.constexpr,
    SPANS: tl.constexpr,
    LEVELS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """A program draws some rows and copies a piece of them; the first pieces' write the rest."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    inside = row < count
    length = tl.minimum(tl.load(counters + _PUSHED), capacity)
    draws = tl.load(counters + _DRAWS)
    # A sample with a seed of its own is no draw of the buffer's.
    step = tl.where(seeded != 0, 0, draws + 1).to(tl.uint32)
    tree = (errors, sums, least, numbers)
    sizes = (count, length, capacity)
    slot, importance = _slots(tree, given, row, inside, sizes, seed, step, LEVELS)
    if weights is not None:  # noqa: SIM102 - the compiler's decision, then the program's
        if tl.program_id(1) == 0:
            tl.store(weights + row, importance, mask=inside)
            tl.store(indices + row, slot, mask=inside)
    last = slot
    REWARDS: tl.constexpr = 2 * PARTS + 1
    if next_slot is not None:
        last, reward, discount = _walk_on(next_slot, fields[REWARDS], slot, inside, n_step, gamma)
        if tl.program_id(1) == 0:
            tl.store(discounts + row, discount.to(tl.float32), mask=inside)
    if next_frame is not None:
        frame = tl.load(next_frame + last, mask=inside, other=0).to(tl.int64)

    # All loads are under way before the first of them is waited for.
    loaded = ()
    for f in tl.static_range(len(WIDTHS)):
        if next_frame is not None and f >= PARTS and f < 2 * PARTS:
            x = _load_frame(
                fields[f], breaks[f - PARTS], frame, first_break, inside, WIDTHS[f], SPANS[f]
            )
        elif f == REWARDS and next_slot is not None:
            x = reward.to(tl.float32)
        else:
            # What comes after a transition is taken from the last one of several.
            at = last if (f >= PARTS and f < 2 * PARTS) or f > REWARDS else slot
            x = load_row(fields[f], at, inside, WIDTHS[f], SPANS[f])
        loaded = loaded + (x,)
    for f in tl.static_range(len(WIDTHS)):
        store_row(results[f], row, inside, loaded[f], WIDTHS[f], SPANS[f])
    leave(counters, _DRAWS, tl.where(seeded != 0, draws, draws + 1))


def launch_sample(
    ring: Ring,
    tree: tuple[torch.Tensor, ...] | None,
    slots: torch.Tensor | None,
    next_frame: torch.Tensor | None,
    breaks: Sequence[torch.Tensor],
    results: Sequence[torch.Tensor],
    extra: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
    seed: int,
    seeded: bool,
    n_step: int,
    gamma: float,
) -> None:
    """Fill ``results [B, ...]``: one for each field, then discounts, weights and indices.

    The slots are drawn by the priorities of ``tree`` (sums, least, numbers), or are given, or are
    drawn uniformly. ``next_frame`` and ``breaks`` are there if observations are stored once.
    """
    count, capacity = results[0].shape[0], len(ring.next_slot)
    tiles = tiles_of(ring.fields)
    sums, least, numbers = (None, None, None) if tree is None else tree
    discounts, weights, indices = extra
    with current(ring.counters.device):
        _sample_kernel[(triton.cdiv(count, tiles.rows), tiles.pieces)](
            ring.counters,
            ring.errors,
            sums,
            least,
            numbers,
            slots,
            None if discounts is None else ring.next_slot,
            next_frame,
            tuple(map(as_bytes, ring.fields)),
            None if next_frame is None else tuple(map(as_bytes, breaks)),
            tuple(map(as_bytes, results)),
            discounts,
            weights,
            indices,
            count,
            capacity,
            ring.fields[0].shape[0],
            seed,
            int(seeded),
            n_step,
            gamma,
            PARTS=(len(ring.fields) - 4) // 2,
            WIDTHS=tiles.widths,
            SPANS=tiles.spans,
            LEVELS=levels_of(capacity),
            ROWS=tiles.rows,
            num_warps=tiles.num_warps,
            maxnreg=REGISTERS,
            enable_fp_fusion=False,
        )
