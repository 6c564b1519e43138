"""What a call costs before any work is done, and what an import costs."""

import subprocess
import sys

import numpy as np
import pytest
from bench_gae import GAMMA, LAMBDA, TOLERANCE
from factories import make_gae_inputs
from harness import Job, Provider, Work, cases, need, synchronize
from reference import gae_reference

NUM_STEPS, NUM_ENVS = 16, 4
LAUNCHES = 64  # between two synchronisations, so that only the host's share is seen
IMPORT_ROUNDS = 15
CALL = Job(name="gae call 16x4 f32", group="overhead", items=1, unit="calls")
START = Job(name="process start", group="import", items=1, unit="starts")

INPUTS = make_gae_inputs(
    np.random.default_rng(0), NUM_STEPS, NUM_ENVS, np.float32, truncation=False
)


def check(results):
    expected = gae_reference(**INPUTS, gamma=GAMMA, gae_lambda=LAMBDA)
    for got, want in zip(results, expected, strict=True):
        np.testing.assert_allclose(np.asarray(got), want, **TOLERANCE["float32"])


def from_numpy(device):
    from rlox_gpu import gae

    rewards, values, terminated, last_values = INPUTS.values()

    def call():
        return gae(rewards, values, terminated, last_values)

    return Work(call, lambda: check(call()[:2]))


def from_torch(device):
    import torch

    from rlox_gpu import gae

    tensors = [torch.as_tensor(value).to(device) for value in INPUTS.values()]

    def one():
        return gae(*tensors)

    def many():
        for _ in range(LAUNCHES):
            gae(*tensors)
        synchronize(device)

    call, calls = (one, 1) if device == "cpu" else (many, LAUNCHES)
    return Work(call, lambda: check([result.cpu() for result in one()[:2]]), calls)


def from_rlox(device):
    rlox = need("rlox")
    names = ("rewards", "values", "terminated")
    arrays = [np.ascontiguousarray(INPUTS[n].T, np.float32).reshape(-1) for n in names]

    def call():
        return rlox.compute_gae_batched_f32(
            *arrays, INPUTS["last_values"], NUM_STEPS, GAMMA, LAMBDA
        )

    return Work(
        call, lambda: check([r.reshape(NUM_ENVS, NUM_STEPS).T for r in map(np.asarray, call())])
    )


@pytest.mark.parametrize(
    ("job", "provider", "device"),
    cases(
        [CALL],
        [
            Provider("rlox-gpu numpy", from_numpy, ours=True),
            Provider("rlox-gpu torch", from_torch, ("cpu", "cuda"), ours=True, needs=("torch",)),
            Provider("rlox", from_rlox, needs=("rlox",)),
        ],
    ),
)
def bench_call(check_then_time, job, provider, device):
    check_then_time(job, provider, device)


def starting(statement, forbidden=()):
    """A fresh interpreter that runs ``statement`` and must not have loaded ``forbidden``."""
    command = [sys.executable, "-c", statement]
    looked_for = f"{statement}\nimport sys\nsys.exit(any(m in sys.modules for m in {forbidden!r}))"

    def start():
        subprocess.run(command, check=True)

    def check_modules():
        subprocess.run([sys.executable, "-c", looked_for], check=True)

    return Work(start, check_modules, rounds=IMPORT_ROUNDS)


def importing(module, forbidden=()):
    def build(device):
        need(module)
        return starting(f"import {module}", forbidden)

    return build


def nothing(device):
    return starting("pass")


@pytest.mark.parametrize(
    ("job", "provider", "device"),
    cases(
        [START],
        [
            Provider("python", nothing),
            Provider(
                "import rlox_gpu", importing("rlox_gpu", ("torch", "triton", "cupy")), ours=True
            ),
            Provider("import numpy", importing("numpy")),
            Provider("import torch", importing("torch")),
            Provider("import rlox", importing("rlox")),
        ],
    ),
)
def bench_import(check_then_time, job, provider, device):
    check_then_time(job, provider, device)
