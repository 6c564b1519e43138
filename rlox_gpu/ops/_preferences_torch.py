"""The preference losses on torch tensors: registration with torch, and both devices."""

from __future__ import annotations

from typing import Any

import torch

from .. import _dispatch
from ._preferences_arguments import NONE, check_logps, loss_in_rust

_Tensor = torch.Tensor
_Four = tuple[_Tensor, _Tensor, _Tensor, _Tensor]


def dpo_loss(
    policy_chosen_logps: _Tensor,
    policy_rejected_logps: Any,
    ref_chosen_logps: Any,
    ref_rejected_logps: Any,
    kind: int,
    beta: float,
    label_smoothing: float,
    reduction: int,
) -> tuple[_Tensor, _Tensor, _Tensor]:
    """``rlox_gpu.dpo_loss`` for tensors; ``kind`` and ``reduction`` are codes."""
    logps = (policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    check_logps(logps)
    call: Any = _dpo_op
    if _dispatch.is_plain_call(*logps) and not _dispatch.wants_grad(*logps):
        device = policy_chosen_logps.device
        if _dispatch.runs_in_rust(device):
            call = _loss_rust
        elif device.type in ("cpu", "cuda"):
            call = _loss_triton
    loss, _, chosen, rejected = call(*logps, kind, beta, label_smoothing, reduction)
    return loss, chosen, rejected


def _allocated(like: _Tensor, reduction: int) -> _Four:
    real = torch.float64 if like.dtype is torch.float64 else torch.float32
    shape = like.shape
    loss = like.new_empty(shape if reduction == NONE else ())
    return (loss, like.new_empty(shape, dtype=real), like.new_empty(shape), like.new_empty(shape))


def _loss_rust(*args: Any) -> _Four:
    *logps, kind, beta, label_smoothing, reduction = args
    results = _allocated(logps[0], reduction)
    strides = [x.stride(0) for x in logps]
    loss_in_rust(logps, strides, results, kind, beta, label_smoothing, reduction)
    return results


@torch.no_grad()
def _loss_triton(*args: Any) -> _Four:
    from ..kernels.preferences import launch_dpo_loss

    *logps, kind, beta, label_smoothing, reduction = args
    results = _allocated(logps[0], reduction)
    launch_dpo_loss(tuple(logps), results, kind, beta, label_smoothing, reduction)
    return results


def _loss_fake(*args: Any) -> _Four:
    return _allocated(args[0], args[-1])


def _checked(body: Any) -> Any:
    def dpo_loss(*args: Any) -> _Four:
        check_logps(args[:4])
        results: _Four = body(*args)
        return results

    return dpo_loss


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, slopes, chosen, rejected = output
    ctx.mark_non_differentiable(slopes, chosen, rejected)
    ctx.set_materialize_grads(True)
    ctx.dtype = inputs[0].dtype
    ctx.save_for_backward(slopes)


def _backward(ctx: Any, grad: _Tensor, *_: Any) -> tuple[_Tensor | None, ...]:
    rising, falling = _backward_op(grad, ctx.saved_tensors[0], ctx.dtype)
    gradients = (rising, falling, falling, rising)
    kept = (x if want else None for x, want in zip(gradients, ctx.needs_input_grad, strict=False))
    return (*kept, None, None, None, None)


def _gradients(slopes: _Tensor, dtype: torch.dtype) -> tuple[_Tensor, _Tensor]:
    return torch.empty_like(slopes, dtype=dtype), torch.empty_like(slopes, dtype=dtype)


def _backward_rust(grad: _Tensor, slopes: _Tensor, dtype: torch.dtype) -> tuple[_Tensor, _Tensor]:
    rising = (grad * slopes).to(dtype)
    return rising, -rising


def _backward_triton(grad: _Tensor, slopes: _Tensor, dtype: torch.dtype) -> tuple[_Tensor, _Tensor]:
    from ..kernels.preferences import launch_dpo_backward

    rising, falling = _gradients(slopes, dtype)
    launch_dpo_backward(grad, slopes, rising, falling)
    return rising, falling


def _backward_fake(grad: _Tensor, slopes: _Tensor, dtype: torch.dtype) -> tuple[_Tensor, _Tensor]:
    return _gradients(slopes, dtype)


_dpo_op = _dispatch.register(
    "dpo_loss(Tensor policy_chosen, Tensor policy_rejected, Tensor ref_chosen, "
    "Tensor ref_rejected, int kind, float beta, float label_smoothing, int reduction) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    cpu=_checked(_loss_rust),
    cuda=_checked(_loss_triton),
    fake=_checked(_loss_fake),
    setup_context=_setup_context,
    backward=_backward,
)
_backward_op = _dispatch.register(
    "dpo_loss_backward(Tensor grad, Tensor slopes, ScalarType dtype) -> (Tensor, Tensor)",
    cpu=_backward_rust,
    cuda=_backward_triton,
    fake=_backward_fake,
)
