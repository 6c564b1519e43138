"""The functions that carry rlox's names, against the reference and against rlox itself."""

import numpy as np
import pytest
import torch
from factories import make_gae_inputs
from reference import gae_reference, vtrace_reference

from rlox_gpu import compute_gae, compute_gae_batched, compute_gae_batched_f32, compute_vtrace

BATCHED = {"float64": compute_gae_batched, "float32": compute_gae_batched_f32}
ATOL = {"float64": 1e-11, "float32": 1e-4}


def flat_inputs(rng, n_envs, n_steps, dtype):
    """Env-major flat rewards, values, dones, and last values."""
    inputs = make_gae_inputs(rng, n_steps, n_envs, dtype, truncation=False)
    names = ("rewards", "values", "terminated")
    return [np.ascontiguousarray(inputs[name].T).ravel() for name in names] + [
        inputs["last_values"]
    ]


@pytest.mark.parametrize("dones_dtype", [np.float64, np.bool_, np.int64])
@pytest.mark.parametrize("n_steps", [1, 63, 1000])
def test_compute_gae_matches_reference(rng, n_steps, dones_dtype):
    inputs = make_gae_inputs(rng, n_steps, None, np.float64, truncation=False)
    expected = gae_reference(**inputs, gamma=0.98, gae_lambda=0.9)
    dones = inputs["terminated"].astype(dones_dtype)
    last_value = float(inputs["last_values"])
    result = compute_gae(inputs["rewards"], inputs["values"], dones, last_value, 0.98, 0.9)
    np.testing.assert_allclose(result, expected, atol=1e-11)
    assert result[0].dtype == np.float64


@pytest.mark.parametrize("dtype", BATCHED)
@pytest.mark.parametrize(("n_envs", "n_steps"), [(1, 1), (3, 64), (64, 63), (7, 1000)])
def test_batched_matches_one_trajectory_at_a_time(rng, n_envs, n_steps, dtype):
    *flat, last_values = flat_inputs(rng, n_envs, n_steps, dtype)
    advantages, returns = BATCHED[dtype](*flat, last_values, n_steps, 0.99, 0.95)
    assert advantages.shape == returns.shape == (n_envs * n_steps,)
    assert advantages.dtype == returns.dtype == dtype
    for env, last_value in enumerate(last_values):
        one = slice(env * n_steps, (env + 1) * n_steps)
        expected = compute_gae(*(x[one] for x in flat), last_value, 0.99, 0.95)
        np.testing.assert_allclose(advantages[one], expected[0], atol=ATOL[dtype])
        np.testing.assert_allclose(returns[one], expected[1], atol=ATOL[dtype])


def test_equals_rlox(rng):
    rlox = pytest.importorskip("rlox", exc_type=ImportError)
    *flat, last_values = flat_inputs(rng, 5, 200, "float64")
    flat[2] = flat[2].astype(np.float64)
    arguments = (*flat, last_values, 200, 0.99, 0.95)
    theirs = rlox.compute_gae_batched(*arguments)
    np.testing.assert_allclose(compute_gae_batched(*arguments), theirs, atol=1e-11)
    arguments = (*(x.astype("f") for x in flat), last_values.astype("f"), 200, 0.99, 0.95)
    theirs = rlox.compute_gae_batched_f32(*arguments)
    np.testing.assert_allclose(compute_gae_batched_f32(*arguments), theirs, atol=1e-4)
    arguments = (*flat, 0.7, 0.99, 0.95)
    np.testing.assert_allclose(compute_gae(*arguments), rlox.compute_gae(*arguments), atol=1e-11)


def test_lists_and_other_dtypes_are_converted():
    advantages, returns = compute_gae([1, 1], [2, 2], [0, 0], 4, 0.5, 0.5)
    assert advantages.tolist() == [0.25, 1.0]
    assert returns.tolist() == [2.25, 3.0]
    advantages, _ = compute_gae_batched_f32([1, 1], [2.0, 2.0], [False, True], [4], 2, 0.5, 0.5)
    assert advantages.tolist() == [-0.25, -1.0]


def test_strided_arrays_are_taken(rng):
    *flat, last_values = flat_inputs(rng, 4, 10, "float64")
    expected = compute_gae_batched(*flat, last_values, 10, 0.99, 0.95)
    strided = [np.repeat(x, 2)[::2] for x in flat]
    np.testing.assert_array_equal(
        compute_gae_batched(*strided, last_values, 10, 0.99, 0.95), expected
    )


@pytest.mark.parametrize("dtype", BATCHED)
def test_tensors_in_tensors_out(rng, dtype):
    *flat, last_values = flat_inputs(rng, 4, 10, dtype)
    expected = BATCHED[dtype](*flat, last_values, 10, 0.99, 0.95)
    tensors = [torch.from_numpy(x) for x in flat]
    result = BATCHED[dtype](*tensors, torch.from_numpy(last_values), 10, 0.99, 0.95)
    for ours, theirs in zip(result, expected, strict=True):
        assert isinstance(ours, torch.Tensor)
        assert ours.dtype == getattr(torch, dtype)
        np.testing.assert_array_equal(ours.numpy(), theirs)


