"""The update of PPO: epochs of minibatches over one collected batch.

One function over tensors. How a minibatch's gradient is found depends on the policy: the standard
one has an explicit backward pass, any other goes through torch's autograd. Both write into the
same flat gradient, and one clip and one Adam step follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rlox_gpu import actor_critic
from rlox_gpu.adam import AdamState, adam_step, limit_norm
from rlox_gpu.batch import RolloutBatch
from rlox_gpu.losses import METRICS, PPOLoss, categorical_ppo_gradients
from rlox_gpu.parameters import FlatParameters
from rlox_gpu.policies import DiscretePolicy

Gradient = Callable[[RolloutBatch, Tensor, PPOLoss, bool], Tensor | None]
UPDATE_METRICS = (*METRICS, "grad_norm")


@dataclass(frozen=True)
class UpdateSettings:
    """The numbers of one update; annealed ones are already what this update uses."""

    n_epochs: int
    batch_size: int
    learning_rate: float
    max_grad_norm: float
    normalize_advantages: bool


def update(
    batch: RolloutBatch,
    flat: FlatParameters,
    adam: AdamState,
    gradient: Gradient,
    loss: PPOLoss,
    settings: UpdateSettings,
    *,
    seed: int,
    step: int,
) -> Tensor:
    """Improve the parameters on ``batch``, in place.

    Parameters
    ----------
    batch : RolloutBatch
        The transitions.
    flat, adam
        Parameters and optimizer state, updated.
    gradient : callable
        From :func:`gradient_for`.
    loss, settings
        Coefficients.
    seed, step : int
        Key and counter of the minibatch order; epoch e uses ``step * n_epochs + e``.

    Returns
    -------
    Tensor
        The means of ``UPDATE_METRICS`` over the minibatches of the last epoch, on the device.
    """
    collected: list[Tensor] = []
    for epoch in range(settings.n_epochs):
        last = epoch == settings.n_epochs - 1
        counter = step * settings.n_epochs + epoch
        for minibatch in batch.sample_minibatches(settings.batch_size, seed=seed, step=counter):
            advantages = minibatch.advantages
            if settings.normalize_advantages and len(advantages) > 1:
                advantages = normalize(advantages)
            metrics = gradient(minibatch, advantages, loss, last)
            norm = limit_norm(flat.grad, settings.max_grad_norm)
            adam_step(flat.data, flat.grad, adam, learning_rate=settings.learning_rate)
            if metrics is not None:
                collected.append(torch.cat((metrics, norm.unsqueeze(0))))
    return torch.stack(collected).mean(0)


def normalize(advantages: Tensor) -> Tensor:
    """Return advantages ``[B]`` with mean zero and deviation one."""
    deviation, mean = torch.std_mean(advantages)
    return (advantages - mean) / (deviation + 1e-8)


def gradient_for(policy: nn.Module, flat: FlatParameters) -> Gradient:
    """Return the function that writes the gradient of a minibatch's loss into ``flat.grad``."""
    if type(policy) is DiscretePolicy and policy.flat is flat:
        return partial(explicit_gradient, policy)
    return partial(autograd_gradient, policy, flat)


@torch.no_grad()
def explicit_gradient(
    policy: DiscretePolicy,
    minibatch: RolloutBatch,
    advantages: Tensor,
    loss: PPOLoss,
    with_metrics: bool = True,
) -> Tensor | None:
    """Overwrite ``policy.flat.grad`` by the explicit backward pass; return the metrics ``[5]``."""
    logits, values, saved = actor_critic.forward(policy.weights, minibatch.obs)
    gradients = categorical_ppo_gradients(
        logits,
        values,
        minibatch.actions,
        minibatch.log_probs,
        advantages,
        minibatch.returns,
        minibatch.values,
        loss,
        with_metrics=with_metrics,
    )
    actor_critic.backward(
        policy.weights, saved, gradients.logits, gradients.values, policy.gradients
    )
    return gradients.metrics


def autograd_gradient(
    policy: nn.Module,
    flat: FlatParameters,
    minibatch: RolloutBatch,
    advantages: Tensor,
    loss: PPOLoss,
    with_metrics: bool = True,
) -> Tensor | None:
    """Overwrite ``flat.grad`` through torch's autograd; return the metrics ``[5]``."""
    flat.grad.zero_()
    with torch.enable_grad():
        value, metrics = loss(
            policy,  # type: ignore[arg-type]
            minibatch.obs,
            minibatch.actions,
            minibatch.log_probs,
            advantages,
            minibatch.returns,
            minibatch.values,
        )
    value.backward()  # type: ignore[no-untyped-call]
    return torch.stack([metrics[name] for name in METRICS]) if with_metrics else None
