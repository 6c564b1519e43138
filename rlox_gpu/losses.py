"""The clipped surrogate objective of PPO: as a loss, and as its gradient in closed form.

Schulman et al., "Proximal policy optimization algorithms" (2017), equations 7 and 9. With the
ratio r = exp(log pi(a|s) - log pi_old(a|s)) and the advantage A, the loss of a minibatch is

    mean(-min(r A, clip(r, 1 - eps, 1 + eps) A)) + vf_coef mean(L_v) - ent_coef mean(H)

with L_v = 1/2 (v - R)^2 or, if values are clipped too, 1/2 max((v - R)^2, (v_c - R)^2) where
v_c = v_old + clip(v - v_old, -eps, eps). The KL divergence is reported as mean((r - 1) - log r)
(Schulman, "Approximating KL divergence", 2020).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rlox_gpu.policies import ActorCritic

METRICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


class PPOLoss:
    """PPO's loss for any policy, differentiable by torch.

    Parameters
    ----------
    clip_eps : float
        Half-width of the trust interval around ratio 1, and of the value clip.
    vf_coef, ent_coef : float
        Weights of the value loss and of the entropy bonus.
    max_grad_norm : float
        Kept for whoever clips gradients after this loss; the loss itself does not use it.
    clip_vloss : bool
        Whether the value prediction may move at most ``clip_eps`` away from the old one.

    Raises
    ------
    ValueError
        If a coefficient is negative or not finite, or ``clip_eps`` is not positive.
    """

    def __init__(
        self,
        clip_eps: float = 0.2,
        vf_coef: float = 0.5,
        ent_coef: float = 0.01,
        max_grad_norm: float = 0.5,
        clip_vloss: bool = True,
    ) -> None:
        if not (math.isfinite(clip_eps) and clip_eps > 0):
            raise ValueError(f"clip_eps: expected a positive number, got {clip_eps!r}")
        for name, value in (("vf_coef", vf_coef), ("ent_coef", ent_coef)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}: expected a number >= 0, got {value!r}")
        self.clip_eps, self.vf_coef, self.ent_coef = clip_eps, vf_coef, ent_coef
        self.max_grad_norm, self.clip_vloss = max_grad_norm, clip_vloss

    def __call__(
        self,
        policy: ActorCritic,
        obs: Tensor,
        actions: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
        returns: Tensor,
        old_values: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts.

        Parameters
        ----------
        policy : ActorCritic
            Gives log-probabilities, entropies and values.
        obs : Tensor
            ``(B, obs_dim)``.
        actions : Tensor
            ``(B,)``, or ``(B, act_dim)`` if the policy takes such.
        old_log_probs, advantages, returns, old_values : Tensor
            ``(B,)``; the advantages are used as they come.

        Returns
        -------
        loss : Tensor
            Zero-dimensional, with the graph to the policy's parameters.
        metrics : dict of str to Tensor
            ``policy_loss value_loss entropy approx_kl clip_fraction``, zero-dimensional and
            detached: they stay on the device until they are read or formatted.

        Raises
        ------
        ValueError
            If the batch is empty or the shapes do not fit together.
        """
        columns = {
            "old_log_probs": old_log_probs,
            "advantages": advantages,
            "returns": returns,
            "old_values": old_values,
        }
        for name, column in columns.items():
            if column.shape != (len(obs),):
                raise ValueError(f"{name}: expected shape ({len(obs)},), got {tuple(column.shape)}")
        if len(obs) == 0 or len(actions) != len(obs):
            raise ValueError(
                f"actions: {len(actions)} for {len(obs)} observations; both at least 1"
            )
        log_probs, entropies = policy.get_logprob_and_entropy(obs, actions)
        values = policy.get_value(obs)
        return self._combine(
            log_probs - old_log_probs, entropies, values, advantages, returns, old_values
        )

    def _combine(
        self,
        log_ratio: Tensor,
        entropies: Tensor,
        values: Tensor,
        advantages: Tensor,
        returns: Tensor,
        old_values: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        eps = self.clip_eps
        ratio = log_ratio.exp()
        surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - eps, 1 + eps) * advantages)
        policy_loss = -surrogate.mean()
        errors = (values - returns).square()
        if self.clip_vloss:
            clipped = old_values + (values - old_values).clamp(-eps, eps)
            errors = torch.maximum(errors, (clipped - returns).square())
        value_loss = 0.5 * errors.mean()
        entropy = entropies.mean()
        loss = policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy
        parts = (
            policy_loss,
            value_loss,
            entropy,
            (ratio - 1 - log_ratio).mean(),
            ((ratio - 1).abs() > eps).to(ratio.dtype).mean(),
        )
        return loss, {name: part.detach() for name, part in zip(METRICS, parts, strict=True)}


