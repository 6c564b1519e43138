"""The cases of the sampling kernels, interpreted on the CPU and on a GPU."""

import numpy as np
import pytest
import torch
from sampling_cases import (
    DTYPES,
    assert_categorical,
    assert_gaussian,
    make_gaussian,
    make_logits,
    sample,
)
from sampling_reference import categorical_gradient_reference

SHAPES = [(1, 1), (5, 2), (7, 6), (3, 63), (2, 64), (40, 5), (2, 1000), (1, 2049)]


@pytest.mark.parametrize("shape", SHAPES)
def check_categorical_sizes(device, shape):
    logits = make_logits(0, *shape)
    result = sample(logits.to(device), seed=2**63 + 1, step=2**32 - 1)
    assert result.actions.device.type == torch.device(device).type
    assert_categorical(result, logits, 2**63 + 1, 2**32 - 1)


@pytest.mark.parametrize("dtype", DTYPES)
def check_categorical_dtypes(device, dtype):
    logits = make_logits(1, 3, 4, 17, dtype=dtype)
    assert_categorical(sample(logits.to(device)), logits, 3, 5)
    assert_categorical(sample(logits.to(device).transpose(0, 2)), logits.transpose(0, 2), 3, 5)


def check_step_in_memory(device):
    logits = make_logits(2, 9, 6)
    for step, dtype in ((2**32 - 1, torch.int64), (7, torch.int32), (2**32 - 1, torch.uint32)):
        at = torch.tensor(step, dtype=dtype, device=device)
        assert_categorical(sample(logits.to(device), step=at), logits, 3, step)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 3), (2, 300)])
def check_categorical_gradient(device, shape, dtype):
    logits = make_logits(3, *shape, dtype=dtype)
    logits[0, 0] = -torch.inf
    leaf = logits.clone().to(device).requires_grad_()
    actions, log_prob, entropy = sample(leaf)
    gradients = np.random.default_rng(0).standard_normal((2, shape[0]))
    of_log_prob, of_entropy = (torch.tensor(g).to(log_prob) for g in gradients)
    (log_prob * of_log_prob + entropy * of_entropy).sum().backward()
    wanted = categorical_gradient_reference(logits.double().numpy(), actions.cpu(), *gradients)
    assert leaf.grad.dtype is dtype
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5}.get(dtype, 1e-13)
    np.testing.assert_allclose(
        leaf.grad.double().cpu().numpy(), wanted, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (40, 3), (3, 2, 8), (2, 700), (1, 1030)])
def check_gaussian_sizes(device, shape, squash):
    for shared in (False, True):
        inputs = make_gaussian(4, *shape, shared=shared)
        assert_gaussian(*inputs, squash=squash, device=device)


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def check_gaussian_dtypes(device, dtype, squash):
    step = torch.tensor(2**32 - 1, device=device)
    inputs = make_gaussian(5, 9, 6, dtype=dtype)
    assert_gaussian(*inputs, squash=squash, device=device, step=step)
