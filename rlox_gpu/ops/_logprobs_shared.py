"""What the log-probabilities of NumPy arrays and of torch tensors share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._checks import described
from ._arguments import FLOATS, INTEGERS, check_dtype, check_like

CHUNK_ROWS = 1024
CHUNK_COLUMNS = 8192


class Rows(NamedTuple):
    """What is known of each row, ``[...]``: all that is needed to join parts of a vocabulary.

    ``log_sums`` are the logarithms of the sums of ``exp((logits - maxima) / temperature)``;
    ``entropies`` have no elements unless they are wanted.
    """

    logprobs: Any
    entropies: Any
    maxima: Any
    log_sums: Any


def check_logits(logits: Any, tokens: Any) -> None:
    """Raise unless the arguments of ``token_logprobs`` fit each other."""
    check_rows_of_logits(logits)
    check_like("tokens", tokens, "logits", logits, dtypes=INTEGERS, shape=logits.shape[:-1])


def check_rows_of_logits(logits: Any) -> None:
    """Raise unless ``logits`` are floats ``[..., V]``."""
    check_dtype("logits", logits, FLOATS)
    if logits.ndim == 0:
        raise ValueError("logits: expected shape [..., V], got ()")
    _check_vocabulary("logits", logits, logits.shape[-1])


def check_linear(hidden: Any, weight: Any, tokens: Any, bias: Any) -> None:
    """Raise unless the arguments of ``linear_token_logprobs`` fit each other."""
    check_dtype("hidden", hidden, FLOATS)
    if hidden.ndim == 0:
        raise ValueError("hidden: expected shape [..., H], got ()")
    if getattr(weight, "ndim", 0) != 2:
        raise ValueError(f"weight: expected shape [V, H], got {described(weight)}")
    wanted = (weight.shape[0], hidden.shape[-1])
    check_like("weight", weight, "hidden", hidden, shape=wanted)
    _check_vocabulary("weight", weight, weight.shape[0])
    if bias is not None:
        check_like("bias", bias, "hidden", hidden, shape=(weight.shape[0],))
    check_like("tokens", tokens, "hidden", hidden, dtypes=INTEGERS, shape=hidden.shape[:-1])


def _check_vocabulary(name: str, x: Any, size: int) -> None:
    if not 0 < size < 2**31:
        raise ValueError(f"{name}: expected a vocabulary of 1 to 2**31 - 1 tokens, got {size}")


def check_range(lowest: int, highest: int, vocabulary: int) -> None:
    """Raise ValueError unless tokens between these bounds are in ``[0, vocabulary)``."""
    if lowest < 0 or highest >= vocabulary:
        outside = lowest if lowest < 0 else highest
        raise ValueError(f"tokens: expected integers in [0, {vocabulary}), got {outside}")


def two_strides(
    shape: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """``shape`` as at most two dimensions with their strides, outer first; None if it takes more.

    The strides are those of the elements of ``shape`` in C order.
    """
    joined = [(1, 0), (1, 0)]
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        last_size, last_stride = joined[-1]
        if last_size == 1:
            joined[-1] = (size, stride)
        elif last_stride == size * stride:
            joined[-1] = (last_size * size, stride)
        else:
            joined.append((size, stride))
    if len(joined) > 3 or (len(joined) == 3 and joined[0][0] != 1):
        return None
    (outer, outer_stride), (inner, inner_stride) = joined[-2:]
    return (outer, inner), (outer_stride, inner_stride)


def chunks(count: int, size: int) -> Iterator[slice]:
    """``range(count)`` in slices of at most ``size``."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def nothing_yet(xp: Any, like: Any, *, entropy: bool) -> Rows:
    """The rows of an empty vocabulary; ``xp`` is numpy or torch, ``like`` one number per row."""
    empty = xp.full_like(like, -np.inf)
    entropies = xp.zeros_like(like) if entropy else like[:0]
    return Rows(xp.full_like(like, np.nan), entropies, empty, empty)


def joined(xp: Any, a: Rows, b: Rows, in_b: Any, temperature: float) -> Rows:
    """The rows of two parts of a vocabulary as one; ``in_b`` says whose token is in the second.

    The entropy of two parts with the shares w and 1 - w is
    ``w (H_a - ln w) + (1 - w) (H_b - ln(1 - w))``.
    """
    maxima = xp.maximum(a.maxima, b.maxima)
    # A part all of whose tokens are excluded has a share of zero.
    origin = xp.where(maxima == -np.inf, 0.0, maxima)
    log_sums = [(part.maxima - origin) / temperature + part.log_sums for part in (a, b)]
    log_sum = xp.logaddexp(*log_sums)
    shares = [xp.where(x == -np.inf, x, x - log_sum) for x in log_sums]
    chosen = xp.where(b.maxima == -np.inf, b.maxima, b.logprobs + shares[1])
    logprobs = xp.where(in_b, chosen, a.logprobs + shares[0])
    entropies = a.entropies
    if entropies.shape == maxima.shape:
        parts = zip((a.entropies, b.entropies), shares, strict=True)
        terms = [xp.where(s == -np.inf, 0.0, xp.exp(s) * (h - s)) for h, s in parts]
        entropies = terms[0] + terms[1]
    return Rows(logprobs, entropies, maxima, log_sum)


def settled(xp: Any, rows: Rows) -> Rows:
    """``rows`` of the whole vocabulary: NaN where all of it is excluded."""
    logprobs, entropies = (
        xp.where(rows.maxima == -np.inf, np.nan, x) if x.shape == rows.maxima.shape else x
        for x in rows[:2]
    )
    return Rows(logprobs, entropies, rows.maxima, rows.log_sums)
