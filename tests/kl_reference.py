"""The divergences in float64 NumPy, as their definitions read."""

import math

import numpy as np


def token_kl_reference(logprobs, ref_logprobs, kind="k3", ratio=None, mask=None, reduction="none"):
    """Schulman's estimates ("Approximating KL divergence", 2020), token by token."""
    logprobs, ref_logprobs = (np.asarray(x, np.float64) for x in (logprobs, ref_logprobs))
    valid = np.ones(logprobs.shape, bool) if mask is None else np.asarray(mask) != 0
    estimates = np.zeros(logprobs.shape)
    for at in np.ndindex(logprobs.shape):
        if not valid[at]:
            continue
        log_ratio = ref_logprobs[at] - logprobs[at]
        estimate = {"k1": -log_ratio, "k2": log_ratio**2 / 2, "k3": _k3(log_ratio)}[kind]
        estimates[at] = estimate if ratio is None else float(ratio[at]) * estimate
    if reduction == "none":
        return estimates
    if reduction == "sequence":
        return estimates.sum(-1)
    return estimates.sum() / (max(1, valid.sum()) if reduction == "mean" else 1)


def _k3(x):
    """``e^x - 1 - x``, by its series where the difference would lose its digits."""
    if not abs(x) < 0.1:
        return math.inf if x > 700 else math.exp(x) - 1 - x
    return sum(x**n / math.factorial(n) for n in range(2, 14))


def token_kl_torch(logprobs, ref_logprobs, kind="k3", ratio=None, mask=None, reduction="none"):
    """The same from torch operations, to take gradients of."""
    import torch

    valid = torch.ones_like(logprobs, dtype=torch.bool) if mask is None else mask != 0
    difference = torch.where(valid, logprobs - ref_logprobs, 0.0)
    estimate = {
        "k1": lambda: difference,
        "k2": lambda: difference**2 / 2,
        "k3": lambda: torch.exp(-difference) - 1 + difference,
    }[kind]()
    if ratio is not None:
        estimate = estimate * torch.where(valid, ratio, 0.0)
    if reduction == "mean":
        return estimate.sum() / valid.sum().clamp(min=1)
    return {"none": estimate, "sum": estimate.sum(), "sequence": estimate.sum(-1)}[reduction]
