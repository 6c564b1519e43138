"""linear_token_logprobs: logits that never exist as a whole, forward and backward."""

import tracemalloc

import numpy as np
import pytest
import torch
from logprobs_reference import assert_rows
from test_gae import NamespacedArray
from torch.utils._python_dispatch import TorchDispatchMode

import rlox_gpu
from rlox_gpu.ops import _linear_logprobs_torch as on_torch
from rlox_gpu.ops import _logprobs_numpy as on_numpy

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ops = torch.ops.rlox_gpu


@pytest.fixture
def small_chunks(monkeypatch):
    for module in (on_torch, on_numpy):
        monkeypatch.setattr(module, "CHUNK_ROWS", 4)
        monkeypatch.setattr(module, "CHUNK_COLUMNS", 16)


def _layer(seed, rows, width, vocabulary, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = (*rows, width), (vocabulary, width), (vocabulary,)
    hidden, weight, bias = (torch.randn(s, generator=generator).to(dtype) for s in shapes)
    tokens = torch.randint(vocabulary, rows, generator=generator)
    return hidden, weight, tokens, bias


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("rows", "vocabulary"), [((1,), 1), ((3,), 16), ((4,), 17), ((2, 5), 63), ((9,), 64)]
)
def test_chunks_join_to_the_whole(small_chunks, rows, vocabulary, with_bias):
    hidden, weight, tokens, bias = _layer(0, rows, 5, vocabulary)
    options = {"bias": bias if with_bias else None, "temperature": 0.7, "return_entropy": True}
    logits = hidden @ weight.T + (bias if with_bias else 0)
    got = rlox_gpu.linear_token_logprobs(hidden, weight, tokens, **options)
    assert_rows(got, logits, tokens, 0.7)
    options["bias"] = bias.numpy() if with_bias else None
    arrays = (x.numpy() for x in (hidden, weight, tokens))
    assert_rows(rlox_gpu.linear_token_logprobs(*arrays, **options), logits, tokens, 0.7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    hidden, weight, tokens, bias = _layer(1, (7,), 8, 9000, dtype)
    got = rlox_gpu.linear_token_logprobs(hidden, weight, tokens, bias=bias, return_entropy=True)
    logits = torch.nn.functional.linear(hidden, weight, bias)
    want = rlox_gpu.token_logprobs(logits, tokens, return_entropy=True)
    # Chunks of a product are rounded as the whole is, but for the order of a sum.
    slack = 4 * torch.finfo(dtype).eps * logits.abs().max() if dtype.itemsize == 2 else 2e-5
    for mine, whole in zip(got, want, strict=True):
        assert mine.dtype is whole.dtype
        torch.testing.assert_close(mine, whole, rtol=0, atol=float(slack))
    if dtype is torch.float16:
        arrays = [x.numpy() for x in (hidden, weight, tokens)]
        numpy = rlox_gpu.linear_token_logprobs(*arrays, bias=bias.numpy())
        assert numpy.dtype == np.float32
        np.testing.assert_allclose(numpy, got.logprobs, rtol=0, atol=float(slack))


def test_gradients(small_chunks):
    hidden, weight, tokens, bias = (
        x.requires_grad_(x.is_floating_point()) for x in _layer(2, (2, 5), 3, 39)
    )
    leaves = (hidden, weight, bias)

    def both(hidden, weight, bias):
        return tuple(
            rlox_gpu.linear_token_logprobs(
                hidden, weight, tokens, bias=bias, temperature=0.7, return_entropy=True
            )
        )

    def whole(hidden, weight, bias):
        log_p = torch.log_softmax((hidden @ weight.T + bias) / 0.7, -1)
        chosen = log_p.gather(-1, tokens[..., None])[..., 0]
        return chosen, -(log_p.exp() * log_p).sum(-1)

    def gradients(function, *chosen):
        scores = [x.sin().sum() * (i + 1) for i, x in enumerate(function(*leaves))]
        return torch.autograd.grad(sum(scores), chosen)

    for chosen in [leaves, (hidden,), (weight,), (bias,), (weight, bias)]:
        for got, want in zip(gradients(both, *chosen), gradients(whole, *chosen), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(both, leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_gradients_are_summed_in_float32(dtype, small_chunks):
    hidden, weight, tokens, _ = _layer(3, (200,), 4, 40, dtype)
    gradients = []
    for x in (torch.float32, dtype):
        leaves = [y.to(x).requires_grad_() for y in (hidden, weight)]
        rlox_gpu.linear_token_logprobs(*leaves, tokens).sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for exact, got in zip(*gradients, strict=True):
        assert got.dtype is dtype
        error = (got.float() - exact).abs().max() / exact.abs().max()
        assert error <= 4 * torch.finfo(dtype).eps


def test_excluded_tokens(small_chunks):
    # Whole chunks and parts of them, the first and the last token's among them.
    hidden, weight, tokens, bias = _layer(4, (6,), 3, 70)
    bias[:20] = bias[40:52] = -torch.inf
    tokens[0], tokens[1], tokens[2] = 3, 45, 30
    leaf = hidden.clone().requires_grad_()
    got = rlox_gpu.linear_token_logprobs(leaf, weight, tokens, bias=bias, return_entropy=True)
    assert_rows(got, hidden @ weight.T + bias, tokens)
    assert (got.logprobs[:2] == -torch.inf).all()
    (got.logprobs[2:].sum() + got.entropies.sum()).backward()
    assert leaf.grad.isfinite().all()
    numpy = [x.numpy() for x in (hidden, weight, tokens)]
    got = rlox_gpu.linear_token_logprobs(*numpy, bias=bias.numpy(), return_entropy=True)
    assert_rows(got, hidden @ weight.T + bias, tokens)
    nothing = torch.full_like(bias, -torch.inf)
    assert rlox_gpu.linear_token_logprobs(hidden, weight, tokens, bias=nothing).isnan().all()


def test_no_rows():
    hidden, weight, tokens, bias = _layer(5, (0,), 3, 7)
    leaves = [x.requires_grad_() for x in (hidden, weight, bias)]
    got = rlox_gpu.linear_token_logprobs(hidden, weight, tokens, bias=bias, return_entropy=True)
    got.logprobs.sum().backward()
    assert leaves[0].grad.shape == (0, 3)
    assert not leaves[1].grad.any()
    assert not leaves[2].grad.any()
    empty = np.zeros((0, 3), np.float32), np.zeros((7, 3), np.float32), np.zeros(0, np.int64)
    assert rlox_gpu.linear_token_logprobs(*empty).shape == (0,)


class _Largest(TorchDispatchMode):
    """The most elements of a tensor that an op gives."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple) else (result,):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return result


def test_the_logits_never_exist(small_chunks):
    hidden, weight, tokens, bias = _layer(6, (40,), 2, 100)
    with _Largest() as largest:
        rows = on_torch._forward(hidden, weight, tokens, bias, 1.0, True)
    assert largest.elements <= max(4 * 16, weight.numel())
    with _Largest() as largest:
        on_torch._backward(
            hidden, weight, tokens, bias, *rows[1:], rows.logprobs, None, 1.0, [True] * 3
        )
    assert largest.elements <= max(4 * 16, weight.numel())


def test_numpy_memory_is_one_chunk():
    rng = np.random.default_rng(7)
    hidden = rng.standard_normal((1500, 4), np.float32)
    weight = rng.standard_normal((20000, 4), np.float32)
    tokens = rng.integers(20000, size=1500)
    rlox_gpu.linear_token_logprobs(hidden[:2], weight, tokens[:2])
    tracemalloc.start()
    rlox_gpu.linear_token_logprobs(hidden, weight, tokens)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 1.05 * 4 * 1024 * 8192


def test_dlpack_arrays_come_back_as_their_own_kind():
    hidden, weight, tokens, bias = (x.numpy() for x in _layer(8, (5,), 3, 20))
    want = rlox_gpu.linear_token_logprobs(hidden, weight, tokens, bias=bias)
    arrays = [NamespacedArray(x) for x in (hidden, weight, tokens)]
    got = rlox_gpu.linear_token_logprobs(*arrays, bias=NamespacedArray(bias))
    np.testing.assert_array_equal(got.array, want)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("entropy", [True, False])
def test_ops_pass_opcheck(entropy):
    hidden, weight, tokens, bias = _layer(9, (2, 3), 4, 10)
    rlox_gpu.linear_token_logprobs(hidden, weight, tokens)
    leaves = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
    torch.library.opcheck(
        ops.linear_token_logprobs.default, (*leaves[:2], tokens, leaves[2], 0.7, entropy)
    )
    logprobs, *saved = ops.linear_token_logprobs(hidden, weight, tokens, None, 0.7, entropy)
    grad_entropies = saved[0] if entropy else None
    torch.library.opcheck(
        ops.linear_token_logprobs_backward.default,
        (hidden, weight, tokens, None, *saved, logprobs, grad_entropies, 0.7, [True, True, False]),
    )


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiles_without_a_graph_break():
    def scores(hidden, weight, tokens):
        got = rlox_gpu.linear_token_logprobs(hidden.tanh(), weight, tokens, return_entropy=True)
        return (got.logprobs - got.entropies).sum()

    torch.compiler.reset()
    compiled = torch.compile(scores, backend="aot_eager", fullgraph=True)
    hidden, weight, tokens, _ = _layer(10, (3,), 4, 10)
    gradients = []
    for function in (compiled, scores):
        leaves = [x.clone().requires_grad_() for x in (hidden, weight)]
        function(*leaves, tokens).backward()
        gradients.append([x.grad for x in leaves])
    torch.testing.assert_close(*gradients)


def test_autocast_changes_nothing():
    hidden, weight, tokens, _ = _layer(11, (3,), 4, 10, torch.float32)
    want = rlox_gpu.linear_token_logprobs(hidden, weight, tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rlox_gpu.linear_token_logprobs(hidden, weight, tokens), want)


def test_a_second_derivative_is_refused():
    hidden, weight, tokens, _ = _layer(12, (3,), 4, 10)
    leaf = hidden.requires_grad_()
    score = rlox_gpu.linear_token_logprobs(leaf, weight, tokens).sum()
    (first,) = torch.autograd.grad(score, leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="second"):
        first.sum().backward()


BAD_CALLS = {
    "hidden dtype": ({"hidden": np.zeros((3, 4), np.int64)}, TypeError, "hidden"),
    "hidden 0-d": ({"hidden": np.zeros(())}, ValueError, "hidden"),
    "weight 1-d": ({"weight": np.zeros(4, np.float32)}, ValueError, "weight"),
    "weight list": ({"weight": [[0.0]]}, ValueError, "weight"),
    "weight width": ({"weight": np.zeros((9, 5), np.float32)}, ValueError, "weight"),
    "weight dtype": ({"weight": np.zeros((9, 4))}, TypeError, "weight"),
    "weight of nothing": ({"weight": np.zeros((0, 4), np.float32)}, ValueError, "weight"),
    "weight torch": ({"weight": torch.zeros(9, 4)}, TypeError, "weight"),
    "tokens shape": ({"tokens": np.zeros(4, np.int64)}, ValueError, "tokens"),
    "tokens dtype": ({"tokens": np.zeros(3, np.float32)}, TypeError, "tokens"),
    "token large": ({"tokens": np.array([0, 9, 2])}, ValueError, r"tokens.*\[0, 9\).*9"),
    "bias shape": ({"bias": np.zeros(4, np.float32)}, ValueError, "bias"),
    "bias dtype": ({"bias": np.zeros(9)}, TypeError, "bias"),
    "temperature": ({"temperature": 0.0}, ValueError, "temperature"),
}


@pytest.mark.parametrize(("changes", "error", "name"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_named(changes, error, name):
    arguments = {
        "hidden": np.zeros((3, 4), np.float32),
        "weight": np.zeros((9, 4), np.float32),
        "tokens": np.zeros(3, np.int64),
    } | changes
    arrays = [arguments.pop(x) for x in ("hidden", "weight", "tokens")]
    with pytest.raises(error, match=name):
        rlox_gpu.linear_token_logprobs(*arrays, **arguments)
