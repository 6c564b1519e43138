"""The estimators on torch tensors: checks, registration with torch, and both devices."""

from __future__ import annotations

from typing import Any

import torch

from .. import _dispatch, _rust
from ._arguments import FLAGS, FLOATS
from ._returns_checks import (
    Inputs,
    Kind,
    check_inputs,
    check_out,
    check_truncation,
    out_names,
    split_numbers,
)
from ._returns_specs import SPECS, Spec

_Tensors = tuple[torch.Tensor, ...]
_FLAGS = {getattr(torch, name): code for name, code in FLAGS.items()}
_VALUES = {getattr(torch, name): code for name, code in FLOATS.items()}
_KIND = Kind("torch tensor", torch.Tensor, _VALUES, _FLAGS, torch.broadcast_to)


def estimate(
    spec: Spec, arrays: dict[str, Any], numbers: dict[str, Any], time_dim: Any, out: Any
) -> _Tensors:
    """The results of one estimator: check, choose, call."""
    inputs = list(arrays.values())
    like, boundary = inputs[0], inputs[-6]
    check_truncation(spec, inputs[-5], inputs[-4])
    if type(boundary) is not torch.Tensor and isinstance(boundary, (float, int)):
        inputs[-6] = torch.full((), boundary, dtype=like.dtype, device=like.device)
    check_inputs(_KIND, spec, inputs, time_dim)
    scalars, *discounts = split_numbers(_KIND, spec, numbers, like)
    inputs += discounts
    if out is not None:
        check_out(_KIND, spec, out, like)
    if not _dispatch.is_plain_call(*inputs, *(out or ())):
        return _through_torch(spec, inputs, scalars, time_dim, out)
    device = like.device
    if _dispatch.runs_in_rust(device):
        into = _into_rust
    elif device.type in ("cpu", "cuda"):
        into = _into_triton
    else:
        return _through_torch(spec, inputs, scalars, time_dim, out)
    if out is None:
        out = _allocated(spec, inputs)
    else:
        _check_overlap(spec, inputs, out)
    into(spec, inputs, scalars, time_dim, out)
    return tuple(out)


def _through_torch(
    spec: Spec, inputs: Inputs, scalars: list[float], time_dim: int, out: Any
) -> _Tensors:
    constants = [None if x is None else x.detach() for x in inputs]
    fresh, into = _OPS[spec.name]
    if out is None:
        results = fresh(*constants, *scalars, time_dim)
        return results if isinstance(results, tuple) else (results,)
    into(*constants, *scalars, time_dim, *(x.detach() for x in out))
    return tuple(out)


def _allocated(spec: Spec, inputs: Inputs) -> _Tensors:
    like = inputs[len(spec.steps) - 1]
    return tuple([torch.empty_like(like) for _ in spec.results])


def _into_rust(
    spec: Spec, inputs: Inputs, scalars: list[float], time_dim: int, out: _Tensors
) -> None:
    _rust.estimate_raw(
        spec.code,
        [_described(x) for x in inputs],
        [_described(x) for x in out],
        inputs[0].shape,
        time_dim,
        scalars,
    )


def _described(x: torch.Tensor | None) -> tuple[int, tuple[int, ...], int] | None:
    return None if x is None else (x.data_ptr(), x.stride(), _FLAGS[x.dtype])


@torch.no_grad()
def _into_triton(
    spec: Spec, inputs: Inputs, scalars: list[float], time_dim: int, out: _Tensors
) -> None:
    raise NotImplementedError
