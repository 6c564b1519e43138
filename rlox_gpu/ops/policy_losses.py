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
from ._policy_losses_common import grpo_rules, ppo_coefficients


class PPOTerms(NamedTuple):
    """What PPO's losses return: the loss and means over the valid samples."""

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
        On a GPU at most 4,096 actions.
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


def gaussian_ppo_loss(
    mean: Any,
    log_std: Any,
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
    """:func:`ppo_loss` of a Gaussian policy whose ``A`` dimensions are independent.

    With ``z = (actions - mean) / exp(log_std)``, of a sample and summed over the dimensions::

        log pi(a) = sum(-z^2 / 2 - log_std - ln(2 pi) / 2)
        entropy   = sum(log_std + 1/2 + ln(2 pi) / 2)

    All else is as for :func:`ppo_loss`.

    Parameters
    ----------
    mean : array, ``[..., A]``
        Means of the dimensions of an action. On a GPU at most 4,096 dimensions.
    log_std : array, ``[A]`` or ``[..., A]``
        Natural logarithms of the standard deviations: of all samples, as most policies have them,
        or of each.
    actions : array, ``[..., A]``
        The actions as they were drawn, before any squashing or clipping.
    old_log_probs, advantages, returns : array, ``[...]``
        Constants, the first of them summed over the dimensions.
    values, old_values, mask : array, ``[...]``
        As for :func:`ppo_loss`.
    clip_eps, vf_coef, ent_coef : float
        As for :func:`ppo_loss`.

    Returns
    -------
    PPOTerms
        ``loss`` is differentiable with respect to ``mean``, ``log_std`` and ``values``.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If a shape, device or number does not fit.
    """
    coefficients = ppo_coefficients(clip_eps, vf_coef, ent_coef)
    call = implementation("mean", mean, "policy_losses", "gaussian_ppo_loss")
    columns = (old_log_probs, advantages, returns, values, old_values, mask)
    return PPOTerms(*call(mean, log_std, actions, *columns, *coefficients))


class GRPOTerms(NamedTuple):
    """What :func:`grpo_loss` returns; ``kl`` is None without a reference."""

    loss: Any
    policy_loss: Any
    kl: Any
    clip_fraction: Any


def grpo_loss(
    logprobs: Any,
    old_logprobs: Any,
    advantages: Any,
    *,
    mask: Any = None,
    ref_logprobs: Any = None,
    clip_eps_low: float | None = 0.2,
    clip_eps_high: float | None = 0.2,
    kl_coef: float = 0.0,
    kl_kind: str = "k3",
    ratio_level: str = "token",
    aggregation: str = "grpo",
    max_tokens: float | None = None,
) -> GRPOTerms:
    """The loss of GRPO and its relatives on token log-probabilities.

    With the ratio ``r`` of a token and ``d = logprob - ref_logprob``, a token's loss is::

        -min(r A, clip(r, 1 - clip_eps_low, 1 + clip_eps_high) A) + kl_coef * kl(d)

    and an aggregation adds up the valid tokens of ``B`` sequences, ``n[b]`` each::

        "grpo"      sum over b of (sum over t) / n[b], divided by B
        "dr_grpo"   sum over b and t, divided by B * max_tokens
        "dapo"      sum over b and t, divided by the sum of n

    ==============  ==============================================================================
    GRPO            as it stands, with ``ref_logprobs`` and ``kl_coef``
    Dr. GRPO        ``aggregation="dr_grpo", max_tokens=`` the longest completion that is allowed
    DAPO            ``aggregation="dapo", clip_eps_high=0.28``
    GSPO            ``ratio_level="sequence"`` and much smaller clips, such as 3e-4 and 4e-4
    ==============  ==============================================================================

    Parameters
    ----------
    logprobs : array, ``[B, T]``
        Log-probabilities of the tokens under the policy in training.
    old_logprobs : array, ``[B, T]``
        The same under the policy that generated them; a constant.
    advantages : array, ``[B]`` or ``[B, T]``
        One per sequence or per token; a constant.
    mask : array, ``[B, T]``, optional
        Bool, integer or float: nonzero where a token counts. A sequence without any such token adds
        zero, but is one of the ``B``; where no token counts the loss is zero.
    ref_logprobs : array, ``[B, T]``, optional
        Log-probabilities under the reference policy; a constant.
    clip_eps_low, clip_eps_high : float or None
        How far below and above 1 the ratio counts; None: without bound.
    kl_coef : float
        Weight of the divergence from the reference.
    kl_kind : str
        The estimate of the divergence: ``"k1"`` is ``d``, ``"k2"`` is ``d^2 / 2``, ``"k3"`` is
        ``exp(-d) - 1 + d``. The gradient is that of the estimate at the given tokens; of k1 it does
        not depend on the reference and is zero on average.
    ratio_level : str
        ``"token"``: ``r = exp(logprob - old_logprob)``. ``"sequence"``: all tokens of a sequence
        have the exponential of the mean of ``logprob - old_logprob`` over its valid tokens, and the
        gradient goes through that mean.
    aggregation : str
        ``"grpo"``, ``"dr_grpo"`` or ``"dapo"``.
    max_tokens : float, optional
        The constant of ``"dr_grpo"``, only there. The padded length ``T`` is no constant.

    Returns
    -------
    GRPOTerms
        ``loss = policy_loss + kl_coef * kl`` is differentiable with respect to ``logprobs``;
        ``policy_loss`` and ``kl`` are aggregated as the loss is. ``clip_fraction`` is the share of
        valid tokens where the clip holds: those that the gradient of the policy loss leaves out.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If a shape, device or number does not fit, a choice is unknown, ``kl_coef`` has no
        reference, or ``max_tokens`` is missing or of no use.

    References
    ----------
    GRPO: Shao et al., "DeepSeekMath", https://arxiv.org/abs/2402.03300. Dr. GRPO: Liu et al.,
    "Understanding R1-Zero-like training", https://arxiv.org/abs/2503.20783. DAPO: Yu et al.,
    https://arxiv.org/abs/2503.14476. GSPO: Zheng et al., "Group sequence policy optimization",
    https://arxiv.org/abs/2507.18071.
    """
    rules = grpo_rules(
        (clip_eps_low, clip_eps_high),
        (kl_coef, kl_kind, ref_logprobs),
        ratio_level,
        (aggregation, max_tokens),
    )
    call = implementation("logprobs", logprobs, "policy_losses", "grpo_loss")
    terms = call(logprobs, old_logprobs, advantages, ref_logprobs, mask, *rules)
    loss, policy_loss, kl, clip_fraction = terms
    return GRPOTerms(loss, policy_loss, None if ref_logprobs is None else kl, clip_fraction)
