"""Log-probabilities of tokens for NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _rust
from .._checks import positive_number
from ._arguments import FLOATS, address, dtype_name
from ._logprobs_shared import (
    CHUNK_COLUMNS,
    CHUNK_ROWS,
    Rows,
    check_linear,
    check_logits,
    check_range,
    chunks,
    joined,
    nothing_yet,
    settled,
    two_strides,
)

_Array = NDArray[Any]
_Pair = tuple[_Array, _Array | None]


def token_logprobs(
    logits: _Array, tokens: _Array, temperature: float, return_entropy: bool
) -> _Pair:
    """``rlox_gpu.token_logprobs`` for NumPy arrays."""
    temperature = positive_number("temperature", temperature)
    check_logits(logits, tokens)
    tokens = _checked_tokens(tokens, logits.shape[-1])
    rows = _streamed(logits, tokens, temperature, return_entropy)
    return rows.logprobs, rows.entropies if return_entropy else None


def linear_token_logprobs(
    hidden: _Array,
    weight: _Array,
    tokens: _Array,
    bias: _Array | None,
    temperature: float,
    return_entropy: bool,
) -> _Pair:
    """``rlox_gpu.linear_token_logprobs`` for NumPy arrays."""
    temperature = positive_number("temperature", temperature)
    check_linear(hidden, weight, tokens, bias)
    shape = tokens.shape
    tokens = _checked_tokens(tokens, len(weight)).reshape(-1)
    states = hidden.reshape(-1, hidden.shape[-1])
    logprobs = np.empty(tokens.shape, real_dtype(hidden))
    entropies = np.empty_like(logprobs) if return_entropy else None
    for part in chunks(len(tokens), CHUNK_ROWS):
        rows = nothing_yet(np, logprobs[part], entropy=return_entropy)
        for columns in chunks(len(weight), CHUNK_COLUMNS):
            local = tokens[part] - columns.start
            added = None if bias is None else bias[columns]
            logits = _product(states[part], weight[columns], added)
            found = _streamed(logits, local, temperature, return_entropy)
            del logits  # before the next chunk is made
            inside = (local >= 0) & (local < columns.stop - columns.start)
            with np.errstate(invalid="ignore"):
                rows = joined(np, rows, found, inside, temperature)
        rows = settled(np, rows)
        logprobs[part] = rows.logprobs
        if entropies is not None:
            entropies[part] = rows.entropies
    return logprobs.reshape(shape), None if entropies is None else entropies.reshape(shape)


def _product(states: _Array, weight: _Array, bias: _Array | None) -> _Array:
    real = real_dtype(states)
    product: _Array = states.astype(real, copy=False) @ weight.astype(real, copy=False).T
    if bias is not None:
        product += bias
    return product


def real_dtype(x: _Array) -> np.dtype[Any]:
    """What results and sums over ``x`` are formed in."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def _checked_tokens(tokens: _Array, vocabulary: int) -> _Array:
    if tokens.size:
        check_range(int(tokens.min()), int(tokens.max()), vocabulary)
    return np.ascontiguousarray(tokens, np.int64).reshape(tokens.shape)


def _streamed(logits: _Array, tokens: _Array, temperature: float, entropy: bool) -> Rows:
    """What one pass over ``logits`` finds; a token outside the vocabulary gives NaN."""
    logprobs, maxima, log_sums = (np.empty(tokens.shape, real_dtype(logits)) for _ in range(3))
    entropies = np.empty(tokens.shape if entropy else (0,), logprobs.dtype)
    if tokens.size:
        logits, shape, strides = laid_out(logits)
        _rust.token_logprobs_raw(
            address(logits),
            (*shape, logits.shape[-1]),
            strides,
            FLOATS[dtype_name(logits)],
            address(tokens),
            temperature,
            address(logprobs),
            address(entropies) if entropy else 0,
            address(maxima),
            address(log_sums),
        )
    return Rows(logprobs, entropies, maxima, log_sums)


def laid_out(logits: _Array) -> tuple[_Array, tuple[int, int], tuple[int, int]]:
    """``logits`` with contiguous rows, and the two dimensions and strides of the rows."""
    size = logits.itemsize
    rows = None
    whole = logits.flags.aligned and not any(stride % size for stride in logits.strides)
    if whole and (logits.shape[-1] == 1 or logits.strides[-1] == size):
        rows = two_strides(logits.shape[:-1], [stride // size for stride in logits.strides[:-1]])
    if rows is None:
        logits = np.array(logits, order="C")
        rows = two_strides(logits.shape[:-1], [stride // size for stride in logits.strides[:-1]])
        assert rows is not None
    return logits, *rows
