"""The recurrence ``x[t] = a[t] * x[t + 1] + b[t]`` on blocks of registers.

Every estimator is this recurrence with its own ``a`` and ``b``. Two ways to walk it:

* one lane owns a sequence and goes through time with :func:`step`;
* a group of lanes owns a tile of one sequence, ``VECTOR`` neighbouring steps per lane: each lane
  folds its steps into one affine map (:func:`fold`), the maps are composed across the lanes
  (:func:`compose`), and each lane unfolds its own steps again (:func:`unfold`).

The words are those of a walk back in time. ``FORWARD`` turns the walk round: "later" then means
earlier, and ``x[t] = a[t] * x[t - 1] + b[t]``.

``a == 0`` is a cut: it selects ``b`` and never multiplies, so a NaN or an infinity on the far
side stays there.
"""

import triton
import triton.language as tl


@triton.jit
def step(a, b, later):
    """One step back: ``a * later + b``, ``b`` where ``a`` cuts."""
    return b + tl.where(a == 0, 0.0, a * later)


@triton.jit
def combine(a_later, b_later, a, b):
    """The map ``(a, b)`` after the later map: what the associative scan composes."""
    return a * a_later, step(a, b, b_later)


@triton.jit
def unpack(x, VECTOR: tl.constexpr):
    """Columns ``[R, G * VECTOR]`` as a tuple of ``VECTOR`` blocks ``[R, G]``, in order of time."""
    groups: tl.constexpr = x.shape[1] // VECTOR
    if VECTOR == 2:
        first, second = tl.split(tl.reshape(x, [x.shape[0], groups, 2]))
        return first, second
    else:
        tl.static_assert(VECTOR == 4)
        even, odd = tl.split(tl.reshape(x, [x.shape[0], groups, 2, 2]))
        first, third = tl.split(even)
        second, fourth = tl.split(odd)
        return first, second, third, fourth


@triton.jit
def pack(parts, VECTOR: tl.constexpr):
    """The inverse of :func:`unpack`."""
    rows: tl.constexpr = parts[0].shape[0]
    columns: tl.constexpr = parts[0].shape[1] * VECTOR
    if VECTOR == 2:
        return tl.reshape(tl.join(parts[0], parts[1]), [rows, columns])
    else:
        even = tl.join(parts[0], parts[2])
        odd = tl.join(parts[1], parts[3])
        return tl.reshape(tl.join(even, odd), [rows, columns])


@triton.jit
def _is_last(groups: tl.constexpr, FORWARD: tl.constexpr):
    """The group that borders on the later tile, ``[1, G]``."""
    edge: tl.constexpr = 0 if FORWARD else groups - 1
    return tl.arange(0, groups)[None, :] == edge


@triton.jit
def rotate(x, FORWARD: tl.constexpr):
    """``x`` of the next group; the last group gets the first, which the tile before needs."""
    groups: tl.constexpr = x.shape[1]
    shift: tl.constexpr = groups - 1 if FORWARD else 1
    following = (tl.arange(0, groups) + shift) % groups
    return tl.gather(x, tl.broadcast_to(following[None, :], x.shape), 1)


@triton.jit
def next_group(rotated, carry, FORWARD: tl.constexpr):
    """``rotated``, with its last group taken from the later tile's rotated block ``carry``."""
    return tl.where(_is_last(rotated.shape[1], FORWARD), carry, rotated)


@triton.jit
def shifted(x, carry, VECTOR: tl.constexpr, FORWARD: tl.constexpr):
    """``x`` one step later, as a tuple; and the carry for the earlier tile."""
    if FORWARD:
        rotated = rotate(x[VECTOR - 1], FORWARD)
        return (next_group(rotated, carry, FORWARD),) + x[: VECTOR - 1], rotated
    else:
        rotated = rotate(x[0], FORWARD)
        return x[1:] + (next_group(rotated, carry, FORWARD),), rotated


@triton.constexpr_function
def _walked(i, vector, forward):
    """Which of a lane's steps the walk comes to as the ``i``-th."""
    return i if forward else vector - 1 - i


@triton.jit
def fold(a, b, VECTOR: tl.constexpr, FORWARD: tl.constexpr):
    """The map of each group of ``VECTOR`` steps, from what enters it to its first ``x``."""
    a_map = a[_walked(0, VECTOR, FORWARD)]
    b_map = b[_walked(0, VECTOR, FORWARD)]
    for i in tl.static_range(1, VECTOR):
        a_map, b_map = combine(
            a_map, b_map, a[_walked(i, VECTOR, FORWARD)], b[_walked(i, VECTOR, FORWARD)]
        )
    return a_map, b_map


@triton.jit
def compose(a_map, b_map, FORWARD: tl.constexpr):
    """The maps of the groups composed with those of all later groups of the tile."""
    return tl.associative_scan((a_map, b_map), 1, combine, reverse=not FORWARD)


@triton.jit
def unfold(a, b, first, carry, VECTOR: tl.constexpr, FORWARD: tl.constexpr):
    """All ``x`` of a tile from the ``first`` of each group: ``x``, ``x`` one later, the carry.

    ``carry`` is the rotated first block of the later tile (its last group holds the state that
    enters this tile); the carry that is returned serves the earlier tile.
    """
    rotated = rotate(first, FORWARD)
    later = next_group(rotated, carry, FORWARD)
    x = ()
    x_later = ()
    for i in tl.static_range(VECTOR):
        now = step(a[_walked(i, VECTOR, FORWARD)], b[_walked(i, VECTOR, FORWARD)], later)
        if FORWARD:
            x += (now,)
            x_later += (later,)
        else:
            x = (now,) + x
            x_later = (later,) + x_later
        later = now
    return x, x_later, rotated


@triton.jit
def scan_tile(a, b, carry, VECTOR: tl.constexpr, FORWARD: tl.constexpr):
    """Solve the recurrence on a tile that is held as tuples of ``VECTOR`` blocks ``[R, G]``.

    Takes the later tile's carry; returns as :func:`unfold`.
    """
    a_map, b_map = fold(a, b, VECTOR, FORWARD)
    entered = tl.where(_is_last(b_map.shape[1], FORWARD), step(a_map, b_map, carry), b_map)
    _, first = compose(a_map, entered, FORWARD)
    return unfold(a, b, first, carry, VECTOR, FORWARD)


@triton.jit
def tile_map(a_maps, b_maps, FORWARD: tl.constexpr):
    """The map of a whole tile ``[R, 1]``, of maps that :func:`compose` returned."""
    first = _is_last(a_maps.shape[1], not FORWARD)
    a = tl.sum(tl.where(first, a_maps, 0.0), 1, keep_dims=True)
    return a, tl.sum(tl.where(first, b_maps, 0.0), 1, keep_dims=True)
