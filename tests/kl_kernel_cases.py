"""The divergence cases that every kernel must pass wherever it runs."""

import pytest
import torch
from kl_inputs import DTYPES, KINDS, REDUCTIONS, assert_kl_close, make_kl_inputs, with_layout
from kl_reference import token_kl_torch

import rlox_gpu
from rlox_gpu.ops import _kl_torch  # noqa: F401 - registers the ops before the device is chosen

SHAPES = [(1,), (63,), (1100,), (3, 70), (130, 5), (2, 3, 20), (5, 1)]


def _token_kl(inputs, device, layout="plain", **options):
    moved = {k: with_layout(v.to(device), layout) for k, v in inputs.items()}
    result = rlox_gpu.token_kl(**moved, **options)
    assert result.device.type == torch.device(device).type
    assert_kl_close(result, inputs, **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def check_token_kl_shapes(device, shape, reduction):
    _token_kl(make_kl_inputs(0, shape), device, reduction=reduction)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def check_token_kl_dtypes(device, dtype, kind):
    for reduction in ("none", "mean"):
        _token_kl(make_kl_inputs(1, (7, 33), dtype), device, kind=kind, reduction=reduction)


@pytest.mark.parametrize("mask_dtype", [None, torch.uint8, torch.int64, torch.float16])
@pytest.mark.parametrize("ratio", [False, True])
def check_token_kl_masks(device, ratio, mask_dtype):
    inputs = make_kl_inputs(2, (7, 33), ratio=ratio, mask_dtype=mask_dtype)
    for reduction in ("none", "sum"):
        _token_kl(inputs, device, reduction=reduction)


@pytest.mark.parametrize("layout", ["transposed", "strided", "cut"])
def check_token_kl_layouts(device, layout):
    for reduction in REDUCTIONS:
        _token_kl(make_kl_inputs(3, (6, 40)), device, layout, reduction=reduction)


def check_token_kl_of_nothing(device):
    empty = torch.zeros(4, 0, device=device)
    assert rlox_gpu.token_kl(empty, empty).shape == (4, 0)
    assert not rlox_gpu.token_kl(empty, empty, reduction="sequence").any()
    assert rlox_gpu.token_kl(empty, empty, reduction="mean") == 0


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def check_token_kl_gradients(device, kind, reduction):
    inputs = make_kl_inputs(4, (6, 40))
    options = {"kind": kind, "reduction": reduction}
    for layout, weight in (("plain", None), ("cut", None), ("plain", torch.randn(6, 40))):
        if weight is not None and reduction != "none":
            continue
        grads = []
        for function, place in ((rlox_gpu.token_kl, device), (token_kl_torch, "cpu")):
            leaves = {
                k: with_layout(v.to(place), layout).detach().requires_grad_(k != "mask")
                for k, v in inputs.items()
            }
            result = function(**leaves, **options)
            scale = 1.0 if weight is None else weight.to(place)
            (result * scale).sum().backward()
            grads.append([leaves[k].grad.cpu() for k in inputs if k != "mask"])
        for got, want in zip(*grads, strict=True):
            torch.testing.assert_close(got, want.nan_to_num(), rtol=1e-5, atol=1e-6)
