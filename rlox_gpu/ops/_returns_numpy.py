"""The estimators on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _rust
from ._arguments import FLAGS, FLOATS
from ._results_numpy import results_beside
from ._returns_checks import (
    Kind,
    check_inputs,
    check_out,
    check_truncation,
    out_names,
    sequences,
    split_numbers,
)
from ._returns_specs import Spec

# NumPy has no bfloat16.
_FLAGS = {np.dtype(name): code for name, code in FLAGS.items() if name != "bfloat16"}
_VALUES = {np.dtype(name): code for name, code in FLOATS.items() if name != "bfloat16"}
_NUMBERS = (float, int, np.floating, np.integer)
_KIND = Kind("NumPy array", np.ndarray, _VALUES, _FLAGS, np.broadcast_to)


def _allocated(spec: Spec, steps: list[Any]) -> list[np.ndarray]:
    moments = "moments" in spec.results
    results = results_beside(*steps, count=len(spec.results) - moments)
    return [*results, np.empty(3)] if moments else results


def estimate(
    spec: Spec, arrays: dict[str, Any], numbers: dict[str, Any], time_dim: Any, out: Any
) -> tuple[Any, ...]:
    """The results of one estimator: check, allocate, call."""
    *_, boundary, truncated, final_values, _, _, _ = arrays.values()
    like = arrays[spec.steps[0]]
    check_truncation(spec, truncated, final_values)
    if like.ndim == 1 and isinstance(boundary, _NUMBERS) and like.dtype in _VALUES:
        arrays = arrays | {spec.boundary: np.asarray(boundary, like.dtype)}
    inputs = list(arrays.values())
    check_inputs(_KIND, spec, inputs, time_dim)
    scalars, *discounts = split_numbers(_KIND, spec, numbers, like)
    inputs += discounts
    if out is None:
        out = _allocated(spec, inputs[: len(spec.steps)])
    else:
        check_out(_KIND, spec, out, like)
        _check_memory(spec, [*arrays, "gamma", spec.numbers[-1]], inputs, out)
    _rust.estimate_raw(
        spec.code,
        inputs,
        list(out),
        like.shape,
        sequences(inputs),
        time_dim,
        scalars,
    )
    return tuple(out)


def _check_memory(spec: Spec, names: list[str], inputs: list[Any], out: Any) -> None:
    """Raise if an output cannot be written or shares memory with another argument."""
    others = {name: x for name, x in zip(names, inputs, strict=True) if x is not None}
    for name, x in zip(out_names(spec), out, strict=True):
        if not x.flags.writeable:
            raise ValueError(f"{name}: expected a writeable array, got a read-only one")
        if any(step == 0 and size > 1 for step, size in zip(x.strides, x.shape, strict=True)):
            raise ValueError(f"{name}: expected distinct elements, got a broadcast array")
        for other, array in others.items():
            if _rust.share_memory(x, array):
                raise ValueError(f"{name}: expected memory of its own, got some of {other}")
        others[name] = x
