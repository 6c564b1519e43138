"""The shared gae inputs as torch tensors, and what they should give."""

import numpy as np
import torch
from factories import make_gae_inputs
from reference import gae_reference

ROUNDING = {torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.float32: 2e-6, torch.float64: 1e-13}


def make_torch_inputs(
    seed, num_steps, num_envs=None, dtype=torch.float32, flag_dtype=torch.bool, **options
):
    """Keyword arguments of ``rlox_gpu.gae`` as CPU tensors."""
    inputs = make_gae_inputs(
        np.random.default_rng(seed), num_steps, num_envs, np.float64, **options
    )
    return {
        name: torch.from_numpy(np.asarray(value)).to(
            flag_dtype if name in ("terminated", "truncated") else dtype
        )
        for name, value in inputs.items()
    }


def with_rows(inputs):
    """Row-major ``[N, T]`` tensors, for ``time_dim=-1``."""
    return {k: v.T.contiguous() if v.ndim == 2 else v for k, v in inputs.items()}


def with_layout(x, layout):
    """The same numbers in another place in memory."""
    if layout == "transposed":
        return x.T.contiguous().T if x.ndim == 2 else x
    if layout == "strided":
        return torch.stack([x, x], dim=-1)[..., 0]
    return x


def assert_close(result, inputs, **options):
    """``result`` is what the float64 reference gives, up to the rounding of its dtype.

    The error of an advantage grows with the terms of its sum, a hundred at the usual decay.
    """
    expected = gae_reference(**{k: v.double().numpy() for k, v in inputs.items()}, **options)
    dtype = inputs["values"].dtype
    for got, want in zip(result[:2], expected, strict=True):
        assert got.dtype is dtype
        assert tuple(got.shape) == want.shape
        error = np.abs(got.double().cpu().numpy() - want)
        scale = 1.0 + np.abs(want)
        assert not np.isnan(error).any()
        assert (error / scale).max(initial=0.0) <= 4 * ROUNDING[dtype], (error / scale).max()
