"""The estimators as launches of their Triton kernels: every array as a ``[T, N]`` view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..kernels import returns as kernels
from ._returns_checks import Inputs
from ._returns_specs import Spec


def launch(
    spec: Spec,
    inputs: Inputs,
    scalars: list[float],
    time_dim: int,
    out: Sequence[torch.Tensor],
) -> None:
    """Write the results of one estimator to ``out``; there is at least one element."""
    count = len(spec.steps)

    def view(x: torch.Tensor | None) -> torch.Tensor | None:
        if x is None or x.ndim == 1:
            return x if x is None else x.unsqueeze(1)
        return x if time_dim == 0 else x.T

    steps = [view(x) for x in inputs[:count]]
    terminated, boundary, truncated, final_values, mask, lengths, cu_seqlens, *rates = inputs[
        count:
    ]
    terminated, truncated, final_values = map(view, (terminated, truncated, final_values))
    boundary = None if boundary is None else boundary.reshape(-1)
    ragged = kernels.Ragged(view(mask), lengths, cu_seqlens)
    numbers: list[Any] = [
        int(x) if name == "n" else x for name, x in zip(spec.numbers, scalars, strict=True)
    ]
    for at, rate in enumerate(rates):
        if rate is not None:
            numbers[at] = view(rate)
    results: list[Any] = [view(x) for x in out]
    between: tuple[Any, ...]
    if spec.boundary == "initial":
        between = (terminated, truncated, boundary)
    else:
        between = (terminated, boundary, truncated, final_values)
    if spec.name == "td_lambda_returns":
        kernels.launch_gae(*steps, *between, None, *results, *numbers, ragged)
        return
    if spec.name == "gae_moments":
        kernels.launch_gae(*steps, *between, *results[:2], *numbers, ragged, out[2])
        return
    getattr(kernels, f"launch_{spec.name}")(*steps, *between, *results, *numbers, ragged)
