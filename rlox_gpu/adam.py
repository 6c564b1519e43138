"""Adam on one flat tensor, with the gradient's norm limited first.

Kingma and Ba, "Adam: a method for stochastic optimization" (ICLR 2015), algorithm 1. A handful of
operations for all parameters together; step count and learning rate are Python numbers, so nothing
is read back from a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.999


@dataclass
class AdamState:
    """First and second moments (laid out as the parameters) and the number of steps taken."""

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: int = 0

    @classmethod
    def like(cls, data: Tensor) -> AdamState:
        """Return the state before the first step for parameters ``data``."""
        return cls(torch.zeros_like(data), torch.zeros_like(data))


def limit_norm(grad: Tensor, max_norm: float) -> Tensor:
    """Scale ``grad`` in place to a norm of at most ``max_norm``; return the norm it had."""
    norm: Tensor = torch.linalg.vector_norm(grad)
    grad.mul_((max_norm / (norm + 1e-6)).clamp_(max=1.0))
    return norm


def adam_step(
    data: Tensor, grad: Tensor, state: AdamState, *, learning_rate: float, eps: float = 1e-5
) -> None:
    """Update ``data`` and ``state`` in place.

    Parameters
    ----------
    data, grad : Tensor
        One dimension, same length and dtype.
    state : AdamState
        Moments and step count.
    learning_rate : float
        Step size, may differ from call to call.
    eps : float
        Added to the root of the second moment.
    """
    state.step += 1
    state.exp_avg.lerp_(grad, 1 - BETA1)
    state.exp_avg_sq.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
    correction = math.sqrt(1 - BETA2**state.step)
    denominator = state.exp_avg_sq.sqrt().div_(correction).add_(eps)
    data.addcdiv_(state.exp_avg, denominator, value=-learning_rate / (1 - BETA1**state.step))
