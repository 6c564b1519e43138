"""Packing, the store of sequences and preference pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlox_gpu import DPOPair, VarLenStore, pack_sequences

KEYS = ["input_ids", "attention_mask", "position_ids", "sequence_starts"]


def sequences_of(lengths):
    return [np.arange(length, dtype=np.uint32) + 100 * at for at, length in enumerate(lengths)]


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(0, 12), max_size=30), extra=st.integers(0, 20))
def test_rlox_packs_the_same_rows(lengths, extra):
    rlox = pytest.importorskip("rlox")
    sequences = sequences_of(lengths)
    most = max(lengths, default=0) + extra
    rows, expected = pack_sequences(sequences, most), rlox.pack_sequences(sequences, most)
    assert len(rows) == len(expected)
    for got, want in zip(rows, expected, strict=True):
        for key in KEYS:
            assert got[key].dtype == want[key].dtype
            np.testing.assert_array_equal(got[key], want[key])


def test_the_longest_go_first_and_ties_keep_their_order():
    rows = pack_sequences(sequences_of([1, 2, 3, 2]), 4)
    assert [list(row["input_ids"]) for row in rows] == [
        [200, 201, 202, 0],
        [100, 101, 300, 301],
    ]
    assert list(rows[1]["position_ids"]) == [0, 1, 0, 1]
    assert list(rows[1]["cu_seqlens"]) == [0, 2, 4]
    assert rows[1]["cu_seqlens"].dtype == np.int32


def test_every_token_is_packed_once():
    sequences = sequences_of(np.random.default_rng(0).integers(0, 50, 1000))
    rows = pack_sequences(sequences, 64)
    packed = np.concatenate([row["input_ids"] for row in rows])
    assert sorted(packed) == sorted(np.concatenate(sequences))
    assert max(len(row["input_ids"]) for row in rows) <= 64


@pytest.mark.parametrize("kind", [list, torch.tensor, lambda x: np.array(x, np.int64)[::1]])
def test_any_integers_are_tokens(kind):
    (row,) = pack_sequences([kind([1, 2, 3]), kind([4])], 8)
    assert row["input_ids"].dtype == np.uint32
    assert list(row["input_ids"]) == [1, 2, 3, 4]


def test_nothing_gives_nothing():
    assert pack_sequences([], 8) == []
    (row,) = pack_sequences([[]], 0)
    assert row["input_ids"].shape == (0,)


@pytest.mark.parametrize(
    ("sequences", "max_length", "error", "name"),
    [
        ([[1], [1, 2, 3]], 2, ValueError, r"sequences\[1\].*got 3"),
        ([[1.5]], 2, TypeError, r"sequences\[0\]"),
        ([[-1]], 2, ValueError, r"sequences\[0\]"),
        ([[2**32]], 2, ValueError, r"sequences\[0\]"),
        ([[[1]]], 2, ValueError, r"sequences\[0\]"),
        ([[1]], -1, ValueError, "max_length"),
        ([[1]], 2.0, TypeError, "max_length"),
    ],
)
def test_bad_input_is_named(sequences, max_length, error, name):
    with pytest.raises(error, match=name):
        pack_sequences(sequences, max_length)


def test_a_store_keeps_what_it_was_given():
    store = VarLenStore()
    tokens = np.array([1, 2, 3], np.uint32)
    store.push(tokens)
    store.push([])
    store.push(torch.tensor([9]))
    tokens[:] = 0
    store.get(2)[:] = 0
    assert [list(store.get(at)) for at in range(3)] == [[1, 2, 3], [], [9]]
    assert store.get(1).dtype == np.uint32
    assert (store.num_sequences(), store.total_elements(), len(store)) == (3, 4, 3)
    with pytest.raises(IndexError, match="index"):
        store.get(3)
    with pytest.raises(ValueError, match="index"):
        store.get(-1)
    with pytest.raises(TypeError, match="seq"):
        store.push(["a"])


def test_a_pair_has_its_arrays_and_lengths():
    pair = DPOPair(np.array([1, 2], np.uint32), [3, 4, 5], rejected_tokens=[6])
    assert (pair.chosen_len(), pair.rejected_len()) == (3, 1)
    assert list(pair.prompt_tokens) == [1, 2]
    assert pair.chosen_tokens.dtype == pair.rejected_tokens.dtype == np.uint32
    assert "chosen: 3" in repr(pair)
    with pytest.raises(TypeError, match="chosen_tokens"):
        DPOPair([1], [0.5], [1])
