"""Priorities of a replay buffer on the device: any number of them set by one launch.

One program does it, level by level with barriers in between: an update reads and writes a weight
and the lines above it, 72 bytes a level, and updates of a few thousand are the usual ones. Of
several priorities for one index the last one stays, as on the CPU: before any weight is written,
each index notes the last place that names it.
"""

import torch
import triton
import triton.language as tl

from ._launch import REGISTERS
from ._runtime import current
from .replay import BAD_INDEX, BAD_PRIORITY, LARGEST, PUSHED, Ring, report
from .sum_tree import base_of, levels_of, nodes_at, recompute
from .transcendental import exp_64, ln_64

_PUSHED, _LARGEST = tl.constexpr(PUSHED), tl.constexpr(LARGEST)
_BAD_INDEX, _BAD_PRIORITY = tl.constexpr(BAD_INDEX), tl.constexpr(BAD_PRIORITY)
# The largest weight: 2**32 of them have a finite sum.
_MOST = tl.constexpr(1e290)
_BLOCK = 256


@triton.jit
def _weight_of(priority, alpha):
    """``priority ** alpha``; anything for what is no priority."""
    power = tl.full(priority.shape, alpha, tl.float64)
    common = (priority > 0.0) & (priority < float("inf"))
    raised = exp_64(power * ln_64(tl.where(common, priority, 1.0)))
    raised = tl.where((power == 1.0) | (common == 0), priority, raised)
    return tl.where(power == 0.0, 1.0, raised)


@triton.jit
def _first_bad(indices, priorities, count, length, alpha, BLOCK: tl.constexpr):
    """The first place with something wrong, ``count`` if all is well, and the largest weight."""
    lane = tl.arange(0, BLOCK)[:, None]
    wrong = tl.full([BLOCK, 1], 0, tl.int64) + count
    most = tl.zeros([BLOCK, 1], tl.float64)
    start = tl.full([], 0, tl.int64)
    while start < count:
        place = start + lane
        inside = place < count
        priority = tl.load(priorities + place, mask=inside, other=1.0).to(tl.float64)
        weight = _weight_of(priority, alpha)
        good = (priority >= 0.0) & (priority < float("inf")) & (weight <= _MOST)
        if indices is not None:
            index = tl.load(indices + place, mask=inside, other=0)
            good = good & (index >= 0) & (index < length)
        wrong = tl.minimum(wrong, tl.where(inside & (good == 0), place, count))
        most = tl.maximum(most, tl.where(inside & good, weight, 0.0))
        start += BLOCK
    return tl.min(wrong.ravel(), 0), tl.max(most.ravel(), 0)


@triton.jit
def _report_bad(errors, indices, priorities, at, length):
    code = tl.full([], _BAD_PRIORITY, tl.int64)
    bits = tl.load(priorities + at).to(tl.float64).to(tl.int64, bitcast=True)
    if indices is not None:
        index = tl.load(indices + at)
        wrong = (index < 0) | (index >= length)
        code, bits = tl.where(wrong, _BAD_INDEX, code), tl.where(wrong, index, bits)
    report(errors, code, at, bits)


@triton.jit
def _elect(owners, indices, count, BLOCK: tl.constexpr):
    """Note for each index the last place that names it."""
    start = tl.full([], 0, tl.int64)
    while start < count:
        place = start + tl.arange(0, BLOCK)[:, None]
        inside = place < count
        index = tl.load(indices + place, mask=inside, other=0)
        tl.atomic_max(owners + index, place.to(tl.int32), mask=inside, sem="relaxed")
        start += BLOCK
    tl.debug_barrier()


@triton.jit
def _forget(owners, indices, count, BLOCK: tl.constexpr):
    tl.debug_barrier()
    start = tl.full([], 0, tl.int64)
    while start < count:
        place = start + tl.arange(0, BLOCK)[:, None]
        inside = place < count
        index = tl.load(indices + place, mask=inside, other=0)
        tl.store(owners + index, tl.full(place.shape, -1, tl.int32), mask=inside)
        start += BLOCK


