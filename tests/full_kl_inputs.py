"""Logits of two categoricals as torch tensors, and their divergence in float64, as it reads."""

import numpy as np
import torch
from logprobs_reference import GRADIENT_ROUNDING, ROUNDING, log_softmax, numbers

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
REDUCTIONS = ["none", "sum", "mean", "sequence"]


@np.errstate(invalid="ignore")
def full_kl_reference(logits, ref_logits, temperature=1.0, mask=None, reduction="none"):
    """``sum(p (log p - log q))``, row by row; a token that the policy excludes adds nothing."""
    rows = np.zeros(logits.shape[:-1])
    for at in np.ndindex(rows.shape):
        if mask is not None and not mask[at]:
            continue
        log_p, log_q = (log_softmax(x[at], temperature) for x in (logits, ref_logits))
        if np.isnan(log_p).any() or np.isnan(log_q).any():
            rows[at] = np.nan
            continue
        there = log_p > -np.inf
        # Zero probability times infinite distance: the token is there all the same.
        lost = np.isneginf(log_q[there]).any()
        terms = np.exp(log_p[there]) * (log_p[there] - np.maximum(log_q[there], -1e300))
        rows[at] = np.inf if lost else terms.sum()
    if reduction == "none":
        return rows
    if reduction == "sequence":
        return rows.sum(-1)
    count = rows.size if mask is None else np.count_nonzero(mask)
    return rows.sum() / (max(1, count) if reduction == "mean" else 1)


@np.errstate(invalid="ignore")
def full_kl_gradients(logits, ref_logits, grad, temperature=1.0, mask=None):
    """The gradients of ``sum(grad * divergences)``."""
    log_p, log_q = (log_softmax(x, temperature) for x in (logits, ref_logits))
    p, q = np.exp(log_p), np.exp(log_q)
    ratio = np.where(p > 0, np.where(p > 0, log_p, 0) - np.where(p > 0, log_q, 0), 0.0)
    divergences = (p * ratio).sum(-1, keepdims=True)
    slope = np.asarray(grad)[..., None] / temperature
    found = slope * p * (ratio - divergences), slope * (q - p)
    if mask is None:
        return found
    return tuple(np.where((mask != 0)[..., None], x, 0.0) for x in found)


def full_kl_torch(logits, ref_logits, temperature=1.0):
    """Per token, from torch operations, to take gradients of."""
    log_p, log_q = (torch.log_softmax(x / temperature, -1) for x in (logits, ref_logits))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def make_full_kl_inputs(seed, *shape, dtype=torch.float32, mask_dtype=torch.bool, excluded=0.0):
    """Keyword arguments of ``rlox_gpu.full_kl``; NaN lies beneath the mask.

    ``mask_dtype`` None leaves the mask out. A share of the tokens is excluded by the policy, and
    half of these by the reference; never the first one.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator) * 3
    ref_logits = logits + torch.randn(shape, generator=generator) + 2
    draw = torch.rand(shape, generator=generator)
    draw[..., 0] = 1
    logits = logits.masked_fill(draw < excluded, -torch.inf)
    inputs = {
        "logits": logits,
        "ref_logits": ref_logits.masked_fill(draw < excluded / 2, -torch.inf),
    }
    if mask_dtype is None:
        return {name: x.to(dtype) for name, x in inputs.items()}
    valid = torch.rand(shape[:-1], generator=generator) < 0.7
    inputs = {
        name: x.masked_fill(~valid[..., None], torch.nan).to(dtype) for name, x in inputs.items()
    }
    return inputs | {"mask": valid.to(mask_dtype)}


def as_numbers(inputs):
    return {name: numbers(x) for name, x in inputs.items()}


def assert_divergences(got, inputs, **options):
    """``got`` is what the reference gives, up to rounding that adds up in sums."""
    want = full_kl_reference(**as_numbers(inputs), **options)
    name = str(inputs["logits"].dtype).removeprefix("torch.")
    assert str(got.dtype).removeprefix("torch.") == ("float64" if name == "float64" else "float32")
    got = numbers(got)
    assert got.shape == want.shape
    rounding = 4 * ROUNDING[name]
    # A number of some ten is lost between the logarithms of the sums.
    np.testing.assert_allclose(got, want, rtol=rounding, atol=rounding * max(1, want.size and 4))
    assert not (got < 0).any()


def assert_gradients(got, inputs, grad, temperature=1.0):
    """Those of both logits; None for one that is not there."""
    arrays = as_numbers(inputs)
    wanted = full_kl_gradients(
        arrays["logits"], arrays["ref_logits"], numbers(grad), temperature, arrays.get("mask")
    )
    rounding = 2 * GRADIENT_ROUNDING[str(inputs["logits"].dtype).removeprefix("torch.")]
    for mine, want in zip(got, wanted, strict=True):
        if mine is None:
            continue
        assert mine.dtype is inputs["logits"].dtype
        mine = numbers(mine)
        assert mine.shape == want.shape
        scale = np.abs(want[np.isfinite(want)]).max(initial=1.0)
        np.testing.assert_allclose(mine, want, rtol=rounding, atol=rounding * scale)
