"""Arrays of other libraries: in through DLPack without a copy, out as their own kind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .._checks import described

# Device types of the DLPack header: kDLCPU and kDLCUDAHost.
HOST_DEVICES = (1, 3)
_NAMES = ("rewards", "values", "terminated", "last_values", "truncated", "final_values")


def through_dlpack(like: Any, numpy_call: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """The estimator ``numpy_call`` (or its torch form on a device) for arrays such as ``like``.

    Raises
    ------
    TypeError
        If ``like`` has no ``__dlpack__``.
    """
    if not hasattr(like, "__dlpack__") or not hasattr(like, "__dlpack_device__"):
        raise TypeError(
            "rewards: expected a NumPy array, a torch tensor or an array with __dlpack__, "
            f"got {described(like)}"
        )
    take: Callable[[Any], Any] = np.from_dlpack
    call = numpy_call
    if like.__dlpack_device__()[0] not in HOST_DEVICES:
        from torch.utils.dlpack import from_dlpack as take

        from ._returns_torch import gae as call
    back = from_dlpack_of(like)

    def converted(*args: Any) -> tuple[Any, Any]:
        *scalars, out = args[len(_NAMES) :]
        arrays = [taken(take, *pair) for pair in zip(_NAMES, args, strict=False)]
        target = None if out is None else tuple(taken(take, "out", x) for x in out)
        results = call(*arrays, *scalars, target)
        return tuple(map(back, results)) if out is None else tuple(out)

    return converted


def taken(take: Callable[[Any], Any], name: str, x: Any) -> Any:
    if not hasattr(x, "__dlpack__"):
        return x
    try:
        return take(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name}: {described(x)} did not come through DLPack: {error}") from error


def from_dlpack_of(like: Any) -> Callable[[Any], Any]:
    """``from_dlpack`` of the library that ``like`` belongs to; the identity if there is none."""
    if hasattr(like, "__array_namespace__"):
        namespace = like.__array_namespace__()
    else:
        namespace = sys.modules.get(type(like).__module__.partition(".")[0])
    found: Callable[[Any], Any] | None = getattr(namespace, "from_dlpack", None)
    return _unchanged if found is None else found


def _unchanged(x: Any) -> Any:
    return x
