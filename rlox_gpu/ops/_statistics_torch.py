"""Running moments of torch tensors: registration with torch, and both devices.

On the CPU these are torch's own operations.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import _dispatch
from .statistics import merge_into


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
    x = x.double()
    counted = x.isfinite()
    if mask is not None:
        counted &= (mask != 0)[:, None]
    count = counted.sum(0)
    # Distances from the least number: those of equal numbers are exactly zero.
    low = torch.where(counted, x, torch.inf).amin(0).where(count > 0, 0.0)
    distance = torch.where(counted, x - low, 0.0)
    mean = distance.sum(0) / count.clamp(min=1)
    m2 = torch.where(counted, distance - mean, 0.0).square().sum(0)
    merge_into(state, torch.stack([count.double(), low + mean, m2]))


@torch.no_grad()
def _normalize_on_cpu(
    x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, clip: float, eps: float
) -> torch.Tensor:
    result = (x.double() - mean).div_(var.sqrt().clamp(min=eps)).clamp_(-clip, clip)
    return result.to(x.dtype)


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


def _contiguous(*args: Any) -> torch.Tensor:
    return _normalize_on_cpu(*args).contiguous()


_update_op = _dispatch.register(
    "update_moments_(Tensor(a!) state, Tensor x, Tensor? mask) -> ()",
    cpu=_update_on_cpu,
    cuda=_update_by_triton,
    fake=_no_result,
)
_normalize_op = _dispatch.register(
    "normalize(Tensor x, Tensor mean, Tensor var, float clip, float eps) -> Tensor",
    cpu=_contiguous,
    cuda=_normalize_by_triton,
    fake=_normalized_fake,
)
