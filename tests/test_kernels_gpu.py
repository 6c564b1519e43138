"""The kernel cases on CUDA, and what only a device can show."""

import estimator_api_cases
import estimator_kernel_cases
import full_kl_kernel_cases
import groups_kernel_cases
import kernel_cases
import kl_kernel_cases
import logprobs_kernel_cases
import policy_losses_kernel_cases
import preferences_kernel_cases
import pytest
import replay_kernel_cases
import sampling_kernel_cases
import statistics_kernel_cases
import torch
from torch_inputs import assert_close, make_torch_inputs, with_rows

import rlox_gpu
from rlox_gpu.ops.random import permutation, uniform

pytestmark = [pytest.mark.gpu, pytest.mark.unpoisoned]

for _cases in (
    groups_kernel_cases,
    kernel_cases,
    estimator_api_cases,
    estimator_kernel_cases,
    full_kl_kernel_cases,
    kl_kernel_cases,
    logprobs_kernel_cases,
    policy_losses_kernel_cases,
    preferences_kernel_cases,
    replay_kernel_cases,
    sampling_kernel_cases,
    statistics_kernel_cases,
):
    for _name, _check in vars(_cases).copy().items():
        if _name.startswith("check_"):
            globals()["test_" + _name.removeprefix("check_")] = _check


@pytest.fixture
def device():
    return "cuda"


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("size", [(128, 4096), (1000, 1000), (16, 65536), (2048, 64), (1000, 1)])
def test_gae_at_full_size(size, rows):
    inputs = make_torch_inputs(0, *size)
    inputs = with_rows(inputs) if rows else inputs
    time_dim = -1 if rows else 0
    result = rlox_gpu.gae(**{k: v.cuda() for k, v in inputs.items()}, time_dim=time_dim)
    assert_close(result, inputs, time_dim=time_dim)


def test_offsets_go_past_two_to_the_31():
    # Two rows, 2**31 + 64 bytes of flags apart: an int32 offset would wrap.
    far = torch.zeros(2**31 + 1024, dtype=torch.uint8, device="cuda")
    flags = far.as_strided((2, 512), (2**31 + 64, 1))
    flags[1, 7] = 1
    inputs = make_torch_inputs(1, 2, 512, truncation=False)
    inputs["terminated"] = flags.cpu()
    on_device = {k: v.cuda() for k, v in inputs.items()} | {"terminated": flags}
    assert_close(rlox_gpu.gae(**on_device), inputs)


def test_graph_capture_replays_with_new_numbers():
    inputs = {k: v.cuda() for k, v in make_torch_inputs(2, 64, 512).items()}
    out = torch.empty_like(inputs["values"]), torch.empty_like(inputs["values"])
    rlox_gpu.gae(**inputs, out=out)
    draws = torch.empty(1000, device="cuda")
    uniform(draws, seed=1, step=2, stream=1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rlox_gpu.gae(**inputs, out=out)
        uniform(draws, seed=1, step=2, stream=1)
    fresh = make_torch_inputs(3, 64, 512)
    for name, value in fresh.items():
        inputs[name].copy_(value)
    graph.replay()
    assert_close((*out, None), fresh)


def test_launches_go_to_the_current_stream():
    inputs = {k: v.cuda() for k, v in make_torch_inputs(4, 64, 512).items()}
    expected = rlox_gpu.gae(**inputs).advantages
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late = {k: v * 1 if v.is_floating_point() else v.clone() for k, v in inputs.items()}
        advantages = rlox_gpu.gae(**late).advantages
    stream.synchronize()
    assert torch.equal(advantages, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiles_without_a_graph_break():
    inputs = {k: v.cuda() for k, v in make_torch_inputs(5, 64, 512).items()}
    torch.compiler.reset()
    compiled = torch.compile(lambda x: rlox_gpu.gae(**x).advantages * 2, fullgraph=True)
    torch.testing.assert_close(compiled(inputs), rlox_gpu.gae(**inputs).advantages * 2)


def test_permutation_is_that_of_the_cpu():
    for n in (1, 1000, 2**20):
        order = permutation(n, seed=3, step=4, device="cuda")
        assert torch.equal(order.cpu(), permutation(n, seed=3, step=4))


def test_no_call_waits_for_the_device():
    inputs = {k: v.cuda() for k, v in make_torch_inputs(6, 64, 512).items()}
    logits = torch.zeros(3, 500, device="cuda", requires_grad=True)
    tokens = torch.zeros(3, dtype=torch.int64, device="cuda")
    rlox_gpu.gae(**inputs)
    rlox_gpu.token_logprobs(logits, tokens).sum().backward()
    rlox_gpu.full_kl(logits, logits, mask=tokens, reduction="mean").backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        rlox_gpu.gae(**inputs)
        rlox_gpu.token_logprobs(logits, tokens).sum().backward()
        rlox_gpu.full_kl(logits, logits, mask=tokens, reduction="mean").backward()
        permutation(100, seed=0, step=0, device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
