"""PPO's loss of a categorical policy, its parts and its unscaled gradient, in one pass.

Traffic per sample for ``A`` actions, in f32: logits 4 A, action 8, and 4 for old log-probability,
advantage, return, value and old value are read, 4 A + 4 of gradient written; a mask adds one byte.
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
    no_sums,
    policy_terms,
    store_value_gradient,
    valid_samples,
    value_terms,
)

_TILES = Tiles(widest=32, elements=2048)


@triton.jit(do_not_specialize=["count", "turns"])
def _categorical_kernel(
    logits,
    actions,
    old_log_probs,
    advantages,
    returns,
    values,
    old_values,
    mask,
    gradient,
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
):
    eps = tl.full([], clip_eps, ACCUMULATOR)
    value_weight = tl.full([], vf_coef, ACCUMULATOR)
    entropy_weight = tl.full([], ent_coef, ACCUMULATOR)
    sums = no_sums(BLOCK_N, ACCUMULATOR)
    a = tl.arange(0, BLOCK_A)[None, :]
    start = tl.program_id(0).to(tl.int64) * turns * BLOCK_N
    for turn in range(turns):
        n = start + turn * BLOCK_N + tl.arange(0, BLOCK_N)
        valid = valid_samples(mask, n, count)
        at = n[:, None] * ACTIONS + a
        inside = (n < count)[:, None] & (a < ACTIONS)
        x = tl.load(logits + at, mask=inside, other=-float("inf")).to(ACCUMULATOR)
        x = tl.where(valid[:, None], x, 0.0)
        action = tl.where(valid, tl.load(actions + n, mask=n < count, other=0), 0)
        chosen = a == action[:, None]
        shifted = x - tl.max(x, 1)[:, None]
        weight = tl.exp(shifted)
        total = tl.sum(weight, 1)
        log_total = tl.log(total)
        picked = tl.sum(tl.where(chosen, shifted, 0.0), 1)
        # A class of probability zero, its logit minus infinity perhaps, adds nothing.
        shifted = tl.where(weight != 0, shifted, 0.0)
        entropy = log_total - tl.sum(weight * shifted, 1) / total
        picked = tl.where((action >= 0) & (action < ACTIONS), picked, float("nan"))
        old = column(old_log_probs, n, count, valid, ACCUMULATOR)
        advantage = column(advantages, n, count, valid, ACCUMULATOR)
        policy, slope, divergence, outside = policy_terms(picked - log_total, old, advantage, eps)
        value, value_slope = value_terms(
            values, returns, old_values, n, count, valid, eps, ACCUMULATOR
        )
        sums = add(sums, (policy, value, entropy, divergence, outside), valid)
        if gradient is not None:
            log_p = shifted - log_total[:, None]
            pull = entropy_weight * (log_p + entropy[:, None]) - slope[:, None]
            d_logits = weight / total[:, None] * pull + tl.where(chosen, slope[:, None], 0.0)
            d_logits = tl.where(valid[:, None], d_logits, 0.0)
            tl.store(gradient + at, d_logits, mask=inside)
            of_values = gradient + count.to(tl.int64) * ACTIONS
            store_value_gradient(of_values, value_slope, value_weight, n, count, valid)
    leave(sums, partials, loss, parts, scale, value_weight, entropy_weight)


def launch_ppo_loss(
    logits: torch.Tensor,
    actions: torch.Tensor,
    columns: tuple[torch.Tensor | None, ...],
    gradient: torch.Tensor | None,
    terms: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    coefficients: tuple[float, float, float],
) -> None:
    """Write loss, parts and scale, and the gradient if it is given; all contiguous.

    ``logits [..., A]``, int64 ``actions``, and the columns: old log-probabilities, advantages,
    returns, values, and old values and a mask of bytes or None.
    """
    size = logits.shape[-1]
    check_actions("logits", size)
    launch(
        _categorical_kernel,
        (logits, actions, *columns),
        (gradient,),
        terms,
        coefficients,
        count=actions.numel(),
        actions=size,
        tiles=_TILES,
    )
