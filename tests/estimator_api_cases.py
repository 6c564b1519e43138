"""Every estimator through its public function, wherever its kernels run."""

import numpy as np
import pytest
import torch
from estimator_inputs import ESTIMATORS, NAMED, poisoned, with_rates
from reference import moments_reference, valid_steps
from test_estimators_torch import RAGGED, as_tensors, ragged_inputs

import rlox_gpu

ESTIMATOR = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)


def _assert_close(results, expected):
    for got, want in zip(results, expected, strict=True):
        error = np.abs(got.detach().cpu().double().numpy() - want) / (1.0 + np.abs(want))
        assert error.max(initial=0.0) < 2e-5


@ESTIMATOR
@pytest.mark.parametrize("kind", RAGGED)
def check_estimators(device, estimator, kind):
    rng = np.random.default_rng(0)
    inputs = ragged_inputs(rng, estimator, kind, "float32", 20, 6)
    expected = estimator.reference(**inputs)
    shape = inputs[estimator.steps[0]].shape
    if kind is not None:
        valid = valid_steps(
            shape, *(inputs.get(name) for name in ("mask", "lengths", "cu_seqlens"))
        )
        inputs = poisoned(inputs, estimator, valid)
    _assert_close(estimator.call(**as_tensors(inputs, device)), expected)


@ESTIMATOR
@pytest.mark.parametrize("rows", [False, True])
def check_rates_per_step(device, estimator, rows):
    rng = np.random.default_rng(1)
    inputs = ragged_inputs(rng, estimator, "mask", "float32", 20, 6)
    inputs = with_rates(rng, inputs, estimator, ((20, 6), (20, 1)))
    expected = estimator.reference(**inputs)
    tensors = as_tensors(inputs, device)
    if rows:
        tensors = {k: v.T if torch.is_tensor(v) and v.ndim == 2 else v for k, v in tensors.items()}
        _assert_close([x.T for x in estimator.call(**tensors, time_dim=-1)], expected)
    else:
        _assert_close(estimator.call(**tensors), expected)


@ESTIMATOR
def check_gradients_of_calls(device, estimator):
    rng = np.random.default_rng(2)
    inputs = ragged_inputs(rng, estimator, "mask", "float32", 9, 4)
    found = []
    for where in (device, None):
        tensors = as_tensors(inputs, where or "cpu", None if where else torch.float64)
        leaf = tensors[estimator.steps[-1]].requires_grad_()
        sum(x.square().sum() for x in estimator.call(**tensors)).backward()
        found.append(leaf.grad.double().cpu())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


# NumPy, which the interpreter computes with, warns of quotients that are then not taken.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", RAGGED)
def check_moments_of_calls(device, kind):
    rng = np.random.default_rng(3)
    inputs = ragged_inputs(rng, NAMED["gae"], kind, "float32", 20, 6)
    names = ("mask", "lengths", "cu_seqlens")
    valid = valid_steps(inputs["rewards"].shape, *(inputs.get(name) for name in names))
    result = rlox_gpu.gae(**as_tensors(inputs, device), moments=True)
    expected = moments_reference(result.advantages.cpu().double().numpy(), valid)
    np.testing.assert_allclose(result.moments.cpu().numpy(), expected, rtol=1e-5)
