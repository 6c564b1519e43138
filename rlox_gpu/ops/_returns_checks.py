"""Checks of the estimators' arguments, for NumPy arrays and torch tensors alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .._checks import described, integer, nonnegative, truncation_pair, unit_number
from ._arguments import dtype_name
from ._returns_specs import DISCOUNTS, Spec

# The arrays of a call in the order that ``_returns_specs`` states.
Inputs = Sequence[Any]


class Kind(NamedTuple):
    """A kind of array: its type, what the compiled core calls its dtypes, how it broadcasts."""

    name: str
    array: type
    values: Mapping[Any, int]
    flags: Mapping[Any, int]
    broadcast: Callable[[Any, tuple[int, ...]], Any]


def check_inputs(kind: Kind, spec: Spec, inputs: Inputs, time_dim: Any) -> None:
    """Raise unless the arrays fit each other; the first sets shape, dtype and device."""
    count = len(spec.steps)
    like = inputs[0]
    terminated, boundary, truncated, final_values, mask, lengths, cu_seqlens = inputs[count:]
    shape = like.shape
    ndim = len(shape)
    _check_first(kind, spec.steps[0], like, ndim)
    if time_dim != 0 and time_dim != -1 and not (time_dim == 1 and ndim == 2):
        raise ValueError(f"time_dim: expected 0 or -1 (or 1 in two dimensions), got {time_dim!r}")
    for at in range(1, count):
        check_values(kind, spec, spec.steps[at], inputs[at], shape, like)
    _check_flags(kind, spec, "terminated", terminated, like)
    if truncated is not None:
        _check_flags(kind, spec, "truncated", truncated, like)
    if final_values is not None:
        check_values(kind, spec, "final_values", final_values, shape, like)
    lines = shape[:0] if ndim == 1 else shape[1:] if time_dim == 0 else shape[:1]
    if mask is not None:
        _check_flags(kind, spec, "mask", mask, like)
    if cu_seqlens is not None:
        lines = _sequences(kind, spec, cu_seqlens, lengths, like)
    elif lengths is not None:
        _check_lengths(kind, spec, lengths, lines, like)
    if boundary is not None or spec.boundary == "last_values":
        check_values(kind, spec, spec.boundary, boundary, lines, like)


def _check_first(kind: Kind, name: str, x: Any, ndim: int) -> None:
    if ndim != 1 and ndim != 2:
        raise ValueError(f"{name}: expected 1 or 2 dimensions, got shape {tuple(x.shape)}")
    if x.dtype not in kind.values:
        raise TypeError(
            f"{name}: expected float16, bfloat16, float32 or float64, got {dtype_name(x)}"
        )


def _check_lengths(kind: Kind, spec: Spec, lengths: Any, lines: tuple[int, ...], like: Any) -> None:
    if len(like.shape) == 1:
        raise ValueError("lengths: expected None for a single trajectory, got one")
    _check_counts(kind, spec, "lengths", lengths, like)
    if lengths.shape != lines:
        raise ValueError(f"lengths: expected shape {tuple(lines)}, got {tuple(lengths.shape)}")


def _sequences(kind: Kind, spec: Spec, cu_seqlens: Any, lengths: Any, like: Any) -> tuple[int, ...]:
    """The shape that ``last_values`` must have for packed trajectories."""
    if len(like.shape) != 1:
        raise ValueError(
            f"cu_seqlens: expected {spec.steps[0]} of shape (total,), got {tuple(like.shape)}"
        )
    if lengths is not None:
        raise ValueError("lengths: expected None with cu_seqlens, got both")
    _check_counts(kind, spec, "cu_seqlens", cu_seqlens, like)
    if len(cu_seqlens.shape) != 1 or not cu_seqlens.shape[0]:
        raise ValueError(
            f"cu_seqlens: expected shape (sequences + 1,), got {tuple(cu_seqlens.shape)}"
        )
    return (cu_seqlens.shape[0] - 1,)


def check_values(
    kind: Kind, spec: Spec, name: str, x: Any, shape: tuple[int, ...], like: Any
) -> None:
    """Raise unless ``x`` is an array of this shape and of the dtype and device of ``like``."""
    if type(x) is not kind.array and not isinstance(x, kind.array):
        _wrong_kind(kind, spec, name, x)
    if x.shape != shape:
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(x.shape)}")
    if x.dtype != like.dtype:
        raise TypeError(
            f"{name}: expected {dtype_name(like)} like {spec.steps[0]}, got {dtype_name(x)}"
        )
    if x.device != like.device:
        _wrong_device(spec, name, x, like)


def _check_flags(kind: Kind, spec: Spec, name: str, x: Any, like: Any) -> None:
    if type(x) is not kind.array and not isinstance(x, kind.array):
        _wrong_kind(kind, spec, name, x)
    if x.shape != like.shape:
        raise ValueError(f"{name}: expected shape {tuple(like.shape)}, got {tuple(x.shape)}")
    if x.dtype not in kind.flags:
        raise TypeError(f"{name}: expected bool, integer or float flags, got {dtype_name(x)}")
    if x.device != like.device:
        _wrong_device(spec, name, x, like)


def _check_counts(kind: Kind, spec: Spec, name: str, x: Any, like: Any) -> None:
    if not isinstance(x, kind.array):
        _wrong_kind(kind, spec, name, x)
    if dtype_name(x) not in ("int32", "int64"):
        raise TypeError(f"{name}: expected int32 or int64, got {dtype_name(x)}")
    if x.device != like.device:
        _wrong_device(spec, name, x, like)


def _wrong_kind(kind: Kind, spec: Spec, name: str, x: Any) -> None:
    raise TypeError(f"{name}: expected a {kind.name} like {spec.steps[0]}, got {described(x)}")


def _wrong_device(spec: Spec, name: str, x: Any, like: Any) -> None:
    raise ValueError(
        f"{name}: expected a tensor on {like.device} like {spec.steps[0]}, got {x.device}"
    )


def sequences(inputs: Inputs) -> int:
    """How many packed trajectories there are; ``inputs`` end with gammas and traces."""
    cu_seqlens = inputs[-3]
    return 0 if cu_seqlens is None else cu_seqlens.shape[0] - 1


def check_truncation(spec: Spec, truncated: Any, final_values: Any) -> None:
    """Raise if one of the two is given without the other where both are needed."""
    if spec.boundary == "last_values" and (truncated is not None or final_values is not None):
        truncation_pair(truncated, final_values)


def split_numbers(
    kind: Kind, spec: Spec, numbers: Mapping[str, Any], like: Any
) -> tuple[list[float], Any, Any]:
    """All numbers as floats, and the discounts and traces that are arrays, broadcast."""
    found: list[float] = []
    arrays = [None, None]
    for name, value in numbers.items():
        if name in DISCOUNTS:
            if type(value) is not float and isinstance(value, kind.array):
                arrays[name != "gamma"] = _discounts(kind, spec, name, value, like)
                value = 1.0
            found.append(unit_number(name, value))
        else:
            found.append(_step_count(value) if name == "n" else nonnegative(name, value))
    return found, arrays[0], arrays[1]


def _step_count(n: Any) -> float:
    if integer("n", n, 1 << 31) == 0:
        raise ValueError("n: expected an integer of at least 1, got 0")
    return float(n)


def _discounts(kind: Kind, spec: Spec, name: str, x: Any, like: Any) -> Any:
    try:
        wide = kind.broadcast(x, like.shape)
    except (RuntimeError, ValueError):
        raise ValueError(
            f"{name}: expected a shape that broadcasts to {tuple(like.shape)}, got {tuple(x.shape)}"
        ) from None
    check_values(kind, spec, name, wide, like.shape, like)
    return wide


def check_out(kind: Kind, spec: Spec, out: Any, like: Any) -> None:
    """Raise unless ``out`` holds arrays like ``like`` that can be written to."""
    count = len(spec.results)
    if not isinstance(out, (tuple, list)) or len(out) != count:
        raise TypeError(f"out: expected a pair ({', '.join(spec.results)}), got {described(out)}")
    for name, x in zip(out_names(spec), out, strict=True):
        check_values(kind, spec, name, x, like.shape, like)


def out_names(spec: Spec) -> tuple[str, ...]:
    """What messages call the results in ``out``."""
    if len(spec.results) == 1:
        return ("out",)
    return tuple(f"out[{at}]" for at in range(len(spec.results)))
