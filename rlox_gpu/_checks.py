"""Checks that several ops share; each message names the argument, what came, what was expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

# What a seed and a word of a counter are less than.
SEEDS = 1 << 64
WORDS = 1 << 32


def unit_number(name: str, value: Any) -> float:
    """``value`` as a float in [0, 1].

    Raises
    ------
    TypeError
        If it is no plain real number (tensors and arrays are none).
    ValueError
        If it is outside [0, 1] or NaN.
    """
    number = value if type(value) is float else _real(name, value)
    if not 0.0 <= number <= 1.0:
        shown = "NaN" if math.isnan(number) else repr(number)
        raise ValueError(f"{name}: expected a number in [0, 1], got {shown}")
    return number


def finite_number(name: str, value: Any) -> float:
    """``value`` as a finite float of at least 0.

    Raises
    ------
    TypeError
        If it is no plain real number (tensors and arrays are none).
    ValueError
        If it is negative, infinite or NaN.
    """
    number = value if type(value) is float else _real(name, value, "of at least 0")
    if not 0.0 <= number < math.inf:
        raise ValueError(f"{name}: expected a finite number of at least 0, got {number!r}")
    return number


def positive_number(name: str, value: Any) -> float:
    """``value`` as a float from 1e-30 to 1e30, whose reciprocal every accumulator can hold.

    Raises
    ------
    TypeError
        If it is no plain real number (tensors and arrays are none).
    ValueError
        If it is outside that range or NaN.
    """
    number = value if type(value) is float else _real(name, value, "from 1e-30 to 1e30")
    if not 1e-30 <= number <= 1e30:
        shown = "NaN" if math.isnan(number) else repr(number)
        raise ValueError(f"{name}: expected a positive number from 1e-30 to 1e30, got {shown}")
    return number


def nonnegative(name: str, value: Any) -> float:
    """``value`` as a float of at least zero; infinity is one.

    Raises
    ------
    TypeError
        If it is no plain real number.
    ValueError
        If it is negative or NaN.
    """
    number = value if type(value) is float else _real(name, value, "of at least 0")
    if not number >= 0.0:
        raise ValueError(f"{name}: expected a number of at least 0, got {number!r}")
    return number


def _real(name: str, value: Any, domain: str = "in [0, 1]") -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a plain number {domain}, got {described(value)}")
    return float(value)


def integer(name: str, value: Any, stop: int) -> int:
    """``value`` as an int in [0, stop).

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is out of range.
    """
    # Asking for the type first is quicker than for what it can do.
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(f"{name}: expected an integer, got {described(value)}")
    number = int(value)
    if not 0 <= number < stop:
        raise ValueError(f"{name}: expected an integer in [0, {stop}), got {number}")
    return number


def choice(name: str, value: Any, choices: Mapping[str, int]) -> int:
    """What ``choices`` has for ``value``.

    Raises
    ------
    TypeError
        If it is no string.
    ValueError
        If it is none of the choices.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {', '.join(choices)}, got {described(value)}")
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    return choices[value]


def truncation_pair(truncated: Any, final_values: Any) -> None:
    """Raise ValueError if only one of the two is given."""
    if (truncated is None) is not (final_values is None):
        given, missing = (
            ("truncated", "final_values") if final_values is None else ("final_values", "truncated")
        )
        raise ValueError(
            f"{missing}: expected together with {given}, got None; a truncated step bootstraps "
            "from the value of its final observation"
        )


def described(value: Any) -> str:
    """The kind of ``value``, for a message."""
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return kind if shape is None else f"{kind} of shape {tuple(shape)}"
