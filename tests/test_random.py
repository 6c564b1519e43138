"""Counter-based draws: words, order, independence from shape, permutations."""

import numpy as np
import pytest
import torch
from random_reference import permutation_reference, philox_reference, uniform_reference

from rlox_gpu.ops.random import permutation, uniform

SEEDS_AND_STEPS = [(0, 0), (1, 1), (2**64 - 1, 2**32 - 1), (12345678901234567890, 7)]
SIZES = [0, 1, 2, 3, 4, 5, 63, 64, 1000]


def test_reference_gives_the_published_words():
    # The known-answer vectors of Random123 for philox4x32-10.
    words = philox_reference(0x299F31D0A4093822, [0x85A308D3243F6A88], 0x13198A2E, 0x03707344)
    assert [int(w[0]) for w in words] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize(("seed", "step"), SEEDS_AND_STEPS)
@pytest.mark.parametrize("count", SIZES)
def test_uniform_is_philox_word_by_word(count, seed, step):
    out = torch.full((count,), torch.nan)
    assert uniform(out, seed=seed, step=step, stream=3) is out
    np.testing.assert_array_equal(out.numpy(), uniform_reference(count, seed, step, 3))


def test_uniform_fills_any_shape_in_memory_order():
    flat = uniform(torch.empty(24), seed=5, step=0, stream=1)
    assert torch.equal(uniform(torch.empty(2, 3, 4), seed=5, step=0, stream=1).flatten(), flat)


def test_uniform_is_uniform():
    draws = uniform(torch.empty(200_000), seed=11, step=2, stream=1)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = torch.histc(draws, 100, 0, 1)
    # 99 degrees of freedom: 181 is the quantile of one in a million.
    assert ((counts - 2000) ** 2 / 2000).sum() < 181


@pytest.mark.parametrize(("seed", "step"), SEEDS_AND_STEPS)
@pytest.mark.parametrize("count", SIZES)
def test_permutation_is_the_defined_one(count, seed, step):
    got = permutation(count, seed=seed, step=step)
    assert got.dtype is torch.int64
    expected = permutation_reference(count, seed, step)
    np.testing.assert_array_equal(got.numpy(), expected)
    np.testing.assert_array_equal(np.sort(got.numpy()), np.arange(count))


def test_permutation_changes_with_seed_and_step():
    first = permutation(100, seed=0, step=0)
    assert not torch.equal(first, permutation(100, seed=1, step=0))
    assert not torch.equal(first, permutation(100, seed=0, step=1))
    assert torch.equal(first, permutation(100, seed=0, step=0, device="cpu"))


def test_ops_pass_opcheck():
    out = torch.empty(9)
    torch.library.opcheck(torch.ops.rlox_gpu.uniform_.default, (out, -1, 2, 3))
    order = torch.empty(9, dtype=torch.int64)
    torch.library.opcheck(torch.ops.rlox_gpu.permutation_.default, (order, 1, 2))


@pytest.mark.unpoisoned
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiles_without_a_graph_break():
    def shuffled(x):
        order = permutation(x.shape[0], seed=2**64 - 1, step=3)
        return x[order], uniform(torch.empty(5), seed=2**63, step=4, stream=1)

    torch.compiler.reset()
    compiled = torch.compile(shuffled, backend="aot_eager", fullgraph=True)
    for got, want in zip(compiled(torch.arange(9)), shuffled(torch.arange(9)), strict=True):
        assert torch.equal(got, want)


BAD_UNIFORM = {
    "out list": ({"out": [0.0]}, TypeError, "out"),
    "out dtype": ({"out": torch.empty(3, dtype=torch.float64)}, TypeError, "out"),
    "out strided": ({"out": torch.empty(6)[::2]}, ValueError, "out"),
    "seed negative": ({"seed": -1}, ValueError, "seed"),
    "seed large": ({"seed": 2**64}, ValueError, "seed"),
    "seed float": ({"seed": 1.0}, TypeError, "seed"),
    "seed bool": ({"seed": True}, TypeError, "seed"),
    "step large": ({"step": 2**32}, ValueError, "step"),
    "stream negative": ({"stream": -1}, ValueError, "stream"),
}


@pytest.mark.parametrize(("changes", "error", "name"), BAD_UNIFORM.values(), ids=BAD_UNIFORM)
def test_bad_uniform_input_is_named(changes, error, name):
    arguments = {"out": torch.empty(3), "seed": 0, "step": 0, "stream": 0} | changes
    with pytest.raises(error, match=name):
        uniform(arguments.pop("out"), **arguments)


@pytest.mark.parametrize(
    ("n", "error"), [(-1, ValueError), (2**32 + 1, ValueError), (1.5, TypeError), ("3", TypeError)]
)
def test_bad_permutation_length_is_named(n, error):
    with pytest.raises(error, match="n:"):
        permutation(n, seed=0, step=0)
