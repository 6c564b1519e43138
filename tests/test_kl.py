"""token_kl on arrays and tensors: against the reference, identities, bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kl_inputs import DTYPES, KINDS, REDUCTIONS, assert_kl_close, make_kl_inputs, with_layout
from kl_reference import token_kl_reference

import rlox_gpu
from rlox_gpu import token_kl

MASKS = [None, torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64]


@settings(max_examples=100, deadline=None)
@given(
    shape=st.sampled_from([(), (1,), (63,), (64,), (1000,), (3, 70), (2, 3, 5), (0,), (4, 0)]),
    dtype=st.sampled_from(DTYPES),
    mask_dtype=st.sampled_from(MASKS),
    ratio=st.booleans(),
    kind=st.sampled_from(KINDS),
    reduction=st.sampled_from(REDUCTIONS),
    layouts=st.lists(
        st.sampled_from(["plain", "transposed", "strided", "cut"]), min_size=4, max_size=4
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_estimates_match_the_reference(
    shape, dtype, mask_dtype, ratio, kind, reduction, layouts, seed
):
    if shape == () and reduction == "sequence":
        return
    inputs = make_kl_inputs(seed, shape, dtype, ratio=ratio, mask_dtype=mask_dtype)
    laid_out = inputs
    if shape:
        laid_out = {
            k: with_layout(v, layout)
            for (k, v), layout in zip(inputs.items(), layouts, strict=False)
        }
    options = {"kind": kind, "reduction": reduction}
    result = token_kl(**laid_out, **options)
    assert_kl_close(result, inputs, **options)
    assert result.is_contiguous()
    if dtype is not torch.bfloat16:
        arrays = {k: v.numpy() for k, v in laid_out.items()}
        from_numpy = token_kl(**arrays, **options)
        assert isinstance(from_numpy, np.ndarray)
        np.testing.assert_array_equal(from_numpy, result.numpy())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_large_arrays_are_shared_among_threads(reduction):
    inputs = make_kl_inputs(0, (5, 70_000))
    options = {"kind": "k3", "reduction": reduction}
    small = torch.stack(
        [token_kl(**{k: v[i] for k, v in inputs.items()}, kind="k3").double() for i in range(5)]
    )
    count = inputs["mask"].sum()
    expected = {
        "none": small,
        "sum": small.sum(),
        "mean": small.sum() / count,
        "sequence": small.sum(1),
    }[reduction]
    result = token_kl(**inputs, **options)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (63,), (3, 70), (2, 3, 5, 7), (300_000,)])
def test_the_short_way_of_plain_arrays_gives_the_same_bits(shape, dtype):
    inputs = make_kl_inputs(12, shape, dtype, ratio=False, mask_dtype=None)
    everywhere = torch.ones(shape, dtype=torch.bool)
    for kind in KINDS:
        result = token_kl(**inputs, kind=kind)
        assert result.shape == shape
        assert result.dtype is dtype
        assert torch.equal(result, token_kl(**inputs, kind=kind, mask=everywhere))
        if dtype is not torch.bfloat16:
            from_numpy = token_kl(**{k: v.numpy() for k, v in inputs.items()}, kind=kind)
            assert type(from_numpy) is np.ndarray
            assert from_numpy.shape == shape
            np.testing.assert_array_equal(from_numpy, result.numpy())


@pytest.mark.parametrize("start", [0, 1, 5, 16, 17])
def test_arrays_may_start_anywhere(start):
    inputs = make_kl_inputs(13, (100 + start,), ratio=False, mask_dtype=None)
    for kind in KINDS:
        part = token_kl(**{k: v[start:].numpy() for k, v in inputs.items()}, kind=kind)
        np.testing.assert_array_equal(part, token_kl(**inputs, kind=kind)[start:])


def test_leading_dimensions_without_a_common_stride_are_copied():
    inputs = make_kl_inputs(1, (3, 4, 10))
    cut = {k: torch.cat([v, v], 1)[:, :4] for k, v in inputs.items()}
    assert_kl_close(token_kl(**cut), inputs)
    arrays = {k: v.numpy() for k, v in cut.items()}
    np.testing.assert_array_equal(token_kl(**arrays), token_kl(**inputs).numpy())


def test_fields_of_packed_records_are_taken():
    record = np.zeros(50, np.dtype([("flag", "u1"), ("lp", "f4"), ("ref", "f4")]))
    record["lp"], record["ref"] = np.linspace(-3, -1, 50), np.linspace(-2, -1.5, 50)
    expected = token_kl_reference(record["lp"], record["ref"])
    np.testing.assert_allclose(token_kl(record["lp"], record["ref"]), expected, rtol=1e-5)


class _Foreign:
    """An array of a library that only speaks DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_arrays_of_other_libraries_come_in_through_dlpack():
    inputs = make_kl_inputs(2, (4, 9))
    foreign = {k: _Foreign(v.numpy()) for k, v in inputs.items()}
    np.testing.assert_array_equal(token_kl(**foreign), token_kl(**inputs).numpy())


