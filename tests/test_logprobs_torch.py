"""token_logprobs on torch tensors: gradients, registration, compilation, a device of no data."""

import numpy as np
import pytest
import torch
from fake_device import run_on_fake_device
from hypothesis import given, settings
from hypothesis import strategies as st
from logprobs_reference import (
    assert_gradient,
    gradient_reference,
    logprobs_reference,
    make_logits,
    sliced,
)

import rlox_gpu

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ops = torch.ops.rlox_gpu


def _scores(logits, tokens, temperature=0.7):
    got = rlox_gpu.token_logprobs(logits, tokens, temperature=temperature, return_entropy=True)
    return got.logprobs.sin().sum() + got.entropies.cos().sum()


def test_the_reference_gradient_is_that_of_autograd():
    logits, tokens = make_logits(0, 3, 7, dtype=torch.float64)
    logits[1, 2] = -torch.inf
    weights = torch.tensor([[1.0, 2.0, -3.0], [0.5, -1.0, 2.0]]).double()
    leaf = logits.clone().requires_grad_()
    log_p = torch.log_softmax(leaf / 0.7, -1)
    chosen = log_p.gather(-1, tokens[:, None])[:, 0]
    finite = log_p.masked_fill(logits == -torch.inf, 0.0)
    entropies = -(log_p.exp() * finite).sum(-1)
    for got, want in zip(logprobs_reference(logits, tokens, 0.7), (chosen, entropies), strict=True):
        np.testing.assert_allclose(got, want.detach(), rtol=1e-12)
    (weights[0] * chosen + weights[1] * entropies).sum().backward()
    want = gradient_reference(logits, tokens, *weights.numpy(), 0.7)
    np.testing.assert_allclose(leaf.grad, want, rtol=1e-12, atol=1e-14)


def test_gradcheck():
    logits, tokens = make_logits(1, 2, 9, dtype=torch.float64)
    logits.requires_grad_()

    def both(x):
        return tuple(rlox_gpu.token_logprobs(x, tokens, temperature=0.7, return_entropy=True))

    assert torch.autograd.gradcheck(both, (logits,))
    assert torch.autograd.gradcheck(lambda x: rlox_gpu.token_logprobs(x, tokens), (logits,))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 4),
    vocabulary=st.integers(1, 5000),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(["plain", "shifted", "strided", "expanded"]),
    temperature=st.floats(0.1, 10),
    excluded=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_gradients_of_random_inputs(rows, vocabulary, dtype, layout, temperature, excluded, seed):
    logits, tokens = make_logits(seed, 2, rows, vocabulary, dtype=dtype, excluded=excluded)
    if layout == "shifted":
        logits = sliced(logits)
    elif layout == "strided":
        logits = torch.stack([logits, logits], dim=-1)[..., 0]
    elif layout == "expanded":
        logits = logits[:1].expand(2, rows, vocabulary)
    leaf = logits.detach().requires_grad_()
    got = rlox_gpu.token_logprobs(leaf, tokens, temperature=temperature, return_entropy=True)
    weights = torch.randn(2, 2, rows, generator=torch.Generator().manual_seed(seed)) * temperature
    weighted = weights[0] * got.logprobs + weights[1] * got.entropies
    (gradient,) = torch.autograd.grad(weighted.sum(), leaf)
    assert_gradient(gradient, logits, tokens, *weights, temperature)


def test_each_result_has_its_gradient():
    logits, tokens = make_logits(2, 3, 40)
    leaf = logits.clone().requires_grad_()
    got = rlox_gpu.token_logprobs(leaf, tokens, return_entropy=True)
    ones, zeros = torch.ones(3), torch.zeros(3)
    (of_logprobs,) = torch.autograd.grad(got.logprobs.sum(), leaf, retain_graph=True)
    assert_gradient(of_logprobs, logits, tokens, ones, zeros)
    (of_entropies,) = torch.autograd.grad(got.entropies.sum(), leaf)
    assert_gradient(of_entropies, logits, tokens, zeros, ones)
    (alone,) = torch.autograd.grad(rlox_gpu.token_logprobs(leaf, tokens).sum(), leaf)
    assert torch.equal(alone, of_logprobs)


def test_an_excluded_token_has_no_gradient_and_a_chosen_one_its_own():
    logits, tokens = make_logits(3, 2, 3000)
    logits[:, 1000:2500] = -torch.inf
    tokens[0] = 1700
    leaf = logits.clone().requires_grad_()
    rlox_gpu.token_logprobs(leaf, tokens).sum().backward()
    assert leaf.grad.isfinite().all()
    assert leaf.grad[0, 1700] == 1
    assert leaf.grad[:, 1000:2500].count_nonzero() == 1


def test_no_rows_have_a_gradient_of_no_rows():
    leaf = torch.zeros(0, 5, requires_grad=True)
    rlox_gpu.token_logprobs(leaf, torch.zeros(0, dtype=torch.int64)).sum().backward()
    assert leaf.grad.shape == (0, 5)


