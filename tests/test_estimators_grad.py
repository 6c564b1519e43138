"""Gradients of every estimator."""

import numpy as np
import pytest
import torch
from estimator_inputs import ESTIMATORS, NAMED, poisoned, with_rates
from reference import valid_steps
from test_estimators_torch import RAGGED, as_tensors, every_estimator, ragged_inputs

import rlox_gpu


def leaves_of(inputs, estimator):
    """The names of all floating arguments, and tensors in which those require grad."""
    tensors = as_tensors(inputs)
    names = [*estimator.steps, estimator.boundary, "final_values", "gamma", estimator.trace]
    names = [name for name in names if torch.is_tensor(tensors.get(name))]
    for name in names:
        tensors[name].requires_grad_()
    return names, tensors


def as_function(estimator, names, tensors, **options):
    """The estimator of the leaves alone, and the leaves."""

    def call(*leaves):
        return estimator.call(**tensors | dict(zip(names, leaves, strict=True)), **options)

    return call, tuple(tensors[name] for name in names)


@every_estimator
@pytest.mark.parametrize("kind", RAGGED)
@pytest.mark.parametrize("rates", [False, True])
def test_gradients_are_the_derivatives(rng, estimator, kind, rates):
    inputs = ragged_inputs(rng, estimator, kind, num_steps=6, num_envs=3)
    shape = inputs[estimator.steps[0]].shape
    if "final_values" in inputs:
        inputs["final_values"] = np.nan_to_num(inputs["final_values"], nan=0.5)
    if rates:
        inputs = with_rates(rng, inputs, estimator, (shape, ()))
    call, leaves = as_function(estimator, *leaves_of(inputs, estimator))
    assert torch.autograd.gradcheck(call, leaves)


@every_estimator
def test_gradients_of_rows(rng, estimator):
    inputs = ragged_inputs(rng, estimator, "mask", num_steps=6, num_envs=3)
    inputs = {k: v.T.copy() if np.ndim(v) == 2 else v for k, v in inputs.items()}
    if "final_values" in inputs:
        inputs["final_values"] = np.nan_to_num(inputs["final_values"], nan=0.5)
    call, leaves = as_function(estimator, *leaves_of(inputs, estimator), time_dim=-1)
    assert torch.autograd.gradcheck(call, leaves)


@every_estimator
@pytest.mark.parametrize("kind", RAGGED)
def test_results_are_the_same_with_and_without_grad(rng, estimator, kind):
    inputs = ragged_inputs(rng, estimator, kind)
    _, tensors = leaves_of(inputs, estimator)
    results = estimator.call(**tensors)
    with torch.no_grad():
        constants = estimator.call(**tensors)
    for result, constant in zip(results, constants, strict=True):
        assert result.requires_grad
        assert not constant.requires_grad
        torch.testing.assert_close(result.detach(), constant, rtol=0, atol=1e-12)


@every_estimator
def test_what_does_not_exist_has_no_gradient(rng, estimator):
    inputs = ragged_inputs(rng, estimator, "mask") | {"lengths": rng.integers(0, 13, 5)}
    inputs = with_rates(rng, inputs, estimator, ((12, 5), (12, 5)))
    valid = valid_steps((12, 5), inputs["mask"], inputs["lengths"])
    inputs = poisoned(inputs, estimator, valid)
    for name in {"gamma", estimator.trace} - {None}:
        inputs[name] = np.where(valid, inputs[name], np.nan)
    names, tensors = leaves_of(inputs, estimator)
    sum(x.square().sum() for x in estimator.call(**tensors)).backward()
    for name in names:
        grad = tensors[name].grad
        assert grad.isfinite().all(), name
        if grad.shape == valid.shape:
            assert not grad[torch.from_numpy(~valid)].any(), name


def test_second_derivatives(rng):
    inputs = ragged_inputs(rng, NAMED["gae"], None, num_steps=5, num_envs=2)
    inputs["final_values"] = np.nan_to_num(inputs["final_values"])
    inputs = with_rates(rng, inputs, NAMED["gae"], ((5, 2), (5, 2)))
    call, leaves = as_function(NAMED["gae"], *leaves_of(inputs, NAMED["gae"]))
    assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize("forward", [False, True])
def test_the_scan_and_its_transpose(forward):
    arguments = tuple(torch.rand(7, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    rlox_gpu.gae(*arguments, torch.zeros(7, 3), arguments[0][0])
    for dim in (0, 1):
        assert torch.autograd.gradcheck(
            lambda a, b, dim=dim: torch.ops.rlox_gpu.linear_scan(a, b, dim, forward), arguments
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_have_the_dtype_of_their_tensors(rng, dtype):
    for estimator in ESTIMATORS:
        inputs = as_tensors(ragged_inputs(rng, estimator, None), dtype=dtype)
        leaf = inputs[estimator.steps[-1]].requires_grad_()
        sum(x.float().sum() for x in estimator.call(**inputs)).backward()
        assert leaf.grad.dtype is dtype


def test_nothing_has_no_gradient_and_no_error():
    empty = torch.zeros(0, 3, requires_grad=True)
    result = rlox_gpu.gae(empty, empty, torch.zeros(0, 3), torch.zeros(3))
    result.returns.sum().backward()
    assert empty.grad.shape == (0, 3)