# -- what the estimates mean -----------------------------------------------------------------


@pytest.fixture
def categoricals():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(3, 6))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def _mean_and_error(samples):
    return samples.mean(), 5 * samples.std() / len(samples) ** 0.5


def test_monte_carlo_decides_what_each_estimate_estimates(categoricals):
    policy, ref, old = categoricals
    forward = (np.exp(policy) * (policy - ref)).sum()
    reverse = (np.exp(ref) * (ref - policy)).sum()
    rng = np.random.default_rng(4)

    def drawn(probs, n=400_000):
        return rng.choice(6, size=n, p=np.exp(probs))

    tokens = drawn(policy)
    for kind, unbiased in [("k1", True), ("k2", False), ("k3", True)]:
        mean, error = _mean_and_error(token_kl(policy[tokens], ref[tokens], kind=kind))
        assert bool(abs(mean - forward) < error) is unbiased
    tokens = drawn(ref)
    mean, error = _mean_and_error(token_kl(ref[tokens], policy[tokens], kind="k3"))
    assert abs(mean - reverse) < error
    mean, error = _mean_and_error(-token_kl(policy[tokens], ref[tokens], kind="k1"))
    assert abs(mean - reverse) < error
    mean, error = _mean_and_error(token_kl(policy[tokens], ref[tokens], kind="k3"))
    assert abs(mean - forward) > error
    tokens = drawn(old)
    ratio = np.exp(policy - old)[tokens]
    for kind in ("k1", "k3"):
        estimates = token_kl(policy[tokens], ref[tokens], kind=kind, ratio=ratio)
        mean, error = _mean_and_error(estimates)
        assert abs(mean - forward) < error


def test_mean_gradients_are_those_that_the_module_says(categoricals):
    policy, ref, old = (torch.from_numpy(x) for x in categoricals)

    def gradient(of):
        logits = policy.clone().requires_grad_()
        of(torch.log_softmax(logits, 0)).backward()
        return logits.grad

    forward = gradient(lambda lp: (lp.exp() * (lp - ref)).sum())
    reverse = gradient(lambda lp: (ref.exp() * (ref - lp)).sum())

    def mean(kind, probs, ratio=lambda lp: None):
        """Over tokens of ``probs``, exactly: the sum over all tokens, weighted."""
        return gradient(lambda lp: (probs * token_kl(lp, ref, kind=kind, ratio=ratio(lp))).sum())

    on_policy = policy.exp()
    torch.testing.assert_close(mean("k1", on_policy), torch.zeros_like(policy))
    torch.testing.assert_close(mean("k2", on_policy), forward)
    torch.testing.assert_close(mean("k3", on_policy), reverse)
    for kind in ("k1", "k3"):
        off_policy = mean(kind, old.exp(), lambda lp: (lp - old).exp())
        torch.testing.assert_close(off_policy, forward)
        unit = mean(kind, on_policy, lambda lp: (lp - lp.detach()).exp())
        torch.testing.assert_close(unit, forward)


