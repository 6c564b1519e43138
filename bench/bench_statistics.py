"""Running moments and normalising against NumPy and torch operations, and against rlox."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from harness import Job, Provider, Work, cases, need, over_rotated, rotation

CLIP = 10.0


@dataclass(frozen=True)
class Shape:
    rows: int
    features: int

    @property
    def numbers(self):
        return self.rows * self.features


SHAPES = (Shape(8, 4), Shape(4096, 4), Shape(4096, 64), Shape(1024, 376))


def job_of(name, shape, per_number, traffic):
    name = f"{name} f32 {shape.rows}x{shape.features}"
    nbytes = per_number * shape.numbers
    return Job(name, "statistics", shape.numbers, "numbers", nbytes, traffic)


MOMENTS = {job_of("moments", shape, 4, "4 B/number in"): shape for shape in SHAPES}
NORMALIZE = {job_of("normalize", shape, 8, "4 B/number in, 4 out"): shape for shape in SHAPES}


@functools.cache
def numbers_of(shape):
    """The batch, and mean and variance in float64."""
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (shape.rows, shape.features)).astype(np.float32)
    wide = x.astype(np.float64)
    return x, wide.mean(0), wide.var(0)


def check_moments(shape, state):
    _, mean, var = numbers_of(shape)
    expected = np.stack([np.full(shape.features, shape.rows), mean, var * shape.rows])
    np.testing.assert_allclose(np.asarray(state), expected, rtol=1e-9)


def check_normalized(shape, result):
    x, mean, var = numbers_of(shape)
    expected = ((x - mean) / np.maximum(np.sqrt(var), 1e-8)).clip(-CLIP, CLIP)
    np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-5, atol=1e-6)


def moments_work(update, shape, device, make):
    """Work of ``update(state, x)`` on a state of zeros that fills while it is timed."""
    state, inputs = make(device, shape)

    def check():
        fresh = state * 0.0
        update(fresh, inputs[0])
        check_moments(shape, fresh.cpu() if hasattr(fresh, "cpu") else fresh)

    call, calls = over_rotated(lambda x: update(state, x), inputs, device)
    return Work(call, check, calls)


def numpy_state(device, shape):
    return np.zeros((3, shape.features)), [numbers_of(shape)[0]]


def torch_state(device, shape):
    import torch

    x = torch.from_numpy(numbers_of(shape)[0]).to(device)
    inputs = [x.clone() for _ in range(rotation(device, x.nbytes))]
    return torch.zeros(3, shape.features, dtype=torch.float64, device=device), inputs


def our_update(state, x):
    import rlox_gpu

    rlox_gpu.update_moments(state, x)


def plain_update(state, x, count, mean, m2):
    """Merge a batch's moments as wrappers of environments do."""
    total = state[0] + count
    delta = mean - state[1]
    state[2] += m2 + delta * delta * state[0] * count / total
    state[1] += delta * count / total
    state[0] += count


def numpy_update(state, x):
    # In float64, as ours: float32 sums of numbers far from zero are worth nothing.
    mean = x.mean(0, dtype=np.float64)
    plain_update(state, x, len(x), mean, x.var(0, dtype=np.float64) * len(x))


def torch_update(state, x):
    import torch

    var, mean = torch.var_mean(x.double(), 0, correction=0)
    plain_update(state, x, len(x), mean, var * len(x))


def rlox_moments(shape, device):
    rlox = need("rlox")
    x = numbers_of(shape)[0].astype(np.float64).reshape(-1)

    def fresh():
        return rlox.RunningStatsVec(shape.features)

    def check():
        stats = fresh()
        stats.batch_update(x, shape.rows)
        counts = np.full(shape.features, stats.count())
        check_moments(shape, np.stack([counts, stats.mean(), stats.var() * shape.rows]))

    stats = fresh()
    return Work(lambda: stats.batch_update(x, shape.rows), check)


def normalize_work(normalize, shape, device, to):
    x, mean, var = (to(x, device) for x in numbers_of(shape))
    copies = rotation(device, 8 * shape.numbers)
    inputs = [x] + [x.clone() for _ in range(copies - 1)]

    def check():
        got = normalize(x, mean, var)
        check_normalized(shape, got.cpu() if hasattr(got, "cpu") else got)

    call, calls = over_rotated(lambda x: normalize(x, mean, var), inputs, device)
    return Work(call, check, calls)


def as_array(x, device):
    return x


def as_tensor(x, device):
    import torch

    return torch.from_numpy(x).to(device)


def our_normalize(x, mean, var):
    import rlox_gpu

    return rlox_gpu.normalize(x, mean, var, clip=CLIP)


def numpy_normalize(x, mean, var):
    result = (x - mean) / np.maximum(np.sqrt(var), 1e-8)
    return np.clip(result, -CLIP, CLIP).astype(np.float32)


def torch_normalize(x, mean, var):
    return ((x - mean) / var.sqrt().clamp(min=1e-8)).clamp(-CLIP, CLIP).float()


def providers(work, ours, by_numpy, by_torch, kinds):
    numpy_kind, torch_kind = kinds

    def builder(function, kind):
        return lambda shape, device: work(function, shape, device, kind)

    devices, needs = ("cpu", "cuda"), ("torch",)
    return [
        Provider("rlox-gpu numpy", builder(ours, numpy_kind), ours=True),
        Provider("rlox-gpu torch", builder(ours, torch_kind), devices, ours=True, needs=needs),
        Provider("numpy", builder(by_numpy, numpy_kind)),
        Provider("torch", builder(by_torch, torch_kind), devices, needs=needs),
    ]


MOMENTS_PROVIDERS = [
    *providers(moments_work, our_update, numpy_update, torch_update, (numpy_state, torch_state)),
    Provider("rlox", rlox_moments),
]
NORMALIZE_PROVIDERS = providers(
    normalize_work, our_normalize, numpy_normalize, torch_normalize, (as_array, as_tensor)
)


@pytest.mark.parametrize(("job", "provider", "device"), cases(list(MOMENTS), MOMENTS_PROVIDERS))
def bench_moments(check_then_time, job, provider, device):
    check_then_time(job, provider, device, MOMENTS[job])


@pytest.mark.parametrize(("job", "provider", "device"), cases(list(NORMALIZE), NORMALIZE_PROVIDERS))
def bench_normalize(check_then_time, job, provider, device):
    check_then_time(job, provider, device, NORMALIZE[job])
