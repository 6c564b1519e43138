"""What the tests of the sampling ops share: inputs, and how close a result must be."""

import numpy as np
import torch
from sampling_reference import categorical_reference, gaussian_reference, normals_reference

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


def make_gaussian(seed, *shape, dtype=torch.float32, shared=False):
    """Mean and ``log_std``, one for all rows if ``shared``."""
    mean = make_logits(seed, *shape, dtype=dtype, scale=0.7)
    log_std = make_logits(seed + 1, *(shape[-1:] if shared else shape), dtype=dtype, scale=0.5)
    return mean, log_std


def sample_gaussian(mean, log_std, seed=3, step=5, *, squash=False):
    op = rlox_gpu.sample_squashed_gaussian if squash else rlox_gpu.sample_gaussian
    return op(mean, log_std, seed=seed, step=step)


def assert_gaussian(mean, log_std, *, squash, device="cpu", seed=3, step=5):
    """Results and gradients are those of the reference, up to the float32 of the noise."""
    dtype, shape = mean.dtype, mean.shape
    leaves = [x.clone().to(device).requires_grad_() for x in (mean, log_std)]
    exact = [x.double().requires_grad_() for x in (mean, log_std)]
    rows = mean.numel() // shape[-1]
    noise = torch.from_numpy(normals_reference(rows, shape[-1], int(seed), int(step)))
    wanted = gaussian_reference(*exact, noise.view(shape), squash=squash)
    result = sample_gaussian(*leaves, seed, step, squash=squash)
    assert result.actions.dtype is dtype
    assert result.log_prob.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    generator = torch.Generator().manual_seed(9)
    parts = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in result]
    torch.autograd.backward(list(result), [x.to(device) for x in parts])
    torch.autograd.backward(list(wanted), [x.double() for x in parts])
    rounding = {torch.float16: 4e-3, torch.bfloat16: 4e-2}.get(dtype, 1e-5)
    for x in (*result, *(leaf.grad for leaf in leaves)):
        assert x.device.type == torch.device(device).type
    pairs = [
        (result.actions, wanted[0], rounding),
        (result.log_prob, wanted[1], 1e-5 * shape[-1] ** 0.5),
        # A shared parameter sums the rounded gradients of all rows.
        *((x.grad, y.grad, 4 * rounding * rows**0.5) for x, y in zip(leaves, exact, strict=True)),
    ]
    for got, want, tolerance in pairs:
        torch.testing.assert_close(
            got.detach().double().cpu(), want.detach(), rtol=tolerance, atol=tolerance
        )


def assert_frequencies(counts, expected):
    """Chi-square below its quantile of one in a million (Wilson and Hilferty's cube)."""
    freedom = len(counts) - 1
    spread = 2 / (9 * freedom)
    bound = freedom * (1 - spread + 4.75 * spread**0.5) ** 3
    assert ((counts - expected) ** 2 / expected).sum() < bound
