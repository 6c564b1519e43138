"""Sequences of different lengths: packed into rows of bounded length, stored, and in pairs.

The names are rlox's, and so are the dtypes: tokens are uint32. Wherever an array of tokens is
expected, anything is taken that ``numpy.asarray`` turns into integers in [0, 2**32) of one
dimension.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import described, integer

_TOKENS = 1 << 32


def pack_sequences(sequences: Iterable[Any], max_length: int) -> list[dict[str, NDArray[Any]]]:
    """Pack sequences into as few rows as first-fit-decreasing finds.

    Sequences are taken from the longest to the shortest, those of one length in their order, and
    each goes to the first row that still has room for it.

    Parameters
    ----------
    sequences : iterable of arrays ``(L,)``
        Tokens.
    max_length : int
        Tokens that a row may hold.

    Returns
    -------
    list of dict
        One per row, with arrays ``input_ids``, ``attention_mask`` (ones), ``position_ids`` (from 0
        in each sequence), all uint32 ``(row length,)``, ``sequence_starts`` uint64 ``(number of
        sequences,)``, and, which rlox has not, ``cu_seqlens``: int32, the starts and the row's
        length, as ``cu_seqlens`` arguments of this and other libraries take it. Rows are not
        padded.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a sequence is longer than ``max_length``.
    """
    max_length = integer("max_length", max_length, 1 << 31)
    tokens = [as_tokens(f"sequences[{at}]", sequence) for at, sequence in enumerate(sequences)]
    for at, sequence in enumerate(tokens):
        if len(sequence) > max_length:
            raise ValueError(
                f"sequences[{at}]: expected at most max_length = {max_length} tokens, "
                f"got {len(sequence)}"
            )
    rows = _first_fit_decreasing([len(sequence) for sequence in tokens], max_length)
    return [_packed([tokens[at] for at in row]) for row in rows]


def _first_fit_decreasing(lengths: list[int], capacity: int) -> list[list[int]]:
    """Indices into ``lengths`` by row."""
    rows: list[list[int]] = []
    room = np.zeros(len(lengths), np.int64)
    for at in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        row = int((room[: len(rows)] >= lengths[at]).argmax()) if rows else 0
        if not rows or room[row] < lengths[at]:
            row = len(rows)
            rows.append([])
            room[row] = capacity
        rows[row].append(at)
        room[row] -= lengths[at]
    return rows


def _packed(sequences: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    boundaries = np.cumsum([0, *map(len, sequences)])
    input_ids = np.concatenate(sequences)
    return {
        "input_ids": input_ids,
        "attention_mask": np.ones_like(input_ids),
        "position_ids": np.concatenate([np.arange(len(x), dtype=np.uint32) for x in sequences]),
        "sequence_starts": boundaries[:-1].astype(np.uint64),
        "cu_seqlens": boundaries.astype(np.int32),
    }


class VarLenStore:
    """Token sequences of any lengths, in the order in which they came."""

    def __init__(self) -> None:
        self._sequences: list[NDArray[Any]] = []
        self._elements = 0

    def push(self, seq: Any) -> None:
        """Store a copy of a sequence ``(L,)``."""
        sequence: NDArray[Any] = as_tokens("seq", seq).copy()
        self._sequences.append(sequence)
        self._elements += len(sequence)

    def get(self, index: int) -> NDArray[Any]:
        """A copy of the sequence that came as number ``index``; IndexError if there is none."""
        if integer("index", index, 1 << 63) >= len(self._sequences):
            raise IndexError(f"index: expected one below {len(self._sequences)}, got {index}")
        sequence: NDArray[Any] = self._sequences[index].copy()
        return sequence

    def num_sequences(self) -> int:
        """How many sequences are stored."""
        return len(self._sequences)

    def total_elements(self) -> int:
        """How many tokens they have together."""
        return self._elements

    def __len__(self) -> int:
        return len(self._sequences)


class DPOPair:
    """A prompt with a preferred and a rejected completion, each uint32 ``(L,)``.

    rlox has the arguments and the two lengths; the arrays are attributes here.
    """

    def __init__(self, prompt_tokens: Any, chosen_tokens: Any, rejected_tokens: Any) -> None:
        self.prompt_tokens = as_tokens("prompt_tokens", prompt_tokens)
        self.chosen_tokens = as_tokens("chosen_tokens", chosen_tokens)
        self.rejected_tokens = as_tokens("rejected_tokens", rejected_tokens)

    def chosen_len(self) -> int:
        """Tokens of the preferred completion."""
        return len(self.chosen_tokens)

    def rejected_len(self) -> int:
        """Tokens of the rejected completion."""
        return len(self.rejected_tokens)

    def __repr__(self) -> str:
        return (
            f"DPOPair(prompt: {len(self.prompt_tokens)} tokens, chosen: {self.chosen_len()}, "
            f"rejected: {self.rejected_len()})"
        )


def as_tokens(name: str, sequence: Any) -> NDArray[Any]:
    """``sequence`` as uint32 ``(L,)``, itself where it is that already.

    Raises
    ------
    TypeError
        If it holds no integers.
    ValueError
        If it has not one dimension, or holds a number outside [0, 2**32).
    """
    tokens = np.asarray(sequence)
    if tokens.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {tokens.shape}")
    if tokens.dtype == np.uint32:
        return tokens
    if tokens.size == 0:
        return np.empty(0, np.uint32)
    if tokens.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {described(sequence)} of {tokens.dtype}")
    if tokens.min() < 0 or tokens.max() >= _TOKENS:
        raise ValueError(
            f"{name}: expected tokens in [0, 2**32), got {tokens.min()} to {tokens.max()}"
        )
    return tokens.astype(np.uint32)
