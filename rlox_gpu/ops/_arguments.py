"""Checks of array arguments, NumPy arrays and torch tensors alike, and the codes of their dtypes.

Each message names the argument, what came and what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from .. import _rust
from .._checks import described

# What the compiled core calls the dtypes: the first four are types of values, all are of flags.
FLOATS = {"float16": 0, "bfloat16": 1, "float32": 2, "float64": 3}
FLAGS = {
    **FLOATS,
    "bool": 4,
    "uint8": 4,
    "int8": 4,
    "int16": 5,
    "uint16": 5,
    "int32": 6,
    "uint32": 6,
    "int64": 7,
    "uint64": 7,
}
# NumPy takes microseconds to spell a dtype.
_NUMPY_NAMES = {np.dtype(name): name for name in FLAGS if name != "bfloat16"}
# Address, and the strides of rows and lanes in elements.
Strided = tuple[int, int, int]
INTEGERS = [name for name in FLAGS if "int" in name]


def dtype_name(x: Any) -> str:
    """``"float32"`` for an array of that dtype, whatever library it is of."""
    if isinstance(x, np.ndarray):
        return _NUMPY_NAMES.get(x.dtype) or str(x.dtype)
    return str(x.dtype).removeprefix("torch.")


def check_dtype(name: str, x: Any, expected: Collection[str]) -> str:
    """The dtype's name; TypeError unless it is one of ``expected``."""
    found = dtype_name(x)
    if found not in expected:
        raise TypeError(f"{name}: expected {_one_of(expected)}, got {found}")
    return found


def check_like(
    name: str,
    x: Any,
    like_name: str,
    like: Any,
    *,
    dtypes: Collection[str] | None = None,
    shape: Sequence[int] | None = None,
) -> None:
    """Raise unless ``x`` is of the kind and on the device of ``like``.

    Its dtype has to be one of ``dtypes`` (that of ``like`` if none are given), its shape ``shape``
    (that of ``like`` if none is given).

    Raises
    ------
    TypeError
        If the kind or the dtype does not fit.
    ValueError
        If the shape or the device does not fit.
    """
    numpy: bool = isinstance(like, np.ndarray)
    kind: Any = np.ndarray if numpy else _tensor_type()
    # A subclass such as Parameter counts as a tensor.
    if not isinstance(x, kind):
        expected = "NumPy array" if numpy else "torch tensor"
        raise TypeError(f"{name}: expected a {expected} like {like_name}, got {described(x)}")
    if dtypes is not None:
        check_dtype(name, x, dtypes)
    elif x.dtype != like.dtype:
        raise TypeError(
            f"{name}: expected {dtype_name(like)} like {like_name}, got {dtype_name(x)}"
        )
    wanted = tuple(like.shape if shape is None else shape)
    if tuple(x.shape) != wanted:
        raise ValueError(f"{name}: expected shape {wanted}, got {tuple(x.shape)}")
    if not numpy and x.device != like.device:
        raise ValueError(
            f"{name}: expected a tensor on {like.device} like {like_name}, got {x.device}"
        )


def check_tokens(token_mask: Any, like: Any) -> None:
    """Raise unless ``token_mask`` holds flags, a row of them for each element of ``like``."""
    shape: tuple[int, ...] = getattr(token_mask, "shape", ())
    width = shape[-1] if len(shape) else 0
    check_like("token_mask", token_mask, "rewards", like, dtypes=FLAGS, shape=(*like.shape, width))


def address(x: Any) -> int:
    """Where the first element lies in memory."""
    return _rust.array_address(x) if isinstance(x, np.ndarray) else int(x.data_ptr())


def is_contiguous(x: Any) -> bool:
    """Whether the elements lie in memory in their order, without gaps."""
    if isinstance(x, np.ndarray):
        return x.flags.c_contiguous
    return bool(x.is_contiguous())


def as_rows(
    arrays: Sequence[Any], *, by_row: bool = False
) -> tuple[tuple[int, int], list[Strided | None], list[Any]]:
    """``[rows, lanes]``, where each array lies as such, and the arrays that lie there.

    One row if all of them are contiguous, unless ``by_row`` asks for rows of the last dimension.
    An array whose leading dimensions have no common stride is copied: the last result keeps the
    copies alive. None stays None; all others have the shape of the first.
    """
    shape = arrays[0].shape
    if not by_row and all(x is None or is_contiguous(x) for x in arrays):
        places = [None if x is None else (address(x), 0, 1) for x in arrays]
        return (1, math.prod(shape)), places, []
    lanes = shape[-1] if shape else 1
    kept = [None if x is None else _with_rows(x) for x in arrays]
    places = [None if pair is None else (address(pair[0]), *pair[1]) for pair in kept]
    return (math.prod(shape[:-1]), lanes), places, kept


def _with_rows(x: Any) -> tuple[Any, tuple[int, int]]:
    """``x`` or a copy, and the strides of its rows and lanes in elements."""
    strides = _row_strides(x)
    if strides is None:
        x = np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x.contiguous()
        strides = x.shape[-1], 1
    return x, strides


def _row_strides(x: Any) -> tuple[int, int] | None:
    shape, strides = x.shape, _strides(x)
    if strides is None:
        return None
    row_stride = 0
    rows = 1
    for size, stride in zip(shape[-2::-1], strides[-2::-1], strict=True):
        if size == 1:
            continue
        if rows == 1:
            row_stride = stride
        elif stride != rows * row_stride:
            return None
        rows *= size
    return row_stride, strides[-1] if shape else 1


def _strides(x: Any) -> tuple[int, ...] | None:
    """Strides in elements; None if they are no whole numbers."""
    if not isinstance(x, np.ndarray):
        return tuple(x.stride())
    if any(stride % x.itemsize for stride in x.strides):
        return None
    return tuple(stride // x.itemsize for stride in x.strides)


def _tensor_type() -> type:
    import torch

    return torch.Tensor


def _one_of(names: Collection[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
