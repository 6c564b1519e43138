"""What the log-probability kernels must do wherever they run: interpreted, simulated, on a GPU."""

import pytest
import torch
from logprobs_reference import assert_gradient, assert_rows, make_logits, sliced

import rlox_gpu

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIZES = [1, 2, 63, 64, 65, 1000, 2500]


def _both_passes(device, logits, tokens, temperature=0.7, entropy=True):
    """Forward and backward against the reference."""
    leaf = logits.to(device).detach().requires_grad_()
    result = rlox_gpu.token_logprobs(
        leaf, tokens.to(device), temperature=temperature, return_entropy=True
    )
    assert result.logprobs.device.type == torch.device(device).type
    assert_rows(result, logits, tokens, temperature)
    weights = torch.linspace(-1, 2, tokens.numel()).view(tokens.shape)
    of_entropies = weights.flip(0) * entropy
    scores = result.logprobs * weights.to(device)
    if entropy:
        scores = scores + result.entropies * of_entropies.to(device)
    scores.sum().backward()
    assert_gradient(leaf.grad, logits, tokens, weights, of_entropies, temperature)


@pytest.mark.parametrize("vocabulary", SIZES)
def check_logprobs_sizes(device, vocabulary):
    _both_passes(device, *make_logits(0, 3, vocabulary))


@pytest.mark.parametrize("dtype", DTYPES)
def check_logprobs_dtypes(device, dtype):
    _both_passes(device, *make_logits(1, 2, 3, 1009, dtype=dtype))


def check_logprobs_gradient_without_entropy(device):
    _both_passes(device, *make_logits(2, 3, 301), entropy=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def check_logprobs_of_shifted_logits(device, dtype):
    logits, tokens = make_logits(3, 2, 3, 333, dtype=dtype)
    on_device = sliced(logits.to(device)).requires_grad_()
    result = rlox_gpu.token_logprobs(on_device, tokens.to(device), return_entropy=True)
    assert_rows(result, logits, tokens)
    (gradient,) = torch.autograd.grad(result.logprobs.sum(), on_device)
    assert_gradient(gradient, logits, tokens, torch.ones(2, 3))


def check_logprobs_of_excluded_tokens(device):
    logits, tokens = make_logits(4, 5, 700, excluded=0.6)
    tokens[0] = int((logits[0] == -torch.inf).nonzero()[0])
    _both_passes(device, logits, tokens)


# The interpreter says that the logarithm of zero is infinite.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def check_logprobs_where_there_is_no_answer(device):
    logits, tokens = make_logits(5, 4, 150)
    logits[1] = -torch.inf
    logits[2, 70] = torch.nan
    got = rlox_gpu.token_logprobs(logits.to(device), tokens.to(device), return_entropy=True)
    for x in got:
        assert x.isnan().tolist() == [False, True, True, False]
    clean = [0, 3]
    assert_rows([x[clean] for x in got], logits[clean], tokens[clean])


def check_logprobs_of_a_token_outside_the_vocabulary(device):
    logits, _ = make_logits(6, 4, 100)
    tokens = torch.tensor([3, -1, 100, 2**62])
    leaf = logits.to(device).requires_grad_()
    got = rlox_gpu.token_logprobs(leaf, tokens.to(device), return_entropy=True)
    assert got.logprobs.isnan().tolist() == [False, True, True, True]
    assert got.entropies.isfinite().all()
    got.logprobs[0].backward()
    assert leaf.grad.isfinite().all()
    assert not leaf.grad[1:].any()


def check_linear_logprobs(device, monkeypatch):
    from rlox_gpu.ops import _linear_logprobs_torch as linear

    monkeypatch.setattr(linear, "CHUNK_ROWS", 2)
    monkeypatch.setattr(linear, "CHUNK_COLUMNS", 50)
    generator = torch.Generator().manual_seed(7)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator).double().to(device).requires_grad_()
        for shape in ((3, 4), (120, 4), (120,))
    )
    tokens = torch.tensor([0, 49, 119], device=device)
    got = rlox_gpu.linear_token_logprobs(hidden, weight, tokens, bias=bias, return_entropy=True)
    logits = hidden @ weight.T + bias
    assert_rows(got, logits, tokens)
    loss = torch.log_softmax(logits, -1).gather(-1, tokens[:, None]).sum()
    wanted = torch.autograd.grad(loss, (hidden, weight, bias))
    for gradient, want in zip(
        torch.autograd.grad(got.logprobs.sum(), (hidden, weight, bias)), wanted, strict=True
    ):
        torch.testing.assert_close(gradient, want)
