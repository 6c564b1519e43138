"""The cases of the preference losses that every kernel must pass wherever it runs."""

import pytest
import torch
from preferences_inputs import DTYPES, LOSSES, REDUCTIONS, assert_dpo_close, make_logps
from preferences_reference import dpo_torch

import rlox_gpu


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("loss_type", "label_smoothing"), LOSSES)
def check_dpo_loss_and_gradients(device, loss_type, label_smoothing, reduction):
    options = {
        "loss_type": loss_type,
        "label_smoothing": label_smoothing,
        "reduction": reduction,
        "beta": 0.2,
    }
    for pairs in (1, 63, 1100):
        logps = make_logps(0, pairs)
        grads = []
        for function, place in ((rlox_gpu.dpo_loss, device), (dpo_torch, "cpu")):
            leaves = [x.to(place, copy=True).requires_grad_() for x in logps]
            result = function(*leaves, **options)
            loss = result if function is dpo_torch else result.loss
            if function is rlox_gpu.dpo_loss:
                assert_dpo_close(result, logps, **options)
            weights = torch.linspace(0.5, 2, pairs, device=place) if reduction == "none" else 1.5
            (loss * weights).sum().backward()
            grads.append([x.grad.cpu() for x in leaves])
        for got, want in zip(*grads, strict=True):
            # A log-ratio is a difference of numbers around a hundred.
            torch.testing.assert_close(got, want, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def check_dpo_loss_dtypes(device, dtype):
    logps = make_logps(1, 70, dtype)
    assert_dpo_close(rlox_gpu.dpo_loss(*(x.to(device) for x in logps)), logps)
    strided = [torch.stack([x, x], 1)[:, 0].to(device) for x in logps]
    assert_dpo_close(rlox_gpu.dpo_loss(*strided, reduction="none"), logps, reduction="none")


def check_dpo_loss_of_no_pairs(device):
    empty = [torch.zeros(0, device=device) for _ in range(4)]
    assert rlox_gpu.dpo_loss(*empty).loss == 0
    assert rlox_gpu.dpo_loss(*empty, reduction="none").loss.shape == (0,)


def check_dpo_loss_far_from_zero(device):
    zeros = torch.zeros(4, device=device)
    far = torch.tensor([-1e4, 1e4, -400.0, 400.0], device=device).requires_grad_()
    loss = rlox_gpu.dpo_loss(far, zeros, zeros, zeros, reduction="none").loss
    expected = torch.tensor([1e3, 0.0, 40.0, 4.248354e-18])
    torch.testing.assert_close(loss.detach().cpu(), expected, rtol=1e-5, atol=0)
    loss.sum().backward()
    expected = torch.tensor([-0.1, 0.0, -0.1, -4.248354e-19])
    torch.testing.assert_close(far.grad.cpu(), expected, rtol=1e-5, atol=0)
