"""What the divergence of categoricals has in common on arrays and tensors: checks, and the call."""

from __future__ import annotations

from typing import Any

from .. import _rust
from ._arguments import FLAGS, FLOATS, address, check_like, dtype_name
from ._kl_arguments import SEQUENCE
from ._logprobs_shared import check_rows_of_logits

# Logits as the compiled core names them: address, rows and their strides as ``[outer, inner]``.
Place = tuple[int, tuple[int, int], tuple[int, int]]


def check_full_kl(logits: Any, ref_logits: Any, mask: Any) -> None:
    """Raise unless the arguments fit each other; ``logits`` sets shape, dtype and device."""
    check_rows_of_logits(logits)
    check_like("ref_logits", ref_logits, "logits", logits)
    if mask is not None:
        check_like("mask", mask, "logits", logits, dtypes=FLAGS, shape=logits.shape[:-1])


def check_reduction(logits: Any, reduction: int) -> None:
    """Raise ValueError if there are no tokens to sum over."""
    if reduction == SEQUENCE and logits.ndim < 2:
        raise ValueError(
            f"logits: expected shape [..., T, V] to sum over T, got {tuple(logits.shape)}"
        )


def forward_in_rust(
    places: tuple[Place, Place],
    logits: Any,
    flags: Any,
    temperature: float,
    divergences: Any,
    statistics: Any,
) -> None:
    """Fill contiguous ``divergences``, ``[rows]``, and ``statistics``, ``[rows, 4]``."""
    _rust.full_kl_raw(
        *places,
        logits.shape[-1],
        FLOATS[dtype_name(logits)],
        0 if flags is None else address(flags),
        temperature,
        address(divergences),
        address(statistics),
    )
