"""Running moments of torch tensors: registration with torch, and both devices."""

from __future__ import annotations

from typing import Any

import torch

from .. import _dispatch
from ._results_torch import results_beside
from ._statistics_rust import normalize_in_rust, update_in_rust


def update_moments(state: torch.Tensor, x: torch.Tensor, mask: torch.Tensor | None) -> None:
    """``rlox_gpu.update_moments`` for checked tensors."""
    if x.numel() == 0:
        return
    if not _dispatch.is_plain_call(state, x, mask) or x.device.type not in ("cpu", "cuda"):
        _update_op(state.detach(), x.detach(), None if mask is None else mask.detach())
    elif _dispatch.runs_in_rust(x.device):
        _update_on_cpu(state, x, mask)
    else:
        _update_by_triton(state, x, mask)


def normalize(
    x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, clip: float, eps: float
) -> torch.Tensor:
    """``rlox_gpu.normalize`` for checked tensors."""
    if not _dispatch.is_plain_call(x, mean, var) or x.device.type not in ("cpu", "cuda"):
        result: torch.Tensor = _normalize_op(x.detach(), mean.detach(), var.detach(), clip, eps)
        return result
    by = _normalize_on_cpu if _dispatch.runs_in_rust(x.device) else _normalize_by_triton
    return by(x, mean, var, clip, eps)


@torch.no_grad()
def _update_on_cpu(state: torch.Tensor, x: torch.Tensor, mask: torch.Tensor | None) -> None:
    if x.numel() == 0:
        return
    contiguous = state.contiguous()
    update_in_rust(contiguous, x, mask)
    if contiguous is not state:
        state.copy_(contiguous)


@torch.no_grad()
def _normalize_on_cpu(
    x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, clip: float, eps: float
) -> torch.Tensor:
    (out,) = results_beside(x)
    if out.numel():
        normalize_in_rust(x, mean.contiguous(), var.contiguous(), out, clip, eps)
    return out


@torch.no_grad()
def _update_by_triton(state: torch.Tensor, x: torch.Tensor, mask: torch.Tensor | None) -> None:
    from ..kernels.statistics import launch_update_moments

    launch_update_moments(state, x, mask)


@torch.no_grad()
def _normalize_by_triton(
    x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, clip: float, eps: float
) -> torch.Tensor:
    from ..kernels.statistics import launch_normalize

    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if out.numel():
        launch_normalize(x, mean, var, out, clip, eps)
    return out


def _no_result(*_: Any) -> None:
    return None


def _normalized_fake(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, *_: Any) -> Any:
    _dispatch.same_device(x, mean, var)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


_update_op = _dispatch.register(
    "update_moments_(Tensor(a!) state, Tensor x, Tensor? mask) -> ()",
    cpu=_update_on_cpu,
    cuda=_update_by_triton,
    fake=_no_result,
)
_normalize_op = _dispatch.register(
    "normalize(Tensor x, Tensor mean, Tensor var, float clip, float eps) -> Tensor",
    cpu=_normalize_on_cpu,
    cuda=_normalize_by_triton,
    fake=_normalized_fake,
)
