"""Generalised advantage estimation on the GPU, fused: one launch, each element moved once.

``delta[t] = r[t] + gamma * next_value[t] - v[t]`` and
``advantage[t] = delta[t] + gamma * lambda * advantage[t + 1]``, cut at the end of an episode
(Schulman et al., "High-dimensional continuous control using generalized advantage estimation",
ICLR 2016). Minimum traffic per element in f32 with byte flags: 4 + 4 + 1 bytes read, 4 + 4
written; with truncations one more flag byte, and four bytes where an episode was truncated.

``values[t + 1]`` comes from the registers of the step that was processed before, never from
memory a second time.
"""

import torch
import triton
import triton.language as tl

from ._launch import LaunchConfig, Layout, scan_config
from ._runtime import launching, sm_count
from .linear_scan import next_group, pack, rotate, scan_tile, step, unpack


@triton.jit
def _prologue(reward, value, next_value, final_value, terminated, truncated, gamma, decay):
    """``(a, b)`` of the recurrence for the advantage."""
    cut = terminated | truncated
    bootstrap = tl.where(truncated, final_value, next_value)
    b = reward + tl.where(terminated, 0.0, gamma * bootstrap) - value
    return tl.where(cut, 0.0, decay), b


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
):
    """A lane owns neighbouring environments and walks them back through time."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = n < num_envs
    discount = gamma.to(ACCUMULATOR)
    decay = (gamma * gae_lambda).to(ACCUMULATOR)
    next_value = tl.load(last_values + n, mask=inside, other=0.0).to(ACCUMULATOR)
    advantage = tl.zeros([BLOCK_N], ACCUMULATOR)
    top = num_steps.to(tl.int64)
    while top > 0:
        reward = ()
        value = ()
        ended = ()
        cut_short = ()
        for i in tl.static_range(AHEAD):
            t = top - 1 - i
            live = inside & (t >= 0)
            reward += (tl.load(rewards + t * stride_rewards + n, mask=live, other=0.0),)
            value += (tl.load(values + t * stride_values + n, mask=live, other=0.0),)
            ended += (tl.load(terminated + t * stride_terminated + n, mask=live, other=0),)
            if TRUNCATION:
                flags = tl.load(truncated + t * stride_truncated + n, mask=live, other=0)
                cut_short += (flags,)
        final = ()
        for i in tl.static_range(AHEAD):
            if TRUNCATION:
                at = final_values + (top - 1 - i) * stride_final + n
                wanted = (cut_short[i] != 0) & (ended[i] == 0)
                final += (tl.load(at, mask=wanted, other=0.0),)
        for i in tl.static_range(AHEAD):
            t = top - 1 - i
            live = inside & (t >= 0)
            v = value[i].to(ACCUMULATOR)
            is_end = ended[i] != 0
            if TRUNCATION:
                is_cut = cut_short[i] != 0
                f = final[i].to(ACCUMULATOR)
            else:
                is_cut = tl.zeros([BLOCK_N], tl.int1)
                f = next_value
            r = reward[i].to(ACCUMULATOR)
            a, b = _prologue(r, v, next_value, f, is_end, is_cut, discount, decay)
            advantage = step(a, b, advantage)
            next_value = v
            tl.store(advantages + t * stride_advantages + n, advantage, mask=live)
            tl.store(returns + t * stride_returns + n, advantage + v, mask=live)
        top -= AHEAD


@triton.jit(do_not_specialize=["num_steps"])
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
):
    """A warp owns rows; its lanes scan a tile of ``BLOCK_T`` steps, tile by tile back in time."""
    GROUPS: tl.constexpr = BLOCK_T // VECTOR
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]
    column = tl.arange(0, BLOCK_T)[None, :]
    inside = n < num_envs
    discount = gamma.to(ACCUMULATOR)
    decay = (gamma * gae_lambda).to(ACCUMULATOR)
    last = tl.load(last_values + n, mask=inside, other=0.0).to(ACCUMULATOR)
    value_carry = tl.broadcast_to(last, [BLOCK_N, GROUPS])
    carry = tl.zeros([BLOCK_N, GROUPS], ACCUMULATOR)
    steps = num_steps.to(tl.int64)
    start = tl.cdiv(steps, BLOCK_T) * BLOCK_T - BLOCK_T
    while start >= 0:
        reward = ()
        value = ()
        ended = ()
        cut_short = ()
        for i in tl.static_range(AHEAD):
            t = start - i * BLOCK_T + column
            live = inside & (t >= 0) & (t < steps)
            # Without the hint the byte loads would set the lanes' share to 16 steps, and the
            # wider loads would split sectors.
            at = tl.max_contiguous(n * stride_terminated + t, [1, VECTOR])
            reward += (tl.load(rewards + n * stride_rewards + t, mask=live, other=0.0),)
            value += (tl.load(values + n * stride_values + t, mask=live, other=0.0),)
            ended += (tl.load(terminated + at, mask=live, other=0),)
            if TRUNCATION:
                at = tl.max_contiguous(n * stride_truncated + t, [1, VECTOR])
                cut_short += (tl.load(truncated + at, mask=live, other=0),)
        final = ()
        for i in tl.static_range(AHEAD):
            if TRUNCATION:
                t = start - i * BLOCK_T + column
                wanted = (cut_short[i] != 0) & (ended[i] == 0)
                at = final_values + n * stride_final + t
                final += (tl.load(at, mask=wanted, other=0.0),)
        for i in tl.static_range(AHEAD):
            t = start - i * BLOCK_T + column
            live = inside & (t >= 0) & (t < steps)
            # Past the end the bootstrap value stands in for the value, and the advantage stays 0.
            v = tl.where(t < steps, value[i].to(ACCUMULATOR), last)
            v_parts = unpack(v, VECTOR)
            r_parts = unpack(reward[i].to(ACCUMULATOR), VECTOR)
            end_parts = unpack((ended[i] != 0).to(tl.int8), VECTOR)
            live_parts = unpack((t < steps).to(tl.int8), VECTOR)
            if TRUNCATION:
                cut_parts = unpack((cut_short[i] != 0).to(tl.int8), VECTOR)
                f_parts = unpack(final[i].to(ACCUMULATOR), VECTOR)
            value_rotated = rotate(v_parts[0])
            v_after = next_group(value_rotated, value_carry)
            value_carry = value_rotated
            a = ()
            b = ()
            for k in tl.static_range(VECTOR):
                if k < VECTOR - 1:
                    next_value = v_parts[k + 1]
                else:
                    next_value = v_after
                is_end = end_parts[k] != 0
                if TRUNCATION:
                    is_cut = cut_parts[k] != 0
                    f = f_parts[k]
                else:
                    is_cut = tl.zeros_like(is_end)
                    f = next_value
                a_k, b_k = _prologue(
                    r_parts[k], v_parts[k], next_value, f, is_end, is_cut, discount, decay
                )
                a += (a_k,)
                b += (tl.where(live_parts[k] != 0, b_k, 0.0),)
            x, carry = scan_tile(a, b, carry, VECTOR)
            advantage = pack(x, VECTOR)
            tl.store(advantages + n * stride_advantages + t, advantage, mask=live)
            tl.store(returns + n * stride_returns + t, advantage + v, mask=live)
        start -= AHEAD * BLOCK_T
