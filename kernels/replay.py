"""A replay buffer's ring on the device: pushing and sampling, one launch each.

Draws are those of the CPU, word for word. A transition is copied once: pushing reads and writes
its bytes and 32 of the links, sampling reads and writes its bytes; a prioritised draw reads two
lines of 64 bytes of each level of the tree, most of which stay in the caches. What changes from
call to call is kept on the device, so that a captured graph goes on where its last replay ended.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ._launch import REGISTERS
from ._layout import as_bytes
from ._runtime import current
from .random import philox
from .sum_tree import find, levels_of, total_and_least
from .transcendental import exp_64, ln_64

# Where in a buffer's counters; the ticket is zero between launches.
PUSHED, DRAWS, TICKET = 0, 1, 2
_PUSHED, _DRAWS, _TICKET = tl.constexpr(PUSHED), tl.constexpr(DRAWS), tl.constexpr(TICKET)
# Where in its numbers.
LARGEST, BETA = 0, 1
_BETA = tl.constexpr(BETA)
# What is wrong, to be told at the next call.
BAD_INDEX, BAD_PRIORITY, ALL_ZERO, NO_SEQUENCE = 1, 2, 3, 4
_ALL_ZERO = tl.constexpr(ALL_ZERO)

_UNIFORM_STREAM, _PRIORITY_STREAM = tl.constexpr(5), tl.constexpr(6)
_ROW_CHUNK = 4096  # bytes of a row that a program copies
_TILE = 512  # elements of the widest tile of one warp


class Ring(NamedTuple):
    """What a buffer consists of.

    ``fields``, arrays ``[capacity, ...]``, are the parts of observations, those of next
    observations, actions, rewards, terminated, truncated. Where observations are stored once, the
    next ones' are those of the observations again, longer than the ring (``replay_frames``).
    ``tails`` has for each environment the number, the slot and the step of the transition that its
    next one follows, slot -1 for none.
    """

    counters: torch.Tensor
    errors: torch.Tensor
    fields: tuple[torch.Tensor, ...]
    next_slot: torch.Tensor
    step: torch.Tensor
    tails: torch.Tensor


@triton.jit
def report(errors, code, at, bits):
    """Note the first thing that is wrong; the host reads the code without waiting."""
    if tl.load(errors) == 0:
        tl.store(errors + 1, at)
        tl.store(errors + 2, bits)
        tl.debug_barrier()
        tl.store(errors, code)


@triton.jit
def below(n, low, high):
    """The high 64 bits of ``n``, at most 2**32, times the number of two words."""
    n = n.to(tl.uint64)
    return ((high.to(tl.uint64) * n + ((low.to(tl.uint64) * n) >> 32)) >> 32).to(tl.int64)


@triton.jit
def leave(counters, which: tl.constexpr, number):
    """The last program to end sets a counter, which all have read by then."""
    tl.debug_barrier()
    programs = tl.num_programs(0) * tl.num_programs(1)
    if tl.atomic_add(counters + _TICKET, 1) == programs - 1:
        tl.store(counters + _TICKET, 0)
        tl.store(counters + which, number)


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
def place(row, inside, WIDTH: tl.constexpr, SPAN: tl.constexpr):
    """Where this program's piece of rows ``[R, 1]`` lies, and which of it there is."""
    column = tl.program_id(1) * SPAN + tl.arange(0, SPAN)[None, :]
    return row * WIDTH + column, inside & (column < WIDTH)


@triton.jit
def load_row(source, row, inside, WIDTH: tl.constexpr, SPAN: tl.constexpr):
    """A program's piece of rows ``[R, 1]`` of ``source``; anything outside of them."""
    at, there = place(row, inside, WIDTH, SPAN)
    return tl.load(source + at, mask=there)


@triton.jit
def _load_frame(
    frames, breaks, frame, first_break, inside, WIDTH: tl.constexpr, SPAN: tl.constexpr
):
    is_break = frame >= first_break
    x = load_row(frames, frame, inside & (is_break == 0), WIDTH, SPAN)
    y = load_row(breaks, frame - first_break, inside & is_break, WIDTH, SPAN)
    return tl.where(is_break, y, x)


@triton.jit
def store_row(target, row, inside, x, WIDTH: tl.constexpr, SPAN: tl.constexpr):
    """Write ``x`` there."""
    at, there = place(row, inside, WIDTH, SPAN)
    tl.store(target + at, x, mask=there)


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


class _Tiles(NamedTuple):
    widths: tuple[int, ...]
    spans: tuple[int, ...]
    rows: int
    pieces: int
    num_warps: int


def tiles_of(fields: Sequence[torch.Tensor]) -> _Tiles:
    """How programs share the rows of ``fields [capacity, ...]``."""
    widths = tuple(x[0].numel() for x in fields)
    spans = tuple(
        min(triton.next_power_of_2(width), _ROW_CHUNK // x.element_size())
        for width, x in zip(widths, fields, strict=True)
    )
    pieces = max(-(-width // span) for width, span in zip(widths, spans, strict=True))
    # As few warps as the tile needs: each of them draws its rows and walks the tree.
    num_warps = min(4, max(1, 16 * max(spans) // _TILE))
    rows = max(1, min(16, num_warps * _TILE // max(spans)))
    return _Tiles(widths, spans, rows, pieces, num_warps)


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
