"""full_kl on the CPU: arrays and tensors, layouts, special values, gradients, bad input."""

import numpy as np
import pytest
import torch
from full_kl_inputs import (
    DTYPES,
    REDUCTIONS,
    as_numbers,
    assert_divergences,
    assert_gradients,
    full_kl_gradients,
    full_kl_reference,
    full_kl_torch,
    make_full_kl_inputs,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from logprobs_reference import sliced
from test_gae import ForeignArray

import rlox_gpu
from rlox_gpu import full_kl

SIZES = [1, 2, 63, 64, 1000, 50257, 262144]
LAYOUTS = ["plain", "shifted", "transposed", "strided", "padded rows", "expanded"]


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
    inputs = make_full_kl_inputs(0, 3, vocabulary, dtype=dtype)
    got = full_kl(**inputs)
    assert_divergences(got, inputs)
    if dtype is not torch.bfloat16:
        from_numpy = full_kl(**{name: x.numpy() for name, x in inputs.items()})
        assert isinstance(from_numpy, np.ndarray)
        np.testing.assert_array_equal(from_numpy, got.numpy())


@settings(max_examples=80, deadline=None)
@given(
    shape=st.sampled_from([(1, 1), (63,), (64, 1), (2, 3), (1000,), (0,), (3, 0), (4, 5), ()]),
    vocabulary=st.sampled_from([1, 2, 7, 63, 64, 1000, 2049]),
    dtype=st.sampled_from(DTYPES),
    mask_dtype=st.sampled_from([None, torch.bool, torch.uint8, torch.int64, torch.float64]),
    reduction=st.sampled_from(REDUCTIONS),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    temperature=st.floats(0.2, 20),
    excluded=st.sampled_from([0.0, 0.1, 0.9]),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_inputs(
    shape, vocabulary, dtype, mask_dtype, reduction, layouts, temperature, excluded, seed
):
    if shape == () and reduction == "sequence":
        return
    if np.prod(shape) * vocabulary > 2**17:
        vocabulary = 64
    inputs = make_full_kl_inputs(
        seed, *shape, vocabulary, dtype=dtype, mask_dtype=mask_dtype, excluded=excluded
    )
    laid_out = inputs
    if len(shape) == 2 and "expanded" not in layouts:
        names = ("logits", "ref_logits")
        places = {n: _laid_out(inputs[n], x) for n, x in zip(names, layouts, strict=True)}
        laid_out = inputs | places
    options = {"temperature": temperature, "reduction": reduction}
    got = full_kl(**laid_out, **options)
    assert_divergences(got, inputs, **options)
    if dtype is not torch.bfloat16:
        arrays = {name: x.numpy() for name, x in laid_out.items()}
        np.testing.assert_array_equal(full_kl(**arrays, **options), got.numpy())


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 4),
    vocabulary=st.integers(1, 5000),
    dtype=st.sampled_from(DTYPES),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    temperature=st.floats(0.2, 10),
    excluded=st.sampled_from([0.0, 0.5]),
    wanted=st.sampled_from([(True, True), (True, False), (False, True)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_gradients_of_random_inputs(
    rows, vocabulary, dtype, layouts, temperature, excluded, wanted, seed
):
    inputs = make_full_kl_inputs(seed, 2, rows, vocabulary, dtype=dtype, excluded=excluded)
    if "expanded" in layouts:
        # Both rows repeated, so that neither excludes what the other keeps.
        layouts, inputs["mask"] = ("expanded", "expanded"), inputs["mask"][:1, :1].expand(2, rows)
    leaves = []
    for name, layout, want in zip(("logits", "ref_logits"), layouts, wanted, strict=True):
        inputs[name] = _laid_out(inputs[name], layout)
        leaves.append(inputs[name].detach().requires_grad_(want))
    got = full_kl(*leaves, temperature=temperature, mask=inputs["mask"])
    assert_divergences(got, inputs, temperature=temperature)
    weights = torch.randn(2, rows, generator=torch.Generator().manual_seed(seed)) * temperature
    (got * weights).sum().backward()
    assert_gradients([x.grad for x in leaves], inputs, weights, temperature)
    for leaf, want in zip(leaves, wanted, strict=True):
        assert (leaf.grad is not None) is want
        if want:
            assert not leaf.grad[inputs["mask"] == 0].any()


def test_the_reference_gradient_is_that_of_autograd():
    inputs = make_full_kl_inputs(1, 3, 7, dtype=torch.float64, mask_dtype=None)
    leaves = [x.clone().requires_grad_() for x in inputs.values()]
    divergences = full_kl_torch(*leaves, 0.7)
    want = full_kl_reference(**as_numbers(inputs), temperature=0.7)
    np.testing.assert_allclose(divergences.detach(), want, rtol=1e-12)
    weights = torch.tensor([1.0, -2.0, 0.5]).double()
    (divergences * weights).sum().backward()
    gradients = full_kl_gradients(**as_numbers(inputs), grad=weights.numpy(), temperature=0.7)
    for leaf, mine in zip(leaves, gradients, strict=True):
        np.testing.assert_allclose(leaf.grad, mine, rtol=1e-11, atol=1e-13)


def test_gradcheck():
    inputs = make_full_kl_inputs(2, 2, 3, 9, dtype=torch.float64, mask_dtype=None)
    leaves = tuple(x.requires_grad_() for x in inputs.values())
    mask = torch.tensor([[1, 0, 1], [1, 1, 0]])
    for function in (full_kl_torch, full_kl):
        assert torch.autograd.gradcheck(lambda x, y, f=function: f(x, y, temperature=0.7), leaves)
    for reduction in REDUCTIONS:

        def reduced(x, y, reduction=reduction):
            return full_kl(x, y, mask=mask, reduction=reduction)

        assert torch.autograd.gradcheck(reduced, leaves)


def test_agrees_with_kl_div():
    x, y = make_full_kl_inputs(3, 4, 50257, mask_dtype=None).values()
    log_p, log_q = torch.log_softmax(x, -1), torch.log_softmax(y, -1)
    want = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(full_kl(x, y), want, rtol=1e-5, atol=1e-5)


def test_estimates_of_token_kl_have_it_as_their_mean():
    x, y = make_full_kl_inputs(4, 6, dtype=torch.float64, mask_dtype=None).values()
    log_p, log_q = torch.log_softmax(x, -1), torch.log_softmax(y, -1)
    for kind in ("k1", "k3"):
        estimates = rlox_gpu.token_kl(log_p, log_q, kind=kind)
        torch.testing.assert_close((log_p.exp() * estimates).sum(), full_kl(x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_never_negative_and_zero_of_the_same(dtype):
    logits = make_full_kl_inputs(5, 200, 300, dtype=dtype, mask_dtype=None)["logits"]
    assert not full_kl(logits, logits).any()
    nearby = logits * (1 + torch.finfo(dtype).eps)
    assert (full_kl(logits, nearby) >= 0).all()
    # Shifted logits are the same distribution.
    assert (full_kl(logits, logits + 64) < 64 * 300 * torch.finfo(dtype).eps).all()


def test_temperature_divides_the_logits_of_both():
    x, y = make_full_kl_inputs(6, 4, 500, dtype=torch.float64, mask_dtype=None).values()
    torch.testing.assert_close(full_kl(x, y, temperature=2), full_kl(x / 2, y / 2))
    assert (full_kl(x, y, temperature=1e30) < 1e-12).all()
    assert not full_kl(x, y + 0 * x, temperature=1e30).isnan().any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_numbers(dtype):
    most = torch.finfo(dtype).max
    logits = torch.tensor([[most, -most, 0.0], [most, most, -most], [-most] * 3], dtype=dtype)
    assert not full_kl(logits, logits).any()
    # What the policy leaves no probability may be as unlikely as can be.
    ref_logits = torch.tensor([[0.0, -most, -most], [0.0, 0.0, -most], [0.0] * 3], dtype=dtype)
    assert full_kl(logits, ref_logits).abs().max() < 1e-6


def test_excluded_tokens():
    inputs = make_full_kl_inputs(7, 6, 5000, excluded=0.5, mask_dtype=None)
    logits, ref_logits = inputs.values()
    # All before the last token, and all but one, for the policy alone or both.
    logits[3, :4999] = logits[4, 1:] = ref_logits[4, 1:] = -torch.inf
    logits[3, 4999] = ref_logits[3, 4999] = 1
    got = full_kl(**inputs)
    assert_divergences(got, inputs)
    assert got[3:5].isfinite().all()
    assert got[4] == 0
    lost = {"logits": logits.clone(), "ref_logits": ref_logits.clone()}
    for row, (column, x) in enumerate([(0, 1.0), (4999, -50.0), (2500, -1e4)]):
        lost["logits"][row, column], lost["ref_logits"][row, column] = x, -torch.inf
    leaves = [x.clone().requires_grad_() for x in lost.values()]
    got = full_kl(*leaves)
    assert got.isinf().tolist() == [True] * 3 + [False] * 3
    assert_divergences(got.detach(), lost)
    got.sum().backward()
    assert leaves[0].grad[:3].isnan().all()
    assert leaves[0].grad[3:].isfinite().all()
    assert leaves[1].grad.isfinite().all()


def test_rows_without_an_answer_are_nan_and_spoil_no_other():
    x, y = make_full_kl_inputs(8, 6, 3000, mask_dtype=None).values()
    clean = full_kl(x, y)
    x[0], y[1] = -torch.inf, -torch.inf
    x[2, 2500] = y[3, 9] = torch.nan
    x[4, 7] = torch.inf
    got = full_kl(x, y)
    assert got.isnan().tolist() == [True] * 5 + [False]
    assert got[5] == clean[5]


def test_reductions_of_nothing_are_zero():
    empty = torch.zeros(3, 0, 5)
    for reduction in ("sum", "mean"):
        assert full_kl(empty, empty, reduction=reduction) == 0
    assert full_kl(empty, empty, reduction="sequence").tolist() == [0, 0, 0]
    nan = torch.full((3, 4, 5), torch.nan)
    mask = torch.zeros(3, 4)
    assert full_kl(nan, nan, mask=mask, reduction="mean") == 0
    assert not full_kl(nan, nan, mask=mask).any()


def test_dlpack_arrays_come_back_as_their_own_kind():
    inputs = make_full_kl_inputs(9, 2, 3, 40)
    want = full_kl(**inputs)
    foreign = {name: ForeignArray(x.numpy()) for name, x in inputs.items()}
    np.testing.assert_array_equal(np.asarray(full_kl(**foreign)), want.numpy())


def test_numpy_rows_may_lie_backwards_or_anywhere():
    x, y = make_full_kl_inputs(10, 3, 4, 65, mask_dtype=None).values()
    want = full_kl(x, y).numpy()
    got = full_kl(x.numpy()[::-1, ::-1], y.numpy()[::-1, ::-1])
    np.testing.assert_array_equal(got, want[::-1, ::-1])
    record = np.zeros((3, 4), np.dtype([("flag", "u1"), ("logits", "f4", 65)]))
    record["logits"] = x.numpy()
    np.testing.assert_array_equal(full_kl(record["logits"], y.numpy()), want)


BAD_CALLS = {
    "logits list": ({"logits": [[0.0]]}, TypeError, "logits"),
    "logits dtype": ({"logits": torch.zeros(3, 5).long()}, TypeError, "logits"),
    "logits number": ({"logits": torch.tensor(1.0)}, ValueError, "logits"),
    "logits of nothing": ({"logits": torch.zeros(3, 0)}, ValueError, "vocabulary"),
    "ref shape": ({"ref_logits": torch.zeros(3, 6)}, ValueError, "ref_logits"),
    "ref dtype": ({"ref_logits": torch.zeros(3, 5).double()}, TypeError, "ref_logits"),
    "ref numpy": ({"ref_logits": np.zeros((3, 5), np.float32)}, TypeError, "ref_logits"),
    "ref device": ({"ref_logits": torch.zeros(3, 5, device="meta")}, ValueError, "ref_logits"),
    "mask shape": ({"mask": torch.ones(3, 5)}, ValueError, "mask"),
    "mask dtype": ({"mask": torch.ones(3) * 1j}, TypeError, "mask"),
    "temperature zero": ({"temperature": 0}, ValueError, "temperature"),
    "temperature tensor": ({"temperature": torch.tensor(1.0)}, TypeError, "temperature"),
    "reduction unknown": ({"reduction": "batchmean"}, ValueError, "reduction"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(changes, error, message):
    inputs = {"logits": torch.zeros(3, 5), "ref_logits": torch.zeros(3, 5)}
    with pytest.raises(error, match=message):
        full_kl(**(inputs | changes))


def test_one_token_has_no_sequence():
    for one in (torch.zeros(5), np.zeros(5)):
        with pytest.raises(ValueError, match=r"logits: expected shape \[..., T, V\]"):
            full_kl(one, one, reduction="sequence")
