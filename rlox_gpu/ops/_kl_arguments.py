"""What the divergences of arrays and tensors have in common: checks, codes, the compiled call."""

from __future__ import annotations

from typing import Any

from .. import _rust
from ._arguments import FLAGS, FLOATS, address, as_rows, check_dtype, check_like, dtype_name

KINDS = {"k1": 0, "k2": 1, "k3": 2}
REDUCTIONS = {"none": 0, "sum": 1, "mean": 2, "sequence": 3}
NONE, SUM, MEAN, SEQUENCE = range(4)
K1 = KINDS["k1"]


def check_token_kl(logprobs: Any, ref_logprobs: Any, ratio: Any, mask: Any, reduction: int) -> None:
    """Raise unless the arrays fit each other; ``logprobs`` sets shape, dtype and device."""
    check_dtype("logprobs", logprobs, FLOATS)
    check_like("ref_logprobs", ref_logprobs, "logprobs", logprobs)
    if ratio is not None:
        check_like("ratio", ratio, "logprobs", logprobs)
    if mask is not None:
        check_like("mask", mask, "logprobs", logprobs, dtypes=FLAGS)
    if reduction == SEQUENCE and logprobs.ndim == 0:
        raise ValueError("logprobs: expected at least one dimension to sum over, got shape ()")


def reduced_shape(shape: tuple[int, ...], reduction: int) -> tuple[int, ...]:
    """The shape of the result."""
    if reduction == NONE:
        return shape
    return shape[:-1] if reduction == SEQUENCE else ()


def forward_in_rust(
    logprobs: Any, ref_logprobs: Any, ratio: Any, mask: Any, kind: int, reduction: int, out: Any
) -> int:
    """Fill contiguous ``out``; the number of tokens that count, where they are reduced."""
    arrays = (logprobs, ref_logprobs, ratio, mask)
    shape, (first, second, third, fourth), _kept = as_rows(arrays, by_row=reduction == SEQUENCE)
    assert first is not None
    assert second is not None
    return _rust.token_kl_raw(
        first, second, third, fourth, address(out), shape, _codes(logprobs, mask), kind, reduction
    )


def backward_in_rust(
    grad: Any,
    divisor: int,
    logprobs: Any,
    ref_logprobs: Any,
    ratio: Any,
    mask: Any,
    kind: int,
    gradients: tuple[Any, Any, Any],
) -> None:
    """Fill those contiguous ``gradients`` that are not None."""
    shape, places, _kept = as_rows((grad, logprobs, ref_logprobs, ratio, mask))
    above, first, second, third, fourth = places
    assert above is not None
    assert first is not None
    assert second is not None
    to_logprobs, to_ref, to_ratio = (0 if x is None else address(x) for x in gradients)
    _rust.token_kl_backward_raw(
        above,
        divisor,
        first,
        second,
        third,
        fourth,
        (to_logprobs, to_ref, to_ratio),
        shape,
        _codes(logprobs, mask),
        kind,
    )


def _codes(logprobs: Any, mask: Any) -> tuple[int, int]:
    return FLOATS[dtype_name(logprobs)], 0 if mask is None else FLAGS[dtype_name(mask)]
