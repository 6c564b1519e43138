"""Arrays of other libraries: in through DLPack without a copy, out as their own kind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .._checks import described

# Device types of the DLPack header: kDLCPU and kDLCUDAHost.
HOST_DEVICES = (1, 3)


def taken(take: Callable[[Any], Any], name: str, x: Any) -> Any:
    """``x`` through DLPack, or what a tuple or a dict holds; anything else as it is."""
    if isinstance(x, dict):
        return {key: taken(take, key, value) for key, value in x.items()}
    if isinstance(x, tuple):
        return tuple(taken(take, f"{name}[{at}]", value) for at, value in enumerate(x))
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
