"""Every estimator on NumPy arrays: against its reference, ragged batches, identities."""

import numpy as np
import pytest
from estimator_inputs import ESTIMATORS, NAMED, make_inputs, poisoned, transposed, with_rates
from factories import make_gae_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import moments_reference, valid_steps

import rlox_gpu

TOLERANCE = {"float16": 4e-3, "float32": 3e-5, "float64": 1e-11}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)


def assert_close(got, expected, dtype):
    for result, want in zip(got, expected, strict=True):
        assert result.dtype == dtype
        assert result.shape == want.shape
        scale = 1.0 + np.abs(want)
        np.testing.assert_array_less(np.abs(result - want) / scale, TOLERANCE[np.dtype(dtype).name])


def assert_matches_reference(estimator, inputs, **options):
    dtype = inputs[estimator.steps[0]].dtype
    expected = estimator.reference(**inputs, **options)
    assert_close(estimator.call(**inputs, **options), expected, dtype)


@every_estimator
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("num_envs", [None, 1, 3, 63, 64])
@pytest.mark.parametrize("num_steps", [1, 63, 64, 600])
def test_results_are_those_of_the_reference(rng, estimator, dtype, num_envs, num_steps):
    assert_matches_reference(estimator, make_inputs(rng, estimator, num_steps, num_envs, dtype))


