"""How the tiles of one sequence hand the state on when all of them are walked at once.

Decoupled look-back (Merrill and Garland, "Single-pass parallel prefix scan with decoupled
look-back", NVIDIA technical report NVR-2016-002): a tile publishes its own map as soon as it has
it, composes the maps of the tiles that are walked before it until it meets one that has published
its state, and then publishes its own state. A tile with a cut inside, and the first one, know
their state without a look at the others and publish nothing else.

Programs take their tiles from a counter, so whoever waits, waits for programs that have started.

Traffic per tile and sequence, with numbers of size ``s``: ``s`` written where the state is known
and ``3 s`` where it is not; at least ``s`` read, and ``2 s`` for every tile that is passed without
a state; a status word of 4 bytes each time.
"""

import triton
import triton.language as tl

from .linear_scan import combine, step, tile_map

# What a tile has published: its map; a map that is its state, in the place of the second number;
# the state after a look-back, in a place of its own, since others may be reading the map.
_MAP = tl.constexpr(1)
_KNOWN = tl.constexpr(2)
_FOUND = tl.constexpr(3)


@triton.jit
def _announce(status, at, inside, news):
    """Let the others see what this program has stored up to here."""
    tl.debug_barrier()
    tl.atomic_xchg(status + at, news, inside, "release", "gpu")


@triton.jit
def _seen(slots, at, places, wanted, news):
    """The maps that other programs have published; a state is a map that cuts."""
    tl.debug_barrier()
    a = tl.load(slots + at, mask=wanted & (news == _MAP), other=0.0, cache_modifier=".cg")
    b_at = at + tl.where(news == _FOUND, 2 * places, places)
    return a, tl.load(slots + b_at, mask=wanted, other=0.0, cache_modifier=".cg")


@triton.jit
def _nearest(a, b):
    """The maps of a window ``[R, W]``, nearest first, composed into one ``[R, 1]``."""
    a, b = tl.associative_scan((a, b), 1, combine, reverse=True)
    return tile_map(a, b, False)


@triton.jit
def look_back(a, b, initial, link):
    """The state ``[R, 1]`` that enters this tile, whose map is ``(a, b)``.

    ``link`` is ``(status, slots, places, tile, rows, num_rows)``: int32 words that are zero at
    the launch and three numbers for each of ``places`` pairs of tile and row; the number of the
    tile in the order of the walk; the rows. ``initial`` enters the first tile.
    """
    status, slots, places, tile, rows, num_rows = link
    inside = rows < num_rows
    here = tile * num_rows + rows
    known = inside & (tl.where(tile == 0, 0.0, a) == 0)
    unknown = inside & (known == 0)
    tl.store(slots + here, a, mask=unknown)
    tl.store(slots + places + here, tl.where(known, step(a, b, initial), b), mask=inside)
    _announce(status, here, inside, tl.where(known, _KNOWN, _MAP))
    # What enters is `reach * (the state behind the tiles seen so far) + entering`.
    reach = tl.where(inside, tl.where(tile == 0, 0.0, 1.0), 0.0).to(a.dtype)
    entering = tl.where(tile == 0, initial, 0.0)
    WINDOW: tl.constexpr = min(32, 128 // a.shape[0])
    window = tl.arange(0, WINDOW)[None, :]
    behind = tile - 1
    while tl.max((reach != 0).to(tl.int32).ravel(), 0) > 0:
        before = behind - window
        live = (reach != 0) & (before >= 0)
        at = before * num_rows + rows
        nothing = tl.zeros(at.shape, tl.int32)
        news = tl.atomic_or(status + at, nothing, live, "acquire", "gpu")
        # Nothing is asked of the tiles behind the nearest state.
        state = tl.min(tl.where(live & (news >= _KNOWN), window, WINDOW), 1, keep_dims=True)
        wanted = live & (window <= state)
        if tl.min(tl.where(wanted, news, _FOUND).ravel(), 0) > 0:
            a_seen, b_seen = _seen(slots, at, places, wanted, news)
            a_all, b_all = _nearest(a_seen, b_seen)
            entering = step(reach, entering, b_all)
            reach = reach * a_all
            behind -= WINDOW
    tl.store(slots + 2 * places + here, step(a, b, entering), mask=unknown)
    _announce(status, here, unknown, tl.full(here.shape, _FOUND, tl.int32))
    return entering
