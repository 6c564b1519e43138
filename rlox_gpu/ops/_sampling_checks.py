"""Checks that the NumPy and the torch form of the sampling ops share."""

from __future__ import annotations

from typing import Any

from ._arguments import FLOATS, check_dtype, check_like


def check_rows(name: str, x: Any) -> None:
    """Raise unless ``x`` is floating and has a last dimension with something in it.

    Raises
    ------
    TypeError
        If the dtype is none of the floating ones.
    ValueError
        If there is no last dimension or it is empty.
    """
    check_dtype(name, x, FLOATS)
    if len(x.shape) == 0 or x.shape[-1] == 0:
        raise ValueError(
            f"{name}: expected at least one dimension and at least one entry along the last, "
            f"got shape {tuple(x.shape)}"
        )


def check_gaussian(mean: Any, log_std: Any) -> None:
    """Raise unless ``mean`` is ``[..., D]`` and ``log_std`` like it or ``[D]``.

    Raises
    ------
    TypeError
        If a kind or a dtype does not fit.
    ValueError
        If a shape or a device does not fit.
    """
    check_rows("mean", mean)
    shared = len(getattr(log_std, "shape", ())) == 1
    check_like("log_std", log_std, "mean", mean, shape=mean.shape[-1:] if shared else None)