@settings(max_examples=120, deadline=None)
@given(
    estimator=st.sampled_from(ESTIMATORS),
    num_steps=st.integers(1, 90),
    num_envs=st.integers(1, 80),
    dtype=st.sampled_from(["float32", "float64"]),
    truncation=st.booleans(),
    rows=st.booleans(),
    masked=st.booleans(),
    with_lengths=st.booleans(),
    rates=st.sampled_from([None, "scalar", "row", "step"]),
    gamma=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_combination_of_arguments(
    estimator,
    num_steps,
    num_envs,
    dtype,
    truncation,
    rows,
    masked,
    with_lengths,
    rates,
    gamma,
    seed,
):
    rng = np.random.default_rng(seed)
    inputs = make_inputs(
        rng, estimator, num_steps, num_envs, dtype, truncation=truncation, end_rate=0.15
    )
    inputs["gamma"] = gamma
    if masked:
        inputs["mask"] = rng.random((num_steps, num_envs)) < 0.7
    if with_lengths:
        inputs["lengths"] = rng.integers(0, num_steps + 1, num_envs)
    if rates is not None:
        shapes = {"scalar": (), "row": (num_steps, 1), "step": (num_steps, num_envs)}
        inputs = with_rates(rng, inputs, estimator, (shapes[rates], shapes["step"]))
    valid = valid_steps((num_steps, num_envs), inputs.get("mask"), inputs.get("lengths"))
    inputs = poisoned(inputs, estimator, valid)
    if rows:
        assert_matches_reference(estimator, transposed(inputs), time_dim=-1)
    else:
        assert_matches_reference(estimator, inputs)


@every_estimator
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rates", [False, True])
def test_packed_trajectories(rng, estimator, masked, rates):
    inputs = make_inputs(rng, estimator, 700, None, "float64", sequences=9)
    if masked:
        inputs["mask"] = rng.random(700) < 0.7
        inputs = poisoned(inputs, estimator, inputs["mask"])
    if rates:
        inputs = with_rates(rng, inputs, estimator, ((700,), (1,)))
    assert_matches_reference(estimator, inputs)


@every_estimator
@pytest.mark.parametrize("rows", [False, True])
def test_large_arrays_are_shared_among_threads(rng, estimator, rows):
    inputs = make_inputs(rng, estimator, 300, 1000, "float64", end_rate=0.3)
    few = {k: v[..., :70] if np.ndim(v) else v for k, v in inputs.items()}
    call, expected = inputs, estimator.reference(**few)
    if rows:
        results = [x.T for x in estimator.call(**transposed(call), time_dim=-1)]
    else:
        results = estimator.call(**call)
    assert_close([x[:, :70] for x in results], expected, "float64")


@every_estimator
def test_mask_lengths_and_packing_say_the_same(rng, estimator):
    lengths = np.array([40, 0, 17, 1, 33], np.int64)
    inputs = make_inputs(rng, estimator, 40, 5, "float64")
    valid = np.arange(40)[:, None] < lengths
    by_length = estimator.call(**poisoned(inputs, estimator, valid), lengths=lengths)
    by_mask = estimator.call(**poisoned(inputs, estimator, valid), mask=valid)
    packed = {
        name: value.T[valid.T] if np.ndim(value) == 2 else value for name, value in inputs.items()
    }
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    by_packing = estimator.call(**packed, cu_seqlens=bounds)
    for length, mask, pack in zip(by_length, by_mask, by_packing, strict=True):
        np.testing.assert_allclose(length, mask, rtol=0, atol=1e-12)
        np.testing.assert_allclose(length.T[valid.T], pack, rtol=0, atol=1e-12)
        assert not length[~valid].any()


@every_estimator
@pytest.mark.parametrize("layout", ["C", "rows", "strided", "expanded"])
def test_layouts(rng, estimator, layout):
    inputs = make_inputs(rng, estimator, 50, 30)
    for name, value in inputs.items():
        if np.ndim(value) == 2 and layout == "rows":
            inputs[name] = np.asfortranarray(value)
        elif np.ndim(value) == 2 and layout == "strided":
            inputs[name] = np.stack([value, value], -1)[..., 0]
        elif np.ndim(value) == 2 and layout == "expanded":
            inputs[name] = np.broadcast_to(value[:, :1], value.shape)
    assert_matches_reference(estimator, inputs)


@every_estimator
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_nothing_gives_nothing(rng, estimator, shape):
    inputs = make_inputs(rng, estimator, *shape)
    for options in ({}, {"lengths": np.zeros(shape[1], int)}, {"mask": np.ones(shape)}):
        for result in estimator.call(**inputs, **options):
            assert result.shape == shape


@every_estimator
def test_out_is_written_and_returned(rng, estimator):
    inputs = make_inputs(rng, estimator, 20, 5)
    expected = estimator.call(**inputs)
    out = tuple(np.full((20, 5), np.nan, np.float32) for _ in expected)
    results = estimator.call(**inputs, out=out if len(out) > 1 else out[0])
    for result, target, want in zip(results, out, expected, strict=True):
        assert result is target
        np.testing.assert_array_equal(target, want)


@every_estimator
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nothing_crosses_the_end_of_an_episode(rng, estimator, poison):
    inputs = make_inputs(rng, estimator, 30, 20)
    inputs["terminated"][9] = np.arange(20) < 10
    inputs["truncated"][9] = np.arange(20) >= 10
    if "final_values" in inputs:
        inputs["final_values"][9] = 1.0
    clean = estimator.call(**inputs)
    kept, lost = slice(0, 10), slice(10, 30)
    if estimator.boundary == "initial":
        kept, lost = lost, kept
        inputs["initial"] = np.full_like(inputs["initial"], poison)
    else:
        inputs["last_values"] = np.full_like(inputs["last_values"], poison)
    for name in estimator.steps:
        inputs[name][lost] = poison
    for got, want in zip(estimator.call(**inputs), clean, strict=True):
        np.testing.assert_array_equal(got[kept], want[kept])


# -- identities ----------------------------------------------------------------------------------


@pytest.fixture
def rollout(rng):
    return make_gae_inputs(rng, 60, 12, np.float64)


def _without_values(rollout):
    return {name: value for name, value in rollout.items() if name != "values"}


def _discounted(rollout, gamma):
    """Monte Carlo, step by step."""
    total, returns = rollout["last_values"], np.empty((60, 12))
    for t in reversed(range(60)):
        total = np.where(rollout["truncated"][t], rollout["final_values"][t], total)
        total = rollout["rewards"][t] + gamma * np.where(rollout["terminated"][t], 0.0, total)
        returns[t] = total
    return returns


def assert_equal(got, want):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-11)


def test_lambda_one_is_monte_carlo_also_at_truncations(rollout):
    expected = _discounted(rollout, 0.95)
    assert_equal(rlox_gpu.discounted_returns(**_without_values(rollout), gamma=0.95), expected)
    assert_equal(rlox_gpu.td_lambda_returns(**rollout, gamma=0.95, td_lambda=1.0), expected)
    advantages = rlox_gpu.gae(**rollout, gamma=0.95, gae_lambda=1.0).advantages
    assert_equal(advantages, expected - rollout["values"])
    assert_equal(rlox_gpu.n_step_returns(**rollout, gamma=0.95, n=60), expected)


def test_one_step_is_lambda_zero(rollout):
    one = rlox_gpu.n_step_returns(**rollout, n=1)
    assert_equal(one, rlox_gpu.td_lambda_returns(**rollout, td_lambda=0.0))
    assert_equal(one - rollout["values"], rlox_gpu.gae(**rollout, gae_lambda=0.0).advantages)


