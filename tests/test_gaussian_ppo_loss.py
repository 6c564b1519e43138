"""PPO's loss of Gaussian policies on the CPU: numbers, identities, torch's machinery, bad input.

The cases that kernels share are run with those of the other policy losses.
"""

import math

import numpy as np
import policy_losses_kernel_cases as cases
import pytest
import torch
from fake_device import run_on_fake_device
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_losses_inputs import (
    DTYPES,
    doubled,
    gaussian_formula,
    gradients,
    make_gaussian_inputs,
)
from policy_losses_reference import gaussian_ppo_reference
from torch_inputs import with_layout

import rlox_gpu

LEAVES = cases.GAUSSIAN_LEAVES
ARRAYS = ("mean", "log_std", "actions", "old_log_probs", "advantages", "returns", "values")


def loss_of(inputs, **options):
    return rlox_gpu.gaussian_ppo_loss(**inputs, **options)


# -- numbers and gradients -------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 80),
    actions=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    masked=st.booleans(),
    shared=st.booleans(),
    clip_eps=st.floats(0.01, 0.5),
    vf_coef=st.floats(0, 2),
    ent_coef=st.floats(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_matches_the_reference(
    count, actions, dtype, masked, shared, clip_eps, vf_coef, ent_coef, seed
):
    inputs = make_gaussian_inputs(seed, count, actions, dtype, masked=masked, shared=shared)
    options = {"clip_eps": clip_eps, "vf_coef": vf_coef, "ent_coef": ent_coef}
    result = loss_of(inputs, **options)
    expected = gaussian_ppo_reference(
        **{k: x.double().numpy() for k, x in inputs.items()}, **options
    )
    # A ratio on the very edge of the interval may count either way: not the last number.
    cases.assert_terms(result[:5], expected[:5], dtype)


@pytest.mark.parametrize("shared", [False, True])
def test_numpy_arrays_get_the_same_numbers(shared):
    inputs = make_gaussian_inputs(0, 50, 4, shared=shared)
    found = loss_of({k: x.numpy() for k, x in inputs.items()})
    assert all(isinstance(x, np.ndarray) and x.shape == () for x in found)
    assert [x.item() for x in found] == [x.item() for x in loss_of(inputs)]


@pytest.mark.parametrize("layout", ["transposed", "strided"])
def test_layouts_change_nothing(layout):
    inputs = make_gaussian_inputs(1, 60, 4, shared=False)
    moved = {k: with_layout(x, layout) for k, x in inputs.items()}
    assert loss_of(moved).loss == loss_of(inputs).loss
    pairs = (gradients(rlox_gpu.gaussian_ppo_loss, x, LEAVES) for x in (moved, inputs))
    assert all(map(torch.equal, *pairs))


def test_leading_shapes_change_nothing():
    inputs = make_gaussian_inputs(2, 60, 4)
    folded = {k: x if k == "log_std" else x.reshape(5, 12, *x.shape[1:]) for k, x in inputs.items()}
    assert loss_of(folded).loss == loss_of(inputs).loss
    found = gradients(rlox_gpu.gaussian_ppo_loss, folded, LEAVES)
    expected = gradients(rlox_gpu.gaussian_ppo_loss, inputs, LEAVES)
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got.reshape(want.shape), want)


def test_one_sample_without_leading_shape():
    inputs = make_gaussian_inputs(3, 1, 4, masked=False, shared=False)
    single = {k: x[0] for k, x in inputs.items()}
    assert loss_of(single).loss == loss_of(inputs).loss
    found = gradients(rlox_gpu.gaussian_ppo_loss, single, LEAVES)
    expected = gradients(rlox_gpu.gaussian_ppo_loss, inputs, LEAVES)
    assert all(torch.equal(got, want[0]) for got, want in zip(found, expected, strict=True))


