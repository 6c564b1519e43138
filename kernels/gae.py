"""Generalised advantage estimation on the GPU, fused: one launch, each element moved once.

``delta[t] = r[t] + gamma * next_value[t] - v[t]`` and
``advantage[t] = delta[t] + gamma * lambda * advantage[t + 1]``, cut at the end of an episode
(Schulman et al., "High-dimensional continuous control using generalized advantage estimation",
ICLR 2016). Minimum traffic per element in f32 with byte flags: 4 + 4 + 1 bytes read, 4 + 4
written; with truncations one more flag byte, and four bytes where an episode was truncated.

``values[t + 1]`` comes from the registers of the step that was processed before, never from
memory a second time.
"""

import math

import torch
import triton
import triton.language as tl

from ._launch import Layout, scan_config
from ._layout import empty_in, fits, laid_out, layout_of
from ._runtime import current, sm_count
from .linear_scan import next_group, pack, rotate, scan_tile, step, unpack


@triton.jit
def _prologue(
    reward,
    value,
    next_value,
    final_value,
    ended,
    cut_short,
    gamma,
    decay,
    TRUNCATION: tl.constexpr,
):
    """``(a, b)`` of the recurrence for the advantage; flags as they were stored."""
    cut = ended != 0
    bootstrap = next_value
    if TRUNCATION:
        bootstrap = tl.where(cut_short != 0, final_value, next_value)
    b = reward + tl.where(cut, 0.0, gamma * bootstrap) - value
    if TRUNCATION:
        cut = cut | (cut_short != 0)
    return tl.where(cut, 0.0, decay), b


@triton.jit
def _elements(count, UNIT: tl.constexpr):
    return tl.full([], count, tl.int64) * UNIT


@triton.jit(do_not_specialize=["num_steps"])
def _gae_time_major_kernel(
    rewards,
    values,
    terminated,
    truncated,
    final_values,
    last_values,
    advantages,
    returns,
    num_steps,
    num_envs,
    stride_rewards,
    stride_values,
    stride_terminated,
    stride_truncated,
    stride_final,
    stride_advantages,
    stride_returns,
    gamma: "fp64",  # noqa: F821
    gae_lambda: "fp64",  # noqa: F821
    TRUNCATION: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK_N: tl.constexpr,
    AHEAD: tl.constexpr,
    UNIT: tl.constexpr,
):
    """A lane owns neighbouring environments and walks them back through time.

    ``num_envs`` and the strides count in units of ``UNIT`` elements: so the compiler sees by how
    much the rows are aligned, which decides how wide it may read.
    """
    envs = _elements(num_envs, UNIT)
    stride_rewards = _elements(stride_rewards, UNIT)
    stride_values = _elements(stride_values, UNIT)
    stride_terminated = _elements(stride_terminated, UNIT)
    stride_truncated = _elements(stride_truncated, UNIT)
    stride_final = _elements(stride_final, UNIT)
    stride_advantages = _elements(stride_advantages, UNIT)
    stride_returns = _elements(stride_returns, UNIT)
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    discount = tl.full([], gamma, ACCUMULATOR)
    decay = tl.full([], gamma * gae_lambda, ACCUMULATOR)
    next_value = tl.load(last_values + n, mask=n < envs, other=0.0).to(ACCUMULATOR)
    advantage = tl.zeros([BLOCK_N], ACCUMULATOR)
    top = num_steps.to(tl.int64) - 1
    reward_row = rewards + top * stride_rewards
    value_row = values + top * stride_values
    end_row = terminated + top * stride_terminated
    advantage_row = advantages + top * stride_advantages
    return_row = returns + top * stride_returns
    if TRUNCATION:
        cut_row = truncated + top * stride_truncated
        final_row = final_values + top * stride_final
    while top >= 0:
        reward = ()
        value = ()
        ended = ()
        cut_short = ()
        for i in tl.static_range(AHEAD):
            live = n < tl.where(top >= i, envs, 0)
            reward += (tl.load(reward_row + n, mask=live, other=0.0),)
            value += (tl.load(value_row + n, mask=live, other=0.0),)
            ended += (tl.load(end_row + n, mask=live, other=0),)
            reward_row -= stride_rewards
            value_row -= stride_values
            end_row -= stride_terminated
            if TRUNCATION:
                cut_short += (tl.load(cut_row + n, mask=live, other=0),)
                cut_row -= stride_truncated
            else:
                cut_short += (ended[i],)
        final = ()
        for i in tl.static_range(AHEAD):
            if TRUNCATION:
                wanted = (cut_short[i] != 0) & (ended[i] == 0)
                final += (tl.load(final_row + n, mask=wanted, other=0.0),)
                final_row -= stride_final
            else:
                final += (value[i],)
        for i in tl.static_range(AHEAD):
            live = n < tl.where(top >= i, envs, 0)
            v = value[i].to(ACCUMULATOR)
            r = reward[i].to(ACCUMULATOR)
            f = final[i].to(ACCUMULATOR)
            a, b = _prologue(
                r, v, next_value, f, ended[i], cut_short[i], discount, decay, TRUNCATION
            )
            advantage = step(a, b, advantage)
            next_value = v
            tl.store(advantage_row + n, advantage, mask=live)
            tl.store(return_row + n, advantage + v, mask=live)
            advantage_row -= stride_advantages
            return_row -= stride_returns
        top -= AHEAD


