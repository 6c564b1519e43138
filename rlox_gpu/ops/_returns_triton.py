"""The estimators as launches of their Triton kernels: every array as a ``[T, N]`` view."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..kernels.gae import launch_gae
from ._returns_checks import Inputs
from ._returns_specs import GAE, Spec


def launch(
    spec: Spec,
    inputs: Inputs,
    scalars: list[float],
    time_dim: int,
    out: Sequence[torch.Tensor],
) -> None:
    """Write the results of one estimator to ``out``; there is at least one element."""
    if spec is not GAE or any(x is not None for x in inputs[6:]):
        raise NotImplementedError(f"{spec.name}: these arguments run on the CPU only")

    def view(x: torch.Tensor | None) -> torch.Tensor | None:
        if x is None or x.ndim == 1:
            return x if x is None else x.unsqueeze(1)
        return x if time_dim == 0 else x.T

    rewards, values, terminated, last_values, truncated, final_values = inputs[:6]
    launch_gae(
        rewards=view(rewards),
        values=view(values),
        terminated=view(terminated),
        last_values=last_values.reshape(-1),
        truncated=view(truncated),
        final_values=view(final_values),
        advantages=view(out[0]),
        returns=view(out[1]),
        gamma=scalars[0],
        gae_lambda=scalars[1],
    )
