"""The estimators on torch tensors: checks, registration with torch, and both devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .. import _dispatch, _rust
from .._checks import unit_number
from ._arguments import FLAGS, FLOATS
from ._results_torch import LARGE, results_beside
from ._returns_checks import (
    Inputs,
    Kind,
    check_inputs,
    check_out,
    check_truncation,
    out_names,
    sequences,
    split_numbers,
)
from ._returns_specs import GAE, GAE_MOMENTS, SPECS, Spec

_Tensors = Sequence[torch.Tensor]
_Into = Callable[[Spec, Inputs, list[float], int, _Tensors], None]
_FLAGS = {getattr(torch, name): code for name, code in FLAGS.items()}
_VALUES = {getattr(torch, name): code for name, code in FLOATS.items()}
_KIND = Kind("torch tensor", torch.Tensor, _VALUES, _FLAGS, torch.broadcast_to)
# From the end: what the arrays of every call have in common, before gammas and traces join them.
_BOUNDARY, _TRUNCATED, _FINAL_VALUES = -6, -5, -4


def gae_at_once(
    rewards: torch.Tensor,
    values: Any,
    terminated: Any,
    last_values: Any,
    gamma: Any,
    gae_lambda: Any,
    time_dim: Any,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Advantages and returns of contiguous CPU tensors, with nothing optional; None for others.

    Small calls come by the million: one expression asks here what :func:`estimate` asks step by
    step. What it refuses goes that way, where it is served or told what is wrong.
    """
    if type(last_values) is float:
        last_values = torch.full((), last_values, dtype=rewards.dtype, device=rewards.device)
    if not (
        type(values) is type(terminated) is type(last_values) is torch.Tensor
        and _dispatch.is_plain_call(rewards, values, terminated, last_values)
    ):
        return None
    shape, dtype, device = rewards.shape, rewards.dtype, rewards.device
    if not (
        (time_dim == 0 or time_dim == -1 or (time_dim == 1 and len(shape) == 2))
        and 1 <= len(shape) <= 2
        and _dispatch.runs_in_rust(device)
        and values.shape == shape
        and terminated.shape == shape
        and last_values.shape == (shape[:-1] if time_dim else shape[1:])
        and values.dtype is dtype
        and last_values.dtype is dtype
        and values.device == terminated.device == last_values.device == device
        and rewards.is_contiguous()
        and values.is_contiguous()
        and terminated.is_contiguous()
        and last_values.is_contiguous()
        and dtype in _VALUES
        and terminated.dtype in _FLAGS
        and type(gamma) is type(gae_lambda) is float
        and not _dispatch.wants_grad(rewards, values, last_values)
    ):
        return None
    if values.nbytes < LARGE:
        advantages, returns = torch.empty_like(values), torch.empty_like(values)
    else:
        advantages, returns = results_beside(values, rewards, count=2)
    _rust.gae_contiguous(
        rewards.data_ptr(),
        values.data_ptr(),
        terminated.data_ptr(),
        last_values.data_ptr(),
        advantages.data_ptr(),
        returns.data_ptr(),
        shape if len(shape) == 2 else (*shape, 1),
        time_dim if len(shape) == 2 else 0,
        _VALUES[dtype],
        _FLAGS[terminated.dtype],
        unit_number("gamma", gamma),
        unit_number("gae_lambda", gae_lambda),
    )
    return advantages, returns


def estimate(
    spec: Spec, arrays: dict[str, Any], numbers: dict[str, Any], time_dim: Any, out: Any
) -> tuple[torch.Tensor, ...]:
    """The results of one estimator: check, choose, call."""
    inputs = list(arrays.values())
    like, boundary = inputs[0], inputs[_BOUNDARY]
    check_truncation(spec, inputs[_TRUNCATED], inputs[_FINAL_VALUES])
    if type(boundary) is not torch.Tensor and isinstance(boundary, (float, int)):
        inputs[_BOUNDARY] = torch.full((), boundary, dtype=like.dtype, device=like.device)
    check_inputs(_KIND, spec, inputs, time_dim)
    scalars, *discounts = split_numbers(_KIND, spec, numbers, like)
    inputs += discounts
    if out is not None:
        check_out(_KIND, spec, out, like)
    elif _dispatch.wants_grad(*inputs):
        return _differentiable(spec, inputs, scalars, time_dim)
    into = _backend(like.device)
    if into is None or not _dispatch.is_plain_call(*inputs, *(out or ())):
        return _through_torch(spec, inputs, scalars, time_dim, out)
    if out is None:
        out = _allocated(spec, inputs)
    else:
        _check_memory(spec, [*arrays, "gamma", spec.numbers[-1]], inputs, out)
    into(spec, inputs, scalars, time_dim, out)
    return tuple(out)


def _differentiable(
    spec: Spec, inputs: Inputs, scalars: list[float], time_dim: int
) -> tuple[torch.Tensor, ...]:
    from ._returns_grad import differentiable

    if spec is GAE_MOMENTS:
        *_, moments = _through_torch(spec, inputs, scalars, time_dim, None)
        return *differentiable(GAE, inputs, scalars, time_dim), moments
    return differentiable(spec, inputs, scalars, time_dim)


def _backend(device: torch.device) -> _Into | None:
    if _dispatch.runs_in_rust(device):
        return _into_rust
    return _into_triton if device.type in ("cpu", "cuda") else None


