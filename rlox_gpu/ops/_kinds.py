"""Which implementation serves an array: NumPy's, torch's, or one of them through DLPack."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .._checks import described
from ._dlpack import HOST_DEVICES, from_dlpack_of, taken


def implementation(name: str, like: Any, family: str, op: str) -> Callable[..., Any]:
    """``op`` of the module ``_<family>_numpy`` or ``_<family>_torch``, by the kind of ``like``.

    Arrays of other libraries go in through DLPack without a copy, and the results come out as
    their own kind. ``name`` is what messages call ``like``.

    Raises
    ------
    TypeError
        If ``like`` is no array.
    """
    if isinstance(like, np.ndarray):
        return loaded(f"_{family}_numpy", op)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(like, torch.Tensor):
        return loaded(f"_{family}_torch", op)
    if not hasattr(like, "__dlpack__") or not hasattr(like, "__dlpack_device__"):
        raise TypeError(
            f"{name}: expected a NumPy array, a torch tensor or an array with __dlpack__, "
            f"got {described(like)}"
        )
    if like.__dlpack_device__()[0] in HOST_DEVICES:
        return _converting(loaded(f"_{family}_numpy", op), np.from_dlpack, like)
    from torch.utils.dlpack import from_dlpack

    return _converting(loaded(f"_{family}_torch", op), from_dlpack, like)


def is_tensor(x: Any) -> bool:
    """Whether ``x`` is a plain torch tensor; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and type(x) is torch.Tensor


def loaded(module: str, op: str) -> Callable[..., Any]:
    """``op`` of the module beside this one."""
    _load(f"{__package__}.{module}")
    # As an attribute of the package: torch.compile knows the loaded modules of before.
    found: Callable[..., Any] = getattr(getattr(sys.modules[__package__], module), op)
    return found


def _load(name: str) -> None:
    if name not in sys.modules:
        importlib.import_module(name)


# What torch.compiler.assume_constant_result sets, without importing torch: torch.compile calls the
# function while it traces, where it could not follow an import.
_load._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _converting(
    call: Callable[..., Any], take: Callable[[Any], Any], like: Any
) -> Callable[..., Any]:
    back = from_dlpack_of(like)

    def converted(*args: Any, **options: Any) -> Any:
        arrays = [taken(take, f"argument {at}", x) for at, x in enumerate(args)]
        named = {name: taken(take, name, x) for name, x in options.items()}
        result = call(*arrays, **named)
        if not isinstance(result, tuple):
            return back(result)
        parts: list[Any] = [x if x is None else back(x) for x in result]
        # A named tuple is made of its fields, a plain one of an iterable.
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)

    return converted