@triton.jit
def _write_weights(
    weights,
    owners,
    indices,
    priorities,
    count,
    first,
    capacity,
    alpha,
    given,
    otherwise,
    BLOCK: tl.constexpr,
):
    """The weights of ``count`` priorities where these are ``given``, else all the same."""
    start = tl.full([], 0, tl.int64)
    while start < count:
        place = start + tl.arange(0, BLOCK)[:, None]
        inside = place < count
        weight = tl.zeros(place.shape, tl.float64) + otherwise
        if priorities is not None:
            priority = tl.load(priorities + place, mask=inside, other=1.0).to(tl.float64)
            weight = tl.where(given, _weight_of(priority, alpha), weight)
        if indices is not None:
            index = tl.load(indices + place, mask=inside, other=0)
            owner = tl.load(owners + index, mask=inside, other=-1)
            inside = inside & (owner == place)
        else:
            index = (first + place) % capacity
        tl.store(weights + index, weight, mask=inside)
        start += BLOCK


@triton.jit
def _sum_up(
    sums,
    least,
    indices,
    count,
    first,
    capacity,
    all_of_it,
    LEVELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Recompute what stands above changed weights, or everything where that is not more."""
    for level in tl.static_range(1, LEVELS):
        tl.debug_barrier()
        nodes = nodes_at(capacity, level - 1)
        span = tl.full([], 8**level, tl.int64)
        if indices is None:
            # A weight of each node that the ring's rows touch: steps of a node's width, and the
            # last weights of the rows and of the ring, whose nodes may be cut short.
            steps = (count + (span - 1)) // span + 1
            touched = steps + 1
        else:
            touched = count
        every = (touched >= nodes) | all_of_it
        touched = tl.where(every, nodes, touched)
        start = tl.full([], 0, tl.int64)
        while start < touched:
            place = start + tl.arange(0, BLOCK)[:, None]
            inside = place < touched
            if indices is None:
                near = tl.minimum(place * span, count - 1)
                near = tl.where(place < steps, near, tl.minimum(capacity - 1 - first, count - 1))
                index = (first + near) % capacity
            else:
                index = tl.load(indices + place, mask=inside & (place < count), other=0)
            node = tl.where(every, place, index // span)
            recompute(sums, least, node, inside, capacity, level, LEVELS)
            start += BLOCK


@triton.jit(do_not_specialize=["count", "capacity"])
def _update_kernel(
    counters,
    errors,
    sums,
    least,
    numbers,
    owners,
    indices,
    priorities,
    count,
    capacity,
    alpha: "fp64",  # noqa: F821
    LEVELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program; without indices the newest ``count`` transitions are meant."""
    count = tl.full([], 0, tl.int64) + count
    pushed = tl.load(counters + _PUSHED)
    length = tl.minimum(pushed, capacity)
    first = (pushed - count) % capacity
    largest = tl.load(numbers + _LARGEST)
    weights = sums + base_of(capacity, 0, LEVELS)
    all_of_it = count == 0
    given = count >= 0
    most = largest
    if priorities is not None:
        bad, most = _first_bad(indices, priorities, count, length, alpha, BLOCK)
        given = bad == count
        if bad < count:
            _report_bad(errors, indices, priorities, bad, length)
    if indices is not None:
        count = tl.where(given, count, 0)
        _elect(owners, indices, count, BLOCK)
    # New transitions are there in any case: with bad priorities, as if they had come without.
    _write_weights(
        weights, owners, indices, priorities, count, first, capacity, alpha, given, largest, BLOCK
    )
    if indices is not None:
        _forget(owners, indices, count, BLOCK)
    _sum_up(sums, least, indices, count, first, capacity, all_of_it, LEVELS, BLOCK)
    if priorities is not None:
        # All threads have read the old one.
        tl.debug_barrier()
        tl.store(numbers + _LARGEST, tl.where(given, tl.maximum(largest, most), largest))


def launch_update(
    ring: Ring,
    tree: tuple[torch.Tensor, ...],
    owners: torch.Tensor,
    indices: torch.Tensor | None,
    priorities: torch.Tensor | None,
    count: int,
    alpha: float,
) -> None:
    """Set the priorities of ``indices``, or of the newest ``count`` transitions.

    Without priorities these get the largest weight so far. A count of 0 sums up all weights.
    """
    capacity = len(ring.next_slot)
    sums, least, numbers = tree
    with current(ring.counters.device):
        _update_kernel[(1,)](
            ring.counters,
            ring.errors,
            sums,
            least,
            numbers,
            owners,
            indices,
            priorities,
            count,
            capacity,
            alpha,
            LEVELS=levels_of(capacity),
            BLOCK=_BLOCK,
            num_warps=8,
            maxnreg=REGISTERS,
            enable_fp_fusion=False,
        )