def test_a_tensor_trajectory(rng):
    inputs = make_gae_inputs(rng, 40, None, np.float64, truncation=False)
    arrays = [inputs[name] for name in ("rewards", "values", "terminated")]
    expected = compute_gae(*arrays, 0.5, 0.99, 0.95)
    result = compute_gae(*map(torch.from_numpy, arrays), 0.5, 0.99, 0.95)
    assert all(isinstance(x, torch.Tensor) for x in result)
    np.testing.assert_array_equal([x.numpy() for x in result], expected)


Z = np.zeros(6)
WRONG_SINGLE = [
    ({"rewards": np.zeros((2, 3))}, ValueError, r"rewards must have shape \(T,\), not \(2, 3\)"),
    ({"rewards": [[1.0], [2.0, 3.0]]}, ValueError, "rewards does not convert to an array"),
    ({"rewards": ["a"] * 6}, ValueError, "rewards does not convert to an array"),
    ({"values": Z[:5]}, ValueError, r"values must have the shape of rewards, \(6,\), not \(5,\)"),
    ({"dones": Z[:5]}, ValueError, "dones must have the shape of rewards"),
    ({"dones": np.zeros(6, complex)}, TypeError, "dones must be bool"),
    ({"last_value": Z}, ValueError, "last_value must have shape"),
    ({"last_value": None}, TypeError, "last_value must be a number, not NoneType"),
    ({"gamma": float("nan")}, ValueError, "gamma must be .* not nan"),
    ({"lam": 1.5}, ValueError, "lam must be a number between 0 and 1, not 1.5"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG_SINGLE)
def test_bad_input_of_a_trajectory_is_named(change, error, message):
    given = {"rewards": Z, "values": Z, "dones": Z, "last_value": 0.0, "gamma": 0.9, "lam": 0.9}
    with pytest.raises(error, match=message):
        compute_gae(**{**given, **change})


WRONG_BATCH = [
    ({"n_steps": 0}, ValueError, "n_steps must be at least 1, not 0"),
    ({"n_steps": 3.0}, TypeError, "n_steps must be an int, not float"),
    ({"n_steps": 4}, ValueError, r"rewards must have shape \(8,\), .* \(2 x 4\), not \(6,\)"),
    ({"values": Z[:4]}, ValueError, r"values must have shape \(6,\)"),
    ({"dones": Z[:4]}, ValueError, r"dones must have shape \(6,\)"),
    ({"last_values": 0.0}, ValueError, r"last_values must have shape \(n_envs,\), not \(\)"),
    ({"last_values": Z[:3]}, ValueError, "rewards must have shape"),
    ({"lam": float("nan")}, ValueError, r"\blam\b.*(nan|NaN)"),
]


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize(("change", "error", "message"), WRONG_BATCH)
def test_bad_input_of_a_batch_is_named(change, error, message, kind):
    given = {
        "rewards": Z,
        "values": Z,
        "dones": Z,
        "last_values": Z[:2],
        "n_steps": 3,
        "gamma": 0.9,
        "lam": 0.9,
    }
    given = {**given, **change}
    for name in ("rewards", "values", "dones", "last_values"):
        given[name] = kind(given[name])
    with pytest.raises(error, match=message):
        compute_gae_batched(**given)


def vtrace_inputs(rng, n_steps):
    inputs = make_gae_inputs(rng, n_steps, None, np.float32, truncation=False)
    log_rhos = (0.5 * rng.standard_normal(n_steps)).astype(np.float32)
    names = ("rewards", "values", "terminated")
    return [log_rhos, *(inputs[name] for name in names), float(inputs["last_values"])]


@pytest.mark.parametrize("as_tensors", [False, True])
def test_compute_vtrace_matches_reference(rng, as_tensors):
    *steps, last_value = vtrace_inputs(rng, 300)
    expected = vtrace_reference(*steps, last_value, gamma=0.98, rho_bar=1.1, c_bar=0.8)
    steps = [torch.from_numpy(x) for x in steps] if as_tensors else steps
    results = compute_vtrace(*steps, last_value, 0.98, rho_bar=1.1, c_bar=0.8)
    for got, want in zip(results, expected, strict=True):
        assert isinstance(got, torch.Tensor if as_tensors else np.ndarray)
        assert str(got.dtype).endswith("float32")
        np.testing.assert_allclose(np.asarray(got), want, atol=1e-4)


def test_compute_vtrace_equals_rlox(rng):
    rlox = pytest.importorskip("rlox", exc_type=ImportError)
    *steps, last_value = vtrace_inputs(rng, 200)
    steps[3] = steps[3].astype(np.float32)
    theirs = rlox.compute_vtrace(*steps, last_value, 0.99, 1.0, 1.0)
    np.testing.assert_allclose(compute_vtrace(*steps, last_value, 0.99), theirs, atol=1e-4)


def test_compute_vtrace_names_its_own_arguments(rng):
    *steps, last_value = vtrace_inputs(rng, 5)
    with pytest.raises(ValueError, match="dones"):
        compute_vtrace(*steps[:3], steps[3][:4], last_value, 0.99)
    with pytest.raises(TypeError, match="bootstrap_value"):
        compute_vtrace(*steps, "x", 0.99)
    with pytest.raises(ValueError, match="gamma"):
        compute_vtrace(*steps, last_value, 1.5)