@pytest.mark.parametrize("dtype", DTYPES)
def test_k3_is_never_negative_and_keeps_its_digits(dtype):
    tiny = torch.logspace(-7 if dtype is torch.float64 else -3.5, 0.5, 300, dtype=torch.float64)
    difference = torch.cat([tiny, -tiny]).to(dtype)
    result = token_kl(torch.zeros_like(difference), difference)
    assert (result >= 0).all()
    expected = torch.from_numpy(
        token_kl_reference(np.zeros(len(difference)), difference.double().numpy())
    )
    coarse = {torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.float32: 1e-6}.get(dtype, 1e-13)
    least = 2**-24 if dtype is torch.float16 else 0.0
    torch.testing.assert_close(result.double(), expected, rtol=coarse, atol=least)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_differences(dtype):
    inf = torch.inf
    far = torch.tensor([-inf, -1e30, -1e4, 1e4, inf, torch.nan], dtype=dtype)
    zeros = torch.zeros_like(far)
    k3 = token_kl(zeros, far)
    assert k3[:5].tolist() == [inf, pytest.approx(1e30), 9999.0, inf, inf]
    assert k3[5].isnan()
    assert token_kl(far, zeros, kind="k1")[:5].tolist() == far[:5].tolist()
    assert token_kl(far[:1], far[:1]).isnan()


def test_the_mean_of_nothing_is_zero():
    empty = torch.zeros(0)
    assert token_kl(empty, empty, reduction="mean") == 0
    assert token_kl(empty, empty, reduction="sum") == 0
    nan = torch.full((3, 4), torch.nan)
    mask = torch.zeros(3, 4, dtype=torch.bool)
    assert token_kl(nan, nan, mask=mask, reduction="mean") == 0
    assert not token_kl(nan, nan, mask=mask, reduction="sequence").any()


def test_first_dimension_may_be_negative_in_memory():
    x = np.linspace(-2, -1, 12, dtype=np.float32).reshape(3, 4)
    y = x[::-1, ::-1]
    np.testing.assert_array_equal(token_kl(x, y), token_kl(x, y.copy()))


# -- bad input -------------------------------------------------------------------------------

BAD_CALLS = {
    "logprobs list": ({"logprobs": [0.0]}, TypeError, "logprobs"),
    "logprobs dtype": ({"logprobs": torch.zeros(3, 4, dtype=torch.int64)}, TypeError, "logprobs"),
    "ref shape": ({"ref_logprobs": torch.zeros(3, 5)}, ValueError, "ref_logprobs"),
    "ref dtype": ({"ref_logprobs": torch.zeros(3, 4).double()}, TypeError, "ref_logprobs"),
    "ref numpy": ({"ref_logprobs": np.zeros((3, 4), "f")}, TypeError, "ref_logprobs"),
    "ref device": ({"ref_logprobs": torch.zeros(3, 4, device="meta")}, ValueError, "ref_logprobs"),
    "ratio shape": ({"ratio": torch.zeros(3, 1)}, ValueError, "ratio"),
    "ratio number": ({"ratio": 1.0}, TypeError, "ratio"),
    "mask shape": ({"mask": torch.ones(4)}, ValueError, "mask"),
    "mask dtype": ({"mask": torch.ones(3, 4) * 1j}, TypeError, "mask"),
    "kind unknown": ({"kind": "k4"}, ValueError, "kind: expected one of k1, k2, k3, got 'k4'"),
    "kind number": ({"kind": 3}, TypeError, "kind"),
    "reduction unknown": ({"reduction": "batch"}, ValueError, "reduction"),
    "reduction None": ({"reduction": None}, TypeError, "reduction"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(changes, error, message):
    inputs = {"logprobs": torch.zeros(3, 4), "ref_logprobs": torch.zeros(3, 4)}
    with pytest.raises(error, match=message):
        token_kl(**(inputs | changes))


def test_a_number_has_no_sequence():
    number = torch.tensor(-1.0)
    with pytest.raises(ValueError, match="logprobs: expected at least one dimension"):
        rlox_gpu.token_kl(number, number, reduction="sequence")


def test_other_byte_orders_are_refused():
    swapped = np.zeros(3, ">f4")
    with pytest.raises(TypeError, match="logprobs"):
        token_kl(swapped, swapped)
