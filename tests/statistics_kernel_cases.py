"""The cases of the kernels of running moments, interpreted on the CPU and on a GPU."""

import numpy as np
import pytest
import torch

from rlox_gpu import normalize, update_moments

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ROUNDING = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 2e-6, torch.float64: 1e-12}


def make_batch(seed, shape, dtype=torch.float64, bad_rate=0.05):
    """Numbers around three, some of them not finite."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, shape)
    x[rng.random(shape) < bad_rate] = rng.choice([np.nan, np.inf])
    return torch.from_numpy(x).to(dtype)


def moments_reference(x, mask=None):
    """``[3, D]`` of a float64 array, feature by feature."""
    state = np.zeros((3, x.shape[1]))
    for column in range(x.shape[1]):
        counted = np.isfinite(x[:, column]) & (True if mask is None else mask != 0)
        numbers = x[counted, column]
        if len(numbers):
            mean = numbers.mean()
            state[:, column] = len(numbers), mean, np.square(numbers - mean).sum()
    return state


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (63, 3), (300, 10), (1100, 1)])
def check_moments(device, shape, dtype):
    batches = [make_batch(seed, shape, dtype) for seed in range(2)]
    masks = [torch.from_numpy(np.random.default_rng(9).random(shape[0]) < 0.8), None]
    state = torch.zeros(3, shape[1], dtype=torch.float64, device=device)
    for batch, mask in zip(batches, masks, strict=True):
        update_moments(state, batch.to(device), mask=None if mask is None else mask.to(device))
    kept = torch.cat([masks[0], torch.ones(shape[0], dtype=torch.bool)]).numpy()
    expected = moments_reference(torch.cat(batches).double().numpy(), kept)
    tolerance = 1e-12 if dtype is torch.float64 else 1e-5
    np.testing.assert_allclose(state.cpu().numpy(), expected, rtol=tolerance, atol=tolerance)


def check_moments_of_equal_numbers(device):
    state = torch.zeros(3, 2, dtype=torch.float64, device=device)
    for _ in range(3):
        update_moments(state, torch.full((300, 2), 0.35, device=device))
    assert not state[2].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clip", [None, 1.5])
def check_normalize(device, dtype, clip):
    x = make_batch(1, (300, 4), dtype, bad_rate=0)
    x[3, 2] = torch.nan
    mean = torch.linspace(1, 4, 4, dtype=torch.float64)
    var = torch.tensor([0.01, 1e-20, 4.0, 9.0], dtype=torch.float64)
    exact = (x.double() - mean) / var.sqrt().clamp(min=1e-2)
    want = exact if clip is None else exact.clamp(-clip, clip)
    got = normalize(x.to(device), mean.to(device), var.to(device), clip=clip, eps=1e-2)
    assert got.dtype is dtype
    tolerance = {"rtol": ROUNDING[dtype], "atol": ROUNDING[dtype], "equal_nan": True}
    torch.testing.assert_close(got.cpu().double(), want, **tolerance)