@pytest.mark.parametrize("shared", [False, True])
def test_nothing_valid_is_zero(shared):
    inputs = make_gaussian_inputs(4, 20, 3, shared=shared)
    inputs["mask"] = torch.zeros_like(inputs["mask"])
    empty = {k: x if x.shape == (3,) else x[:0] for k, x in inputs.items()}
    for nothing in (inputs, empty):
        assert [x.item() for x in loss_of(nothing)] == [0.0] * 6
        found = gradients(rlox_gpu.gaussian_ppo_loss, nothing, LEAVES)
        assert not any(x.any() for x in found)
        assert [x.shape for x in found] == [nothing[name].shape for name in LEAVES]


def test_results_do_not_depend_on_threads():
    inputs = make_gaussian_inputs(5, 30_000, 4)
    found = gradients(rlox_gpu.gaussian_ppo_loss, inputs, LEAVES)
    for _ in range(3):
        again = gradients(rlox_gpu.gaussian_ppo_loss, inputs, LEAVES)
        assert all(map(torch.equal, again, found))


@pytest.mark.parametrize("shared", [False, True])
def test_the_formula_passes_gradcheck(shared):
    inputs = doubled(make_gaussian_inputs(6, 7, 3, shared=shared))
    leaves = [inputs.pop(name).requires_grad_() for name in LEAVES]
    assert torch.autograd.gradcheck(
        lambda *x: gaussian_formula(**dict(zip(LEAVES, x, strict=True)), **inputs), leaves
    )


# -- identities ------------------------------------------------------------------------------


