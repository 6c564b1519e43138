"""The kernels of running moments as compiled: PTX executed, accesses checked and counted."""

import numpy as np
import pytest
import torch
from simulation import simulated
from statistics_kernel_cases import (
    DTYPES,
    check_moments_of_equal_numbers,
    check_normalize,
    make_batch,
    moments_reference,
)

from rlox_gpu import normalize, update_moments


@pytest.mark.parametrize("arch", [80, 90, 100, 120])
@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_in_every_dtype_on_every_architecture(arch, dtype):
    x = make_batch(0, (300, 10), dtype)
    state = torch.zeros(3, 10, dtype=torch.float64)
    with simulated(arch=arch):
        update_moments(state, x, mask=torch.ones(300))
    tolerance = 1e-12 if dtype is torch.float64 else 1e-5
    expected = moments_reference(x.double().numpy())
    np.testing.assert_allclose(state.numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalize_in_every_dtype(dtype):
    with simulated():
        check_normalize("cpu", dtype, 1.5)


def test_equal_numbers_have_no_variance():
    with simulated():
        check_moments_of_equal_numbers("cpu")


def test_each_number_is_moved_once():
    x = make_batch(1, (2048, 16), torch.float32)
    state = torch.zeros(3, 16, dtype=torch.float64)
    with simulated() as simulation:
        update_moments(state, x)
        normalize(x, state[1].clone(), state[2].clone())
    update, scale = simulation.launches
    assert 32 * update.global_load_sectors <= 1.05 * 4 * x.numel()
    assert 32 * scale.global_store_sectors <= 1.05 * 4 * x.numel()
