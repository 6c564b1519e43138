"""token_kl and torch: gradients, registration, compilation, a device of no data."""

import subprocess
import sys

import pytest
import torch
from fake_device import run_on_fake_device
from kl_inputs import KINDS, REDUCTIONS, make_kl_inputs
from kl_reference import token_kl_torch

from rlox_gpu import token_kl

# -- gradients -------------------------------------------------------------------------------


def _grads(function, inputs, weight, **options):
    leaves = {k: v.clone().requires_grad_() if k != "mask" else v for k, v in inputs.items()}
    result = function(**leaves, **options)
    (result * weight(result)).sum().backward()
    return [leaves[k].grad for k in inputs if k != "mask"]


def _fixed_weight(result):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(result.shape, generator=generator, dtype=torch.float64)
    return weight.to(result.dtype)


@pytest.mark.parametrize("ratio", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_the_reference(kind, reduction, ratio, dtype):
    inputs = make_kl_inputs(5, (4, 33), dtype, ratio=ratio)
    options = {"kind": kind, "reduction": reduction}
    got = _grads(token_kl, inputs, _fixed_weight, **options)
    exact = {k: v if k == "mask" else v.double() for k, v in inputs.items()}
    want = _grads(token_kl_torch, exact, _fixed_weight, **options)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype is dtype
        assert ours[~inputs["mask"]].eq(0).all()
        torch.testing.assert_close(ours.double(), theirs.nan_to_num(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_passes_gradcheck(kind):
    inputs = make_kl_inputs(6, (3, 5), torch.float64, mask_dtype=None)
    leaves = [x.requires_grad_() for x in inputs.values()]
    for function in (token_kl_torch, token_kl):

        def call(logprobs, ref_logprobs, ratio, function=function):
            return function(logprobs, ref_logprobs, kind=kind, ratio=ratio)

        assert torch.autograd.gradcheck(call, leaves)


def test_only_gradients_that_are_wanted_are_computed():
    inputs = make_kl_inputs(7, (3, 5), mask_dtype=None)
    inputs["logprobs"].requires_grad_()
    token_kl(**inputs, reduction="mean").backward()
    assert inputs["logprobs"].grad is not None
    assert inputs["ref_logprobs"].grad is None
    with torch.no_grad():
        assert not token_kl(**inputs).requires_grad


def test_a_ratio_per_sequence_is_expanded():
    inputs = make_kl_inputs(8, (3, 5), torch.float64, ratio=False, mask_dtype=None)
    ratio = torch.rand(3, 1, dtype=torch.float64).requires_grad_()
    token_kl(**inputs, ratio=ratio.expand(3, 5), reduction="sum").backward()
    expected = token_kl(**inputs, reduction="sequence")
    torch.testing.assert_close(ratio.grad[:, 0], expected)


# -- torch -----------------------------------------------------------------------------------


def _positional(inputs, kind=2, reduction=2):
    names = ("logprobs", "ref_logprobs", "ratio", "mask")
    return *(inputs.get(name) for name in names), kind, reduction


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("reduction", range(4))
def test_ops_pass_opcheck(reduction):
    token_kl(torch.zeros(1), torch.zeros(1))
    inputs = make_kl_inputs(9, (3, 5))
    for name in ("logprobs", "ref_logprobs", "ratio"):
        inputs[name] = inputs[name].nan_to_num().requires_grad_()
    arguments = _positional(inputs, reduction=reduction)
    torch.library.opcheck(torch.ops.rlox_gpu.token_kl.default, arguments)
    count = torch.tensor(7)
    plain = [x.detach() if isinstance(x, torch.Tensor) else x for x in arguments[:4]]
    torch.library.opcheck(
        torch.ops.rlox_gpu.token_kl_backward.default,
        (torch.ones(3, 5), *plain, count, 2, [True, False, True]),
    )


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_without_a_graph_break(backend):
    def loss(logprobs, ref_logprobs, ratio, mask):
        return token_kl(logprobs, ref_logprobs, ratio=ratio, mask=mask, reduction="mean") * 2

    torch.compiler.reset()
    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    inputs = make_kl_inputs(10, (3, 5))
    grads = []
    for function in (loss, compiled):
        leaf = inputs["logprobs"].clone().requires_grad_()
        value = function(**(inputs | {"logprobs": leaf}))
        value.backward()
        grads.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*grads)


def test_the_first_call_may_be_a_compiled_one():
    code = (
        "import torch, rlox_gpu\n"
        "f = torch.compile(lambda *a: rlox_gpu.token_kl(*a), backend='eager', fullgraph=True)\n"
        "assert not f(torch.ones(3, 2), torch.ones(3, 2)).any()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_over_batches():
    inputs = make_kl_inputs(11, (3, 4, 5))
    mapped = torch.func.vmap(lambda x: token_kl(**x, reduction="sum"))(inputs)
    for i in range(3):
        assert mapped[i] == token_kl(**{k: v[i] for k, v in inputs.items()}, reduction="sum")


def _on_fake_device():
    import torch

    import rlox_gpu

    logprobs = torch.randn(4, 6, device="gpu", requires_grad=True)
    ref = torch.randn(4, 6, device="gpu")
    mask = torch.ones(4, 6, device="gpu")
    for reduction, shape in (("none", (4, 6)), ("mean", ()), ("sequence", (4,))):
        result = rlox_gpu.token_kl(logprobs, ref, ratio=ref, mask=mask, reduction=reduction)
        assert result.device.type == "gpu"
        assert result.shape == shape
        result.sum().backward()
    assert logprobs.grad.device.type == "gpu"
    try:
        rlox_gpu.token_kl(logprobs, torch.randn(4, 6))
    except ValueError as error:
        assert "ref_logprobs" in str(error)  # noqa: PT017 - the body runs outside pytest
    else:
        raise AssertionError("a tensor of another device was taken")


def test_runs_on_a_device_that_does_not_exist():
    run_on_fake_device(_on_fake_device)
