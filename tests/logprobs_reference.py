"""Log-probabilities of tokens in float64, written for reading, and inputs to try them on."""

import numpy as np
import torch

# A logit of some ten, divided by the temperature, is rounded before the exponential.
ROUNDING = {"float16": 4e-6, "bfloat16": 4e-6, "float32": 4e-6, "float64": 1e-13}
# The gradient is stored in the dtype of the logits.
GRADIENT_ROUNDING = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 4e-6, "float64": 1e-13}


def log_softmax(logits, temperature=1.0):
    """Over the last axis; an excluded token (negative infinity) stays one."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = scaled - scaled.max(-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


def plogp(log_p):
    """``p ln p``, zero where p is zero."""
    p = np.exp(log_p)
    return np.where(p > 0, p * np.where(p > 0, log_p, 0.0), 0.0)


def logprobs_reference(logits, tokens, temperature=1.0):
    """``(logprobs, entropies)``."""
    log_p = log_softmax(logits, temperature)
    chosen = np.take_along_axis(log_p, np.asarray(tokens, np.int64)[..., None], -1)
    return chosen[..., 0], -plogp(log_p).sum(-1)


def gradient_reference(logits, tokens, grad_logprobs, grad_entropies=0.0, temperature=1.0):
    """The gradient of ``sum(grad_logprobs * logprobs + grad_entropies * entropies)``."""
    log_p = log_softmax(logits, temperature)
    chosen = np.arange(log_p.shape[-1]) == np.asarray(tokens)[..., None]
    entropies = -plogp(log_p).sum(-1)[..., None]
    of_logprobs = np.asarray(grad_logprobs, np.float64)[..., None] * (chosen - np.exp(log_p))
    of_entropies = plogp(log_p) + np.exp(log_p) * entropies
    return (of_logprobs - np.asarray(grad_entropies)[..., None] * of_entropies) / temperature


def make_logits(seed, *shape, dtype=torch.float32, scale=3.0, excluded=0.0):
    """Logits and tokens as CPU tensors; a share of the tokens is excluded, not the first one."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator) * scale
    hidden = torch.rand(shape, generator=generator) < excluded
    hidden[..., 0] = False
    logits = logits.masked_fill(hidden, -torch.inf).to(dtype)
    return logits, torch.randint(shape[-1], shape[:-1], generator=generator)


def sliced(logits):
    """The same numbers as ``[:, :-1]`` of a longer batch, as trainers shift logits."""
    longer = torch.full((logits.shape[0], logits.shape[1] + 1, logits.shape[2]), torch.nan)
    longer = longer.to(logits)
    longer[:, :-1] = logits
    return longer[:, :-1]


def assert_rows(got, logits, tokens, temperature=1.0):
    """``got``, a pair, is what the reference gives, up to rounding."""
    assert_near(got, logprobs_reference(numbers(logits), numbers(tokens), temperature), logits)


def assert_near(got, wanted, logits):
    name = str(logits.dtype).removeprefix("torch.")
    result = "float64" if name == "float64" else "float32"
    for mine, want in zip(got, wanted, strict=True):
        assert str(mine.dtype).removeprefix("torch.") == result
        _assert_close(mine, want, ROUNDING[name])


def assert_gradient(got, logits, *reference_arguments):
    want = gradient_reference(numbers(logits), *map(numbers, reference_arguments))
    assert got.dtype is logits.dtype
    _assert_close(got, want, GRADIENT_ROUNDING[str(logits.dtype).removeprefix("torch.")])


def _assert_close(got, want, rounding):
    got = numbers(got)
    assert got.shape == want.shape
    largest = np.abs(want[np.isfinite(want)]).max(initial=1.0)
    np.testing.assert_allclose(got, want, rtol=rounding, atol=rounding * largest)


def numbers(x):
    """As a NumPy array; floating ones in float64."""
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu()
        return (x.double() if x.is_floating_point() else x).numpy()
    return np.asarray(x)
