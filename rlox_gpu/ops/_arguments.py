"""Checks of array arguments, NumPy arrays and torch tensors alike, and the codes of their dtypes.

Each message names the argument, what came and what was expected.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

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
INTEGERS = [name for name in FLAGS if "int" in name]


def dtype_name(x: Any) -> str:
    """``"float32"`` for an array of that dtype, whatever library it is of."""
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
    shape = getattr(token_mask, "shape", ())
    width = shape[-1] if len(shape) else 0
    check_like("token_mask", token_mask, "rewards", like, dtypes=FLAGS, shape=(*like.shape, width))


def address(x: Any) -> int:
    """Where the first element lies in memory."""
    if isinstance(x, np.ndarray):
        data: int = x.__array_interface__["data"][0]
        return data
    return int(x.data_ptr())


def _tensor_type() -> type:
    import torch

    return torch.Tensor


def _one_of(names: Collection[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
