"""Tiles ``[R, BLOCK_T]`` of sequences that are scanned across lanes: loaded, solved, stored."""

import triton
import triton.language as tl

from .estimators import CUT_SHORT, ENDED, FINAL, VALUE, is_flag
from .linear_scan import (
    combine,
    compose,
    fold,
    pack,
    scan_tile,
    shifted,
    step,
    tile_map,
    unfold,
    unpack,
)
from .look_back import look_back
from .moments import add_to_moments


@triton.jit
def load_tile(inputs, offsets, live, SHARE_N: tl.constexpr, SHARE_T: tl.constexpr):
    """The blocks of the input arrays, zeros where there is none or it is not time yet.

    A lane reads up to ``SHARE_N x SHARE_T`` neighbours at a time.
    """
    loaded = ()
    for k in tl.static_range(8):
        if inputs[k] is None or k == FINAL:
            loaded += (tl.zeros(live.shape, tl.int8),)
        elif is_flag(k):
            # Without the hint byte loads would set a lane's share to 16 steps, and the wider
            # loads would split sectors.
            at = tl.max_contiguous(offsets[k], [SHARE_N, SHARE_T])
            loaded += (tl.load(inputs[k] + at, mask=live, other=0),)
        else:
            loaded += (tl.load(inputs[k] + offsets[k], mask=live, other=0),)
    return loaded


@triton.jit
def load_final(inputs, offsets, loaded):
    """The tile with the values of final observations, where an episode was cut short."""
    if inputs[FINAL] is None:
        return loaded
    else:
        wanted = (loaded[CUT_SHORT] != 0) & (loaded[ENDED] == 0)
        final = tl.load(inputs[FINAL] + offsets[FINAL], mask=wanted, other=0)
        return loaded[:FINAL] + (final,) + loaded[FINAL + 1 :]


@triton.jit
def load_rate(pointer, number, at, live):
    """A rate of every step: the number itself without an array."""
    if pointer is None:
        return number
    else:
        return tl.load(pointer + at, mask=live, other=0)


@triton.jit
def store_tile(outputs, results, offsets, live):
    """Write the results that somebody asked for."""
    for k in tl.static_range(2):
        if outputs[k] is not None:
            tl.store(outputs[k] + offsets[k], results[k], mask=live)


@triton.jit
def _parts(x, VECTOR: tl.constexpr):
    """``unpack``; a number for all steps stays one."""
    if len(x.shape) == 0:
        parts = ()
        for _ in tl.static_range(VECTOR):
            parts += (x,)
        return parts
    else:
        return unpack(x, VECTOR)


@triton.jit
def _solve(a, b, carry, initial, link, VECTOR: tl.constexpr, FORWARD: tl.constexpr):
    """The recurrence on neighbouring tiles, in the order of the walk: states, and those later.

    What enters the first one is the carry, or looked up through the link.
    """
    solved = ()
    if link is None:
        for i in tl.static_range(len(a)):
            y, y_next, carry = scan_tile(a[i], b[i], carry, VECTOR, FORWARD)
            solved += ((y, y_next),)
    else:
        maps = ()
        tile_maps = ()
        for i in tl.static_range(len(a)):
            a_map, b_map = fold(a[i], b[i], VECTOR, FORWARD)
            a_map, b_map = compose(a_map, b_map, FORWARD)
            a_tile, b_tile = tile_map(a_map, b_map, FORWARD)
            maps += ((a_map, b_map),)
            tile_maps += ((a_tile, b_tile),)
            if i == 0:
                a_all = a_tile
                b_all = b_tile
            else:
                a_all, b_all = combine(a_all, b_all, a_tile, b_tile)
        entering = look_back(a_all, b_all, initial, link)
        for i in tl.static_range(len(a)):
            carry = tl.broadcast_to(entering, carry.shape)
            first = step(maps[i][0], maps[i][1], carry)
            y, y_next, _ = unfold(a[i], b[i], first, carry, VECTOR, FORWARD)
            solved += ((y, y_next),)
            entering = step(tile_maps[i][0], tile_maps[i][1], entering)
    return solved, carry


