"""The recurrence on ``[T, N]`` with many environments side by side in memory.

A lane owns neighbouring environments and walks them through time; the rows of several steps are
asked for before the first is used. ``values[t + 1]`` and the state come from the registers of the
step before.

Minimum traffic per element: that of ``returns``, each element once; nothing besides but a number
per environment.
"""

import triton
import triton.language as tl

from .estimators import CUT_SHORT, ENDED, FINAL, MASK, VALUE, is_flag
from .linear_scan import step
from .moments import add_to_moments, no_moments, publish_moments


@triton.jit
def elements(count, UNIT: tl.constexpr):
    """A size or stride that was handed over in units of ``UNIT`` elements.

    So the compiler sees by how much the rows are aligned, which decides how wide it may read.
    """
    return tl.full([], count, tl.int64) * UNIT


@triton.jit
def per_sequence(pointer, n, inside, ACCUMULATOR: tl.constexpr):
    """A number for each sequence, zero without an array."""
    if pointer is None:
        return tl.zeros(n.shape, ACCUMULATOR)
    else:
        return tl.load(pointer + n, mask=inside, other=0).to(ACCUMULATOR)


@triton.jit
def _rows(pointer, t, column, stride, live, AHEAD: tl.constexpr, FORWARD: tl.constexpr):
    """``AHEAD`` rows of an array from row ``t`` on, zeros without an array."""
    rows = ()
    if pointer is None:
        for _ in tl.static_range(AHEAD):
            rows += (tl.zeros(column.shape, tl.int8),)
    else:
        row = pointer + t * stride
        for i in tl.static_range(AHEAD):
            rows += (tl.load(row + column, mask=live[i], other=0),)
            row += stride if FORWARD else -stride
    return rows


@triton.jit
def _rate(pointer, number, t, n, strides, live, AHEAD: tl.constexpr, FORWARD: tl.constexpr):
    """A rate at ``AHEAD`` rows: one number, or an array that may have any two strides."""
    if pointer is None:
        rates = ()
        for _ in tl.static_range(AHEAD):
            rates += (number,)
        return rates
    else:
        column = n * tl.full([], strides[1], tl.int64)
        return _rows(pointer, t, column, tl.full([], strides[0], tl.int64), live, AHEAD, FORWARD)


@triton.jit
def _load_turn(
    inputs,
    strides,
    t,
    n,
    live,
    AHEAD: tl.constexpr,
    UNIT: tl.constexpr,
    FORWARD: tl.constexpr,
):
    """``AHEAD`` rows of every array."""
    loaded = ()
    for k in tl.static_range(8):
        wanted = live
        if k == FINAL and inputs[k] is not None:
            # Final observations matter only where an episode was cut short.
            wanted = ()
            for i in tl.static_range(AHEAD):
                wanted += ((loaded[CUT_SHORT][i] != 0) & (loaded[ENDED][i] == 0),)
        stride = elements(strides[k], UNIT)
        loaded += (_rows(inputs[k], t, n, stride, wanted, AHEAD, FORWARD),)
    return loaded


@triton.jit
def _step(loaded, i, ACCUMULATOR: tl.constexpr):
    """One of the loaded rows as a step."""
    x = ()
    for k in tl.static_range(7):
        block = loaded[k][i]
        x += (block if is_flag(k) else block.to(ACCUMULATOR),)
    return x


@triton.jit
def _exists(live, now, length, mask):
    """Which steps exist, of those that are stored."""
    if length is not None:
        live = live & (now < length)
    if mask is not None:
        live = live & (mask != 0)
    return live


@triton.jit
def _store(outputs, strides, now, n, results, live, UNIT: tl.constexpr):
    for k in tl.static_range(2):
        if outputs[k] is not None:
            row = outputs[k] + now * elements(strides[k], UNIT)
            tl.store(row + n, results[k], mask=live)


@triton.jit(do_not_specialize=["num_steps"])
def time_major_kernel(
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
    PROLOGUE: tl.constexpr,
    EPILOGUE: tl.constexpr,
    FORWARD: tl.constexpr,
    SEEDED: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK_N: tl.constexpr,
    AHEAD: tl.constexpr,
    UNIT: tl.constexpr,
):
    """``num_envs`` and the strides of inputs and outputs count in units of ``UNIT`` elements."""
    envs = elements(num_envs, UNIT)
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    next_value = per_sequence(last_values, n, n < envs, ACCUMULATOR)
    y = next_value if SEEDED else tl.zeros_like(next_value)
    limits = (tl.full([], rho_bar, ACCUMULATOR), tl.full([], c_bar, ACCUMULATOR))
    discount = tl.full([], gamma, ACCUMULATOR)
    trace = tl.full([], lam, ACCUMULATOR)
    RAGGED: tl.constexpr = inputs[MASK] is not None or lengths is not None
    length = None
    if lengths is not None:
        length = tl.load(lengths + n, mask=n < envs, other=0).to(tl.int64)
    if moments is not None:
        collected = no_moments(n.shape, ACCUMULATOR)
    steps = num_steps.to(tl.int64)
    left = steps
    while left > 0:
        t = steps - left if FORWARD else left - 1
        live = ()
        for i in tl.static_range(AHEAD):
            live += (n < tl.where(left > i, envs, 0),)
        loaded = _load_turn(inputs, input_strides, t, n, live, AHEAD, UNIT, FORWARD)
        gammas = _rate(rate_arrays[0], discount, t, n, rate_strides[0], live, AHEAD, FORWARD)
        lams = _rate(rate_arrays[1], trace, t, n, rate_strides[1], live, AHEAD, FORWARD)
        for i in tl.static_range(AHEAD):
            x = _step(loaded, i, ACCUMULATOR)
            rates = (gammas[i].to(ACCUMULATOR), lams[i].to(ACCUMULATOR)) + limits
            a, b = PROLOGUE(x, next_value, rates)
            found = step(a, b, y)
            results = EPILOGUE(x, next_value, rates, found, y)
            now = t + i if FORWARD else t - i
            if RAGGED:
                mask = None if inputs[MASK] is None else loaded[MASK][i]
                valid = _exists(live[i], now, length, mask)
                y = tl.where(valid, found, y)
                next_value = tl.where(valid, x[VALUE], next_value)
                results = (tl.where(valid, results[0], 0.0), tl.where(valid, results[1], 0.0))
            else:
                valid = live[i]
                y = found
                next_value = x[VALUE]
            if moments is not None:
                collected = add_to_moments(collected, y, valid)
            _store(outputs, output_strides, now, n, results, live[i], UNIT)
        left -= AHEAD
    if moments is not None:
        publish_moments(moments, collected)
