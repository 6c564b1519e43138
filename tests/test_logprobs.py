"""token_logprobs on the CPU: NumPy arrays and torch tensors, layouts, special values, bad input."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logprobs_reference import assert_rows, log_softmax, make_logits, sliced
from test_gae import ForeignArray, NamespacedArray

import rlox_gpu
from rlox_gpu.ops._logprobs_shared import two_strides

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIZES = [1, 2, 63, 64, 1000, 50257, 262144]
LAYOUTS = ["plain", "shifted", "transposed", "strided", "padded rows", "expanded", "backwards"]


def _laid_out(logits, layout):
    """The numbers of ``[A, B, V]`` elsewhere in memory (an expanded row repeats the first)."""
    if layout == "shifted":
        return sliced(logits)
    if layout == "transposed":
        return logits.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "strided":
        return torch.stack([logits, logits], dim=-1)[..., 0]
    if layout == "padded rows":
        return torch.nn.functional.pad(logits, (3, 2))[..., 3:-2]
    return logits[:1, :1].expand(logits.shape) if layout == "expanded" else logits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocabulary", SIZES)
def test_every_size_and_dtype(vocabulary, dtype):
    logits, tokens = make_logits(0, 2, vocabulary, dtype=dtype)
    got = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
    assert_rows(got, logits, tokens)
    if dtype is not torch.bfloat16:
        numpy = rlox_gpu.token_logprobs(logits.numpy(), tokens.numpy(), return_entropy=True)
        for mine, same in zip(numpy, got, strict=True):
            np.testing.assert_array_equal(mine, same.numpy())


@settings(max_examples=80, deadline=None)
@given(
    outer=st.integers(1, 4),
    inner=st.integers(1, 4),
    vocabulary=st.integers(1, 5000),
    dtype=st.sampled_from(DTYPES),
    token_dtype=st.sampled_from([torch.int16, torch.int32, torch.int64]),
    layout=st.sampled_from(LAYOUTS),
    temperature=st.floats(0.05, 20),
    excluded=st.sampled_from([0.0, 0.1, 0.9]),
    scale=st.sampled_from([0.0, 3.0, 30.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_inputs(
    outer, inner, vocabulary, dtype, token_dtype, layout, temperature, excluded, scale, seed
):
    logits, tokens = make_logits(
        seed, outer, inner, vocabulary, dtype=dtype, excluded=excluded, scale=scale * temperature
    )
    tokens = tokens.to(token_dtype)
    logits = _laid_out(logits, layout)
    if layout == "backwards" and dtype is not torch.bfloat16:
        logits, tokens = logits.numpy()[::-1, ::-1], tokens.numpy()
    got = rlox_gpu.token_logprobs(logits, tokens, temperature=temperature, return_entropy=True)
    assert_rows(got, logits, tokens, temperature)
    assert (got.logprobs <= 0).all()
    assert (got.entropies >= 0).all()
    assert (got.entropies <= np.log(vocabulary) + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_of_all_tokens_sum_to_one(dtype):
    logits, _ = make_logits(1, 3000, dtype=dtype)
    every = rlox_gpu.token_logprobs(logits.expand(3000, 3000), torch.arange(3000))
    assert abs(float(every.exp().sum()) - 1) < (1e-5 if dtype is torch.float32 else 1e-12)


@pytest.mark.parametrize("vocabulary", [63, 50257])
def test_agrees_with_log_softmax_and_gather(vocabulary):
    logits, tokens = make_logits(2, 3, vocabulary)
    want = torch.log_softmax(logits, -1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(rlox_gpu.token_logprobs(logits, tokens), want, rtol=0, atol=1e-5)


def test_temperature_divides_the_logits():
    logits, tokens = make_logits(3, 4, 500, dtype=torch.float64)
    warm = rlox_gpu.token_logprobs(logits, tokens, temperature=2)
    torch.testing.assert_close(warm, rlox_gpu.token_logprobs(logits / 2, tokens))
    # Hot: uniform. Cold: all on the largest.
    hot = rlox_gpu.token_logprobs(logits, tokens, temperature=1e30, return_entropy=True)
    assert torch.allclose(hot.logprobs, torch.tensor(-np.log(500)))
    assert torch.allclose(hot.entropies, torch.tensor(np.log(500)))
    cold = rlox_gpu.token_logprobs(logits, logits.argmax(-1), temperature=1e-30)
    assert not cold.any()


def test_one_row_and_any_number_of_dimensions():
    logits, tokens = make_logits(4, 2, 3, 2, 2, 65)
    want = rlox_gpu.token_logprobs(logits, tokens)
    assert want.shape == (2, 3, 2, 2)
    one = rlox_gpu.token_logprobs(logits[1, 2, 0, 1], tokens[1, 2, 0, 1])
    assert one.shape == ()
    assert one == want[1, 2, 0, 1]
    # Four dimensions with strides of their own are copied.
    moved = logits.permute(3, 1, 0, 2, 4)
    got = rlox_gpu.token_logprobs(moved, tokens.permute(3, 1, 0, 2))
    assert torch.equal(got, want.permute(3, 1, 0, 2))


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5)])
def test_no_rows_no_results(shape):
    for logits, tokens in [
        (torch.zeros(shape), torch.zeros(shape[:-1], dtype=torch.int64)),
        (np.zeros(shape, np.float32), np.zeros(shape[:-1], np.int64)),
    ]:
        got = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
        assert got.logprobs.shape == got.entropies.shape == shape[:-1]


def test_excluded_tokens():
    logits, tokens = make_logits(5, 6, 4000, excluded=0.5)
    tokens[2] = int((logits[2] == -torch.inf).nonzero()[0])
    # All before the last token, and all but one.
    logits[3, :3999] = logits[4, 1:] = -torch.inf
    logits[3, 3999], tokens[3], tokens[4] = 1, 3999, 0
    got = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
    assert_rows(got, logits, tokens)
    assert got.logprobs[2] == -torch.inf
    assert got.logprobs[3] == got.logprobs[4] == got.entropies[3] == got.entropies[4] == 0


def test_rows_without_an_answer_are_nan_and_spoil_no_other():
    logits, tokens = make_logits(6, 5, 3000)
    clean = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
    logits[0] = -torch.inf
    logits[1, 2500] = torch.nan
    logits[3, 7] = torch.inf
    got = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
    for spoilt, whole in zip(got, clean, strict=True):
        assert spoilt.isnan().tolist() == [True, True, False, True, False]
        assert torch.equal(spoilt[[2, 4]], whole[[2, 4]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_numbers(dtype):
    most = torch.finfo(dtype).max
    logits = torch.tensor([[most, -most, 0.0], [most, most, -most], [-most] * 3], dtype=dtype)
    got = rlox_gpu.token_logprobs(logits, torch.tensor([0, 1, 2]), return_entropy=True)
    want = torch.tensor([1.0, 2.0, 3.0]).log().to(got.logprobs.dtype)
    torch.testing.assert_close(-got.logprobs, want)
    torch.testing.assert_close(got.entropies, want)


def test_dlpack_arrays_come_back_as_their_own_kind():
    logits, tokens = (x.numpy() for x in make_logits(7, 3, 40))
    want = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
    arrays = NamespacedArray(logits), NamespacedArray(tokens)
    got = rlox_gpu.token_logprobs(*arrays, return_entropy=True)
    assert type(got.entropies) is NamespacedArray
    np.testing.assert_array_equal(got.entropies.array, want.entropies)
    one = rlox_gpu.token_logprobs(ForeignArray(logits), ForeignArray(tokens))
    np.testing.assert_array_equal(one, want.logprobs)


def test_unaligned_memory_is_copied():
    logits, tokens = (x.numpy() for x in make_logits(8, 3, 40))
    packed = np.zeros(3, np.dtype([("flag", "u1"), ("row", "f4", 40)]))
    packed["row"] = logits
    got = rlox_gpu.token_logprobs(packed["row"], tokens)
    np.testing.assert_array_equal(got, rlox_gpu.token_logprobs(logits, tokens))


def test_no_second_array_of_the_size_of_the_logits():
    # In a process of its own, whose peak is this call's; the logits are those of a shifted batch.
    code = """
