"""The recurrence ``x[t] = a[t] * x[t + 1] + b[t]`` on blocks of registers.

Every estimator is this recurrence with its own ``a`` and ``b``. Two ways to walk it:

* one lane owns a sequence and goes back through time with :func:`step`;
* a group of lanes owns a tile of one sequence, ``VECTOR`` neighbouring steps per lane: each lane
  folds its steps into one affine map, the maps are composed across the lanes by an associative
  scan, and each lane unfolds its own steps again (:func:`scan_tile`).

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
def rotate(x):
    """``x`` of the next group; the last group gets the first, which the tile before needs."""
    groups: tl.constexpr = x.shape[1]
    following = (tl.arange(0, groups) + 1) % groups
    return tl.gather(x, tl.broadcast_to(following[None, :], x.shape), 1)


@triton.jit
def next_group(rotated, carry):
    """``rotated``, with its last group taken from the later tile's rotated block ``carry``."""
    groups: tl.constexpr = rotated.shape[1]
    last = tl.arange(0, groups)[None, :] == groups - 1
    return tl.where(last, carry, rotated)


@triton.jit
def scan_tile(a, b, carry, VECTOR: tl.constexpr):
    """Solve the recurrence on a tile that is held as tuples of ``VECTOR`` blocks ``[R, G]``.

    ``carry`` is the rotated first block of the later tile (its last group holds the state that
    enters this tile). Returns the tuple of ``x`` and the carry for the earlier tile.
    """
    a_map = a[VECTOR - 1]
    b_map = step(a_map, b[VECTOR - 1], next_group(tl.zeros_like(carry), carry))
    for i in tl.static_range(1, VECTOR):
        a_map, b_map = combine(a_map, b_map, a[VECTOR - 1 - i], b[VECTOR - 1 - i])
    _, first = tl.associative_scan((a_map, b_map), 1, combine, reverse=True)
    rotated = rotate(first)
    later = next_group(rotated, carry)
    x = ()
    for i in tl.static_range(VECTOR):
        later = step(a[VECTOR - 1 - i], b[VECTOR - 1 - i], later)
        x = (later,) + x
    return x, rotated
