"""From an estimator's arguments to the implementation for their kind of array."""

from __future__ import annotations

from typing import Any

from ._kinds import implementation
from ._returns_specs import Spec


def arrays_of(
    steps: dict[str, Any],
    terminated: Any,
    boundary: tuple[str, Any],
    truncated: Any,
    final_values: Any,
    mask: Any,
    lengths: Any,
    cu_seqlens: Any,
) -> dict[str, Any]:
    """All arrays of a call by name, in the order that ``_returns_specs`` states."""
    name, value = boundary
    return {
        **steps,
        "terminated": terminated,
        name: value,
        "truncated": truncated,
        "final_values": final_values,
        "mask": mask,
        "lengths": lengths,
        "cu_seqlens": cu_seqlens,
    }


def estimate(
    spec: Spec, arrays: dict[str, Any], numbers: dict[str, Any], time_dim: Any, out: Any
) -> Any:
    """The results, as a tuple, or ``out`` itself if it is given."""
    first = spec.steps[0]
    call = implementation(first, arrays[first], "returns", "estimate")
    results = call(spec, arrays, numbers, time_dim, out)
    return results if out is None else out