import resource, numpy as np, rlox_gpu
small = np.zeros((2, 9), np.float32), np.zeros(2, np.int64)
rlox_gpu.token_logprobs(*small, return_entropy=True)
logits = np.ones((4, 101, 50257), np.float32)[:, :-1]
tokens = np.zeros((4, 100), np.int64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 / logits.nbytes)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert float(done.stdout) < 0.05


@pytest.mark.slow
def test_offsets_go_past_two_to_the_31():
    far = torch.zeros(2 * (2**30 + 64) + 1024, dtype=torch.float16)
    logits = far.as_strided((3, 16), (2**30 + 64, 1))
    logits[2, 7] = logits[1, 3] = 1
    tokens = torch.tensor([0, 3, 7])
    got = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
    assert_rows(got, logits, tokens)


def test_two_strides_join_what_lies_in_one_line():
    assert two_strides((), ()) == ((1, 1), (0, 0))
    assert two_strides((5,), (7,)) == ((1, 5), (0, 7))
    assert two_strides((2, 5), (35, 7)) == ((1, 10), (0, 7))
    assert two_strides((2, 5), (42, 7)) == ((2, 5), (42, 7))
    assert two_strides((3, 2, 5), (84, 42, 7)) == ((6, 5), (42, 7))
    assert two_strides((3, 1, 5), (84, 1, 7)) == ((3, 5), (84, 7))
    assert two_strides((4, 5), (0, 0)) == ((1, 20), (0, 0))
    assert two_strides((3, 2, 5), (90, 42, 7)) is None


