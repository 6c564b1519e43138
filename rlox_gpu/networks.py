"""Building blocks of policies: seeded orthogonal networks.

The initialisation follows Saxe et al., "Exact solutions to the nonlinear dynamics of learning in
deep linear neural networks" (ICLR 2014), with the gains that PPO implementations use (Huang et
al., "The 37 implementation details of proximal policy optimization", ICLR blog track 2022).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

HIDDEN_GAIN = math.sqrt(2)


def tanh_mlp(
    sizes: Sequence[int],
    *,
    output_gain: float,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Return linear layers with tanh between them, orthogonal weights and zero biases.

    Parameters
    ----------
    sizes : sequence of int
        Input width, hidden widths, output width.
    output_gain : float
        Scale of the last layer; hidden layers use sqrt(2).
    generator : torch.Generator, optional
        CPU generator of the weights: the same weights on every device. Default: torch's own.
    device : optional
        Where the parameters live.
    """
    layers: list[nn.Module] = []
    last = len(sizes) - 2
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        gain = output_gain if index == last else HIDDEN_GAIN
        layers.append(_orthogonal_linear(fan_in, fan_out, gain, generator, device))
        if index != last:
            layers.append(nn.Tanh())
    return nn.Sequential(*layers)


def _orthogonal_linear(
    fan_in: int,
    fan_out: int,
    gain: float,
    generator: torch.Generator | None,
    device: torch.device | str | None,
) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out, device=device)
    weight = torch.empty(fan_out, fan_in, device="cpu")
    nn.init.orthogonal_(weight, gain, generator=generator)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()
    return layer