def test_it_is_the_distribution_of_torch():
    inputs = make_gaussian_inputs(7, 30, 4, torch.float64, masked=False)
    normal = torch.distributions.Normal(inputs["mean"], inputs["log_std"].exp())
    inputs["old_log_probs"] = normal.log_prob(inputs["actions"]).sum(-1)
    terms = loss_of(inputs)
    torch.testing.assert_close(terms.entropy, normal.entropy().sum(-1).mean())
    torch.testing.assert_close(
        terms.approx_kl, torch.zeros_like(terms.approx_kl), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(terms.policy_loss, -inputs["advantages"].mean())


def test_a_shared_deviation_is_one_of_each_sample():
    inputs = make_gaussian_inputs(8, 300, 4, torch.float64)
    spread = inputs | {"log_std": inputs["log_std"].expand(300, 4)}
    torch.testing.assert_close(tuple(loss_of(spread)), tuple(loss_of(inputs)))
    mean, log_std, values = gradients(rlox_gpu.gaussian_ppo_loss, inputs, LEAVES)
    each = gradients(rlox_gpu.gaussian_ppo_loss, spread, LEAVES)
    torch.testing.assert_close(each, [mean, each[1], values])
    torch.testing.assert_close(each[1].sum(0), log_std)


def test_the_logarithms_of_the_sampler_fit():
    mean, log_std = torch.randn(200, 3).double(), torch.randn(3).double()
    sample = rlox_gpu.sample_gaussian(mean, log_std, seed=0, step=0)
    column = torch.randn(200).double()
    terms = rlox_gpu.gaussian_ppo_loss(
        mean, log_std, sample.actions, sample.log_prob, column, column, column
    )
    assert terms.approx_kl.abs() < 1e-9
    assert terms.clip_fraction == 0


def test_a_nan_shows_in_loss_and_gradient():
    inputs = make_gaussian_inputs(9, 9, 3, masked=False)
    inputs["advantages"][4] = torch.nan
    assert loss_of(inputs).loss.isnan()
    mean, log_std, values = gradients(rlox_gpu.gaussian_ppo_loss, inputs, LEAVES)
    assert mean[4].isnan().all()
    assert mean[torch.arange(9) != 4].isfinite().all()
    assert log_std.isnan().all()
    assert values.isfinite().all()


# -- torch's machinery -----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_op_passes_opcheck(masked, shared):
    inputs = make_gaussian_inputs(10, 9, 3, masked=masked, shared=shared)
    loss_of(inputs)
    for name in LEAVES:
        inputs[name].nan_to_num_().requires_grad_()
    arrays = [inputs.get(name) for name in (*ARRAYS, "old_values", "mask")]
    torch.library.opcheck(torch.ops.rlox_gpu.gaussian_ppo_loss.default, (*arrays, 0.2, 0.5, 0.01))


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_it_compiles_without_a_graph_break(backend):
    torch.compiler.reset()
    inputs = make_gaussian_inputs(11, 9, 3)
    leaves = [inputs[name].requires_grad_() for name in LEAVES]

    def call(inputs):
        terms = loss_of(inputs)
        return 2 * terms.loss, terms.entropy

    compiled = torch.compile(call, backend=backend, fullgraph=True)
    for found, expected in zip(compiled(inputs), call(inputs), strict=True):
        torch.testing.assert_close(found, expected)
    found, expected = (torch.autograd.grad(f(inputs)[0], leaves) for f in (compiled, call))
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_only_the_loss_has_a_graph():
    inputs = make_gaussian_inputs(12, 9, 3)
    for name in ("log_std", "advantages", "actions"):
        inputs[name].requires_grad_()
    loss, *parts = loss_of(inputs)
    assert loss.requires_grad
    assert not any(part.requires_grad for part in parts)
    loss.backward()
    assert inputs["log_std"].grad.isfinite().all()
    assert inputs["advantages"].grad is inputs["actions"].grad is None


def _on_fake_device():
    import torch

    import rlox_gpu

    mean = torch.randn(16, 4, device="gpu", requires_grad=True)
    values = torch.randn(16, device="gpu", requires_grad=True)
    column = torch.randn(16, device="gpu")
    for shape in ((4,), (16, 4)):
        log_std = torch.zeros(shape, device="gpu", requires_grad=True)
        terms = rlox_gpu.gaussian_ppo_loss(
            mean, log_std, mean.detach(), column, column, column, values, mask=column
        )
        terms.loss.backward()
        assert log_std.grad.shape == shape
        assert log_std.grad.device.type == mean.grad.device.type == "gpu"


def test_it_runs_on_a_device_that_does_not_exist():
    run_on_fake_device(_on_fake_device)


# -- bad input -------------------------------------------------------------------------------

_BAD = {
    "mean list": ({"mean": [0.0]}, TypeError, "mean"),
    "mean dtype": ({"mean": torch.zeros(6, 3).long()}, TypeError, "mean"),
    "mean without dimensions": ({"mean": torch.zeros(6, 0)}, ValueError, "mean"),
    "mean 0-d": ({"mean": torch.tensor(0.0)}, ValueError, "mean"),
    "log_std None": ({"log_std": None}, TypeError, "log_std"),
    "log_std number": ({"log_std": 0.5}, TypeError, "log_std"),
    "log_std dtype": ({"log_std": torch.zeros(3).double()}, TypeError, "log_std"),
    "log_std shape": ({"log_std": torch.zeros(2)}, ValueError, "log_std"),
    "log_std rows": ({"log_std": torch.zeros(1, 3)}, ValueError, "log_std"),
    "actions shape": ({"actions": torch.zeros(6)}, ValueError, "actions"),
    "actions dtype": ({"actions": torch.zeros(6, 3).long()}, TypeError, "actions"),
    "old_log_probs shape": ({"old_log_probs": torch.zeros(6, 3)}, ValueError, "old_log_probs"),
    "advantages numpy": ({"advantages": np.zeros(6, np.float32)}, TypeError, "advantages"),
    "values device": ({"values": torch.zeros(6, device="meta")}, ValueError, "values"),
    "old_values shape": ({"old_values": torch.zeros(())}, ValueError, "old_values"),
    "mask shape": ({"mask": torch.zeros(6, 3)}, ValueError, "mask"),
    "clip_eps negative": ({"clip_eps": -0.1}, ValueError, "clip_eps"),
    "ent_coef NaN": ({"ent_coef": math.nan}, ValueError, "ent_coef"),
}


@pytest.mark.parametrize(("changes", "error", "name"), _BAD.values(), ids=_BAD)
def test_bad_input_is_named(changes, error, name):
    with pytest.raises(error, match=name):
        loss_of(make_gaussian_inputs(0, 6, 3, masked=False) | changes)
