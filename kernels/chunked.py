"""The recurrence on few long sequences: every tile at once, linked by look-back.

A program owns a chunk of neighbouring tiles ``[R, BLOCK_T]`` in either layout and finds what
enters it by ``look_back``.

Minimum traffic per element: that of ``returns``, each element once, and besides for each chunk and
sequence, which are 64 steps time-major and 512 in rows at the usual f32 inputs: the value behind
the chunk, the state of the chunk before, and its own state written.

Rounding: what a state is composed of is a tree of chunks, tiles, lanes and steps. Over 2**20 steps
of one episode f32 advantages err by less than 1e-6 of the largest of them, with the usual decay
and with none; a walk step by step by 2e-5 with none.
"""

import triton
import triton.language as tl

from .estimators import MASK, VALUE
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
def _offsets(rows, strides, t, TIME_MAJOR: tl.constexpr, UNIT: tl.constexpr):
    offsets = ()
    for k in tl.static_range(len(strides)):
        stride = elements(strides[k], UNIT)
        offsets += (t * stride + rows if TIME_MAJOR else rows * stride + t,)
    return offsets


@triton.jit
def _rate_offsets(rows, strides, t):
    return rows * tl.full([], strides[1], tl.int64) + t * tl.full([], strides[0], tl.int64)


@triton.jit
def _link(workspace, which: tl.constexpr, chunk, rows, num_chunks, num_envs):
    """Status words and places of one of the two recurrences of a launch."""
    counter, slots = workspace
    places = num_chunks * num_envs
    status = counter + 1 + places * which
    return status, slots + 3 * places * which, places, chunk, rows, num_envs


@triton.jit(do_not_specialize=["num_steps", "num_chunks"])
def chunked_kernel(
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
    workspace,
    num_chunks,
    PROLOGUE: tl.constexpr,
    EPILOGUE: tl.constexpr,
    FORWARD: tl.constexpr,
    SEEDED: tl.constexpr,
    TIME_MAJOR: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    VECTOR: tl.constexpr,
    AHEAD: tl.constexpr,
    UNIT: tl.constexpr,
):
    """The contiguous size and the strides of inputs and outputs count in units of ``UNIT``."""
    # How far the neighbours that a lane reads at a time reach along both axes.
    SHARE_N: tl.constexpr = min(BLOCK_N, VECTOR) if TIME_MAJOR else 1
    SHARE_T: tl.constexpr = 1 if TIME_MAJOR else VECTOR
    steps = elements(num_steps, 1 if TIME_MAJOR else UNIT)
    envs = elements(num_envs, UNIT if TIME_MAJOR else 1)
    chunks = num_chunks.to(tl.int64)
    # Chunks are taken in the order of the walk, whatever order the programs start in.
    ticket = tl.atomic_add(workspace[0], 1, sem="relaxed", scope="gpu").to(tl.int64)
    blocks = tl.cdiv(envs, BLOCK_N)
    chunk = ticket // blocks
    rows = (ticket % blocks) * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]
    inside = rows < envs
    at_end = inside
    if lengths is None:
        # Only the first chunk of the walk meets what stands behind the sequences.
        at_end = rows < tl.where(chunk == 0, envs, 0)
    last = per_sequence(last_values, rows, at_end, ACCUMULATOR)
    initial = last if SEEDED else tl.zeros_like(last)
    discount = tl.full([], gamma, ACCUMULATOR)
    trace = tl.full([], lam, ACCUMULATOR)
    limits = (tl.full([], rho_bar, ACCUMULATOR), tl.full([], c_bar, ACCUMULATOR))
    end = steps
    if lengths is not None:
        end = tl.load(lengths + rows, mask=inside, other=0).to(tl.int64)
    start = (chunk if FORWARD else chunks - 1 - chunk) * (AHEAD * BLOCK_T)
    times = ()
    lives = ()
    tiles = ()
    gammas = ()
    lams = ()
    for i in tl.static_range(AHEAD):
        t = start + (i if FORWARD else AHEAD - 1 - i) * BLOCK_T + tl.arange(0, BLOCK_T)[None, :]
        live = inside & (t < steps)
        offsets = _offsets(rows, input_strides, t, TIME_MAJOR, UNIT)
        times += (t,)
        lives += (live,)
        tiles += (load_tile(inputs, offsets, live, SHARE_N, SHARE_T),)
        at = _rate_offsets(rows, rate_strides[0], t)
        gammas += (load_rate(rate_arrays[0], discount, at, live),)
        at = _rate_offsets(rows, rate_strides[1], t)
        lams += (load_rate(rate_arrays[1], trace, at, live),)
    following = last
    SKIPS: tl.constexpr = inputs[MASK] is not None and inputs[VALUE] is not None
    if inputs[VALUE] is not None and not SKIPS:
        # What follows the chunk, read beside the program that owns it.
        after = tl.zeros_like(rows) + (start + AHEAD * BLOCK_T)
        at = _offsets(rows, input_strides, after, TIME_MAJOR, UNIT)
        known = inside & (after < end)
        following = tl.load(inputs[VALUE] + at[VALUE], mask=known, other=0).to(ACCUMULATOR)
        following = tl.where(known, following, last)
    finals = ()
    valid = ()
    for i in tl.static_range(AHEAD):
        offsets = _offsets(rows, input_strides, times[i], TIME_MAJOR, UNIT)
        finals += (load_final(inputs, offsets, tiles[i]),)
        valid_tile = lives[i] & (times[i] < end)
        if inputs[MASK] is not None:
            valid_tile = valid_tile & (tiles[i][MASK] != 0)
        valid += (valid_tile,)
    groups: tl.constexpr = BLOCK_T // VECTOR
    results, solved, valids, _ = solve_turn(
        finals,
        gammas,
        lams,
        limits,
        valid,
        last,
        initial,
        (
            tl.broadcast_to(following, [BLOCK_N, groups]),
            tl.zeros([BLOCK_N, groups], ACCUMULATOR),
        ),
        (
            _link(workspace, 1, chunk, rows, chunks, envs),
            _link(workspace, 0, chunk, rows, chunks, envs),
        ),
        PROLOGUE,
        EPILOGUE,
        FORWARD,
        SKIPS,
        VECTOR,
    )
    for i in tl.static_range(AHEAD):
        offsets = _offsets(rows, output_strides, times[i], TIME_MAJOR, UNIT)
        store_tile(outputs, results[i], offsets, lives[i])
    if moments is not None:
        collected = no_moments([BLOCK_N, groups], ACCUMULATOR)
        publish_moments(moments, add_turn_to_moments(collected, solved, valids, VECTOR))
