"""PPO's loss of a diagonal Gaussian policy, its parts and its unscaled gradient, in one pass.

Traffic per sample for ``A`` actions, in f32: mean and action 8 A, and 4 for old log-probability,
advantage, return, value and old value are read, 4 A + 4 of gradient written; a mask adds one byte,
a ``log_std`` of each sample 4 A read and 4 A written.
"""

import torch
import triton
import triton.language as tl

from .ppo_terms import (
    Tiles,
    add,
    check_actions,
    column,
    launch,
    leave,
    leave_shared,
    no_sums,
    policy_terms,
    store_value_gradient,
    valid_samples,
    value_terms,
)

_TILES = Tiles(widest=16, elements=1024)
_HALF_LN_2_PI = tl.constexpr(0.9189385332046727)


@triton.jit
def _load(x, at, inside, valid, ACCUMULATOR: tl.constexpr):
    x = tl.load(x + at, mask=inside, other=0.0).to(ACCUMULATOR)
    return tl.where(valid[:, None], x, 0.0)


@triton.jit(do_not_specialize=["count", "turns"])
def _gaussian_kernel(
    mean,
    log_std,
    actions,
    old_log_probs,
    advantages,
    returns,
    values,
    old_values,
    mask,
    gradient,
    shared,
    partials,
    loss,
    parts,
    scale,
    count,
    turns,
    clip_eps: "fp64",  # noqa: F821
    vf_coef: "fp64",  # noqa: F821
    ent_coef: "fp64",  # noqa: F821
    ACCUMULATOR: tl.constexpr,
    ACTIONS: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SHARED: tl.constexpr,
):
    eps = tl.full([], clip_eps, ACCUMULATOR)
    value_weight = tl.full([], vf_coef, ACCUMULATOR)
    entropy_weight = tl.full([], ent_coef, ACCUMULATOR)
    sums = no_sums(BLOCK_N, ACCUMULATOR)
    slopes = tl.zeros([BLOCK_A], ACCUMULATOR)
    place = tl.arange(0, BLOCK_A)
    a = place[None, :]
    if SHARED:
        log_stds = tl.load(log_std + a, mask=a < ACTIONS, other=0.0).to(ACCUMULATOR)
    start = tl.program_id(0).to(tl.int64) * turns * BLOCK_N
    for turn in range(turns):
        n = start + turn * BLOCK_N + tl.arange(0, BLOCK_N)
        valid = valid_samples(mask, n, count)
        at = n[:, None] * ACTIONS + a
        inside = (n < count)[:, None] & (a < ACTIONS)
        # Zeros beside the actions, deviation one included, add nothing to any sum.
        if not SHARED:
            log_stds = _load(log_std, at, inside, valid, ACCUMULATOR)
        inverse = tl.exp(-log_stds)
        z = _load(actions, at, inside, valid, ACCUMULATOR)
        z = (z - _load(mean, at, inside, valid, ACCUMULATOR)) * inverse
        spread = tl.sum(log_stds, 1) + ACTIONS * _HALF_LN_2_PI
        log_prob = -0.5 * tl.sum(z * z, 1) - spread
        entropy = tl.zeros([BLOCK_N], ACCUMULATOR) + (spread + 0.5 * ACTIONS)
        old = column(old_log_probs, n, count, valid, ACCUMULATOR)
        advantage = column(advantages, n, count, valid, ACCUMULATOR)
        policy, slope, divergence, outside = policy_terms(log_prob, old, advantage, eps)
        value, value_slope = value_terms(
            values, returns, old_values, n, count, valid, eps, ACCUMULATOR
        )
        sums = add(sums, (policy, value, entropy, divergence, outside), valid)
        if gradient is not None:
            d_mean = tl.where(valid[:, None], slope[:, None] * z * inverse, 0.0)
            tl.store(gradient + at, d_mean, mask=inside)
            d_log_std = slope[:, None] * (z * z - 1) - entropy_weight
            d_log_std = tl.where(valid[:, None], d_log_std, 0.0)
            numbers = count.to(tl.int64) * ACTIONS
            of_values = gradient + numbers
            if SHARED:
                slopes += tl.sum(d_log_std, 0)
            else:
                tl.store(gradient + numbers + at, d_log_std, mask=inside)
                of_values += numbers
            store_value_gradient(of_values, value_slope, value_weight, n, count, valid)
    samples = leave(sums, partials, loss, parts, scale, value_weight, entropy_weight)
    if shared is not None:
        leave_shared(slopes, partials, shared, samples, place, ACTIONS)


def launch_gaussian_ppo_loss(
    policy: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    columns: tuple[torch.Tensor | None, ...],
    gradients: tuple[torch.Tensor | None, torch.Tensor | None],
    terms: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    coefficients: tuple[float, float, float],
) -> None:
    """Write loss, parts and scale, and the gradients if they are given; all contiguous.

    ``policy`` is mean ``[..., A]``, ``log_std``, ``[A]`` or like the mean, and actions like the
    mean; the columns are those of the categorical policy. The gradients are that of the samples'
    own numbers, and the scaled one of a ``log_std`` that they share.
    """
    mean, log_std, _ = policy
    size = mean.shape[-1]
    check_actions("mean", size)
    launch(
        _gaussian_kernel,
        (*policy, *columns),
        gradients,
        terms,
        coefficients,
        count=mean.numel() // size,
        actions=size,
        tiles=_TILES,
        shared=gradients[1],
        SHARED=log_std.shape != mean.shape,
    )