@triton.jit
def _next_values(
    value,
    valid,
    carry,
    last,
    link,
    SKIPS: tl.constexpr,
    VECTOR: tl.constexpr,
    FORWARD: tl.constexpr,
):
    """The value of the next valid step for every step of the tiles, and the carry.

    Steps that are skipped inside a sequence make this a recurrence of its own, whose maps either
    hand on or cut.
    """
    following = ()
    if SKIPS:
        a = ()
        b = ()
        for i in tl.static_range(len(value)):
            a_tile = ()
            b_tile = ()
            for k in tl.static_range(VECTOR):
                a_tile += (tl.where(valid[i][k], 0.0, 1.0).to(carry.dtype),)
                b_tile += (tl.where(valid[i][k], value[i][k], 0.0),)
            a += (a_tile,)
            b += (b_tile,)
        solved, carry = _solve(a, b, carry, last, link, VECTOR, FORWARD)
        for i in tl.static_range(len(value)):
            following += (solved[i][1],)
    else:
        for i in tl.static_range(len(value)):
            shifted_tile, carry = shifted(value[i], carry, VECTOR, FORWARD)
            following += (shifted_tile,)
    return following, carry


@triton.jit
def _columns(loaded, valid, last, VECTOR: tl.constexpr):
    """A tile as parts, floats in the accumulator's precision."""
    columns = ()
    for k in tl.static_range(7):
        block = loaded[k]
        if k == VALUE:
            # Past the end stands what follows the last step.
            block = tl.where(valid, block.to(last.dtype), last)
        elif not is_flag(k):
            block = block.to(last.dtype)
        columns += (unpack(block, VECTOR),)
    return columns


@triton.jit
def _steps(columns, gamma, lam, limits, k):
    """One step of every lane, and its rates."""
    x = ()
    for i in tl.static_range(7):
        x += (columns[i][k],)
    return x, (gamma[k], lam[k]) + limits


@triton.jit
def solve_turn(
    tiles,
    gammas,
    lams,
    limits,
    valid,
    last,
    initial,
    carries,
    links,
    PROLOGUE: tl.constexpr,
    EPILOGUE: tl.constexpr,
    FORWARD: tl.constexpr,
    SKIPS: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Solve neighbouring tiles: the results of each, states and which are valid, the new carries.

    ``carries`` and ``links`` are those of the next value and of the state. Steps that are not
    ``valid`` hand both on and have zeros for results; ``SKIPS`` says that such steps may have
    valid ones behind them.
    """
    columns = ()
    values = ()
    valids = ()
    rates = ()
    for i in tl.static_range(len(tiles)):
        columns += (_columns(tiles[i], valid[i], last, VECTOR),)
        values += (columns[i][VALUE],)
        flags = unpack(valid[i].to(tl.int8), VECTOR)
        valid_parts = ()
        for k in tl.static_range(VECTOR):
            valid_parts += (flags[k] != 0,)
        valids += (valid_parts,)
        gamma = _parts(gammas[i].to(last.dtype), VECTOR)
        rates += ((gamma, _parts(lams[i].to(last.dtype), VECTOR)),)
    following, value_carry = _next_values(
        values, valids, carries[0], last, links[0], SKIPS, VECTOR, FORWARD
    )
    a = ()
    b = ()
    for i in tl.static_range(len(tiles)):
        a_tile = ()
        b_tile = ()
        for k in tl.static_range(VECTOR):
            x, at_step = _steps(columns[i], rates[i][0], rates[i][1], limits, k)
            a_k, b_k = PROLOGUE(x, following[i][k], at_step)
            a_tile += (tl.where(valids[i][k], a_k, 1.0),)
            b_tile += (tl.where(valids[i][k], b_k, 0.0),)
        a += (a_tile,)
        b += (b_tile,)
    solved, carry = _solve(a, b, carries[1], initial, links[1], VECTOR, FORWARD)
    results = ()
    for i in tl.static_range(len(tiles)):
        first = ()
        second = ()
        for k in tl.static_range(VECTOR):
            x, at_step = _steps(columns[i], rates[i][0], rates[i][1], limits, k)
            both = EPILOGUE(x, following[i][k], at_step, solved[i][0][k], solved[i][1][k])
            first += (tl.where(valids[i][k], both[0], 0.0),)
            second += (tl.where(valids[i][k], both[1], 0.0),)
        results += ((pack(first, VECTOR), pack(second, VECTOR)),)
    return results, solved, valids, (value_carry, carry)


@triton.jit
def add_turn_to_moments(moments, solved, valids, VECTOR: tl.constexpr):
    """The moments with the states of a turn."""
    for i in tl.static_range(len(solved)):
        for k in tl.static_range(VECTOR):
            moments = add_to_moments(moments, solved[i][0][k], valids[i][k])
    return moments