def test_td_lambda_returns_are_those_of_gae(rollout):
    found = rlox_gpu.td_lambda_returns(**rollout, gamma=0.9, td_lambda=0.8)
    assert_equal(found, rlox_gpu.gae(**rollout, gamma=0.9, gae_lambda=0.8).returns)


def test_vtrace_on_policy_is_lambda_one(rollout):
    result = rlox_gpu.vtrace(np.zeros((60, 12)), **rollout)
    expected = rlox_gpu.gae(**rollout, gae_lambda=1.0)
    assert_equal(result.vs, expected.returns)
    assert_equal(result.pg_advantages, expected.advantages)


def test_retrace_on_policy_with_values_for_actions_is_td_lambda(rollout):
    steps = {"log_rhos": np.zeros((60, 12)), "q_values": rollout["values"]}
    targets = rlox_gpu.retrace(**steps, **rollout, retrace_lambda=0.7)
    assert_equal(targets, rlox_gpu.td_lambda_returns(**rollout, td_lambda=0.7))


def test_traces_are_the_transpose_of_gae(rng, rollout):
    x, y = rng.standard_normal((2, 60, 12))
    mask = rng.random((60, 12)) < 0.8
    flags = {name: rollout[name] for name in ("terminated", "truncated")}
    found = rlox_gpu.eligibility_traces(x, **flags, mask=mask)
    zeros = np.zeros((60, 12))
    plain = {"values": zeros, "last_values": zeros[0], "final_values": zeros}
    advantages = rlox_gpu.gae(rewards=y, **plain, **flags, mask=mask).advantages
    assert_equal((found * y)[mask].sum(), (x * advantages)[mask].sum())


@every_estimator
def test_splitting_a_rollout_at_an_end_changes_nothing(rng, estimator):
    inputs = make_inputs(rng, estimator, 40, 3, "float64")
    inputs["terminated"][19] = True
    whole = estimator.call(**inputs)

    def part(steps, boundary):
        cut = {k: v[steps] if np.ndim(v) == 2 else v for k, v in inputs.items()}
        return estimator.call(**cut | {estimator.boundary: boundary})

    boundary, zeros = inputs[estimator.boundary], np.zeros(3)
    ends = (boundary, zeros) if estimator.boundary == "initial" else (zeros, boundary)
    halves = zip(part(slice(0, 20), ends[0]), part(slice(20, 40), ends[1]), strict=True)
    for (early, late), expected in zip(halves, whole, strict=True):
        assert_equal(np.vstack([early, late]), expected)


@every_estimator
def test_the_value_at_the_end_of_a_window_counts_once(estimator):
    # A reward of zero and a value of one everywhere: every target is gamma to the distance from
    # the end, and no more than one value is ever added.
    if estimator.boundary == "initial" or "q_values" in estimator.steps:
        return
    ones, zeros = np.ones(5), np.zeros(5)
    steps = {"rewards": zeros, "values": zeros, "log_rhos": zeros}
    given_steps = {name: steps[name] for name in estimator.steps}
    options = estimator.numbers | {"gamma": 0.5, "rho_bar": 1.0, "c_bar": 1.0, "n": 5}
    names = {"gamma", *estimator.numbers}
    options = {name: value for name, value in options.items() if name in names}
    if estimator.trace:
        options[estimator.trace] = 1.0
    result = estimator.call(**given_steps, terminated=zeros, last_values=float(ones[0]), **options)[
        0
    ]
    np.testing.assert_allclose(result, 0.5 ** np.arange(5, 0, -1), rtol=1e-12)


# -- moments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("ragged", [None, "mask", "lengths", "both"])
@pytest.mark.parametrize("num_envs", [None, 3, 200])
def test_moments_are_those_of_the_valid_advantages(rng, num_envs, ragged, rows):
    inputs = make_gae_inputs(rng, 150, num_envs)
    inputs["rewards"] += 1000.0
    shape, options = inputs["rewards"].shape, {}
    if ragged in ("mask", "both"):
        options["mask"] = rng.random(shape) < 0.6
    if ragged in ("lengths", "both") and num_envs is not None:
        options["lengths"] = rng.integers(0, 150, num_envs)
    valid = valid_steps(shape, **options)
    call = inputs | options
    if rows and num_envs is not None:
        call, valid = transposed(call) | {"time_dim": -1}, valid.T
    result = rlox_gpu.gae(**call, gae_lambda=0.5, moments=True)
    expected = moments_reference(result.advantages.astype(np.float64), valid)
    assert result.moments.dtype == np.float64
    np.testing.assert_allclose(result.moments, expected, rtol=1e-12)


