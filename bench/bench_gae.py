"""GAE against rlox, a NumPy loop and a torch loop over time; a copy shows the bandwidth."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from factories import make_gae_inputs, row_major
from harness import Job, Provider, Work, cases, need, over_rotated, rotation
from reference import gae_reference

GAMMA, LAMBDA = 0.99, 0.95
TOLERANCE = {"float32": {"rtol": 1e-4, "atol": 1e-4}, "float64": {"rtol": 1e-9, "atol": 1e-9}}
COPY_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Shape:
    num_steps: int
    num_envs: int | None = None
    dtype: str = "float32"
    time_dim: int = 0

    @property
    def elements(self):
        return self.num_steps * (self.num_envs or 1)


def gae_job(name, shape):
    size = np.dtype(shape.dtype).itemsize
    per_element = 4 * size + 1
    job = Job(
        name=f"gae {name}",
        group="gae",
        items=shape.elements,
        unit="transitions",
        nbytes=per_element * shape.elements,
        traffic=f"{per_element} B/transition: reward, value, bool flag in; advantage, return out",
    )
    return job, shape


JOBS = dict(
    [
        gae_job("f32 128x1024 time-major", Shape(128, 1024)),
        gae_job("f32 128x8192 time-major", Shape(128, 8192)),
        gae_job("f32 128x4096 row-major", Shape(128, 4096, time_dim=-1)),
        gae_job("f64 32768 single trajectory", Shape(32768, dtype="float64")),
    ]
)


@functools.cache
def inputs_of(shape):
    rng = np.random.default_rng(0)
    made = make_gae_inputs(
        rng, shape.num_steps, shape.num_envs, np.dtype(shape.dtype), truncation=False
    )
    return made if shape.time_dim == 0 else row_major(made)


@functools.cache
def expected(shape):
    return gae_reference(
        **inputs_of(shape), gamma=GAMMA, gae_lambda=LAMBDA, time_dim=shape.time_dim
    )


def check(shape, results):
    for got, want in zip(results, expected(shape), strict=True):
        np.testing.assert_allclose(np.asarray(got), want, **TOLERANCE[shape.dtype])


def ours_numpy(shape, device):
    import rlox_gpu

    inputs = inputs_of(shape)

    def call():
        return rlox_gpu.gae(**inputs, gamma=GAMMA, gae_lambda=LAMBDA, time_dim=shape.time_dim)

    return Work(call, lambda: check(shape, call()[:2]))


def ours_numpy_out(shape, device):
    import rlox_gpu

    inputs = inputs_of(shape)
    out = tuple(np.empty_like(inputs["values"]) for _ in range(2))

    def call():
        return rlox_gpu.gae(
            **inputs, gamma=GAMMA, gae_lambda=LAMBDA, time_dim=shape.time_dim, out=out
        )

    return Work(call, lambda: check(shape, call()[:2]))


def tensor_sets(shape, device):
    import torch

    count = rotation(device, gae_bytes(shape))
    return [
        {name: torch.as_tensor(value).to(device) for name, value in inputs_of(shape).items()}
        for _ in range(count)
    ]


def gae_bytes(shape):
    return next(job.nbytes for job, its_shape in JOBS.items() if its_shape == shape)


def ours_torch(shape, device):
    import rlox_gpu

    sets = tensor_sets(shape, device)

    def gae(inputs):
        return rlox_gpu.gae(**inputs, gamma=GAMMA, gae_lambda=LAMBDA, time_dim=shape.time_dim)

    call, calls = over_rotated(gae, sets, device)
    return Work(call, lambda: check(shape, [x.cpu() for x in gae(sets[0])[:2]]), calls)


def rlox_native(shape, device):
    """On its own layout, flat and env-major; a caller with ``[T, N]`` pays the transposes too."""
    rlox = need("rlox")
    inputs = inputs_of(shape)
    names = ("rewards", "values", "terminated")
    if shape.num_envs is None:
        arrays = [np.asarray(inputs[name], np.float64) for name in names]
        last = float(inputs["last_values"])

        def call():
            return rlox.compute_gae(*arrays, last, GAMMA, LAMBDA)

        return Work(call, lambda: check(shape, call()))

    def flat(array):
        env_major = array.T if shape.time_dim == 0 else array
        return np.ascontiguousarray(env_major, np.float32).reshape(-1)

    arrays = [flat(inputs[name]) for name in names]

    def call():
        return rlox.compute_gae_batched_f32(
            *arrays, inputs["last_values"], shape.num_steps, GAMMA, LAMBDA
        )

    def back(result):
        env_major = np.asarray(result).reshape(shape.num_envs, shape.num_steps)
        return env_major.T if shape.time_dim == 0 else env_major

    return Work(call, lambda: check(shape, [back(result) for result in call()]))


def numpy_loop(shape, device):
    inputs = inputs_of(shape)
    rewards, values, last_values = (inputs[k] for k in ("rewards", "values", "last_values"))
    # Flags of the values' dtype, as trainers with a NumPy loop store them.
    dones = inputs["terminated"].astype(rewards.dtype)
    rows = [a if shape.time_dim == 0 else a.T for a in (rewards, values, dones)]

    def call():
        return _loop(np.empty_like, *rows, last_values)

    return Work(call, lambda: check(shape, _laid_out(shape, call())))


def torch_loop(shape, device):
    sets = tensor_sets(shape, device)
    import torch

    for inputs in sets:
        inputs["terminated"] = inputs["terminated"].to(inputs["rewards"].dtype)

    def loop(inputs):
        rows = [inputs[name] for name in ("rewards", "values", "terminated")]
        rows = rows if shape.time_dim == 0 else [row.T for row in rows]
        return _loop(torch.empty_like, *rows, inputs["last_values"])

    call, calls = over_rotated(loop, sets, device)
    return Work(
        call, lambda: check(shape, _laid_out(shape, [x.cpu() for x in loop(sets[0])])), calls
    )


def _loop(empty_like, rewards, values, dones, last_values):
    advantages = empty_like(rewards)
    next_values, advantage = last_values, 0.0
    for t in range(len(rewards) - 1, -1, -1):
        alive = 1.0 - dones[t]
        delta = rewards[t] + GAMMA * next_values * alive - values[t]
        advantage = delta + GAMMA * LAMBDA * alive * advantage
        advantages[t] = advantage
        next_values = values[t]
    return advantages, advantages + values


def _laid_out(shape, results):
    return results if shape.time_dim == 0 else [result.T for result in results]


BATCHED = [
    Provider("rlox-gpu numpy", ours_numpy, ours=True),
    Provider("rlox-gpu numpy out=", ours_numpy_out, ours=True),
    Provider("rlox-gpu torch", ours_torch, ("cpu", "cuda"), ours=True, needs=("torch",)),
    Provider("rlox", rlox_native),
    Provider("numpy loop", numpy_loop),
    Provider("torch loop", torch_loop, ("cpu", "cuda"), needs=("torch",)),
]
# A torch loop over 32,768 scalars takes seconds a call and says nothing.
SINGLE = [provider for provider in BATCHED if provider.name != "torch loop"]
CASES = [
    case
    for job, shape in JOBS.items()
    for case in cases([job], SINGLE if shape.num_envs is None else BATCHED)
]


@pytest.mark.parametrize(("job", "provider", "device"), CASES)
def bench_gae(check_then_time, job, provider, device):
    check_then_time(job, provider, device, JOBS[job])


def numpy_copy(device):
    source = np.arange(COPY_BYTES // 8, dtype=np.float64)
    target = np.zeros_like(source)
    return Work(lambda: np.copyto(target, source), lambda: _check_copy(source, target, np.copyto))


def _check_copy(source, target, copy):
    copy(target, source)
    assert (target == source).all()


def torch_copy(device):
    import torch

    source = torch.arange(COPY_BYTES // 8, dtype=torch.float64, device=device)
    target = torch.zeros_like(source)

    def call():
        target.copy_(source)
        torch.cuda.synchronize()

    return Work(call, lambda: _check_copy(source, target, torch.Tensor.copy_))


COPY = Job(
    name="copy 256 MiB",
    group="copy",
    items=COPY_BYTES,
    unit="bytes",
    nbytes=2 * COPY_BYTES,
    traffic="read and write once",
)


@pytest.mark.parametrize(
    ("job", "provider", "device"),
    cases([COPY], [Provider("numpy", numpy_copy)])
    + cases([COPY], [Provider("torch", torch_copy, ("cuda",), needs=("torch",))]),
)
def bench_copy(check_then_time, job, provider, device):
    check_then_time(job, provider, device)
