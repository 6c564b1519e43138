"""What the tests of the sampling ops share: inputs, and how close a result must be."""

import numpy as np
import torch
from sampling_reference import categorical_reference

import rlox_gpu

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-13}


def make_logits(seed, *shape, dtype=torch.float32, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def assert_categorical(result, logits, seed, step):
    """The result is that of the reference wherever float32 noise decides as float64 noise does."""
    actions, log_prob, entropy, lead = categorical_reference(logits.double().numpy(), seed, step)
    got = result.actions.cpu()
    assert got.dtype is torch.int64
    assert tuple(got.shape) == actions.shape
    clear = lead > 1e-4
    np.testing.assert_array_equal(got.numpy()[clear], actions[clear])
    assert clear.mean() > 0.9 or clear.size < 20
    for values, wanted in ((result.log_prob, log_prob), (result.entropy, entropy)):
        assert values.dtype is (torch.float64 if logits.dtype is torch.float64 else torch.float32)
        error = np.abs(values.detach().double().cpu().numpy() - wanted)[clear]
        scale = 1 + np.abs(wanted[clear])
        assert (error <= TOLERANCE[values.dtype] * scale).all(), (error / scale).max()


def sample(logits, seed=3, step=5):
    return rlox_gpu.sample_categorical(logits, seed=seed, step=step)


def assert_frequencies(counts, expected):
    """Chi-square below its quantile of one in a million (Wilson and Hilferty's cube)."""
    freedom = len(counts) - 1
    spread = 2 / (9 * freedom)
    bound = freedom * (1 - spread + 4.75 * spread**0.5) ** 3
    assert ((counts - expected) ** 2 / expected).sum() < bound
