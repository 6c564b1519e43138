"""Sums of at most ``n`` rewards and the value behind them: a window, not a recurrence.

Every step walks its own window, a reward and a flag at a time, until it has ``n`` rewards and a
value, or an end. Minimum traffic per element in f32 with byte flags: 4 + 4 + 1 bytes read, 4
written; rewards and flags are asked for up to ``n`` times, all but the first time of a cache.
"""

import triton
import triton.language as tl

BLOCK = 128


@triton.jit
def _load(pointer, t, n, strides, wanted):
    """An array of any two strides at steps ``t`` of sequences ``n``, zeros without one."""
    if pointer is None:
        return tl.zeros(t.shape, tl.int8)
    else:
        along = tl.full([], strides[0], tl.int64)
        across = tl.full([], strides[1], tl.int64)
        return tl.load(pointer + t * along + n * across, mask=wanted, other=0)


@triton.jit
def _exists(mask, t, n, strides, wanted):
    if mask is None:
        return wanted
    else:
        return wanted & (_load(mask, t, n, strides, wanted) != 0)


@triton.jit
def _sequence(bounds, t, num_sequences, halvings):
    """Which packed sequence holds element ``t``: the last that does not start behind it."""
    low = tl.zeros(t.shape, tl.int64)
    high = low + num_sequences
    for _ in range(halvings):
        middle = (low + high) // 2
        started = tl.load(bounds + middle) <= t
        low = tl.where(started, middle, low)
        high = tl.where(started, high, middle)
    return low


@triton.jit(do_not_specialize=["num_steps", "num_envs", "window", "num_sequences", "halvings"])
def n_step_kernel(
    inputs,
    output,
    last_values,
    lengths,
    bounds,
    gammas,
    num_steps,
    num_envs,
    strides,
    output_strides,
    gamma_strides,
    window,
    num_sequences,
    halvings,
    gamma: "fp64",  # noqa: F821
    TIME_MAJOR: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A lane owns an element; ``inputs`` as those of the estimators."""
    rewards, values, terminated, truncated, final_values, _, _, mask = inputs
    element = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = element < num_steps.to(tl.int64) * num_envs
    element = tl.where(inside, element, 0)
    t = element // num_envs if TIME_MAJOR else element % num_steps
    n = element % num_envs if TIME_MAJOR else element // num_steps
    sequence = n
    end = tl.zeros_like(t) + num_steps
    if bounds is not None:
        sequence = _sequence(bounds, t, num_sequences, halvings)
        end = tl.load(bounds + sequence + 1).to(tl.int64)
    elif lengths is not None:
        end = tl.load(lengths + n).to(tl.int64)
    last = tl.load(last_values + sequence).to(ACCUMULATOR)
    total = tl.zeros([BLOCK], ACCUMULATOR)
    discount = total + 1
    counted = tl.zeros([BLOCK], tl.int32)
    at = t
    alive = _exists(mask, t, n, strides[7], inside & (t < end))
    while tl.max(alive.to(tl.int32), 0) > 0:
        over = alive & (at >= end)
        alive = alive & (at < end)
        here = _exists(mask, at, n, strides[7], alive)
        full = here & (counted == window)
        value = _load(values, at, n, strides[1], full).to(ACCUMULATOR)
        here = here & (counted < window)
        reward = _load(rewards, at, n, strides[0], here).to(ACCUMULATOR)
        total = tl.where(here, total + discount * reward, total)
        rate = tl.full([BLOCK], gamma, ACCUMULATOR)
        if gammas is not None:
            rate = _load(gammas, at, n, gamma_strides, here).to(ACCUMULATOR)
        discount = tl.where(here, discount * rate, discount)
        ended = _load(terminated, at, n, strides[2], here) != 0
        cut = (_load(truncated, at, n, strides[3], here & (ended == 0)) != 0) & (ended == 0)
        final = _load(final_values, at, n, strides[4], cut).to(ACCUMULATOR)
        behind = tl.where(full, value, tl.where(cut, final, last))
        total = tl.where(over | full | cut, total + discount * behind, total)
        alive = alive & (full == 0) & (ended == 0) & (cut == 0)
        counted += here.to(tl.int32)
        at += 1
    tl.store(output + t * output_strides[0] + n * output_strides[1], total, mask=inside)