def test_moments_of_no_step_are_zeros(rng):
    inputs = make_gae_inputs(rng, 5, 2)
    result = rlox_gpu.gae(**inputs, mask=np.zeros((5, 2)), moments=True)
    assert result.moments.tolist() == [0.0, 0.0, 0.0]
    assert not result.advantages.any()


# -- bad input -----------------------------------------------------------------------------------


def _f32(*shape):
    return np.zeros(shape, np.float32)


BAD_CALLS = {
    "gamma shape": ({"gamma": _f32(5)}, ValueError, "gamma"),
    "gamma dtype": ({"gamma": np.zeros(4)}, TypeError, "gamma"),
    "gamma list": ({"gamma": [0.9]}, TypeError, "gamma"),
    "mask shape": ({"mask": _f32(6)}, ValueError, "mask"),
    "mask list": ({"mask": [1]}, TypeError, "mask"),
    "mask text": ({"mask": np.full((6, 4), "a")}, TypeError, "mask"),
    "lengths shape": ({"lengths": np.zeros(6, int)}, ValueError, "lengths"),
    "lengths dtype": ({"lengths": _f32(4)}, TypeError, "lengths"),
    "lengths too long": ({"lengths": np.full(4, 7)}, ValueError, "lengths"),
    "lengths negative": ({"lengths": np.full(4, -1)}, ValueError, "lengths"),
    "cu_seqlens of a batch": ({"cu_seqlens": np.array([0, 6])}, ValueError, "cu_seqlens"),
    "truncated alone": ({"truncated": _f32(6, 4)}, ValueError, "final_values"),
    "time_dim": ({"time_dim": 2}, ValueError, "time_dim"),
    "terminated shape": ({"terminated": _f32(4, 6)}, ValueError, "terminated"),
    "last_values shape": ({"last_values": _f32(6)}, ValueError, "last_values"),
    "last_values None": ({"last_values": None}, TypeError, "last_values"),
    "values dtype": ({"values": np.zeros((6, 4))}, TypeError, "values"),
    "out pair": ({"out": (_f32(6, 4), _f32(6, 4))}, TypeError, "out"),
    "out read-only": ({"out": np.broadcast_to(_f32(1), (6, 4))}, ValueError, "out"),
    "lambda": ({"td_lambda": 1.5}, ValueError, "td_lambda"),
}


@pytest.mark.parametrize(("changes", "error", "name"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(rng, changes, error, name):
    inputs = make_gae_inputs(rng, 6, 4, truncation=False)
    with pytest.raises(error, match=name):
        rlox_gpu.td_lambda_returns(**inputs | changes)


@pytest.mark.parametrize("bounds", [[0, 5], [1, 6], [0, 4, 3, 6], [0, -1, 6], []])
def test_offsets_that_do_not_fit_are_refused(rng, bounds):
    inputs = make_gae_inputs(rng, 6) | {"last_values": _f32(max(len(bounds) - 1, 0))}
    with pytest.raises(ValueError, match="cu_seqlens"):
        rlox_gpu.gae(**inputs, cu_seqlens=np.array(bounds, np.int64))


@pytest.mark.parametrize(
    ("name", "changes", "error"),
    [
        ("vtrace", {"rho_bar": -1.0}, ValueError),
        ("vtrace", {"c_bar": float("nan")}, ValueError),
        ("vtrace", {"rho_bar": "1"}, TypeError),
        ("n_step_returns", {"n": 0}, ValueError),
        ("n_step_returns", {"n": 1.5}, TypeError),
    ],
)
def test_bad_numbers_are_named(rng, name, changes, error):
    inputs = make_inputs(rng, NAMED[name], 6, 4)
    with pytest.raises(error, match=next(iter(changes))):
        NAMED[name].call(**inputs | changes)


def test_infinite_bounds_leave_the_ratios_alone(rng):
    inputs = make_inputs(rng, NAMED["vtrace"], 20, 5, "float64")
    infinite = inputs | {"rho_bar": np.inf, "c_bar": np.inf}
    assert_matches_reference(NAMED["vtrace"], infinite)


def test_out_must_not_share_memory(rng):
    inputs = make_gae_inputs(rng, 6, 4, truncation=False)
    with pytest.raises(ValueError, match=r"out.*rewards"):
        rlox_gpu.td_lambda_returns(**inputs, out=inputs["rewards"])
