"""The compiled GAE on NumPy arrays, against the float64 reference."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from factories import make_gae_inputs, row_major
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import gae_reference

from rlox_gpu import _rust

# Worst error relative to the largest reference value: rounding, not a wrong term.
TOLERANCE = {"float16": 3e-3, "float32": 2e-5, "float64": 1e-13}
SIZES = [(1, 1), (1, 64), (63, 1), (64, 3), (17, 63), (63, 64), (1000, 7), (3, 1000), (1000, None)]
FLAG_DTYPES = [np.dtype(code) for code in "?bBhHiIlLqQefd"]


def call(inputs, gamma=0.99, gae_lambda=0.95, time_dim=0, out=None):
    return _rust.gae(
        inputs["rewards"],
        inputs["values"],
        inputs["terminated"],
        inputs["last_values"],
        inputs.get("truncated"),
        inputs.get("final_values"),
        gamma,
        gae_lambda,
        time_dim,
        out,
    )


def assert_matches(results, inputs, gamma=0.99, gae_lambda=0.95, time_dim=0):
    expected = gae_reference(**inputs, gamma=gamma, gae_lambda=gae_lambda, time_dim=time_dim)
    dtype = inputs["rewards"].dtype
    for result, reference in zip(results, expected, strict=True):
        assert result.dtype == dtype
        assert result.shape == reference.shape
        scale = np.abs(reference).max(initial=1.0)
        np.testing.assert_allclose(result, reference, rtol=0, atol=TOLERANCE[dtype.name] * scale)


def test_gae_agrees_with_hand_computation():
    # gamma = lambda = 1/2; backwards: delta = 1 + 4/2 - 2 = 1, A = 1;
    # then delta = 1 + 2/2 - 2 = 0, A = 0 + 1/4.
    ones, twos = np.ones(2), np.full(2, 2.0)
    flags = np.zeros(2, bool)
    advantages, returns = _rust.gae(ones, twos, flags, 4.0, None, None, 0.5, 0.5, 0, None)
    assert advantages.tolist() == [0.25, 1.0]
    assert returns.tolist() == [2.25, 3.0]


@pytest.mark.parametrize("truncation", [False, True], ids=["terminated", "truncated"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gae_matches_reference(rng, size, dtype, truncation):
    inputs = make_gae_inputs(rng, *size, dtype, truncation=truncation)
    assert_matches(call(inputs), inputs)
    if size[1] is not None:
        rows = row_major(inputs)
        assert_matches(call(rows, time_dim=-1), rows, time_dim=-1)
        assert_matches(call(rows, time_dim=1), rows, time_dim=1)


@pytest.mark.parametrize("dtype", FLAG_DTYPES, ids=lambda dtype: dtype.str)
@pytest.mark.parametrize("time_dim", [0, -1])
def test_flags_of_any_dtype_mean_nonzero(rng, dtype, time_dim):
    inputs = make_gae_inputs(rng, 33, 20, np.float64)
    if time_dim:
        inputs = row_major(inputs)
    expected = call(inputs, time_dim=time_dim)
    largest = {"f": -0.5, "u": 1 << (8 * dtype.itemsize - 1), "i": -1}.get(dtype.kind, True)
    inputs["terminated"] = inputs["terminated"].astype(dtype) * dtype.type(largest)
    inputs["truncated"] = inputs["truncated"].astype(np.int16)
    np.testing.assert_array_equal(call(inputs, time_dim=time_dim), expected)


def test_negative_zero_and_nan_flags(rng):
    inputs = make_gae_inputs(rng, 40, 5, np.float32, truncation=False)
    expected = call(inputs)
    inputs["terminated"] = np.where(inputs["terminated"], np.nan, -0.0)
    np.testing.assert_array_equal(call(inputs), expected)


def _layouts(array):
    """The same elements in other strides."""
    spaced = np.zeros([2 * n + 1 for n in array.shape], array.dtype)
    spaced[tuple(slice(1, None, 2) for _ in array.shape)] = array
    padded = np.zeros((array.size, 3 + array.itemsize), np.uint8)
    padded[:, 3:] = np.ascontiguousarray(array).reshape(-1, 1).view(np.uint8)
    return {
        "C": np.ascontiguousarray(array),
        "F": np.asfortranarray(array),
        "strided": spaced[tuple(slice(1, None, 2) for _ in array.shape)],
        "negative": array[::-1, ::-1].copy()[::-1, ::-1],
        "unaligned": padded[:, 3:].view(array.dtype)[:, 0].reshape(array.shape),
    }


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("time_dim", [0, -1])
@pytest.mark.parametrize("layout", ["C", "F", "strided", "negative", "unaligned"])
def test_layouts_make_no_difference(rng, layout, time_dim, dtype):
    inputs = make_gae_inputs(rng, 37, 21, dtype)
    if time_dim:
        inputs = row_major(inputs)
    expected = call(inputs, time_dim=time_dim)
    scale = TOLERANCE[dtype] * 100
    for name in ("rewards", "values", "terminated", "truncated", "final_values"):
        changed = {**inputs, name: _layouts(inputs[name])[layout]}
        np.testing.assert_allclose(call(changed, time_dim=time_dim), expected, atol=scale)
    changed = {k: v if v.ndim == 1 else _layouts(v)[layout] for k, v in inputs.items()}
    out = tuple(_layouts(np.zeros_like(inputs["rewards"]))[layout] for _ in range(2))
    results = call(changed, time_dim=time_dim, out=out)
    assert results[0] is out[0]
    assert results[1] is out[1]
    np.testing.assert_allclose(results, expected, atol=scale)


def test_broadcast_inputs(rng):
    inputs = make_gae_inputs(rng, 30, 20, np.float64, truncation=False)
    inputs["rewards"] = np.broadcast_to(np.float64(0.35), (30, 20))
    inputs["terminated"] = np.broadcast_to(np.arange(30)[:, None] % 7 == 6, (30, 20))
    inputs["last_values"] = np.broadcast_to(np.float64(2.0), 20)
    assert_matches(call(inputs), inputs)


def test_out_may_be_part_of_a_larger_array(rng):
    inputs = make_gae_inputs(rng, 20, 8, np.float32)
    storage = np.zeros((20, 8, 4), np.float32)
    storage[..., 0] = inputs["rewards"]
    inputs["rewards"] = storage[..., 0]
    call(inputs, out=(storage[..., 1], storage[..., 2]))
    assert_matches((storage[..., 1], storage[..., 2]), inputs)
    np.testing.assert_array_equal(storage[..., 3], 0)


@st.composite
def problems(draw):
    steps, envs = draw(st.integers(0, 70)), draw(st.one_of(st.none(), st.integers(0, 40)))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    inputs = make_gae_inputs(
        rng,
        steps,
        envs,
        dtype,
        flag_dtype=draw(st.sampled_from(FLAG_DTYPES)),
        truncation=draw(st.booleans()),
        end_rate=draw(st.sampled_from([0.0, 0.02, 0.3, 1.0])),
    )
    time_dim = 0
    if envs is not None and draw(st.booleans()):
        inputs, time_dim = row_major(inputs), -1
    for name, value in inputs.items():
        if value.ndim == 2 and value.size:
            layout = draw(st.sampled_from(["C", "F", "strided", "negative", "unaligned"]))
            inputs[name] = _layouts(value)[layout]
    numbers = st.sampled_from([0.0, 0.5, 0.99, 1.0])
    return inputs, draw(numbers), draw(numbers), time_dim


@settings(max_examples=200, deadline=None)
@given(problems())
def test_any_problem_matches_reference(problem):
    inputs, gamma, gae_lambda, time_dim = problem
    results = call(inputs, gamma, gae_lambda, time_dim)
    assert_matches(results, inputs, gamma, gae_lambda, time_dim)


@st.composite
def endings(draw):
    """0, 1 (terminated) or 2 (truncated) for every step."""
    shape = draw(st.integers(1, 50)), draw(st.integers(1, 20))
    return draw(hnp.arrays(np.int8, shape, elements=st.sampled_from([0, 0, 0, 1, 2])))


@settings(max_examples=50, deadline=None)
@given(endings(), st.integers(0, 2**32), st.sampled_from([0, -1]))
def test_nan_and_infinity_stay_in_their_episode(ending, seed, time_dim):
    inputs = make_gae_inputs(np.random.default_rng(seed), *ending.shape, np.float64)
    inputs["terminated"], inputs["truncated"] = ending == 1, ending == 2
    inputs["final_values"] = np.where(ending == 2, 0.5, np.nan)
    clean, _ = gae_reference(**inputs)
    # Episodes numbered backwards, the unfinished one is 0; every second one is poisoned.
    poisoned = np.cumsum((ending != 0)[::-1], axis=0)[::-1] % 2 == 0
    inputs["rewards"] = np.where(poisoned, np.nan, inputs["rewards"])
    inputs["values"] = np.where(poisoned, np.inf, inputs["values"])
    inputs["last_values"][:] = np.inf
    if time_dim:
        inputs = row_major(inputs)
    advantages, _ = call(inputs, time_dim=time_dim)
    advantages = advantages.T if time_dim else advantages
    np.testing.assert_allclose(advantages[~poisoned], clean[~poisoned], atol=1e-11)
    assert not np.isfinite(advantages[poisoned]).any()


# -- identities --------------------------------------------------------------------------------


def test_lambda_zero_is_the_temporal_difference(rng):
    inputs = make_gae_inputs(rng, 50, 9, np.float64)
    advantages, _ = call(inputs, gae_lambda=0.0)
    following = np.concatenate([inputs["values"][1:], inputs["last_values"][None]])
    following = np.where(inputs["truncated"], inputs["final_values"], following)
    following = np.where(inputs["terminated"], 0.0, following)
    expected = inputs["rewards"] + 0.99 * following - inputs["values"]
    np.testing.assert_allclose(advantages, expected, atol=1e-13)


@pytest.mark.parametrize("time_dim", [0, -1])
def test_lambda_one_is_monte_carlo_minus_value(rng, time_dim):
    inputs = make_gae_inputs(rng, 80, 6, np.float64)
    total, expected = inputs["last_values"], np.empty((80, 6))
    for t in reversed(range(80)):
        total = np.where(inputs["truncated"][t], inputs["final_values"][t], total)
        total = np.where(inputs["terminated"][t], 0.0, total)
        total = expected[t] = inputs["rewards"][t] + 0.9 * total
    given = row_major(inputs) if time_dim else inputs
    advantages, returns = call(given, gamma=0.9, gae_lambda=1.0, time_dim=time_dim)
    returns, advantages = (returns.T, advantages.T) if time_dim else (returns, advantages)
    np.testing.assert_allclose(returns, expected, atol=1e-12)
    np.testing.assert_allclose(advantages, expected - inputs["values"], atol=1e-12)


@pytest.mark.parametrize("kind", ["terminated", "truncated"])
def test_splitting_at_an_end_changes_nothing(rng, kind):
    inputs = make_gae_inputs(rng, 60, 8, np.float64)
    inputs["terminated"][24] = kind == "terminated"
    inputs["truncated"][24] = kind == "truncated"
    inputs["final_values"][24] = 1.5
    whole = call(inputs)
    early = {k: v[:25] if v.ndim == 2 else np.full(8, np.nan) for k, v in inputs.items()}
    late = {k: v[25:] if v.ndim == 2 else v for k, v in inputs.items()}
    parts = np.concatenate([call(early), call(late)], axis=1)
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize("steps", [511, 4096, 33333])
def test_a_long_trajectory_equals_its_column(rng, steps):
    # One trajectory is walked in blocks of times; beside others it is walked step by step.
    inputs = make_gae_inputs(rng, steps, None, np.float64, end_rate=0.001)
    beside = {k: np.repeat(v[..., None], 8, axis=-1) for k, v in inputs.items()}
    np.testing.assert_allclose(call(inputs), np.array(call(beside))[..., 3], atol=1e-10)


def test_a_long_decay_that_underflows(rng):
    inputs = make_gae_inputs(rng, 5000, None, np.float32, truncation=False, end_rate=0.0)
    assert_matches(call(inputs, 0.5, 0.5), inputs, 0.5, 0.5)


def test_large_arrays_are_shared_among_threads(rng):
    inputs = make_gae_inputs(rng, 300, 1100, np.float64)
    columns = {k: v[..., 500:503] for k, v in inputs.items()}
    np.testing.assert_allclose(np.array(call(inputs))[..., 500:503], call(columns), atol=1e-10)
    rows = row_major(inputs)
    np.testing.assert_allclose(
        np.array(call(rows, time_dim=-1))[:, 500:503],
        np.transpose(call(columns), (0, 2, 1)),
        atol=1e-10,
    )


# -- forms of the result -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (0,)])
def test_empty_input_gives_empty_output(shape):
    empty = np.empty(shape, np.float32)
    last_values = np.empty(shape[1:], np.float32)
    for result in _rust.gae(empty, empty, empty, last_values, None, None, 0.9, 0.9, 0, None):
        assert result.shape == shape
        assert result.dtype == np.float32


def test_results_are_contiguous_whatever_the_input(rng):
    inputs = make_gae_inputs(rng, 20, 30, np.float32)
    inputs["values"] = np.asfortranarray(inputs["values"])
    assert all(result.flags.c_contiguous for result in call(inputs))


@pytest.mark.parametrize("last_value", [0.5, np.float32(0.5), np.array(0.5, np.float32), 1])
def test_a_single_trajectory_takes_a_number(rng, last_value):
    inputs = make_gae_inputs(rng, 7, None, np.float32)
    inputs["last_values"] = last_value
    assert_matches(call(inputs), inputs)


# -- bad input ---------------------------------------------------------------------------------

NAN = float("nan")
WRONG = [
    ({"rewards": [[0.0] * 3] * 4}, TypeError, "rewards must be a NumPy array, not list"),
    ({"rewards": np.zeros((4, 3), int)}, TypeError, "rewards must be float16.* not int64"),
    ({"rewards": np.zeros((4, 3), ">f4")}, TypeError, "rewards must be in native byte order"),
    ({"rewards": np.zeros((4, 3, 2), "f")}, ValueError, r"rewards .* \(4, 3, 2\)"),
    ({"rewards": np.zeros((), "f")}, ValueError, r"rewards must have shape \[T\]"),
    ({"values": None}, TypeError, "values must be a NumPy array, not NoneType"),
    ({"values": np.zeros((4, 3))}, TypeError, "values must be float32 like rewards, not float64"),
    ({"values": np.zeros((3, 4), "f")}, ValueError, r"values .*\(4, 3\), not \(3, 4\)"),
    ({"terminated": np.zeros((4, 3), complex)}, TypeError, "terminated must be .* not complex128"),
    ({"terminated": np.zeros((4, 3), object)}, TypeError, "terminated must be .* not object"),
    ({"terminated": np.zeros((4, 2), bool)}, ValueError, "terminated must have the shape"),
    ({"terminated": np.zeros(4, bool)}, ValueError, r"terminated .* not \(4,\)"),
    ({"last_values": 0.0}, TypeError, "last_values must be a NumPy array, not float"),
    ({"last_values": np.zeros(3)}, TypeError, "last_values must be float32"),
    ({"last_values": np.zeros(4, "f")}, ValueError, r"last_values must have shape \(3,\)"),
    ({"last_values": np.zeros((1, 3), "f")}, ValueError, r"last_values must .* \(1, 3\)"),
    ({"truncated": np.zeros((4, 3), bool)}, ValueError, "truncated needs final_values"),
    ({"final_values": np.zeros((4, 3), "f")}, ValueError, "final_values needs truncated"),
    ({"gamma": NAN}, ValueError, "gamma must be a number between 0 and 1, not nan"),
    ({"gamma": 1.01}, ValueError, "gamma must be .* not 1.01"),
    ({"gamma": "high"}, TypeError, "gamma"),
    ({"gae_lambda": -0.1}, ValueError, "gae_lambda must be .* not -0.1"),
    ({"gae_lambda": NAN}, ValueError, "gae_lambda must be .* not nan"),
    ({"time_dim": 2}, ValueError, "time_dim must be 0 .* not 2"),
    ({"time_dim": 0.5}, TypeError, "time_dim"),
    ({"out": np.zeros((4, 3), "f")}, TypeError, "out must be a pair"),
    ({"out": 7}, TypeError, "out must be a pair"),
    ({"out": (np.zeros((4, 3), "f"),) * 2}, ValueError, r"out\[0\] must not share .* out\[1\]"),
    (
        {"out": (np.zeros((4, 3), "f"), np.zeros((4, 3)))},
        TypeError,
        r"out\[1\] must be float32",
    ),
    (
        {"out": (np.zeros((4, 2), "f"), np.zeros((4, 3), "f"))},
        ValueError,
        r"out\[0\] must have the shape",
    ),
    (
        {"out": (np.zeros((4, 3), "f"), np.broadcast_to(np.float32(0), (4, 3)))},
        ValueError,
        r"out\[1\] must be writeable",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG, ids=[w[2] for w in WRONG])
def test_bad_input_is_named(change, error, message):
    zeros = np.zeros((4, 3), np.float32)
    arguments = {
        "rewards": zeros,
        "values": zeros,
        "terminated": np.zeros((4, 3), bool),
        "last_values": zeros[0],
        "truncated": None,
        "final_values": None,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "time_dim": 0,
        "out": None,
    }
    with pytest.raises(error, match=message):
        _rust.gae(*{**arguments, **change}.values())


@pytest.mark.parametrize("name", ["rewards", "values", "last_values", "final_values", "terminated"])
def test_out_must_not_overlap_an_input(rng, name):
    inputs = make_gae_inputs(rng, 6, 6, np.float32, flag_dtype=np.float32)
    storage = np.zeros((13, 6), np.float32)
    inputs[name] = storage[5] if name == "last_values" else storage[5:11]
    with pytest.raises(ValueError, match=rf"out\[0\] must not share memory with {name}"):
        call(inputs, out=(storage[:6], np.zeros((6, 6), np.float32)))


def test_out_must_not_overlap_itself(rng):
    inputs = make_gae_inputs(rng, 6, 6, np.float32)
    line = np.zeros(11, np.float32)
    sliding = np.lib.stride_tricks.as_strided(line, (6, 6), (4, 4))
    with pytest.raises(ValueError, match=r"out\[1\] must not have elements that share memory"):
        call(inputs, out=(np.zeros((6, 6), np.float32), sliding))


def test_a_single_trajectory_has_one_time_axis():
    zeros = np.zeros(4)
    with pytest.raises(ValueError, match="time_dim must be 0 or -1 for one trajectory, not 1"):
        _rust.gae(zeros, zeros, zeros, 0.0, None, None, 0.9, 0.9, 1, None)
    with pytest.raises(TypeError, match="last_values must be a number, not str"):
        _rust.gae(zeros, zeros, zeros, "x", None, None, 0.9, 0.9, 0, None)
