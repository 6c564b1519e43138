"""A replay buffer's ring on the device, and what its kernels share.

What changes from call to call is kept on the device, so that a captured graph goes on where its
last replay ended.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl

# Where in a buffer's counters; the ticket is zero between launches.
PUSHED, DRAWS, TICKET = 0, 1, 2
_TICKET = tl.constexpr(TICKET)
# Where in its numbers.
LARGEST, BETA = 0, 1
# What is wrong, to be told at the next call.
BAD_INDEX, BAD_PRIORITY, ALL_ZERO, NO_SEQUENCE = 1, 2, 3, 4

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
def store_row(target, row, inside, x, WIDTH: tl.constexpr, SPAN: tl.constexpr):
    """Write ``x`` there."""
    at, there = place(row, inside, WIDTH, SPAN)
    tl.store(target + at, x, mask=there)


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
