"""Group advantages against rlox, torch and NumPy."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from groups_reference import group_advantages_reference
from harness import Job, Provider, Work, cases, need, over_rotated, rotation

# Of rewards around zero with deviation one.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@dataclass(frozen=True)
class Shape:
    groups: int
    size: int
    dtype: str = "float32"

    @property
    def elements(self):
        return self.groups * self.size


def groups_job(shape):
    per_reward = 2 * np.dtype(shape.dtype).itemsize
    bits = shape.dtype.replace("float", "f")
    job = Job(
        name=f"group advantages {bits} {shape.groups}x{shape.size}",
        group="groups",
        items=shape.elements,
        unit="rewards",
        nbytes=per_reward * shape.elements,
        traffic=f"{per_reward} B/reward: reward in, advantage out",
    )
    return job, shape


JOBS = dict(
    groups_job(Shape(*size, dtype))
    for size in ((4096, 16), (64, 8))
    for dtype in ("float32", "float64")
)


@functools.cache
def rewards_of(shape):
    return np.random.default_rng(0).normal(size=(shape.groups, shape.size)).astype(shape.dtype)


def check(shape, result):
    # rlox knows the population's deviation only, so that all are asked for it.
    expected = group_advantages_reference(rewards_of(shape), ddof=0)
    got = np.asarray(result).reshape(expected.shape)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE[shape.dtype])


def ours_numpy(shape, device):
    import rlox_gpu

    rewards = rewards_of(shape)

    def call():
        return rlox_gpu.group_advantages(rewards, ddof=0)

    return Work(call, lambda: check(shape, call()))


def ours_rlox_name(shape, device):
    import rlox_gpu

    rewards = np.asarray(rewards_of(shape), np.float64).reshape(-1)

    def call():
        return rlox_gpu.compute_batch_group_advantages(rewards, shape.size)

    return Work(call, lambda: check(shape, call()))


def tensors(shape, device):
    import torch

    nbytes = next(job.nbytes for job, its_shape in JOBS.items() if its_shape == shape)
    rewards = torch.as_tensor(rewards_of(shape)).to(device)
    return [rewards.clone() for _ in range(rotation(device, nbytes))]


def ours_torch(shape, device):
    import rlox_gpu

    return over_tensors(shape, device, lambda x: rlox_gpu.group_advantages(x, ddof=0))


def torch_operations(shape, device):
    def advantages(x):
        centred = x - x.mean(dim=1, keepdim=True)
        return centred / (x.std(dim=1, keepdim=True, correction=0) + 1e-8)

    return over_tensors(shape, device, advantages)


def over_tensors(shape, device, function):
    sets = tensors(shape, device)
    call, calls = over_rotated(function, sets, device)
    return Work(call, lambda: check(shape, function(sets[0]).cpu()), calls)


def rlox_native(shape, device):
    """In float64, the one dtype that it has."""
    rlox = need("rlox")
    rewards = np.asarray(rewards_of(shape), np.float64).reshape(-1)

    def call():
        return rlox.compute_batch_group_advantages(rewards, shape.size)

    return Work(call, lambda: check(shape, call()))


def numpy_operations(shape, device):
    rewards = rewards_of(shape)

    def call():
        return (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, keepdims=True) + 1e-8)

    return Work(call, lambda: check(shape, call()))


PROVIDERS = [
    Provider("rlox-gpu numpy", ours_numpy, ours=True),
    Provider("rlox-gpu torch", ours_torch, ("cpu", "cuda"), ours=True, needs=("torch",)),
    Provider("rlox", rlox_native),
    Provider("numpy", numpy_operations),
    Provider("torch", torch_operations, ("cpu", "cuda"), needs=("torch",)),
]
RLOX_NAME = Provider("rlox-gpu, rlox's name", ours_rlox_name, ours=True)
CASES = [
    case
    for job, shape in JOBS.items()
    for case in cases([job], PROVIDERS + [RLOX_NAME] * (shape.dtype == "float64"))
]


@pytest.mark.parametrize(("job", "provider", "device"), CASES)
def bench_groups(check_then_time, job, provider, device):
    check_then_time(job, provider, device, JOBS[job])
