"""The standard actor-critic network with an explicit backward pass.

Actor and critic are two separate tanh networks of equal width, so both go through each hidden
layer as one batched product, and the backward pass writes straight into the flat gradient.
Shapes: B samples, D observation entries, H hidden units, A actions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlox_gpu.parameters import FlatParameters

LAYERS = ("0", "2", "4")  # positions of the linear layers among the activations


class Weights(NamedTuple):
    """Views of a flat tensor: actor (index 0) and critic (index 1) side by side."""

    input_weight: Tensor  # [2, H, D]
    input_bias: Tensor  # [2, H]
    hidden_weight: Tensor  # [2, H, H]
    hidden_bias: Tensor  # [2, H]
    actor_weight: Tensor  # [A, H]
    actor_bias: Tensor  # [A]
    critic_weight: Tensor  # [1, H]
    critic_bias: Tensor  # [1]


class Activations(NamedTuple):
    """What the backward pass needs of a forward pass."""

    obs: Tensor  # [B, D]
    first: Tensor  # [2, B, H]
    second: Tensor  # [2, B, H]


def flat_order() -> list[str]:
    """Return the parameter names so that equal parts of actor and critic are neighbours."""
    return [
        f"{network}.{layer}.{kind}"
        for layer in LAYERS
        for kind in ("weight", "bias")
        for network in ("actor", "critic")
    ]


def weights_of(flat: FlatParameters, source: Tensor) -> Weights:
    """Return ``source`` (the data or the gradient of ``flat``) as named views."""

    def both(name: str) -> Tensor:
        return flat.pair(source, f"actor.{name}", f"critic.{name}")

    return Weights(
        both("0.weight"),
        both("0.bias"),
        both("2.weight"),
        both("2.bias"),
        *(flat.view(source, f"actor.4.{kind}") for kind in ("weight", "bias")),
        *(flat.view(source, f"critic.4.{kind}") for kind in ("weight", "bias")),
    )


def forward(weights: Weights, obs: Tensor) -> tuple[Tensor, Tensor, Activations]:
    """Return ``logits [B, A]``, ``values [B]`` and the activations, for ``obs [B, D]``."""
    first = _tanh_layer(weights.input_weight, weights.input_bias, obs.expand(2, *obs.shape))
    second = _tanh_layer(weights.hidden_weight, weights.hidden_bias, first)
    logits = torch.addmm(weights.actor_bias, second[0], weights.actor_weight.t())
    values = torch.addmv(weights.critic_bias, second[1], weights.critic_weight[0])
    return logits, values, Activations(obs, first, second)


def backward(
    weights: Weights, saved: Activations, d_logits: Tensor, d_values: Tensor, gradient: Weights
) -> None:
    """Write the gradient of ``sum(d_logits * logits) + sum(d_values * values)`` to ``gradient``.

    Parameters
    ----------
    weights, saved
        What :func:`forward` used and returned.
    d_logits, d_values : Tensor
        ``[B, A]`` and ``[B]``.
    gradient : Weights
        Views of the flat gradient, overwritten.
    """
    actor_out, critic_out = saved.second.unbind(0)
    torch.mm(d_logits.t(), actor_out, out=gradient.actor_weight)
    torch.sum(d_logits, 0, out=gradient.actor_bias)
    torch.mm(d_values.unsqueeze(0), critic_out, out=gradient.critic_weight)
    torch.sum(d_values, 0, keepdim=True, out=gradient.critic_bias)

    d_second = torch.empty_like(saved.second)
    torch.mm(d_logits, weights.actor_weight, out=d_second[0])
    torch.outer(d_values, weights.critic_weight[0], out=d_second[1])
    d_second = torch.ops.aten.tanh_backward(d_second, saved.second)
    torch.bmm(d_second.transpose(1, 2), saved.first, out=gradient.hidden_weight)
    torch.sum(d_second, 1, out=gradient.hidden_bias)

    d_first = torch.ops.aten.tanh_backward(torch.bmm(d_second, weights.hidden_weight), saved.first)
    # As [D, B] x [B, H]: the transposed product is several times slower for a narrow observation.
    obs = saved.obs.t().expand(2, *saved.obs.t().shape)
    gradient.input_weight.copy_(torch.bmm(obs, d_first).transpose(1, 2))
    torch.sum(d_first, 1, out=gradient.input_bias)


def _tanh_layer(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    """Return ``tanh(inputs weight^T + bias)``, batched over actor and critic.

    tanh(x) = 2 sigmoid(2x) - 1, to 2e-7: torch's vectorised sigmoid takes a sixth of its tanh.
    """
    doubled = torch.baddbmm(bias.unsqueeze(1), inputs, weight.transpose(1, 2), beta=2, alpha=2)
    return torch.rsub(doubled.sigmoid_(), -1.0, alpha=-2.0)