def _through_torch(
    spec: Spec, inputs: Inputs, scalars: list[float], time_dim: int, out: _Tensors | None
) -> tuple[torch.Tensor, ...]:
    constants = [None if x is None else x.detach() for x in inputs]
    fresh, into = _OPS[spec.name]
    if out is None:
        results = fresh(*constants, *scalars, time_dim)
        return results if isinstance(results, tuple) else (results,)
    into(*constants, *scalars, time_dim, *(x.detach() for x in out))
    return tuple(out)


def _allocated(spec: Spec, inputs: Inputs) -> list[torch.Tensor]:
    *others, like = inputs[: len(spec.steps)]
    moments = "moments" in spec.results
    count = len(spec.results) - moments
    if like.is_contiguous():
        results = results_beside(like, *others, count=count)
    else:
        results = [torch.empty_like(like) for _ in range(count)]
    if moments:
        results.append(torch.empty(3, dtype=torch.float64, device=like.device))
    return results


def _into_rust(
    spec: Spec, inputs: Inputs, scalars: list[float], time_dim: int, out: _Tensors
) -> None:
    _rust.estimate_raw(
        spec.code,
        [None if x is None else (x.data_ptr(), x.stride(), _FLAGS[x.dtype]) for x in inputs],
        [(x.data_ptr(), x.stride(), _FLAGS[x.dtype]) for x in out],
        inputs[0].shape,
        sequences(inputs),
        time_dim,
        scalars,
    )


@torch.no_grad()
def _into_triton(
    spec: Spec, inputs: Inputs, scalars: list[float], time_dim: int, out: _Tensors
) -> None:
    from ._returns_triton import launch

    if inputs[0].numel() > 0:
        launch(spec, inputs, scalars, time_dim, out)


def _check_memory(spec: Spec, names: list[str], inputs: Inputs, out: _Tensors) -> None:
    """Raise if an output has elements that share memory, or shares some with another argument."""
    spans = {name: _span(x) for name, x in zip(names, inputs, strict=True) if x is not None}
    for name, x in zip(out_names(spec), out, strict=True):
        if any(step == 0 and size > 1 for step, size in zip(x.stride(), x.shape, strict=True)):
            raise ValueError(f"{name}: expected distinct elements, got an expanded tensor")
        start, stop = _span(x)
        for other, span in spans.items():
            if start < span[1] and span[0] < stop:
                raise ValueError(f"{name}: expected memory of its own, got some of {other}")
        spans[name] = start, stop


def _span(x: torch.Tensor) -> tuple[int, int]:
    """First address and the one past the last; empty for a tensor without elements."""
    start = x.data_ptr()
    if x.is_contiguous():
        return start, start + x.nbytes
    if x.numel() == 0:
        return start, start
    reach = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
    return start, start + (reach + 1) * x.element_size()


def _register(spec: Spec) -> tuple[Any, Any]:
    """The op that allocates its results, and the one that is given them."""
    count, many = len(spec.steps) + 9, len(spec.results)
    declared = [f"Tensor {name}" for name in (*spec.steps, "terminated")]
    boundary = "Tensor" if spec.boundary == "last_values" else "Tensor?"
    declared.append(f"{boundary} {spec.boundary}")
    optional = ("truncated", "final_values", "mask", "lengths", "cu_seqlens", "gammas", "lambdas")
    declared += [f"Tensor? {name}" for name in optional]
    declared += [f"float {name}" for name in spec.numbers] + ["int time_dim"]
    outputs = [
        f"Tensor({letter}!) {name}" for letter, name in zip("ab", spec.results, strict=False)
    ]

    def checked(args: Sequence[Any]) -> tuple[list[Any], list[float], int]:
        inputs, scalars = list(args[:count]), list(args[count : count + len(spec.numbers)])
        time_dim = args[count + len(spec.numbers)]
        check_inputs(_KIND, spec, inputs[:-2], time_dim)
        return inputs, scalars, time_dim

    def fresh(into: _Into | None) -> Callable[..., Any]:
        def body(*args: Any) -> Any:
            inputs, scalars, time_dim = checked(args)
            out = _allocated(spec, inputs)
            if into is not None:
                into(spec, inputs, scalars, time_dim, out)
            return tuple(out) if many > 1 else out[0]

        return body

    def given(into: _Into | None) -> Callable[..., None]:
        def body(*args: Any) -> None:
            inputs, scalars, time_dim = checked(args)
            out = args[-many:]
            check_out(_KIND, spec, out, inputs[0])
            if into is not None:
                names = [f"argument {at}" for at in range(count)]
                _check_memory(spec, names, inputs, out)
                into(spec, inputs, scalars, time_dim, out)

        return body

    returned = "Tensor" if many == 1 else f"({', '.join(['Tensor'] * many)})"
    arguments = ", ".join(declared)
    return (
        _dispatch.register(
            f"{spec.name}({arguments}) -> {returned}",
            cpu=fresh(_into_rust),
            cuda=fresh(_into_triton),
            fake=fresh(None),
        ),
        _dispatch.register(
            f"{spec.name}_out({arguments}, {', '.join(outputs)}) -> ()",
            cpu=given(_into_rust),
            cuda=given(_into_triton),
            fake=given(None),
        ),
    )


_OPS = {spec.name: _register(spec) for spec in SPECS}
