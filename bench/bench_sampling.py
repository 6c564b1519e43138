"""Categorical draws with log-probability and entropy, against torch's two ways."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from harness import Job, Provider, Work, cases, over_rotated, rotation

SEED, STEP = 7, 3


@dataclass(frozen=True)
class Shape:
    rows: int
    classes: int

    @property
    def nbytes(self):
        return self.rows * (4 * self.classes + 16)


def categorical_job(rows, classes):
    shape = Shape(rows, classes)
    job = Job(
        name=f"categorical f32 {rows}x{classes}",
        group="sampling",
        items=rows * classes,
        unit="logits",
        nbytes=shape.nbytes,
        traffic="4 B/logit in; 16 B/row out: action, log-probability, entropy",
    )
    return job, shape


JOBS = [categorical_job(*size) for size in ((8, 2), (4096, 6), (256, 1000), (16, 50257))]


@functools.cache
def logits_of(shape):
    return np.random.default_rng(0).standard_normal((shape.rows, shape.classes), np.float32)


def check(shape, actions, log_prob, entropy):
    """What comes with the actions; their frequencies are the tests' business."""
    x = logits_of(shape).astype(np.float64)
    log_p = x - x.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    actions = np.asarray(actions).reshape(-1, 1)
    chosen = np.take_along_axis(log_p, actions, -1)[:, 0]
    np.testing.assert_allclose(np.asarray(log_prob), chosen, rtol=1e-4, atol=1e-4)
    wanted = -(np.exp(log_p) * log_p).sum(-1)
    np.testing.assert_allclose(np.asarray(entropy), wanted, rtol=1e-4, atol=1e-4)


def ours_numpy(shape, device):
    import rlox_gpu

    logits = logits_of(shape)

    def call():
        return rlox_gpu.sample_categorical(logits, seed=SEED, step=STEP)

    return Work(call, lambda: check(shape, *call()))


def torch_work(sample):
    """A provider's builder from ``sample(logits) -> (actions, log_prob, entropy)``."""

    def build(shape, device):
        import torch

        logits = torch.from_numpy(logits_of(shape)).to(device)
        sets = [logits.clone() for _ in range(rotation(device, shape.nbytes))]
        call, calls = over_rotated(sample, sets, device)
        return Work(call, lambda: check(shape, *(x.cpu() for x in sample(logits))), calls)

    return build


def ours(logits):
    import rlox_gpu

    return rlox_gpu.sample_categorical(logits, seed=SEED, step=STEP)


def distribution(logits):
    from torch.distributions import Categorical

    categorical = Categorical(logits=logits, validate_args=False)
    actions = categorical.sample()
    return actions, categorical.log_prob(actions), categorical.entropy()


def multinomial(logits):
    import torch

    log_p = torch.log_softmax(logits, -1)
    p = log_p.exp()
    actions = torch.multinomial(p, 1)
    return actions[:, 0], log_p.gather(-1, actions)[:, 0], -(p * log_p).sum(-1)


DEVICES = ("cpu", "cuda")
PROVIDERS = [
    Provider("rlox-gpu numpy", ours_numpy, ours=True),
    Provider("rlox-gpu torch", torch_work(ours), DEVICES, ours=True, needs=("torch",)),
    Provider("torch Categorical", torch_work(distribution), DEVICES, needs=("torch",)),
    Provider("torch multinomial", torch_work(multinomial), DEVICES, needs=("torch",)),
]
SHAPES = {job.name: shape for job, shape in JOBS}


@pytest.mark.parametrize(("job", "provider", "device"), cases([job for job, _ in JOBS], PROVIDERS))
def bench_categorical(check_then_time, job, provider, device):
    check_then_time(job, provider, device, SHAPES[job.name])
