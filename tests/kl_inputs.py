"""Log-probabilities, ratios and masks as torch tensors, and how close results have to be."""

import numpy as np
import torch
from kl_reference import token_kl_reference
from torch_inputs import ROUNDING

KINDS = ["k1", "k2", "k3"]
REDUCTIONS = ["none", "sum", "mean", "sequence"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def make_kl_inputs(seed, shape, dtype=torch.float32, *, ratio=True, mask_dtype=torch.bool):
    """Keyword arguments of ``rlox_gpu.token_kl``; NaN lies beneath the mask.

    ``mask_dtype`` None leaves the mask out.
    """
    rng = np.random.default_rng(seed)
    logprobs = -rng.exponential(1.0, shape)
    inputs = {
        "logprobs": logprobs,
        "ref_logprobs": logprobs + rng.normal(0.0, 0.5, shape) * rng.integers(0, 3, shape),
    }
    if ratio:
        inputs["ratio"] = np.exp(rng.normal(0.0, 0.3, shape))
    if mask_dtype is None:
        return {k: torch.from_numpy(np.asarray(v)).to(dtype) for k, v in inputs.items()}
    valid = np.asarray(rng.random(shape) < 0.7)
    inputs = {k: torch.from_numpy(np.where(valid, v, np.nan)).to(dtype) for k, v in inputs.items()}
    return inputs | {"mask": torch.from_numpy(valid).to(mask_dtype)}


def assert_kl_close(result, inputs, **options):
    """``result`` is what the reference gives, up to the rounding of its dtype.

    The rounding of a difference of log-probabilities scales with them, and sums add it up.
    """
    arrays = {k: v.double().cpu().numpy() for k, v in inputs.items()}
    expected = token_kl_reference(**arrays, **options)
    dtype = inputs["logprobs"].dtype
    assert result.dtype is dtype
    assert tuple(result.shape) == expected.shape
    terms = 1
    if options.get("reduction") in ("sum", "sequence"):
        terms = expected.size and max(1, inputs["logprobs"].numel() // expected.size) ** 0.5
    error = (
        np.abs(result.double().cpu().numpy() - expected) / (1 + np.abs(expected)) / max(terms, 1)
    )
    assert not np.isnan(error).any()
    assert error.max(initial=0.0) <= 4 * ROUNDING[dtype], error.max()


def with_layout(x, layout):
    """The same numbers in another place in memory."""
    if layout == "transposed" and x.ndim == 2:
        return x.T.contiguous().T
    if layout == "strided":
        return torch.stack([x, x], dim=-1)[..., 0]
    if layout == "cut":
        return torch.cat([x, x[..., :3]], dim=-1)[..., : x.shape[-1]]
    return x
