"""Every estimator on torch tensors: same results as on NumPy arrays, ops, compilation, devices."""

import numpy as np
import pytest
import torch
from estimator_inputs import ESTIMATORS, NAMED, make_inputs, transposed, with_rates
from fake_device import run_on_fake_device
from test_gae import NamespacedArray

import rlox_gpu

every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
RAGGED = [None, "mask", "lengths", "cu_seqlens"]


def as_tensors(inputs, device="cpu", dtype=None):
    """Arrays become tensors, those of floats of ``dtype``."""
    moved = {}
    for name, value in inputs.items():
        moved[name] = value
        if isinstance(value, (np.ndarray, np.generic)):
            moved[name] = torch.as_tensor(value).to(device)
            if dtype is not None and moved[name].is_floating_point():
                moved[name] = moved[name].to(dtype)
    return moved


def ragged_inputs(rng, estimator, kind, dtype="float64", num_steps=12, num_envs=5):
    """Small inputs with a mask, lengths or packed trajectories."""
    if kind == "cu_seqlens":
        return make_inputs(rng, estimator, 3 * num_steps, None, dtype, sequences=4, end_rate=0.2)
    inputs = make_inputs(rng, estimator, num_steps, num_envs, dtype, end_rate=0.2)
    if kind == "mask":
        inputs["mask"] = rng.random((num_steps, num_envs)) < 0.7
    if kind == "lengths":
        inputs["lengths"] = rng.integers(0, num_steps + 1, num_envs)
    return inputs


@every_estimator
@pytest.mark.parametrize("kind", RAGGED)
@pytest.mark.parametrize("rates", [False, True])
def test_tensors_give_the_bits_of_arrays(rng, estimator, kind, rates):
    inputs = ragged_inputs(rng, estimator, kind, "float32", 70, 20)
    shape = inputs[estimator.steps[0]].shape
    if rates:
        inputs = with_rates(rng, inputs, estimator, (shape, shape[-1:]))
    expected = estimator.call(**inputs)
    for got, want in zip(estimator.call(**as_tensors(inputs)), expected, strict=True):
        np.testing.assert_array_equal(got.numpy(), want)


@every_estimator
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [False, True])
def test_half_precision_is_summed_in_float32(rng, estimator, dtype, rows):
    inputs = make_inputs(rng, estimator, 80, 12, "float64")
    inputs["mask"] = rng.random((80, 12)) < 0.9
    tensors = as_tensors(inputs, dtype=dtype)
    exact = {k: v.double().numpy() if torch.is_tensor(v) else v for k, v in tensors.items()}
    expected = estimator.reference(**exact)
    if rows:
        laid_out = as_tensors(transposed(exact), dtype=dtype)
        results = [x.T for x in estimator.call(**laid_out, time_dim=-1)]
    else:
        results = estimator.call(**tensors)
    for got, want in zip(results, expected, strict=True):
        assert got.dtype is dtype
        error = np.abs(got.double().numpy() - want) / (1.0 + np.abs(want))
        assert error.max() <= 4 * torch.finfo(dtype).eps


def positional(inputs, estimator, time_dim=0):
    """Arguments of the registered op."""
    names = ("terminated", estimator.boundary, "truncated", "final_values", "mask", "lengths")
    arrays = [inputs.get(name) for name in (*estimator.steps, *names, "cu_seqlens")]
    return (*arrays, None, None, 0.99, *map(float, estimator.numbers.values()), time_dim)


@every_estimator
@pytest.mark.parametrize("kind", RAGGED)
def test_ops_pass_opcheck(rng, estimator, kind):
    tensors = as_tensors(ragged_inputs(rng, estimator, kind))
    expected = estimator.call(**tensors)
    arguments = positional(tensors, estimator)
    op, into = (getattr(torch.ops.rlox_gpu, estimator.name + end) for end in ("", "_out"))
    torch.library.opcheck(op.default, arguments)
    out = [torch.empty_like(x) for x in expected]
    torch.library.opcheck(into.default, (*arguments, *out))