BAD_CALLS = {
    "logits list": ({"logits": [[0.0]]}, TypeError, "logits"),
    "logits dtype": ({"logits": np.zeros((3, 5), np.int64)}, TypeError, "logits"),
    "logits byte order": ({"logits": np.zeros((3, 5), ">f4")}, TypeError, "logits"),
    "logits 0-d": ({"logits": np.zeros((), np.float32)}, ValueError, "logits"),
    "no vocabulary": ({"logits": np.zeros((3, 0), np.float32)}, ValueError, "logits"),
    "tokens list": ({"tokens": [0, 1, 2]}, TypeError, "tokens"),
    "tokens float": ({"tokens": np.zeros(3)}, TypeError, "tokens"),
    "tokens bool": ({"tokens": np.zeros(3, bool)}, TypeError, "tokens"),
    "tokens shape": ({"tokens": np.zeros((3, 1), np.int64)}, ValueError, "tokens"),
    "tokens torch": ({"tokens": torch.zeros(3, dtype=torch.int64)}, TypeError, "tokens"),
    "token negative": ({"tokens": np.array([0, -1, 2])}, ValueError, "tokens.*-1"),
    "token large": ({"tokens": np.array([0, 5, 2])}, ValueError, r"tokens.*\[0, 5\).*5"),
    "token huge": ({"tokens": np.array([0, 2**64 - 1, 2], np.uint64)}, ValueError, "tokens"),
    "temperature zero": ({"temperature": 0}, ValueError, "temperature"),
    "temperature negative": ({"temperature": -1.0}, ValueError, "temperature"),
    "temperature NaN": ({"temperature": float("nan")}, ValueError, "temperature.*NaN"),
    "temperature infinite": ({"temperature": float("inf")}, ValueError, "temperature"),
    "temperature array": ({"temperature": np.ones(1)}, TypeError, "temperature"),
    "temperature bool": ({"temperature": True}, TypeError, "temperature"),
}


@pytest.mark.parametrize(("changes", "error", "name"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(changes, error, name):
    arguments = {"logits": np.zeros((3, 5), np.float32), "tokens": np.zeros(3, np.int64)} | changes
    with pytest.raises(error, match=name):
        rlox_gpu.token_logprobs(arguments.pop("logits"), arguments.pop("tokens"), **arguments)


def test_the_reference_is_a_softmax():
    log_p = log_softmax(np.array([[0.0, np.log(3.0)], [-np.inf, 2.0]]))
    np.testing.assert_allclose(np.exp(log_p), [[0.25, 0.75], [0.0, 1.0]])
