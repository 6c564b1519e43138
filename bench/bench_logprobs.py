"""Log-probabilities of tokens against log_softmax and gather, with and without gradients."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from harness import Job, Provider, Work, cases, over_rotated, rotation

TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-5}


@dataclass(frozen=True)
class Shape:
    batch: int
    length: int
    vocabulary: int
    dtype: str = "float32"
    entropy: bool = False
    backward: bool = False
    width: int | None = None

    @property
    def rows(self):
        return self.batch * self.length


def logits_job(name, shape):
    size = 2 if shape.dtype == "bfloat16" else 4
    moves = 3 if shape.backward else 1
    parts = "forward and backward: read, read again, gradient written" if moves == 3 else "read"
    elements = shape.rows * shape.vocabulary
    job = Job(
        name=f"token_logprobs {name}",
        group="logprobs",
        items=elements,
        unit="logits",
        nbytes=moves * size * elements,
        traffic=f"{moves * size} B/logit: {parts}",
    )
    return job, shape


def linear_job(name, shape):
    job = Job(
        name=f"linear_token_logprobs {name}",
        group="logprobs",
        items=shape.rows * shape.vocabulary,
        unit="logits",
    )
    return job, shape


JOBS = dict(
    [
        logits_job("f32 4x512x50257", Shape(4, 512, 50257)),
        logits_job("f32 4x512x50257 entropy", Shape(4, 512, 50257, entropy=True)),
        logits_job("f32 4x128x50257 backward", Shape(4, 128, 50257, backward=True)),
        logits_job(
            "bf16 4x32x151936 backward",
            Shape(4, 32, 151936, dtype="bfloat16", backward=True),
        ),
        logits_job("bf16 4x128x151936", Shape(4, 128, 151936, dtype="bfloat16")),
    ]
)
LINEAR_JOBS = dict(
    [linear_job("f32 512x256x50257 backward", Shape(1, 512, 50257, backward=True, width=256))]
)


@functools.cache
def inputs_of(shape):
    """CPU tensors: what the logits are made of, and the tokens."""
    import torch

    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, shape.dtype)
    tokens = torch.randint(shape.vocabulary, (shape.batch, shape.length), generator=generator)
    rows = (shape.batch, shape.length)
    if shape.width is None:
        return (torch.randn(*rows, shape.vocabulary, generator=generator).to(dtype) * 3,), tokens
    hidden = torch.randn(*rows, shape.width, generator=generator)
    weight = torch.randn(shape.vocabulary, shape.width, generator=generator)
    return (hidden.to(dtype), (weight / shape.width**0.5).to(dtype)), tokens


@functools.cache
def expected(shape):
    """Row by row in float64: nothing of the size of the logits is made twice."""
    import torch

    arrays, tokens = inputs_of(shape)
    rows = arrays[0].reshape(shape.rows, -1)
    logprobs, entropies = [], []
    for row, token in zip(rows, tokens.reshape(-1), strict=True):
        logits = (row if shape.width is None else arrays[1] @ row).double()
        log_p = torch.log_softmax(logits, -1)
        logprobs.append(float(log_p[token]))
        entropies.append(float(-(log_p.exp() * log_p).sum()))
    return [np.reshape(x, tokens.shape) for x in (logprobs, entropies)]


def check(shape, results):
    for got, want in zip(results, expected(shape), strict=False):
        error = np.abs(np.asarray(got.detach().float().cpu()) - want)
        assert (error <= TOLERANCE[shape.dtype] * (1 + np.abs(want))).all(), error.max()


def check_gradient(shape, gradient):
    """Some rows of that of the logits, or of the hidden states, of the sum of log-probabilities."""
    arrays, tokens = inputs_of(shape)
    rows, found = (x.reshape(shape.rows, -1) for x in (arrays[0], gradient.cpu()))
    for at in range(0, shape.rows, max(1, shape.rows // 8)):
        logits = (rows[at] if shape.width is None else arrays[1] @ rows[at]).double()
        want = -logits.softmax(-1)
        want[tokens.reshape(-1)[at]] += 1
        if shape.width is not None:
            want = want @ arrays[1].double()
        error = (found[at].double() - want).abs().max()
        # A half type holds so many digits of the gradient.
        least = 2**-8 if shape.dtype == "bfloat16" else 1e-5
        np.testing.assert_array_less(error, least * want.abs().max())


def ours_numpy(shape, device):
    import torch

    import rlox_gpu

    ((logits,), tokens) = inputs_of(shape)
    logits, tokens = logits.numpy(), tokens.numpy()

    def call():
        got = rlox_gpu.token_logprobs(logits, tokens, return_entropy=shape.entropy)
        return got if shape.entropy else (got,)

    return Work(call, lambda: check(shape, [torch.from_numpy(x) for x in call()]))


def ours_torch(shape, device):
    import rlox_gpu

    if shape.width is not None:
        return torch_work(shape, device, rlox_gpu.linear_token_logprobs)
    return torch_work(shape, device, rlox_gpu.token_logprobs, return_entropy=shape.entropy)


def torch_eager(shape, device):
    return torch_work(shape, device, functools.partial(_log_softmax, shape))


def torch_row_by_row(shape, device):
    """What trainers do to save memory: one sequence at a time."""

    def looped(logits, tokens):
        import torch

        parts = [_log_softmax(shape, *pair) for pair in zip(logits, tokens, strict=True)]
        if shape.entropy:
            return tuple(torch.stack(x) for x in zip(*parts, strict=True))
        return torch.stack(parts)

    return torch_work(shape, device, looped)


def _log_softmax(shape, *arguments):
    import torch

    *arrays, tokens = arguments
    logits = arrays[0] if shape.width is None else torch.nn.functional.linear(*arrays)
    log_p = torch.log_softmax(logits.float(), -1)
    chosen = log_p.gather(-1, tokens[..., None])[..., 0]
    return (chosen, -(log_p.exp() * log_p).sum(-1)) if shape.entropy else chosen


def torch_work(shape, device, function, **options):
    """The work of ``function(*arrays, tokens)``, with a backward pass where the shape says so."""
    import torch

    def prepared():
        arrays, tokens = inputs_of(shape)
        arrays = [x.to(device).detach().requires_grad_(shape.backward) for x in arrays]
        return *arrays, tokens.to(device)

    def run(inputs):
        got = function(*inputs, **options)
        results = got if isinstance(got, tuple) else (got,)
        gradients = torch.autograd.grad(results[0].sum(), inputs[:-1]) if shape.backward else ()
        return results, gradients

    def run_and_check():
        results, gradients = run(sets[0])
        check(shape, results)
        if shape.backward:
            check_gradient(shape, gradients[0])

    nbytes = sum(x.nbytes for x in inputs_of(shape)[0])
    sets = [prepared() for _ in range(rotation(device, nbytes))]
    call, calls = over_rotated(run, sets, device)
    return Work(call, run_and_check, calls)


TORCH = [
    Provider("rlox-gpu torch", ours_torch, ("cpu", "cuda"), ours=True, needs=("torch",)),
    Provider("torch log_softmax", torch_eager, ("cpu", "cuda"), needs=("torch",)),
]
LOOP = Provider("torch row by row", torch_row_by_row, ("cpu", "cuda"), needs=("torch",))
NUMPY = Provider("rlox-gpu numpy", ours_numpy, ours=True, needs=("torch",))
CASES = cases(list(LINEAR_JOBS), TORCH) + [
    case
    for job, shape in JOBS.items()
    for case in cases(
        [job],
        [*TORCH, LOOP, *([NUMPY] if shape.dtype == "float32" and not shape.backward else [])],
    )
]


@pytest.mark.parametrize(("job", "provider", "device"), CASES)
def bench_logprobs(check_then_time, job, provider, device):
    check_then_time(job, provider, device, (JOBS | LINEAR_JOBS)[job])
