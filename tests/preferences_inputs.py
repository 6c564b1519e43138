"""Log-probabilities of answer pairs, and how close results have to be."""

import numpy as np
import torch
from preferences_reference import dpo_reference
from torch_inputs import ROUNDING

LOSSES = [("sigmoid", 0.0), ("sigmoid", 0.1), ("hinge", 0.0), ("ipo", 0.0)]
REDUCTIONS = ["none", "sum", "mean"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def make_logps(seed, pairs, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    answers = -rng.gamma(2.0, 10.0, (2, pairs))
    policy, ref = answers + rng.normal(0, 3, (2, pairs)), answers
    return [torch.from_numpy(x).to(dtype) for x in (*policy, *ref)]


def assert_dpo_close(result, logps, **options):
    """``result`` is what the reference gives, up to the rounding of its dtype."""
    expected = dpo_reference(*(x.double().numpy() for x in logps), **options)
    dtype = logps[0].dtype
    for got, want in zip(result, expected, strict=True):
        assert got.dtype is dtype
        assert tuple(got.shape) == want.shape
        error = np.abs(got.detach().double().cpu().numpy() - want) / (1 + np.abs(want))
        assert not np.isnan(error).any()
        assert error.max(initial=0.0) <= 4 * ROUNDING[dtype], error.max()
