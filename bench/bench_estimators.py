"""The estimators beside GAE, and rlox where it has them; the claims compare them with GAE."""

import functools

import numpy as np
import pytest
from estimator_inputs import NAMED, make_inputs
from harness import Job, Provider, Work, cases, need

GAMMA = 0.99
# A rollout that stays in the cache, and one that does not.
NUM_STEPS, NUM_ENVS, MANY_ENVS = 128, 1024, 8192
SINGLE_STEPS = 32768
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
# Arrays of the values' dtype that a call reads and writes, beside a byte of flags.
ARRAYS = {
    "gae": 4,
    "discounted_returns": 2,
    "td_lambda_returns": 3,
    "n_step_returns": 3,
    "vtrace": 5,
    "retrace": 5,
    "eligibility_traces": 2,
}


def job_of(name, num_envs, dtype):
    steps = NUM_STEPS if num_envs else SINGLE_STEPS
    elements = steps * (num_envs or 1)
    size = ARRAYS[name] * np.dtype(dtype).itemsize + 1
    shape = f"{steps}x{num_envs} time-major" if num_envs else f"{steps} single trajectory"
    short = {"float32": "f32", "float64": "f64"}[dtype]
    job = Job(
        name=f"{name} {short} {shape}",
        group="estimators",
        items=elements,
        unit="transitions",
        nbytes=size * elements,
        traffic=f"{size} B/transition: every array once, bool flags",
    )
    return job, (name, steps, num_envs, dtype)


JOBS = dict(
    [job_of(name, NUM_ENVS, "float32") for name in NAMED if name != "gae"]
    + [job_of(name, MANY_ENVS, "float32") for name in ("td_lambda_returns", "vtrace")]
    + [job_of(name, None, "float32") for name in ("gae", "td_lambda_returns", "vtrace")]
)


@functools.cache
def inputs_of(name, steps, num_envs, dtype):
    rng = np.random.default_rng(0)
    made = make_inputs(rng, NAMED[name], steps, num_envs, dtype, truncation=False)
    if name == "vtrace":
        made |= {"rho_bar": 1.0, "c_bar": 1.0}
    return made | {"gamma": GAMMA}


@functools.cache
def expected(case):
    return NAMED[case[0]].reference(**inputs_of(*case))


def check(case, results):
    for got, want in zip(results, expected(case), strict=True):
        np.testing.assert_allclose(np.asarray(got), want, **TOLERANCE)


def ours_numpy(case, device):
    inputs, estimator = inputs_of(*case), NAMED[case[0]]
    shape = inputs["terminated"].shape
    out = tuple(np.empty(shape, case[3]) for _ in expected(case))
    target = out if len(out) > 1 else out[0]

    def call():
        return estimator.call(**inputs, out=target)

    return Work(call, lambda: check(case, call()))


def rlox_vtrace(case, device):
    rlox = need("rlox")
    inputs = inputs_of(*case)
    arrays = [inputs[name] for name in ("log_rhos", "rewards", "values")]
    arrays.append(inputs["terminated"].astype(np.float32))
    last = float(inputs["last_values"])

    def call():
        return rlox.compute_vtrace(*arrays, last, GAMMA, 1.0, 1.0)

    return Work(call, lambda: check(case, call()))


OURS = [Provider("rlox-gpu numpy out=", ours_numpy, ours=True)]
CASES = [
    case
    for job, (name, _, num_envs, _) in JOBS.items()
    for case in cases(
        [job],
        [*OURS, Provider("rlox", rlox_vtrace)] if name == "vtrace" and not num_envs else OURS,
    )
]


@pytest.mark.parametrize(("job", "provider", "device"), CASES)
def bench_estimators(check_then_time, job, provider, device):
    check_then_time(job, provider, device, JOBS[job])
