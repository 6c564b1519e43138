"""Where an op runs, and that it runs on a device that only has shapes."""

import pytest
import torch
from fake_device import run_on_fake_device
from torch_inputs import make_torch_inputs

import rlox_gpu
from rlox_gpu import _dispatch
from rlox_gpu.ops import _returns_torch, random
from rlox_gpu.ops._returns_specs import GAE


def test_plain_tensors_are_a_plain_call():
    assert _dispatch.is_plain_call(torch.ones(2), None)


def test_subclasses_and_parameters_are_no_plain_call():
    assert not _dispatch.is_plain_call(torch.nn.Parameter(torch.ones(2)))


def test_a_lazily_negated_tensor_is_no_plain_call():
    negated = torch.tensor([1 + 2j, 3 + 4j]).conj().imag
    assert negated.is_neg()
    assert not _dispatch.is_plain_call(negated)
    zeros = torch.zeros(2)
    result = rlox_gpu.gae(negated, zeros, zeros, zeros[0], gamma=0.0)
    assert result.advantages.tolist() == [-2.0, -4.0]


def test_nothing_is_a_plain_call_inside_a_transform():
    seen = []

    def body(x):
        seen.append(_dispatch.is_plain_call(x))
        return x

    torch.func.vmap(body)(torch.ones(2, 2))
    torch.func.grad(lambda x: body(x).sum())(torch.ones(2))
    with torch.overrides.BaseTorchFunctionMode():
        body(torch.ones(2))
    assert seen == [False, False, False]


def test_force_triton_sends_cpu_tensors_to_the_kernels(monkeypatch):
    calls = []
    monkeypatch.setattr(_returns_torch, "_into_triton", lambda *args: calls.append(args))
    inputs = make_torch_inputs(0, 4, 3)
    with _dispatch.force_triton():
        assert not _dispatch.runs_in_rust(torch.device("cpu"))
        rlox_gpu.gae(**inputs)
    assert len(calls) == 1
    assert _dispatch.runs_in_rust(torch.device("cpu"))
    assert not _dispatch.runs_in_rust(torch.device("cuda"))


def test_force_triton_ends_with_an_error():
    with pytest.raises(RuntimeError, match="inside"), _dispatch.force_triton():
        raise RuntimeError("inside")
    assert _dispatch.runs_in_rust(torch.device("cpu"))


def test_forced_op_reaches_the_kernels_too(monkeypatch):
    from rlox_gpu.kernels import random as kernels

    calls = []
    monkeypatch.setattr(kernels, "launch_permutation", lambda *args: calls.append(args))
    with _dispatch.force_triton():
        torch.ops.rlox_gpu.permutation_(torch.empty(4, dtype=torch.int64), -1, 2)
        random.permutation(4, seed=2**64 - 1, step=2)
    assert [args[1:] for args in calls] == [(2**64 - 1, 2), (2**64 - 1, 2)]


def _ops_on_fake_device():
    import pytest
    import torch
    from torch._subclasses.fake_tensor import DataDependentOutputException

    import rlox_gpu
    from rlox_gpu.ops.random import permutation, uniform

    values = torch.randn(16, 4, device="gpu")
    flags = torch.zeros(16, 4, dtype=torch.bool, device="gpu")
    last = torch.randn(4, device="gpu")
    result = rlox_gpu.gae(values, values, flags, last, truncated=flags, final_values=values)
    assert result.advantages.device.type == result.returns.device.type == "gpu"
    assert result.advantages.shape == (16, 4)
    rows = rlox_gpu.gae(values.T, values.T, flags.T, last, time_dim=-1)
    assert rows.advantages.shape == (4, 16)
    rlox_gpu.gae(values[:, 0], values[:, 0], flags[:, 0], 0.5)
    out = torch.empty_like(values), torch.empty_like(values)
    assert rlox_gpu.gae(values, values, flags, last, out=out).returns is out[1]
    draws = uniform(torch.empty(5, device="gpu"), seed=2**64 - 1, step=0, stream=1)
    assert draws.device.type == "gpu"
    order = permutation(10, seed=1, step=0, device="gpu")
    assert order.device.type == "gpu"
    assert order.dtype is torch.int64
    with pytest.raises(ValueError, match=r"last_values.*cpu"):
        rlox_gpu.gae(values, values, flags, torch.randn(4))
    with pytest.raises(ValueError, match=r"terminated.*cpu"):
        torch.ops.rlox_gpu.gae(values, values, flags.to("cpu"), last, *[None] * 7, 0.9, 0.9, 0)
    with pytest.raises(ValueError, match=r"out\[0\].*cpu"):
        rlox_gpu.gae(values, values, flags, last, out=(torch.empty(16, 4), out[1]))
    with pytest.raises(DataDependentOutputException):
        result.advantages.sum().item()


def test_ops_run_on_a_device_that_does_not_exist():
    run_on_fake_device(_ops_on_fake_device)


def test_library_memory_is_poisoned_in_tests():
    advantages, returns = _returns_torch._allocated(GAE, [torch.zeros(3)] * 2)
    assert advantages.isnan().all()
    assert returns.isnan().all()
