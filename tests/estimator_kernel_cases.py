"""The cases every estimator's kernels must pass wherever they run, in all three regimes."""

import numpy as np
import pytest
import torch
from estimator_cases import ESTIMATORS, check, expected, launch, make_inputs, rates_of, rows_of
from reference import moments_reference, valid_steps
from rlox_gpu.kernels.returns import launch_linear_scan

# Time-major, a lane to an environment; rows, a warp each; chunks of both layouts.
SIZES = {"lanes": (33, 40), "rows": (150, 5), "chunks": (700, 3), "row-chunks": (4200, 2)}
NAMES = pytest.mark.parametrize("name", ESTIMATORS)
REGIMES = pytest.mark.parametrize("regime", SIZES)


def _inputs(name, regime, seed=0, **options):
    inputs = make_inputs(name, seed, *SIZES[regime], **options)
    return {k: rows_of(v) for k, v in inputs.items()} if "row" in regime else inputs


def _poisoned(inputs, valid):
    """NaN in every float array where a step does not exist."""
    poisoned = {}
    for name, x in inputs.items():
        poisoned[name] = x
        if x.ndim == 2 and x.is_floating_point():
            poisoned[name] = torch.where(valid, x, torch.nan)
            if x.stride() != poisoned[name].stride():
                poisoned[name] = rows_of(poisoned[name])
    return poisoned


@NAMES
@REGIMES
def check_estimators(device, name, regime):
    check(name, _inputs(name, regime), rates_of(name), device)


@NAMES
@REGIMES
def check_masks_and_rates_per_step(device, name, regime):
    inputs = _inputs(name, regime, 2)
    mask = torch.from_numpy(np.random.default_rng(3).random(SIZES[regime]) < 0.6)
    mask[-9:] = False
    mask = rows_of(mask) if "row" in regime else mask
    rates = rates_of(name, *SIZES[regime])
    results = check(name, _poisoned(inputs, mask), rates, device, mask=mask)
    assert all((x.cpu()[~mask] == 0).all() for x in results.values())


@REGIMES
@pytest.mark.parametrize("name", ["gae", "n_step_returns"])
def check_lengths(device, name, regime):
    inputs = _inputs(name, regime, 4)
    num_steps, num_envs = SIZES[regime]
    lengths = torch.from_numpy(np.random.default_rng(5).integers(0, num_steps + 1, num_envs))
    lengths[0] = 0
    valid = torch.from_numpy(valid_steps(SIZES[regime], lengths=lengths.numpy()))
    results = check(name, _poisoned(inputs, valid), rates_of(name), device, lengths=lengths)
    assert all((x.cpu()[~valid] == 0).all() for x in results.values())


@NAMES
def check_packed_sequences(device, name):
    lengths = np.array([3, 0, 1, 130, 64, 300, 0, 77])
    bounds = torch.from_numpy(np.concatenate([[0], lengths.cumsum()])).int()
    total = int(bounds[-1])
    inputs = make_inputs(name, 6, total, 1)
    inputs["initial" if "initial" in inputs else "last_values"] = torch.linspace(-1, 1, 8)
    mask = torch.from_numpy(np.random.default_rng(7).random((total, 1)) < 0.7)
    check(name, inputs, rates_of(name), device, cu_seqlens=bounds)
    rates = rates_of(name, total, 1)
    check(name, _poisoned(inputs, mask), rates, device, cu_seqlens=bounds, mask=mask)


@REGIMES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def check_dtypes_of_estimators(device, regime, dtype):
    check("vtrace", _inputs("vtrace", regime, 8, dtype=dtype), rates_of("vtrace"), device)


@REGIMES
def check_one_output_alone(device, regime):
    inputs = _inputs("gae", regime, 9, truncation=False)
    for wanted in ("advantages", "returns"):
        assert set(check("gae", inputs, rates_of("gae"), device, wanted=(wanted,))) == {wanted}


@REGIMES
def check_moments(device, regime):
    inputs = _inputs("gae", regime, 10)
    mask = torch.from_numpy(np.random.default_rng(11).random(SIZES[regime]) < 0.8)
    ragged = {"mask": rows_of(mask) if "row" in regime else mask}
    moments = torch.empty(3, dtype=torch.float64, device=device)
    launch("gae", inputs, rates_of("gae"), device, moments=moments, **ragged)
    advantages = expected("gae", inputs, rates_of("gae"), **ragged)["advantages"]
    count, mean, squares = moments_reference(advantages, mask.numpy())
    assert moments[0] == count
    np.testing.assert_allclose(moments[1:].cpu(), [mean, squares], rtol=2e-6, atol=1e-6)
    again = torch.empty(3, dtype=torch.float64, device=device)
    launch("gae", inputs, rates_of("gae"), device, moments=again, **ragged)
    assert torch.equal(moments, again)


# The interpreter divides where the kernel then does not choose the quotient.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def check_moments_of_constant_advantages(device):
    inputs = _inputs("gae", "lanes", 12, end_rate=0.0)
    inputs = {k: torch.zeros_like(v) for k, v in inputs.items()}
    inputs["rewards"] += 0.35
    moments = torch.empty(3, dtype=torch.float64, device=device)
    launch("gae", inputs, {"gamma": 0.9, "gae_lambda": 0.0}, device, moments=moments)
    count, mean, squares = moments.tolist()
    assert count == 33 * 40
    assert mean == pytest.approx(float(torch.tensor(0.35)), rel=1e-14)
    assert squares < 1e-24


@REGIMES
@pytest.mark.parametrize("forward", [False, True])
def check_linear_scan(device, regime, forward):
    num_steps, num_envs = SIZES[regime]
    rng = np.random.default_rng(13)
    a = rng.uniform(0.5, 1.0, (num_steps, num_envs))
    a[rng.random(a.shape) < 0.05] = 0.0
    b, state = rng.standard_normal((num_steps, num_envs)), rng.standard_normal(num_envs)
    b[a == 0] *= 2
    want, x = np.empty_like(b), state
    for t in range(num_steps) if forward else reversed(range(num_steps)):
        x = b[t] + a[t] * x
        want[t] = x
    arrays = [torch.from_numpy(y).float().to(device) for y in (a, b)]
    arrays = [rows_of(y) if "row" in regime else y for y in arrays]
    got = torch.empty_like(arrays[1])
    initial = torch.from_numpy(state).float().to(device)
    launch_linear_scan(*arrays, initial, got, forward=forward)
    np.testing.assert_allclose(got.cpu(), want, rtol=2e-5, atol=2e-5)


# The interpreter multiplies what the kernel then does not choose.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@REGIMES
@pytest.mark.parametrize(
    ("name", "poison"), [("discounted_returns", torch.inf), ("eligibility_traces", torch.nan)]
)
def check_nothing_crosses_an_end(device, name, regime, poison):
    inputs = _inputs(name, regime, 14)
    forward = name == "eligibility_traces"
    inputs["terminated"][15] = True
    clean = launch(name, inputs, rates_of(name), device)
    dirty = {k: v.clone() for k, v in inputs.items()}
    for x in dirty.values():
        if x.ndim == 2 and x.is_floating_point():
            (x[:16] if forward else x[16:]).fill_(poison)
    results = launch(name, dirty, rates_of(name), device)
    for key, got in results.items():
        far = slice(16, None) if forward else slice(None, 16)
        assert torch.equal(got[far], clean[key][far])
