"""Running means and variances, and normalising with them.

A state is a float64 array ``[3, D]``: for each of D features how many numbers were seen, their
mean, and the sum of their squared distances from it. States merge exactly (Chan, Golub and LeVeque,
"Algorithms for computing the sample variance", 1983): gather those of all ranks, stack them, and
:func:`merge_moments` gives that of all the data. A number that is NaN or infinite is not counted.
"""

from __future__ import annotations

from typing import Any

from .._checks import finite_number
from ._arguments import FLAGS, FLOATS, check_dtype, check_like
from ._kinds import implementation


def update_moments(state: Any, x: Any, *, mask: Any = None) -> Any:
    """Take a batch into ``state``, in place; on a GPU in one launch, and nothing waits for it.

    Parameters
    ----------
    state : array, float64 ``(3, D)``, contiguous
        Count, mean and sum of squared distances of each feature; zeros to start with.
    x : array, ``(B, D)``
        float16, bfloat16, float32 or float64. What is not finite is left out of its feature.
    mask : array of flags, ``(B,)``, optional
        Nonzero where a row counts.

    Returns
    -------
    array
        ``state``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    References
    ----------
    Welford, "Note on a method for calculating corrected sums of squares and products", 1962.
    """
    call = implementation("x", x, "statistics", "update_moments")
    check_dtype("x", x, FLOATS)
    if len(x.shape) != 2:
        raise ValueError(f"x: expected shape (B, D), got {tuple(x.shape)}")
    check_like("state", state, "x", x, dtypes=["float64"], shape=(3, x.shape[1]))
    if mask is not None:
        check_like("mask", mask, "x", x, dtypes=FLAGS, shape=x.shape[:1])
    call(state, x, mask)
    return state


def merge_moments(states: Any) -> Any:
    """The state of all the data behind ``states``, an array ``(R, 3, D)``; the result ``(3, D)``.

    Raises
    ------
    ValueError
        If there are no states or the shape is another one.
    """
    if len(states.shape) != 3 or states.shape[1] != 3 or states.shape[0] == 0:
        raise ValueError(f"states: expected shape (R, 3, D) with R > 0, got {tuple(states.shape)}")
    merged = states[0] * 1.0
    for state in states[1:]:
        merge_into(merged, state)
    return merged


def merge_into(state: Any, other: Any) -> None:
    """Make ``state`` that of both, in place; arrays of any library."""
    count = state[0] + other[0]
    delta = other[1] - state[1]
    share = other[0] / (count + (count == 0))
    state[2] += other[2] + delta * delta * state[0] * share
    state[1] += delta * share
    state[0] += other[0]


def normalize(x: Any, mean: Any, var: Any, *, clip: float | None = None, eps: float = 1e-8) -> Any:
    """``(x - mean) / max(sqrt(var), eps)``, kept within ``[-clip, clip]``, in one launch on a GPU.

    Computed in float64; NaN stays NaN.

    Parameters
    ----------
    x : array, ``(..., D)``
        float16, bfloat16, float32 or float64.
    mean, var : array, float64 ``(D,)``
        What to subtract, and the square of what to divide by.
    clip : float, optional
        The largest magnitude of a result.
    eps : float
        The least divisor.

    Returns
    -------
    array
        Of the kind, shape, dtype and device of ``x``; a constant of the autograd graph.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    call = implementation("x", x, "statistics", "normalize")
    check_dtype("x", x, FLOATS)
    if len(x.shape) == 0:
        raise ValueError("x: expected at least one dimension, got none")
    for name, numbers in (("mean", mean), ("var", var)):
        check_like(name, numbers, "x", x, dtypes=["float64"], shape=x.shape[-1:])
    bound = float("inf") if clip is None else finite_number("clip", clip)
    return call(x, mean, var, bound, finite_number("eps", eps))
