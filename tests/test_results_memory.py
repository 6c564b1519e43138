"""Where the results of a call lie in memory, and how long."""

import gc

import numpy as np
import pytest
import torch

import rlox_gpu
from rlox_gpu import _rust

PAGE = 4096


def placed(size, place, dtype="float32"):
    """An array of zeros that begins at this place in a page."""
    nbytes = size * np.dtype(dtype).itemsize
    memory = np.zeros(nbytes + 2 * PAGE, np.uint8)
    start = (place - memory.ctypes.data) % PAGE
    return memory[start : start + nbytes].view(dtype)


def distance(first, second):
    """How far apart two addresses are in a page, around its end too."""
    ahead = (first - second) % PAGE
    return min(ahead, PAGE - ahead)


@pytest.mark.parametrize("places", [(0, 0), (16, 1040), (4080, 64), (1000, 3000)])
def test_results_lie_away_from_the_inputs(places):
    rewards, values = (placed(10_000, place) for place in places)
    results = rlox_gpu.gae(rewards, values, np.zeros(10_000, bool), 0.0)[:2]
    starts = {x.ctypes.data % PAGE for x in results}
    assert len(starts) == 1
    (start,) = starts
    assert start % 64 == 0
    assert min(distance(start, place) for place in places) >= PAGE // 8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_tensors_lie_away_from_the_inputs(dtype):
    logprobs, reference = torch.randn(2, 1 << 21).to(dtype).unbind()
    out = rlox_gpu.token_kl(logprobs, reference, kind="k1")
    assert out.dtype is dtype
    assert out.is_contiguous()
    apart = [distance(out.data_ptr(), x.data_ptr()) for x in (logprobs, reference)]
    assert min(apart) >= PAGE // 8
    torch.testing.assert_close(out, logprobs - reference)


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_results_outlive_each_other(rng, size):
    rewards = rng.standard_normal(size)
    arguments = rewards, np.zeros(size), np.zeros(size, bool), 0.0
    expected = rlox_gpu.gae(*arguments).advantages.copy()
    advantages, returns, _ = rlox_gpu.gae(*arguments)
    assert advantages.flags.writeable
    assert not np.shares_memory(advantages, returns)
    returns[:] = np.nan
    del returns
    gc.collect()
    others = [rlox_gpu.gae(*arguments) for _ in range(3)]
    assert not any(np.shares_memory(advantages, x) for pair in others for x in pair[:2])
    np.testing.assert_array_equal(advantages, expected)


def test_tensors_outlive_the_call():
    logits = torch.randn(4, 64, 1000, requires_grad=True)
    tokens = torch.randint(1000, (4, 64))
    (gradient,) = torch.autograd.grad(rlox_gpu.token_logprobs(logits, tokens).sum(), logits)
    gc.collect()
    want = -logits.detach().softmax(-1)
    want.scatter_add_(-1, tokens[..., None], torch.ones(4, 64, 1))
    torch.testing.assert_close(gradient, want)


@pytest.mark.parametrize(
    ("code", "count", "message"), [(4, 1, "code must be 0 to 3"), (2, 3, "count must be 1 or 2")]
)
def test_only_one_or_two_arrays_of_values(code, count, message):
    with pytest.raises(ValueError, match=message):
        _rust.empty_results(count, (3,), code, [])


@pytest.mark.parametrize("code", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (200, 300), (3, 0, 2), (40, 50, 60)])
@pytest.mark.parametrize("count", [1, 2])
def test_arrays_have_the_shape_and_type_asked_for(count, shape, code):
    arrays = _rust.empty_results(count, shape, code, [123])
    assert len(arrays) == count
    for x in arrays:
        assert x.shape == shape
        assert x.dtype == ["float16", "float16", "float32", "float64"][code]
        assert x.flags.c_contiguous
        assert x.flags.aligned
        assert x.flags.writeable


def test_elements_in_common_are_found_exactly():
    table = np.zeros((10, 4))
    assert not _rust.share_memory(table[:, 0], table[:, 1])
    assert _rust.share_memory(table[:, 0], table[3])
    assert _rust.share_memory(table, table[::-1])
    assert not _rust.share_memory(table[:5], table[5:])
    assert not _rust.share_memory(table[:0], table)
