"""rlox's token divergences: equal to rlox, and bad input named."""

import numpy as np
import pytest
import torch

import rlox_gpu

SINGLE = ["compute_token_kl", "compute_token_kl_schulman"]
BATCHED = ["compute_batch_token_kl", "compute_batch_token_kl_schulman"]
TOLERANCE = {"": 1e-12, "_f32": 1e-5}


def _inputs(rng, size, dtype):
    policy = -rng.exponential(1.0, size)
    return policy.astype(dtype), (policy + rng.normal(0, 0.5, size)).astype(dtype)


@pytest.mark.parametrize("form", ["", "_f32"])
@pytest.mark.parametrize("name", SINGLE)
def test_equals_rlox(rng, name, form):
    rlox = pytest.importorskip("rlox", exc_type=ImportError)
    for size in (1, 63, 1000):
        inputs = _inputs(rng, size, "f" if form else "d")
        ours = getattr(rlox_gpu, name + form)(*inputs)
        assert type(ours) is float
        assert ours == pytest.approx(getattr(rlox, name + form)(*inputs), rel=TOLERANCE[form])


@pytest.mark.parametrize("form", ["", "_f32"])
@pytest.mark.parametrize("name", BATCHED)
def test_batches_equal_rlox(rng, name, form):
    rlox = pytest.importorskip("rlox", exc_type=ImportError)
    for batch, length in [(1, 1), (5, 63), (64, 128)]:
        inputs = _inputs(rng, batch * length, "f" if form else "d")
        ours = getattr(rlox_gpu, name + form)(*inputs, length)
        theirs = getattr(rlox, name + form)(*inputs, length)
        assert ours.dtype == theirs.dtype
        assert ours.shape == (batch,)
        np.testing.assert_allclose(ours, theirs, TOLERANCE[form], TOLERANCE[form])


@pytest.mark.parametrize("name", BATCHED)
def test_tensors_in_tensors_out(rng, name):
    inputs = _inputs(rng, 30, "d")
    expected = getattr(rlox_gpu, name)(*inputs, 6)
    result = getattr(rlox_gpu, name)(*map(torch.from_numpy, inputs), 6)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)
    single = name.replace("batch_", "")
    of_tensors = getattr(rlox_gpu, single)(*map(torch.from_numpy, inputs))
    assert of_tensors == pytest.approx(expected.sum())


def test_lists_and_other_dtypes_are_converted():
    assert rlox_gpu.compute_token_kl([0.0], [-1]) == 1.0
    assert rlox_gpu.compute_batch_token_kl_f32([0, 0], [-1, -2], 1).tolist() == [1.0, 2.0]


P = np.zeros(6)
WRONG = [
    ((P, P[:5], 3), ValueError, "log_probs_ref"),
    ((P.reshape(2, 3), P, 3), ValueError, "log_probs_policy"),
    ((["a"], P, 3), ValueError, "log_probs_policy"),
    ((P, P, 4), ValueError, "seq_len"),
    ((P, P, 0), ValueError, "seq_len"),
    ((P, P, 2.0), TypeError, "seq_len"),
]


@pytest.mark.parametrize(("arguments", "error", "name"), WRONG)
def test_bad_input_is_named(arguments, error, name):
    with pytest.raises(error, match=name):
        rlox_gpu.compute_batch_token_kl(*arguments)
