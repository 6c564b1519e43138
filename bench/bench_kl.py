"""Divergences of tokens and of whole vocabularies against torch, NumPy and rlox, as users write."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from harness import Job, Provider, Work, cases, need, over_rotated, rotation
from kl_reference import token_kl_reference

TOLERANCE = {"rtol": 2e-4, "atol": 2e-4}


@dataclass(frozen=True)
class Shape:
    batch: int
    length: int
    kind: str
    reduction: str = "none"

    @property
    def tokens(self):
        return self.batch * self.length


def kl_job(shape):
    written = 4 if shape.reduction == "none" else 0
    name = f"token KL {shape.kind} f32 {shape.batch}x{shape.length}"
    job = Job(
        name=name if shape.reduction == "none" else f"{name} per sequence",
        group="kl",
        items=shape.tokens,
        unit="tokens",
        nbytes=(8 + written) * shape.tokens,
        traffic=f"{8 + written} B/token: two log-probabilities in"
        + (", one estimate out" if written else ""),
    )
    return job, shape


JOBS = dict(
    kl_job(shape)
    for shape in (
        Shape(64, 2048, "k3"),
        Shape(64, 2048, "k1"),
        Shape(64, 2048, "k3", "sequence"),
        Shape(1024, 8192, "k3"),
        Shape(1024, 8192, "k1"),
    )
)


@functools.cache
def inputs_of(shape):
    rng = np.random.default_rng(0)
    logprobs = -rng.exponential(1.0, (shape.batch, shape.length))
    ref = logprobs + rng.normal(0.0, 0.1, logprobs.shape)
    return logprobs.astype(np.float32), ref.astype(np.float32)


def check(shape, result):
    some = slice(0, 2)
    logprobs, ref = (x[some] for x in inputs_of(shape))
    expected = token_kl_reference(logprobs, ref, shape.kind, reduction=shape.reduction)
    np.testing.assert_allclose(np.asarray(result)[some], expected, **TOLERANCE)


def ours_numpy(shape, device):
    import rlox_gpu

    inputs = inputs_of(shape)

    def call():
        return rlox_gpu.token_kl(*inputs, kind=shape.kind, reduction=shape.reduction)

    return Work(call, lambda: check(shape, call()))


def tensor_work(shape, device, function):
    import torch

    nbytes = next(job.nbytes for job, its_shape in JOBS.items() if its_shape == shape)
    sets = [
        tuple(torch.as_tensor(x).to(device) for x in inputs_of(shape))
        for _ in range(rotation(device, nbytes))
    ]
    call, calls = over_rotated(lambda inputs: function(*inputs), sets, device)
    return Work(call, lambda: check(shape, function(*sets[0]).cpu()), calls)


def ours_torch(shape, device):
    import rlox_gpu

    def token_kl(logprobs, ref):
        return rlox_gpu.token_kl(logprobs, ref, kind=shape.kind, reduction=shape.reduction)

    return tensor_work(shape, device, token_kl)


def _estimate(shape, exp, logprobs, ref):
    if shape.kind == "k1":
        return logprobs - ref
    log_ratio = ref - logprobs
    estimate = exp(log_ratio) - log_ratio - 1
    return estimate.sum(-1) if shape.reduction == "sequence" else estimate


def torch_ops(shape, device):
    import torch

    return tensor_work(shape, device, functools.partial(_estimate, shape, torch.exp))


def numpy_ops(shape, device):
    inputs = inputs_of(shape)

    def call():
        return _estimate(shape, np.exp, *inputs)

    return Work(call, lambda: check(shape, call()))


def rlox_native(shape, device):
    """Sums per sequence; with its arguments exchanged its estimate is k3."""
    rlox = need("rlox")
    logprobs, ref = (x.reshape(-1) for x in inputs_of(shape))

    def call():
        return rlox.compute_batch_token_kl_schulman_f32(ref, logprobs, shape.length)

    return Work(call, lambda: check(shape, call()))


def numpy_copy(shape, device):
    source, _ = inputs_of(shape)
    target = np.empty_like(source)
    return Work(lambda: np.copyto(target, source), lambda: None)


EACH_TOKEN = [
    Provider("rlox-gpu numpy", ours_numpy, ours=True),
    Provider("rlox-gpu torch", ours_torch, ("cpu", "cuda"), ours=True, needs=("torch",)),
    Provider("numpy", numpy_ops),
    Provider("torch", torch_ops, ("cpu", "cuda"), needs=("torch",)),
]
SEQUENCES = [*EACH_TOKEN, Provider("rlox", rlox_native)]
CASES = [
    case
    for job, shape in JOBS.items()
    for case in cases([job], EACH_TOKEN if shape.reduction == "none" else SEQUENCES)
]


# -- over whole vocabularies -------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    rows: int
    size: int
    dtype: str = "float32"
    backward: bool = False


def full_kl_job(name, shape):
    size = 2 if shape.dtype == "bfloat16" else 4
    moves = 5 if shape.backward else 2
    again = ", read again, one gradient written" if shape.backward else ""
    elements = shape.rows * shape.size
    job = Job(
        name=f"full_kl {name}",
        group="kl",
        items=elements,
        unit="tokens of the vocabulary",
        nbytes=moves * size * elements,
        traffic=f"{moves * size} B: both logits read{again}",
    )
    return job, shape


FULL_JOBS = dict(
    [
        full_kl_job("f32 512x50257", Vocabulary(512, 50257)),
        full_kl_job("f32 128x50257 backward", Vocabulary(128, 50257, backward=True)),
        full_kl_job("bf16 256x50257", Vocabulary(256, 50257, dtype="bfloat16")),
    ]
)


@functools.cache
def logits_of(shape):
    import torch

    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, shape.dtype)
    logits = torch.randn(shape.rows, shape.size, generator=generator) * 3
    noise = torch.randn(shape.rows, shape.size, generator=generator)
    return logits.to(dtype), (logits + noise).to(dtype)


def check_full_kl(shape, got):
    import torch

    some = slice(0, 8)
    log_p, log_q = (torch.log_softmax(x[some].double(), -1) for x in logits_of(shape))
    expected = (log_p.exp() * (log_p - log_q)).sum(-1)
    torch.testing.assert_close(got.detach().cpu()[some].double(), expected, rtol=1e-4, atol=1e-4)


def full_kl_work(shape, device, function):
    """The work of ``function(logits, ref_logits)``, with a backward pass if the shape says so."""
    import torch

    def prepared():
        logits, ref_logits = (x.to(device) for x in logits_of(shape))
        return logits.detach().requires_grad_(shape.backward), ref_logits

    def run(pair):
        got = function(*pair)
        if shape.backward:
            torch.autograd.grad(got.sum(), pair[0])
        return got

    nbytes = sum(x.nbytes for x in logits_of(shape))
    sets = [prepared() for _ in range(rotation(device, nbytes))]
    call, calls = over_rotated(run, sets, device)
    return Work(call, lambda: check_full_kl(shape, run(sets[0])), calls)


def ours_full_kl(shape, device):
    import rlox_gpu

    return full_kl_work(shape, device, rlox_gpu.full_kl)


def torch_kl_div(shape, device):
    return full_kl_work(shape, device, _kl_div)


def torch_kl_div_row_by_row(shape, device):
    """What trainers do to save memory."""

    def looped(logits, ref_logits):
        import torch

        return torch.stack([_kl_div(*pair) for pair in zip(logits, ref_logits, strict=True)])

    return full_kl_work(shape, device, looped)


def _kl_div(logits, ref_logits):
    import torch

    log_p, log_q = (torch.log_softmax(x.float(), -1) for x in (logits, ref_logits))
    kl_div = torch.nn.functional.kl_div
    return kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


FULL_KL = [
    Provider("rlox-gpu torch", ours_full_kl, ("cpu", "cuda"), ours=True, needs=("torch",)),
    Provider("torch kl_div", torch_kl_div, ("cpu", "cuda"), needs=("torch",)),
    Provider("torch row by row", torch_kl_div_row_by_row, ("cpu", "cuda"), needs=("torch",)),
]


@pytest.mark.parametrize(("job", "provider", "device"), cases(list(FULL_JOBS), FULL_KL))
def bench_full_kl(check_then_time, job, provider, device):
    check_then_time(job, provider, device, FULL_JOBS[job])


COPIES = {
    Job(
        name=f"copy f32 {shape.batch}x{shape.length}",
        group="copy",
        items=shape.tokens,
        unit="elements",
        nbytes=8 * shape.tokens,
        traffic="read and write once",
    ): shape
    for shape in (Shape(64, 2048, "k1"), Shape(1024, 8192, "k1"))
}


@pytest.mark.parametrize(("job", "provider", "device"), CASES)
def bench_kl(check_then_time, job, provider, device):
    check_then_time(job, provider, device, JOBS[job])


@pytest.mark.parametrize(
    ("job", "provider", "device"), cases(COPIES, [Provider("numpy", numpy_copy)])
)
def bench_copy_of_logprobs(check_then_time, job, provider, device):
    check_then_time(job, provider, device, COPIES[job])
