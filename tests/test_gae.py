"""gae on NumPy arrays and on the arrays of other libraries."""

import subprocess
import sys

import numpy as np
import pytest
from factories import make_gae_inputs, row_major
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import gae_reference

import rlox_gpu

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def assert_matches_reference(inputs, dtype=np.float32, **options):
    expected = gae_reference(**inputs, **options)
    result = rlox_gpu.gae(**inputs, **options)
    for got, want in zip(result[:2], expected, strict=True):
        assert got.dtype == dtype
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE[dtype])
    assert result.moments is None


def test_gae_equals_hand_computation():
    # delta = [1 + .5 * 2 - 1, 2 - 2, 3 + .5 * 4 - 3] = [1, 0, 2]; step 1 terminates;
    # advantages = [1 + .5 * .5 * 0, 0, 2].
    result = rlox_gpu.gae(
        np.array([1.0, 2.0, 3.0]),
        np.array([1.0, 2.0, 3.0]),
        np.array([False, True, False]),
        4.0,
        gamma=0.5,
        gae_lambda=0.5,
    )
    np.testing.assert_array_equal(result.advantages, [1.0, 0.0, 2.0])
    np.testing.assert_array_equal(result.returns, [2.0, 2.0, 5.0])


def test_gae_bootstraps_a_truncated_step_from_its_final_value():
    # Step 0 is cut short: delta = 1 + .5 * 10 - 1 = 5, not 1 + .5 * values[1] - 1.
    result = rlox_gpu.gae(
        np.array([1.0, 1.0]),
        np.array([1.0, 3.0]),
        np.zeros(2),
        0.0,
        truncated=np.array([1, 0]),
        final_values=np.array([10.0, np.nan]),
        gamma=0.5,
        gae_lambda=1.0,
    )
    np.testing.assert_array_equal(result.advantages, [5.0, -2.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_envs", [None, 1, 63, 64])
@pytest.mark.parametrize("num_steps", [1, 63, 1000])
def test_gae_matches_reference(rng, dtype, num_envs, num_steps):
    assert_matches_reference(make_gae_inputs(rng, num_steps, num_envs, dtype), dtype)


@settings(max_examples=60, deadline=None)
@given(
    num_steps=st.integers(1, 70),
    num_envs=st.integers(1, 40),
    dtype=st.sampled_from([np.float32, np.float64]),
    flag_dtype=st.sampled_from([np.bool_, np.uint8, np.int32, np.int64, np.float32, np.float64]),
    rows=st.booleans(),
    truncation=st.booleans(),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_gae_matches_reference_property(
    num_steps, num_envs, dtype, flag_dtype, rows, truncation, gamma, gae_lambda, seed
):
    inputs = make_gae_inputs(
        np.random.default_rng(seed),
        num_steps,
        num_envs,
        dtype,
        flag_dtype=flag_dtype,
        truncation=truncation,
        end_rate=0.2,
    )
    options = {"gamma": gamma, "gae_lambda": gae_lambda}
    if rows:
        inputs, options["time_dim"] = row_major(inputs), -1
    assert_matches_reference(inputs, dtype, **options)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_gae_of_nothing_is_nothing(shape):
    empty = np.zeros(shape, np.float32)
    result = rlox_gpu.gae(empty, empty, empty, np.zeros(shape[1], np.float32))
    assert result.advantages.shape == result.returns.shape == shape


@pytest.mark.parametrize("options", [{}, {"gamma": np.full((50, 8), 0.9)}, {"moments": True}])
def test_results_share_one_allocation_and_no_element(rng, options):
    # Two large blocks that are freed in turn shrink the heap, and every call pays page faults.
    result = rlox_gpu.gae(**make_gae_inputs(rng, 50, 8, np.float64), **options)
    assert result.advantages.base is result.returns.base is not None
    assert not np.shares_memory(result.advantages, result.returns)
    assert result.advantages.flags.c_contiguous
    assert result.advantages.flags.writeable


def test_lambda_zero_is_the_temporal_difference(rng):
    inputs = make_gae_inputs(rng, 50, 8, np.float64, truncation=False)
    after = np.vstack([inputs["values"][1:], inputs["last_values"]])
    delta = inputs["rewards"] + 0.9 * after * ~inputs["terminated"] - inputs["values"]
    result = rlox_gpu.gae(**inputs, gamma=0.9, gae_lambda=0.0)
    np.testing.assert_allclose(result.advantages, delta, rtol=0, atol=1e-12)


def test_lambda_one_is_the_discounted_return_minus_the_value(rng):
    inputs = make_gae_inputs(rng, 50, 8, np.float64)
    total, returns = inputs["last_values"], np.empty((50, 8))
    for t in reversed(range(50)):
        final = np.where(inputs["truncated"][t], inputs["final_values"][t], total)
        total = inputs["rewards"][t] + 0.9 * np.where(inputs["terminated"][t], 0.0, final)
        returns[t] = total
    result = rlox_gpu.gae(**inputs, gamma=0.9, gae_lambda=1.0)
    np.testing.assert_allclose(result.returns, returns, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.advantages, returns - inputs["values"], rtol=0, atol=1e-12)


def test_splitting_a_rollout_at_an_end_changes_nothing(rng):
    inputs = make_gae_inputs(rng, 40, 3, np.float64)
    inputs["terminated"][19] = True
    inputs["truncated"][19] = False
    whole = rlox_gpu.gae(**inputs)
    early = {k: v if k == "last_values" else v[:20] for k, v in inputs.items()}
    late = {k: v if k == "last_values" else v[20:] for k, v in inputs.items()}
    halves = [rlox_gpu.gae(**half).advantages for half in (early, late)]
    np.testing.assert_allclose(np.vstack(halves), whole.advantages, rtol=0, atol=1e-14)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nothing_crosses_the_end_of_an_episode(rng, poison):
    inputs = make_gae_inputs(rng, 30, 4, np.float32)
    inputs["terminated"][9] = [1, 1, 0, 0]
    inputs["truncated"][9] = [0, 0, 1, 1]
    inputs["final_values"][9, 2:] = 1.0
    clean = rlox_gpu.gae(**inputs)
    inputs["rewards"][10:] = poison
    inputs["values"][10:] = poison
    inputs["last_values"][:] = poison
    dirty = rlox_gpu.gae(**inputs)
    np.testing.assert_array_equal(dirty.advantages[:10], clean.advantages[:10])
    assert not np.isfinite(dirty.advantages[10:]).any()


def test_out_is_written_and_returned(rng):
    inputs = make_gae_inputs(rng, 20, 5)
    out = np.full((20, 5), np.nan, np.float32), np.full((20, 5), np.nan, np.float32)
    result = rlox_gpu.gae(**inputs, out=out)
    assert result.advantages is out[0]
    assert result.returns is out[1]
    np.testing.assert_array_equal(out[0], rlox_gpu.gae(**inputs).advantages)


def test_numpy_path_does_not_import_torch():
    code = (
        "import sys, numpy as np, rlox_gpu\n"
        "rlox_gpu.gae(np.ones(3), np.ones(3), np.zeros(3), 0.0)\n"
        "assert not {'torch', 'triton', 'cupy'} & set(sys.modules), 'too much was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class ForeignArray:
    """A library's own array that speaks nothing but DLPack."""

    def __init__(self, array):
        self.array = np.array(array)

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class NamespacedArray(ForeignArray):
    """The same with a way back, as the array API standard spells it."""

    def __array_namespace__(self):
        return NamespacedArray

    @classmethod
    def from_dlpack(cls, x):
        return cls(np.from_dlpack(x))


def test_dlpack_arrays_come_back_as_their_own_kind(rng):
    inputs = make_gae_inputs(rng, 17, 5)
    expected = rlox_gpu.gae(**inputs)
    result = rlox_gpu.gae(**{k: NamespacedArray(v) for k, v in inputs.items()})
    assert type(result.advantages) is type(result.returns) is NamespacedArray
    np.testing.assert_array_equal(result.advantages.array, expected.advantages)
    np.testing.assert_array_equal(result.returns.array, expected.returns)


def test_dlpack_arrays_without_a_way_back_give_numpy(rng):
    inputs = make_gae_inputs(rng, 17)
    result = rlox_gpu.gae(**{k: ForeignArray(v) for k, v in inputs.items()})
    np.testing.assert_array_equal(result.advantages, rlox_gpu.gae(**inputs).advantages)


def test_dlpack_out_is_written_and_returned(rng):
    inputs = make_gae_inputs(rng, 17, 5)
    out = ForeignArray(np.zeros((17, 5), np.float32)), ForeignArray(np.zeros((17, 5), np.float32))
    result = rlox_gpu.gae(**{k: ForeignArray(v) for k, v in inputs.items()}, out=out)
    assert result.advantages is out[0]
    np.testing.assert_array_equal(out[0].array, rlox_gpu.gae(**inputs).advantages)


def _inputs(**changes):
    inputs = make_gae_inputs(np.random.default_rng(0), 6, 4, truncation=False)
    return inputs | changes


BAD_CALLS = {
    "rewards list": ({"rewards": [[1.0]]}, TypeError, "rewards"),
    "rewards number": ({"rewards": 1.0}, TypeError, "rewards"),
    "rewards dtype": ({"rewards": np.zeros((6, 4), np.int64)}, TypeError, "rewards"),
    "rewards 3-d": ({"rewards": np.zeros((6, 4, 1), np.float32)}, ValueError, "rewards"),
    "values short": ({"values": np.zeros((5, 4), np.float32)}, ValueError, "values"),
    "values long": ({"values": np.zeros((7, 4), np.float32)}, ValueError, "values"),
    "values dtype": ({"values": np.zeros((6, 4))}, TypeError, "values"),
    "values list": ({"values": [[0.0] * 4] * 6}, TypeError, "values"),
    "terminated shape": ({"terminated": np.zeros((4, 6), bool)}, ValueError, "terminated"),
    "terminated dtype": ({"terminated": np.zeros((6, 4), "U1")}, TypeError, "terminated"),
    "last_values shape": ({"last_values": np.zeros(6, np.float32)}, ValueError, "last_values"),
    "last_values dtype": ({"last_values": np.zeros(4)}, TypeError, "last_values"),
    "truncated alone": ({"truncated": np.zeros((6, 4), bool)}, ValueError, "final_values"),
    "final_values alone": ({"final_values": np.zeros((6, 4), "f4")}, ValueError, "truncated"),
    "gamma NaN": ({"gamma": float("nan")}, ValueError, "gamma"),
    "gamma above one": ({"gamma": 1.01}, ValueError, "gamma"),
    "gamma text": ({"gamma": "0.99"}, TypeError, "gamma"),
    "lambda negative": ({"gae_lambda": -0.1}, ValueError, "gae_lambda"),
    "lambda infinite": ({"gae_lambda": float("inf")}, ValueError, "gae_lambda"),
    "time_dim": ({"time_dim": 2}, ValueError, "time_dim"),
    "out one array": ({"out": np.zeros((6, 4), np.float32)}, TypeError, "out"),
    "out shape": ({"out": (np.zeros((4, 6), "f4"), np.zeros((6, 4), "f4"))}, ValueError, "out"),
    "out dtype": ({"out": (np.zeros((6, 4)), np.zeros((6, 4)))}, TypeError, "out"),
}


@pytest.mark.parametrize(("changes", "error", "name"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(changes, error, name):
    with pytest.raises(error, match=name):
        rlox_gpu.gae(**_inputs(**changes))


def test_dlpack_argument_that_cannot_be_exported_is_named():
    class Broken(ForeignArray):
        def __dlpack__(self, **options):
            raise BufferError("on loan")

    inputs = {k: ForeignArray(v) for k, v in _inputs().items()}
    with pytest.raises(TypeError, match=r"values.*on loan"):
        rlox_gpu.gae(**(inputs | {"values": Broken(np.zeros((6, 4), np.float32))}))