def test_the_op_with_moments_passes_opcheck(rng):
    tensors = as_tensors(ragged_inputs(rng, NAMED["gae"], "mask"))
    torch.library.opcheck(torch.ops.rlox_gpu.gae_moments.default, positional(tensors, NAMED["gae"]))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_the_scan_passes_opcheck():
    decays, offsets = (torch.rand(6, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    rlox_gpu.gae(offsets, offsets, torch.zeros(6, 4), offsets[0])
    for dim in (0, 1):
        for forward in (False, True):
            arguments = decays, offsets, dim, forward
            torch.library.opcheck(torch.ops.rlox_gpu.linear_scan.default, arguments)


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@every_estimator
def test_compiles_without_a_graph_break(rng, estimator):
    tensors = as_tensors(ragged_inputs(rng, estimator, "mask"))

    def doubled(inputs):
        return [2 * x for x in estimator.call(**inputs)]

    torch.compiler.reset()
    compiled = torch.compile(doubled, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tensors), doubled(tensors))


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", [None, "cu_seqlens"])
def test_the_backward_pass_compiles(rng, kind):
    estimator = NAMED["vtrace"]
    tensors = as_tensors(ragged_inputs(rng, estimator, kind))
    values = tensors.pop("values").requires_grad_()

    def loss(values):
        return sum(x.square().sum() for x in estimator.call(**tensors, values=values))

    torch.compiler.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    (got,) = torch.autograd.grad(compiled(values), values)
    (expected,) = torch.autograd.grad(loss(values), values)
    torch.testing.assert_close(got, expected)


@every_estimator
def test_out_is_written_and_returned(rng, estimator):
    tensors = as_tensors(ragged_inputs(rng, estimator, "mask"))
    expected = estimator.call(**tensors)
    out = tuple(torch.full_like(x, torch.nan) for x in expected)
    results = estimator.call(**tensors, out=out if len(out) > 1 else out[0])
    for result, target, want in zip(results, out, expected, strict=True):
        assert result is target
        assert torch.equal(target, want)


def test_moments_stay_on_the_device_of_the_input(rng):
    tensors = as_tensors(ragged_inputs(rng, NAMED["gae"], "mask"))
    result = rlox_gpu.gae(**tensors, moments=True)
    chosen = result.advantages[tensors["mask"]]
    expected = torch.stack([torch.tensor(len(chosen)), chosen.mean(), chosen.var(correction=0)])
    expected[2] *= len(chosen)
    torch.testing.assert_close(result.moments, expected)
    tensors["values"].requires_grad_()
    result = rlox_gpu.gae(**tensors, moments=True)
    assert result.advantages.requires_grad
    assert not result.moments.requires_grad
    torch.testing.assert_close(result.moments, expected)


@every_estimator
def test_dlpack_arrays_come_back_as_their_own_kind(rng, estimator):
    inputs = ragged_inputs(rng, estimator, "mask")
    expected = estimator.call(**inputs)
    foreign = {k: NamespacedArray(v) if np.ndim(v) else v for k, v in inputs.items()}
    for got, want in zip(estimator.call(**foreign), expected, strict=True):
        assert type(got) is NamespacedArray
        np.testing.assert_array_equal(got.array, want)


def test_expanded_tensors_past_two_to_the_31_elements():
    # As many offsets as 32 bits can hold, and a few more, in four bytes of memory.
    wide = torch.ones(1).expand(3, 2**30)
    last = 2**30 - 2
    steps = [wide[:, last:] for _ in range(2)]
    result = rlox_gpu.gae(*steps, torch.zeros(3, 2), torch.ones(2), gamma=0.5, gae_lambda=1.0)
    assert result.returns.tolist() == [[1.875] * 2, [1.75] * 2, [1.5] * 2]


def _on_fake_device():
    import torch
    from estimator_inputs import ESTIMATORS

    values = torch.randn(16, 4, device="gpu")
    flags = torch.zeros(16, 4, dtype=torch.bool, device="gpu")
    lengths = torch.zeros(4, dtype=torch.int64, device="gpu")
    for estimator in ESTIMATORS:
        inputs = dict.fromkeys(estimator.steps, values) | estimator.numbers
        inputs |= {"terminated": flags, "truncated": flags, estimator.boundary: values[0]}
        if estimator.boundary == "last_values":
            inputs["final_values"] = values
        for options in ({}, {"mask": flags}, {"lengths": lengths}, {"gamma": values}):
            for result in estimator.call(**inputs, **options):
                assert result.device.type == "gpu"
                assert result.shape == (16, 4)
        leaf = values.clone().requires_grad_()
        tracked = inputs | {estimator.steps[-1]: leaf, "lengths": lengths, "mask": flags}
        sum(x.sum() for x in estimator.call(**tracked)).backward()
        assert leaf.grad.device.type == "gpu"


def test_estimators_run_on_a_device_that_does_not_exist():
    run_on_fake_device(_on_fake_device)
