"""Fused losses of policy-gradient methods: value, parts and gradient from one pass.

Each loss computes the gradient with its value, in the same pass over the inputs; the backward pass
only scales it. Where no gradient is wanted it is not computed.

Conventions
-----------
Arrays are float16, bfloat16, float32 or float64, all of one call of one dtype; half types are
computed in float32. An array that is not contiguous is copied once. ``mask`` is nonzero where a
sample counts: whatever lies elsewhere, NaN included, changes nothing and gets the gradient zero.

Results are zero-dimensional, float64 for float64 input and float32 for all others, and stay on the
device. Of tensors, ``loss`` is differentiable, once; its parts are constants, for logging. NumPy
arrays and those of other libraries have no automatic differentiation, so they get the numbers only.

Sums are formed in an order that depends on the shapes alone: the same call gives the same bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ._kinds import implementation
from ._policy_losses_common import ppo_coefficients


class PPOTerms(NamedTuple):
    """What :func:`ppo_loss` returns: the loss and means over the valid samples."""

    loss: Any
    policy_loss: Any
    value_loss: Any
    entropy: Any
    approx_kl: Any
    clip_fraction: Any


def ppo_loss(
    logits: Any,
    actions: Any,
    old_log_probs: Any,
    advantages: Any,
    returns: Any,
    values: Any,
    *,
    old_values: Any = None,
    mask: Any = None,
    clip_eps: float = 0.2,
    vf_coef: float = 0.5,
    ent_coef: float = 0.01,
) -> PPOTerms:
    """PPO's clipped loss of a categorical policy, with value loss and entropy bonus.

    With the ratio ``r = pi(a) / pi_old(a)`` and means over the valid samples::

        policy_loss   = mean(-min(r A, clip(r, 1 - clip_eps, 1 + clip_eps) A))
        value_loss    = mean(1/2 (v - R)^2)
        loss          = policy_loss + vf_coef * value_loss - ent_coef * entropy
        approx_kl     = mean((r - 1) - log r)
        clip_fraction = mean(|r - 1| > clip_eps)

    With ``old_values`` a value may gain from moving at most ``clip_eps`` away from the old one: its
    error is then ``max((v - R)^2, (v_old + clip(v - v_old, -clip_eps, clip_eps) - R)^2)``.

    Parameters
    ----------
    logits : array, ``[..., A]``
        Unnormalised log-probabilities of the ``A`` actions; minus infinity rules an action out.
    actions : array, ``[...]``
        int64. One outside ``0 .. A - 1`` makes the loss NaN.
    old_log_probs, advantages, returns : array, ``[...]``
        Constants. The advantages are used as they come.
    values : array, ``[...]``
        The critic's predictions.
    old_values : array, ``[...]``, optional
        The predictions at collection, for clipped values; without them values are not clipped.
    mask : array, ``[...]``, optional
        Bool, integer or float: nonzero where a sample counts. Without any such sample, an empty
        batch included, everything is zero.
    clip_eps, vf_coef, ent_coef : float
        Half-width of the trust interval, weights of value loss and entropy; finite, not negative.

    Returns
    -------
    PPOTerms
        ``loss`` is differentiable with respect to ``logits`` and ``values``.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If a shape, device or number does not fit.

    References
    ----------
    Schulman et al., "Proximal policy optimization algorithms", https://arxiv.org/abs/1707.06347;
    the estimate of the divergence is that of Schulman, "Approximating KL divergence", 2020,
    http://joschu.net/blog/kl-approx.html.
    """
    coefficients = ppo_coefficients(clip_eps, vf_coef, ent_coef)
    call = implementation("logits", logits, "policy_losses", "ppo_loss")
    columns = (old_log_probs, advantages, returns, values, old_values, mask)
    return PPOTerms(*call(logits, actions, *columns, *coefficients))
