"""What the compiled core cannot read as it stands: tensors, lists, other dtypes and layouts."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import described


def as_rows(
    name: str, value: Any, dtype: np.dtype[Any], shape: list[int], rows: int | None
) -> NDArray[Any]:
    """``value`` as an aligned C-contiguous array of ``dtype``; a copy only where it has to be.

    ``rows`` is how many rows of ``shape`` it should hold: -1 for any number, None for one without
    the dimension of rows. Rows may come flat, one after the other.

    Raises
    ------
    TypeError
        If it is no array of numbers, or some would be changed by the conversion.
    ValueError
        If the shape does not fit.
    """
    array = _as_array(name, value)
    row = tuple(shape)
    if rows is not None:
        fits_rows(name, array.shape, row, rows)
    elif array.shape != row and not (math.prod(row) == 1 and array.size == 1):
        raise ValueError(f"{name}: expected shape {row}, got {array.shape}")
    return np.require(_cast(name, array, dtype), requirements=["C", "A"])


def fits_rows(name: str, given: tuple[int, ...], row: tuple[int, ...], rows: int) -> None:
    """Raise ValueError unless ``given`` is the shape of ``rows`` rows (-1 for any number).

    Rows may come flat, one after the other; one number per row may come as a column.
    """
    size, total = math.prod(row), math.prod(given)
    fits = len(given) > 0 and (given[1:] == row or (len(given) == 1 and total % size == 0))
    fits = fits or (size == 1 and len(given) > 0 and total == given[0])
    if not fits or (rows >= 0 and total != rows * size):
        inner = ", ".join(["B" if rows < 0 else str(rows), *map(str, row)])
        shape = f"({inner})" if row else f"({inner},)"
        raise ValueError(f"{name}: expected shape {shape}, got {given}")


def _as_array(name: str, value: Any) -> NDArray[Any]:
    array: NDArray[Any]
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        array = (value.float() if value.dtype is torch.bfloat16 else value).numpy()
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:  # rows of different lengths
            raise TypeError(f"{name}: expected an array, got {described(value)}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected an array of numbers, got {described(value)}")
    return array


def _cast(name: str, array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if array.dtype == dtype or dtype.kind == "f":
        same: NDArray[Any] = array.astype(dtype, copy=False)
        return same
    if dtype.kind == "b":
        return np.asarray(array != 0)
    if array.dtype.kind == "f":
        raise TypeError(f"{name}: expected {dtype} numbers, got {array.dtype}")
    bounds = np.iinfo(dtype)
    if array.size and not (bounds.min <= int(array.min()) and int(array.max()) <= bounds.max):
        raise ValueError(f"{name}: expected numbers that {dtype} holds, got some out of range")
    converted: NDArray[Any] = array.astype(dtype)
    return converted