class Gradients(NamedTuple):
    """PPO's loss differentiated with respect to the heads' outputs."""

    logits: Tensor  # [B, A]
    values: Tensor  # [B]
    metrics: Tensor | None  # [5], in the order of METRICS


def categorical_ppo_gradients(
    logits: Tensor,
    values: Tensor,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    old_values: Tensor,
    loss: PPOLoss,
    *,
    with_metrics: bool = True,
) -> Gradients:
    """Differentiate PPO's loss by hand for a categorical policy.

    With p = softmax(logits), one-hot action e and entropy H, per sample and before the mean:
    d(-min(...))/dlogits = -A r [unclipped] (e - p), d(-H)/dlogits = p (log p + H), and
    dL_v/dv = v - R where the unclipped error counts, else 0 or the clipped one's own slope.

    Parameters
    ----------
    logits, values : Tensor
        ``[B, A]`` and ``[B]``, the policy's outputs.
    actions : Tensor
        int64 ``[B]``.
    old_log_probs, advantages, returns, old_values : Tensor
        ``[B]``.
    loss : PPOLoss
        The coefficients.
    with_metrics : bool
        Whether the loss's parts are computed too; the gradient does not need them.
    """
    scale, eps = 1.0 / len(logits), loss.clip_eps
    log_p = torch.log_softmax(logits, -1)
    p = log_p.exp()
    index = actions.unsqueeze(-1)
    log_ratio = log_p.gather(-1, index).squeeze(-1) - old_log_probs
    ratio = log_ratio.exp()
    weighted = ratio * advantages
    clipped = ratio.clamp(1 - eps, 1 + eps) * advantages
    # A r, scaled and negative, where the unclipped term is the smaller one.
    slope = torch.where(weighted <= clipped, weighted, 0.0).mul_(-scale).unsqueeze(-1)
    d_logits = (p * slope).neg_().scatter_add_(-1, index, slope)
    if loss.ent_coef or with_metrics:
        entropies = (p * log_p).sum(-1).neg_()
    if loss.ent_coef:
        d_logits.addcmul_(p, log_p + entropies.unsqueeze(-1), value=loss.ent_coef * scale)
    d_values, value_losses = _value_gradient(values, returns, old_values, loss)
    metrics = None
    if with_metrics:
        surrogate = torch.minimum(weighted, clipped).neg_()
        divergence, outside = ratio - 1 - log_ratio, ((ratio - 1).abs() > eps).to(ratio.dtype)
        metrics = torch.stack((surrogate, value_losses, entropies, divergence, outside)).mean(1)
    return Gradients(d_logits, d_values.mul_(loss.vf_coef * scale), metrics)


def _value_gradient(
    values: Tensor, returns: Tensor, old_values: Tensor, loss: PPOLoss
) -> tuple[Tensor, Tensor]:
    """Return ``dL_v/dv`` and ``L_v`` per sample."""
    error = values - returns
    if not loss.clip_vloss:
        return error, error.square().mul_(0.5)
    moved = values - old_values
    limited = moved.clamp(-loss.clip_eps, loss.clip_eps)
    clipped_error = old_values + limited - returns
    squared, clipped_squared = error.square(), clipped_error.square()
    # Where the clip is active its error is a constant of v; where it is not, both errors agree.
    slope = torch.where((squared >= clipped_squared) | (limited == moved), error, 0.0)
    return slope, torch.maximum(squared, clipped_squared).mul_(0.5)