@triton.jit
def _solve_tile(
    reward,
    value,
    ended,
    cut_short,
    final,
    value_carry,
    carry,
    discount,
    decay,
    TRUNCATION: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Advantages of one tile ``[R, BLOCK_T]`` and the two carries for the earlier tile."""
    v = unpack(value, VECTOR)
    r = unpack(reward, VECTOR)
    end = unpack(ended, VECTOR)
    cut = unpack(cut_short, VECTOR)
    f = unpack(final, VECTOR)
    rotated = rotate(v[0])
    next_values = v[1:] + (next_group(rotated, value_carry),)
    a = ()
    b = ()
    for k in tl.static_range(VECTOR):
        a_k, b_k = _prologue(
            r[k], v[k], next_values[k], f[k], end[k], cut[k], discount, decay, TRUNCATION
        )
        a += (a_k,)
        b += (b_k,)
    x, carry = scan_tile(a, b, carry, VECTOR)
    return pack(x, VECTOR), rotated, carry


@triton.jit
def _gae_row_major_kernel(
    rewards,
    values,
    terminated,
    truncated,
    final_values,
    last_values,
    advantages,
    returns,
    num_steps,
    num_envs,
    stride_rewards,
    stride_values,
    stride_terminated,
    stride_truncated,
    stride_final,
    stride_advantages,
    stride_returns,
    gamma: "fp64",  # noqa: F821
    gae_lambda: "fp64",  # noqa: F821
    TRUNCATION: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    VECTOR: tl.constexpr,
    AHEAD: tl.constexpr,
    UNIT: tl.constexpr,
):
    """A warp owns rows; its lanes scan a tile of ``BLOCK_T`` steps, tile by tile back in time.

    ``num_steps`` and the strides count in units of ``UNIT`` elements: so the compiler sees by how
    much the rows are aligned, which decides how wide it may read.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]
    column = tl.arange(0, BLOCK_T)[None, :]
    inside = n < num_envs
    discount = tl.full([], gamma, ACCUMULATOR)
    decay = tl.full([], gamma * gae_lambda, ACCUMULATOR)
    last = tl.load(last_values + n, mask=inside, other=0.0).to(ACCUMULATOR)
    value_carry = tl.broadcast_to(last, [BLOCK_N, BLOCK_T // VECTOR])
    carry = tl.zeros([BLOCK_N, BLOCK_T // VECTOR], ACCUMULATOR)
    reward_row = n * stride_rewards * UNIT
    value_row = n * stride_values * UNIT
    end_row = n * stride_terminated * UNIT
    cut_row = n * stride_truncated * UNIT
    final_row = n * stride_final * UNIT
    steps = _elements(num_steps, UNIT)
    start = tl.cdiv(steps, BLOCK_T) * BLOCK_T - BLOCK_T
    while start >= 0:
        reward = ()
        value = ()
        ended = ()
        cut_short = ()
        for i in tl.static_range(AHEAD):
            t = start - i * BLOCK_T + column
            live = inside & (t >= 0) & (t < steps)
            reward += (tl.load(rewards + reward_row + t, mask=live, other=0.0),)
            value += (tl.load(values + value_row + t, mask=live, other=0.0),)
            # Without the hint the byte loads would set a lane's share to 16 steps, and the wider
            # loads would split sectors.
            at = tl.max_contiguous(end_row + t, [1, VECTOR])
            ended += (tl.load(terminated + at, mask=live, other=1),)
            if TRUNCATION:
                at = tl.max_contiguous(cut_row + t, [1, VECTOR])
                cut_short += (tl.load(truncated + at, mask=live, other=0),)
            else:
                cut_short += (ended[i],)
        final = ()
        for i in tl.static_range(AHEAD):
            if TRUNCATION:
                at = final_row + (start - i * BLOCK_T + column)
                wanted = (cut_short[i] != 0) & (ended[i] == 0)
                final += (tl.load(final_values + at, mask=wanted, other=0.0),)
            else:
                final += (value[i],)
        for i in tl.static_range(AHEAD):
            t = start - i * BLOCK_T + column
            live = inside & (t >= 0) & (t < steps)
            # Past the end: terminated steps whose value and reward are the bootstrap value, so
            # that the last step finds its next value and an advantage of zero.
            v = tl.where(t < steps, value[i].to(ACCUMULATOR), last)
            r = tl.where(t < steps, reward[i].to(ACCUMULATOR), last)
            advantage, value_carry, carry = _solve_tile(
                r,
                v,
                ended[i],
                cut_short[i],
                final[i].to(ACCUMULATOR),
                value_carry,
                carry,
                discount,
                decay,
                TRUNCATION,
                VECTOR,
            )
            tl.store(advantages + n * stride_advantages * UNIT + t, advantage, mask=live)
            tl.store(returns + n * stride_returns * UNIT + t, advantage + v, mask=live)
        start -= AHEAD * BLOCK_T


def launch_gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    terminated: torch.Tensor,
    last_values: torch.Tensor,
    truncated: torch.Tensor | None,
    final_values: torch.Tensor | None,
    advantages: torch.Tensor,
    returns: torch.Tensor,
    gamma: float,
    gae_lambda: float,
) -> None:
    """Write ``advantages`` and ``returns``; every tensor is a ``[T, N]`` view, any layout.

    The layout of ``values`` decides. A tensor that has another one is copied once into it (an
    output: written back once).
    """
    layout = layout_of(values)
    outputs = (advantages, returns)
    inputs = [laid_out(x, layout) for x in (rewards, values, terminated)]
    optional = [None if x is None else laid_out(x, layout) for x in (truncated, final_values)]
    targets = [x if fits(x, layout) else empty_in(x, layout) for x in outputs]
    arrays = [*inputs, *optional]
    _launch(layout, arrays, last_values.contiguous(), targets, gamma, gae_lambda)
    for output, target in zip(outputs, targets, strict=True):
        if output is not target:
            output.copy_(target)


def _launch(layout, arrays, last_values, targets, gamma, gae_lambda):
    rewards, values, terminated, truncated, final_values = arrays
    num_steps, num_envs = values.shape
    time_major = layout is Layout.TIME_MAJOR
    outer, inner = (0, 1) if time_major else (1, 0)
    # A stride that is never taken is passed as 0, which the compiler knows to be aligned.
    strides = [
        0 if x is None or x.shape[outer] == 1 else x.stride(outer) for x in (*arrays, *targets)
    ]
    config = scan_config(
        num_steps,
        num_envs,
        layout,
        values.element_size(),
        sm_count(values.device),
        alignment=math.gcd(values.shape[inner], *strides),
        truncation=truncated is not None,
    )
    sizes = [
        size // config.unit if axis == inner else size for axis, size in enumerate(values.shape)
    ]
    shape = {"BLOCK_N": config.block_n, "AHEAD": config.ahead, "UNIT": config.unit}
    if not time_major:
        shape |= {"BLOCK_T": config.block_t, "VECTOR": config.vector}
    kernel = _gae_time_major_kernel if time_major else _gae_row_major_kernel
    with current(values.device):
        kernel[(config.programs(num_envs),)](
            rewards,
            values,
            _bytes(terminated),
            None if truncated is None else _bytes(truncated),
            final_values,
            last_values,
            *targets,
            *sizes,
            *(stride // config.unit for stride in strides),
            gamma,
            gae_lambda,
            TRUNCATION=truncated is not None,
            ACCUMULATOR=tl.float64 if values.dtype is torch.float64 else tl.float32,
            num_warps=config.num_warps,
            enable_fp_fusion=True,
            **shape,
        )


def _bytes(flags):
    return flags.view(torch.uint8) if flags.dtype is torch.bool else flags