def test_results_require_grad_only_where_logits_do():
    logits, tokens = make_logits(4, 3, 40)
    plain = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
    leaf = logits.clone().requires_grad_()
    tracked = rlox_gpu.token_logprobs(leaf, tokens, return_entropy=True)
    for a, b in zip(plain, tracked, strict=True):
        assert not a.requires_grad
        assert b.requires_grad
        assert torch.equal(a, b)
    with torch.no_grad():
        assert not rlox_gpu.token_logprobs(leaf, tokens).requires_grad


def test_autocast_changes_nothing():
    logits, tokens = make_logits(5, 3, 40)
    leaf = logits.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = _scores(logits, tokens), _scores(leaf, tokens).detach()
    assert torch.equal(cast[0], cast[1])
    assert torch.equal(cast[0], _scores(logits, tokens))


def test_a_second_derivative_is_refused():
    logits, tokens = make_logits(6, 2, 9)
    leaf = logits.requires_grad_()
    (first,) = torch.autograd.grad(
        rlox_gpu.token_logprobs(leaf, tokens).sum(), leaf, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="second"):
        first.sum().backward()


# Torch's own check looks at the gradient of a tensor that is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("entropy", [True, False])
def test_ops_pass_opcheck(entropy):
    logits, tokens = make_logits(7, 3, 40)
    rlox_gpu.token_logprobs(logits, tokens)
    leaf = logits.requires_grad_()
    torch.library.opcheck(ops.token_logprobs.default, (leaf, tokens, 0.7, entropy))
    saved = ops.token_logprobs(leaf.detach(), tokens, 0.7, entropy)
    grad_entropies = saved[1] if entropy else None
    torch.library.opcheck(
        ops.token_logprobs_backward.default,
        (leaf.detach(), tokens, *saved[1:], saved[0], grad_entropies, 0.7),
    )


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiles_without_a_graph_break():
    torch.compiler.reset()
    compiled = torch.compile(_scores, backend="aot_eager", fullgraph=True)
    for rows in (3, 5):
        logits, tokens = make_logits(8, rows, 40)
        leaves = [logits.clone().requires_grad_() for _ in range(2)]
        results = [f(x, tokens) for f, x in zip((compiled, _scores), leaves, strict=True)]
        torch.testing.assert_close(*results)
        sum(results).backward()
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


def test_no_data_is_looked_at_on_a_device():
    def train():
        import pytest
        import torch

        import rlox_gpu

        torch.set_default_device("gpu")
        hidden, weight = torch.randn(2, 3, 8), torch.nn.Parameter(torch.randn(40, 8))
        tokens = torch.zeros(2, 3, dtype=torch.int64)
        logits = torch.nn.functional.linear(hidden, weight)
        got = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
        assert got.logprobs.device.type == "gpu"
        assert got.logprobs.shape == got.entropies.shape == (2, 3)
        (got.logprobs + got.entropies).sum().backward()
        fused = rlox_gpu.linear_token_logprobs(hidden, weight, tokens)
        fused.sum().backward()
        assert weight.grad.shape == (40, 8)
        with pytest.raises(ValueError, match="tokens"):
            rlox_gpu.token_logprobs(logits, tokens.to("cpu"))

    run_on_fake_device(train)


def test_the_raw_op_checks_too():
    logits, tokens = make_logits(9, 3, 40)
    rlox_gpu.token_logprobs(logits, tokens)
    with pytest.raises(ValueError, match="tokens"):
        ops.token_logprobs(logits, tokens[:2], 1.0, False)
    with pytest.raises(ValueError, match="tokens"):
        ops.token_logprobs(logits, tokens + 40, 1.0, False)


BAD_CALLS = {
    "logits dtype": ({"logits": torch.zeros(3, 5, dtype=torch.int64)}, TypeError, "logits"),
    "logits complex": ({"logits": torch.zeros(3, 5) * 1j}, TypeError, "logits"),
    "tokens numpy": ({"tokens": np.zeros(3, np.int64)}, TypeError, "tokens"),
    "tokens None": ({"tokens": None}, TypeError, "tokens"),
    "tokens shape": ({"tokens": torch.zeros(5, dtype=torch.int64)}, ValueError, "tokens"),
    "tokens device": (
        {"tokens": torch.zeros(3, dtype=torch.int64, device="meta")},
        ValueError,
        "tokens",
    ),
    "token large": ({"tokens": torch.tensor([0, 5, 2])}, ValueError, r"tokens.*\[0, 5\).*5"),
    "token ignored": ({"tokens": torch.tensor([0, -100, 2])}, ValueError, "tokens.*-100"),
    "temperature tensor": ({"temperature": torch.tensor(1.0)}, TypeError, "temperature"),
}


@pytest.mark.parametrize(("changes", "error", "name"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(changes, error, name):
    arguments = {"logits": torch.zeros(3, 5), "tokens": torch.zeros(3, dtype=torch.int64)} | changes
    with pytest.raises(error, match=name):
        rlox_gpu.token_logprobs(arguments.pop("logits"), arguments.pop("tokens"), **arguments)
