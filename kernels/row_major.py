"""The recurrence on rows that are contiguous in time, a warp to a row.

The lanes of a warp scan a tile of neighbouring steps, tile by tile through the row; the next value
and the state go from tile to tile in registers.

Minimum traffic per element: that of ``returns``, each element once; nothing besides but a number
per row.
"""

import triton
import triton.language as tl

from .estimators import MASK
from .moments import no_moments, publish_moments
from .tiles import (
    add_turn_to_moments,
    load_final,
    load_rate,
    load_tile,
    solve_turn,
    store_tile,
)
from .time_major import elements, per_sequence


@triton.jit
def _offsets(rows, strides, t, origin, UNIT: tl.constexpr):
    """Where the steps ``t`` of the rows lie in each array; packed rows have their ``origin``."""
    offsets = ()
    for k in tl.static_range(len(strides)):
        start = rows * elements(strides[k], UNIT) if origin is None else origin
        offsets += (start + t,)
    return offsets


@triton.jit
def _rate_offsets(rows, strides, t, origin):
    along = tl.full([], strides[0], tl.int64)
    if origin is None:
        return rows * tl.full([], strides[1], tl.int64) + t * along
    else:
        return (origin + t) * along


@triton.jit
def _extent(rows, inside, lengths, bounds, steps, BLOCK_T: tl.constexpr):
    """Where the rows have their origin, first step, end, and the end of what is stored."""
    if bounds is not None:
        begin = tl.load(bounds + rows, mask=inside, other=0).to(tl.int64)
        behind = tl.load(bounds + rows + 1, mask=inside, other=0).to(tl.int64)
        first = begin % BLOCK_T
        origin = begin - first
        return origin, first, behind - origin, behind - origin
    elif lengths is not None:
        return None, 0, tl.load(lengths + rows, mask=inside, other=0).to(tl.int64), steps
    else:
        return None, 0, steps, steps


@triton.jit(do_not_specialize=["num_steps", "num_envs"])
def row_major_kernel(
    inputs,
    outputs,
    last_values,
    lengths,
    rate_arrays,
    moments,
    num_steps,
    num_envs,
    input_strides,
    output_strides,
    rate_strides,
    gamma: "fp64",  # noqa: F821
    lam: "fp64",  # noqa: F821
    rho_bar: "fp64",  # noqa: F821
    c_bar: "fp64",  # noqa: F821
    bounds,
    PROLOGUE: tl.constexpr,
    EPILOGUE: tl.constexpr,
    FORWARD: tl.constexpr,
    SEEDED: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    VECTOR: tl.constexpr,
    AHEAD: tl.constexpr,
    UNIT: tl.constexpr,
):
    """``num_steps`` and the strides of inputs and outputs count in units of ``UNIT`` elements.

    With ``bounds`` row ``n`` is what lies from ``bounds[n]`` to ``bounds[n + 1]`` of the arrays.
    Its tiles begin where those of the whole array do, so that no access splits a sector.
    """
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]
    inside = rows < num_envs
    steps = elements(num_steps, UNIT)
    origin, first, end, stored = _extent(rows, inside, lengths, bounds, steps, BLOCK_T)
    if bounds is not None:
        steps = tl.max(tl.ravel(end), 0)
    last = per_sequence(last_values, rows, inside, ACCUMULATOR)
    initial = last if SEEDED else tl.zeros_like(last)
    groups: tl.constexpr = BLOCK_T // VECTOR
    value_carry = tl.broadcast_to(last, [BLOCK_N, groups])
    carry = tl.broadcast_to(initial, [BLOCK_N, groups])
    discount = tl.full([], gamma, ACCUMULATOR)
    trace = tl.full([], lam, ACCUMULATOR)
    limits = (tl.full([], rho_bar, ACCUMULATOR), tl.full([], c_bar, ACCUMULATOR))
    if moments is not None:
        collected = no_moments([BLOCK_N, groups], ACCUMULATOR)
    whole = tl.cdiv(steps, BLOCK_T) * BLOCK_T
    left = whole
    while left > 0:
        times = ()
        lives = ()
        tiles = ()
        gammas = ()
        lams = ()
        for i in tl.static_range(AHEAD):
            start = whole - left + i * BLOCK_T if FORWARD else left - (i + 1) * BLOCK_T
            t = start + tl.arange(0, BLOCK_T)[None, :]
            live = inside & (t >= first) & (t < stored)
            offsets = _offsets(rows, input_strides, t, origin, UNIT)
            times += (t,)
            lives += (live,)
            tiles += (load_tile(inputs, offsets, live, 1, VECTOR),)
            at = _rate_offsets(rows, rate_strides[0], t, origin)
            gammas += (load_rate(rate_arrays[0], discount, at, live),)
            at = _rate_offsets(rows, rate_strides[1], t, origin)
            lams += (load_rate(rate_arrays[1], trace, at, live),)
        finals = ()
        valid = ()
        for i in tl.static_range(AHEAD):
            offsets = _offsets(rows, input_strides, times[i], origin, UNIT)
            finals += (load_final(inputs, offsets, tiles[i]),)
            valid_tile = lives[i] & (times[i] < end)
            if inputs[MASK] is not None:
                valid_tile = valid_tile & (tiles[i][MASK] != 0)
            valid += (valid_tile,)
        results, solved, valids, carries = solve_turn(
            finals,
            gammas,
            lams,
            limits,
            valid,
            last,
            initial,
            (value_carry, carry),
            (None, None),
            PROLOGUE,
            EPILOGUE,
            FORWARD,
            inputs[MASK] is not None,
            VECTOR,
        )
        value_carry, carry = carries
        if moments is not None:
            collected = add_turn_to_moments(collected, solved, valids, VECTOR)
        for i in tl.static_range(AHEAD):
            offsets = _offsets(rows, output_strides, times[i], origin, UNIT)
            store_tile(outputs, results[i], offsets, lives[i])
        left -= AHEAD * BLOCK_T
    if moments is not None:
        publish_moments(moments, collected)
