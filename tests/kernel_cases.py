"""The cases every kernel must pass wherever it runs: interpreted on the CPU and on a GPU."""

import pytest
import torch
from random_reference import permutation_reference, uniform_reference
from torch_inputs import assert_close, make_torch_inputs, with_layout, with_rows

import rlox_gpu
from rlox_gpu.ops.random import permutation, uniform

LAYOUTS = ["time-major", "row-major"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
FLAG_DTYPES = [torch.bool, torch.uint8, torch.int16, torch.int64, torch.float16, torch.float64]
SIZES = [(1, 1), (1, 40), (2, 3), (40, 1), (17, 33), (64, 16), (150, 5), (530, 2)]


def _gae(inputs, device, layout, **options):
    rows = layout == "row-major"
    time_dim = -1 if rows else 0
    inputs = with_rows(inputs) if rows else inputs
    result = rlox_gpu.gae(
        **{k: v.to(device) for k, v in inputs.items()}, time_dim=time_dim, **options
    )
    assert result.advantages.device.type == torch.device(device).type
    assert_close(result, inputs, time_dim=time_dim, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("truncation", [False, True])
@pytest.mark.parametrize(("num_steps", "num_envs"), SIZES)
def check_gae_sizes(device, num_steps, num_envs, truncation, layout):
    inputs = make_torch_inputs(0, num_steps, num_envs, truncation=truncation)
    _gae(inputs, device, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def check_gae_dtypes(device, dtype, layout):
    _gae(make_torch_inputs(1, 21, 18, dtype), device, layout, gamma=0.97, gae_lambda=0.9)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flag_dtype", FLAG_DTYPES)
def check_gae_flags(device, flag_dtype, layout):
    _gae(make_torch_inputs(2, 21, 18, flag_dtype=flag_dtype), device, layout)


@pytest.mark.parametrize("gae_lambda", [0.0, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def check_gae_at_the_ends_of_the_range(device, gamma, gae_lambda):
    for layout in LAYOUTS:
        _gae(make_torch_inputs(3, 20, 7), device, layout, gamma=gamma, gae_lambda=gae_lambda)


def check_gae_of_one_trajectory(device):
    inputs = make_torch_inputs(4, 77)
    result = rlox_gpu.gae(**{k: v.to(device) for k, v in inputs.items()})
    assert_close(result, inputs)


@pytest.mark.parametrize("layout", ["transposed", "strided"])
def check_gae_of_mixed_layouts(device, layout):
    inputs = make_torch_inputs(5, 21, 18)
    moved = {
        k: with_layout(v.to(device), layout if k[0] in "rt" else "") for k, v in inputs.items()
    }
    out = tuple(with_layout(torch.zeros(21, 18, device=device), layout) for _ in range(2))
    assert_close(rlox_gpu.gae(**moved, out=out), inputs)


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (2**64 - 1, 2**32 - 1), (2**63 + 1, 5)])
@pytest.mark.parametrize("count", [1, 5, 64, 700])
def check_random_words(device, count, seed, step):
    draws = uniform(torch.empty(count, device=device), seed=seed, step=step, stream=1)
    assert (draws.cpu().numpy() == uniform_reference(count, seed, step, 1)).all()
    order = permutation(count, seed=seed, step=step, device=device)
    assert (order.cpu().numpy() == permutation_reference(count, seed, step)).all()
