"""Sums and least values of weights as a tree on the device, number for number that of the CPU.

A node is eight float64 in a line of 64 bytes. Levels lie one after the other, the root's node
first and the weights last; level ``l`` has an entry for each node of level ``l - 1``. Parents are
sums of their children in order, never changed by differences: the totals depend on the weights
alone. Kernels that use these are compiled without fused operations.
"""

import torch
import triton
import triton.language as tl

FAN_OUT = 8
_FAN_OUT = tl.constexpr(FAN_OUT)


def levels_of(capacity: int) -> int:
    """How many levels the tree over ``capacity`` weights has."""
    levels, nodes = 1, -(-capacity // FAN_OUT)
    while nodes > 1:
        levels, nodes = levels + 1, -(-nodes // FAN_OUT)
    return levels


def entries_above(capacity: int) -> int:
    """Where the weights begin: the entries of all other levels together."""
    return sum(
        FAN_OUT * -(-capacity // FAN_OUT ** (up + 1)) for up in range(1, levels_of(capacity))
    )


@triton.jit
def nodes_at(capacity, LEVEL: tl.constexpr):
    """Nodes of a level, the weights being level 0."""
    span: tl.constexpr = 8 ** (LEVEL + 1)
    return (capacity.to(tl.int64) + (span - 1)) // span


@triton.jit
def base_of(capacity, LEVEL: tl.constexpr, LEVELS: tl.constexpr):
    """Where a level begins."""
    base = tl.full([], 0, tl.int64)
    for up in tl.static_range(LEVEL + 1, LEVELS):
        base += _FAN_OUT * nodes_at(capacity, up)
    return base


@triton.jit
def _pair(line, inside, outside, FIRST: tl.constexpr):
    """Two neighbours of lines ``[R, 1]``, which one access of a lane takes."""
    place = FIRST + tl.arange(0, 2)[None, :]
    pair = tl.load(line + place, mask=inside, other=outside)
    return tl.split(tl.reshape(pair, [pair.shape[0], 1, 2]))


@triton.jit
def children(line, inside, outside):
    """The eight numbers of lines ``[R, 1]``, in order, as a tuple of blocks ``[R, 1]``."""
    x0, x1 = _pair(line, inside, outside, 0)
    x2, x3 = _pair(line, inside, outside, 2)
    x4, x5 = _pair(line, inside, outside, 4)
    x6, x7 = _pair(line, inside, outside, 6)
    return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def sum_of(parts):
    """Their sum in order."""
    total = parts[0]
    for i in tl.static_range(1, _FAN_OUT):
        total += parts[i]
    return total


@triton.jit
def least_of(parts):
    """The least of them."""
    found = parts[0]
    for i in tl.static_range(1, _FAN_OUT):
        found = tl.minimum(found, parts[i])
    return found


@triton.jit
def positive(parts):
    """Infinity in the place of zeros."""
    return (
        _positive(parts[0]),
        _positive(parts[1]),
        _positive(parts[2]),
        _positive(parts[3]),
        _positive(parts[4]),
        _positive(parts[5]),
        _positive(parts[6]),
        _positive(parts[7]),
    )


@triton.jit
def _positive(x):
    return tl.where(x > 0.0, x, float("inf"))


@triton.jit
def total_and_least(sums, least, LEVELS: tl.constexpr):
    """The sum of all weights and the least that is not zero, ``[1, 1]``."""
    first = tl.zeros([1, 1], tl.int64)
    inside = first == 0
    root = children(sums + first, inside, 0.0)
    if LEVELS == 1:
        return sum_of(root), least_of(positive(root))
    else:
        return sum_of(root), least_of(children(least + first, inside, float("inf")))


@triton.jit
def find(sums, target, inside, capacity, LEVELS: tl.constexpr):
    """The indices whose weights the targets ``[R, 1]`` fall into, and the weights.

    The sum of the weights up to an index exceeds its target. An index of weight zero is never
    found, unless all are.
    """
    at = tl.zeros(target.shape, tl.int64)
    weight = tl.zeros(target.shape, tl.float64)
    for down in tl.static_range(LEVELS):
        line = sums + base_of(capacity, LEVELS - 1 - down, LEVELS) + at * _FAN_OUT
        parts = children(line, inside, 0.0)
        child = tl.zeros(target.shape, tl.int64)
        before = tl.zeros(target.shape, tl.float64)
        total = tl.zeros(target.shape, tl.float64)
        weight = parts[0]
        for i in tl.static_range(_FAN_OUT):
            # Where rounding has carried the target past the end, the last weight is meant.
            reached = (target >= total) & (parts[i] > 0.0)
            child = tl.where(reached, i, child)
            before = tl.where(reached, total, before)
            weight = tl.where(reached, parts[i], weight)
            total += parts[i]
        target -= before
        at = at * _FAN_OUT + child
    return at, weight


@triton.jit
def recompute(sums, least, node, inside, capacity, LEVEL: tl.constexpr, LEVELS: tl.constexpr):
    """The entries of ``LEVEL`` that stand for the nodes ``[R, 1]`` of the level below."""
    below = base_of(capacity, LEVEL - 1, LEVELS) + node * _FAN_OUT
    here = base_of(capacity, LEVEL, LEVELS) + node
    parts = children(sums + below, inside, 0.0)
    tl.store(sums + here, sum_of(parts), mask=inside)
    if LEVEL == 1:
        smallest = least_of(positive(parts))
    else:
        smallest = least_of(children(least + below, inside, float("inf")))
    tl.store(least + here, smallest, mask=inside)


def empty_tree(capacity: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums, and least values above the weights, of weights that are all zero."""
    above = entries_above(capacity)
    weights = FAN_OUT * -(-capacity // FAN_OUT)
    sums = torch.zeros(above + weights, dtype=torch.float64, device=device)
    least = torch.full((max(above, 1),), torch.inf, dtype=torch.float64, device=device)
    return sums, least
