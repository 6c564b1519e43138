"""The policy losses on torch tensors: registration with torch, and both devices."""

from __future__ import annotations

from typing import Any

import torch

from .. import _dispatch, _rust
from ._arguments import FLOATS, dtype_name
from ._policy_losses_common import (
    GRPORules,
    check_gaussian,
    check_grpo,
    check_ppo,
    gaussian_into_rust,
    grpo_into_rust,
    is_shared,
    ppo_into_rust,
    real_name,
)

_Tensors = tuple[torch.Tensor, ...]


def ppo_loss(logits: Any, actions: Any, *rest: Any) -> _Tensors:
    """``rlox_gpu.ppo_loss`` for tensors; ``rest`` is the six columns and the three coefficients."""
    values = rest[3]
    check_ppo(logits, actions, rest[:6])
    if _without_gradient((logits, actions, *rest[:6]), (logits, values)):
        loss, parts, _, _ = _ppo_body(logits, actions, *rest, with_gradient=False)
    else:
        constants = [x.detach() if isinstance(x, torch.Tensor) else x for x in rest]
        constants[3] = values
        loss, parts, _, _ = _ppo_op(logits, actions, *constants)
    return loss, *parts.unbind()


def gaussian_ppo_loss(mean: Any, log_std: Any, actions: Any, *rest: Any) -> _Tensors:
    """``rlox_gpu.gaussian_ppo_loss`` for tensors; ``rest`` is as for :func:`ppo_loss`."""
    values = rest[3]
    check_gaussian(mean, log_std, actions, rest[:6])
    if _without_gradient((mean, log_std, actions, *rest[:6]), (mean, log_std, values)):
        loss, parts, *_ = _gaussian_body(mean, log_std, actions, *rest, with_gradient=False)
    else:
        constants = [x.detach() if isinstance(x, torch.Tensor) else x for x in (actions, *rest)]
        constants[4] = values
        loss, parts, *_ = _gaussian_op(mean, log_std, *constants)
    return loss, *parts.unbind()


def grpo_loss(logprobs: Any, *rest: Any) -> _Tensors:
    """``rlox_gpu.grpo_loss`` for tensors: the five of them and the rules."""
    arrays = (logprobs, *rest[:4])
    check_grpo(*arrays)
    if _without_gradient(arrays, (logprobs,)):
        loss, parts, _, _ = _grpo_body(logprobs, *rest, with_gradient=False)
    else:
        constants = [x.detach() if isinstance(x, torch.Tensor) else x for x in rest]
        loss, parts, _, _ = _grpo_op(logprobs, *constants)
    return loss, *parts.unbind()


def _without_gradient(inputs: tuple[Any, ...], differentiable: tuple[Any, ...]) -> bool:
    """Whether nothing but the numbers is wanted, of tensors that a kernel can be given as is."""
    return (
        _dispatch.is_plain_call(*inputs)
        and not _dispatch.wants_grad(*differentiable)
        and inputs[0].device.type in ("cpu", "cuda")
    )


def _ppo_allocated(logits: torch.Tensor, actions: torch.Tensor) -> _Tensors:
    """Loss, its parts, the scale of the gradient, and the gradient of the sum over the samples."""
    gradient = logits.new_empty(logits.numel() + actions.numel())
    return *(_reals(logits, *size) for size in ((), (5,), (1,))), gradient


def _reals(like: torch.Tensor, *size: int) -> torch.Tensor:
    return torch.empty(size, dtype=getattr(torch, real_name(like)), device=like.device)


def _ppo_body(
    logits: torch.Tensor, actions: torch.Tensor, *rest: Any, with_gradient: bool = True
) -> _Tensors:
    columns, coefficients = rest[:6], rest[6:]
    check_ppo(logits, actions, columns)
    loss, parts, scale, gradient = _ppo_allocated(logits, actions)
    logits, actions, *numbers = map(_contiguous, (logits, actions, *columns[:5]))
    into = ppo_into_rust if _dispatch.runs_in_rust(logits.device) else _ppo_into_triton
    into(
        logits,
        actions,
        (*numbers, _flags(columns[5])),
        gradient if with_gradient else None,
        (loss, parts, scale),
        coefficients,
    )
    return loss, parts, scale, gradient


def _ppo_into_triton(*arguments: Any) -> None:
    from ..kernels.ppo_loss import launch_ppo_loss

    launch_ppo_loss(*arguments)


def _ppo_fake(logits: torch.Tensor, actions: torch.Tensor, *rest: Any) -> _Tensors:
    check_ppo(logits, actions, rest[:6])
    return _ppo_allocated(logits, actions)


def _ppo_setup(ctx: Any, inputs: tuple[Any, ...], output: _Tensors) -> None:
    ctx.shapes = inputs[0].shape, inputs[1].shape
    _keep_gradient(ctx, output)


def _ppo_backward(ctx: Any, factor: torch.Tensor, *_: Any) -> tuple[Any, ...]:
    gradient, scale = ctx.saved_tensors
    logits_shape, shape = ctx.shapes
    scaled = _scaled_op(gradient, scale, factor)
    d_logits = scaled[: logits_shape.numel()].view(logits_shape)
    d_values = scaled[logits_shape.numel() :].view(shape)
    return d_logits, None, None, None, None, d_values, None, None, None, None, None


def _gaussian_allocated(mean: torch.Tensor, log_std: torch.Tensor) -> _Tensors:
    """Loss, its parts, scale and unscaled gradient, and the scaled one of a shared ``log_std``."""
    shared = is_shared(mean, log_std)
    numbers = mean.numel() if shared else 2 * mean.numel()
    gradient = mean.new_empty(numbers + mean.numel() // mean.shape[-1])
    reals = (_reals(mean, *size) for size in ((), (5,), (1,)))
    return *reals, gradient, _reals(mean, mean.shape[-1] if shared else 0)


def _gaussian_body(
    mean: torch.Tensor,
    log_std: torch.Tensor,
    actions: torch.Tensor,
    *rest: Any,
    with_gradient: bool = True,
) -> _Tensors:
    columns, coefficients = rest[:6], rest[6:]
    check_gaussian(mean, log_std, actions, columns)
    loss, parts, scale, gradient, shared = _gaussian_allocated(mean, log_std)
    mean, log_std, actions, *numbers = map(_contiguous, (mean, log_std, actions, *columns[:5]))
    into = gaussian_into_rust if _dispatch.runs_in_rust(mean.device) else _gaussian_into_triton
    into(
        (mean, log_std, actions),
        (*numbers, _flags(columns[5])),
        (gradient, shared if shared.numel() else None) if with_gradient else (None, None),
        (loss, parts, scale),
        coefficients,
    )
    return loss, parts, scale, gradient, shared


def _gaussian_into_triton(*arguments: Any) -> None:
    from ..kernels.gaussian_ppo_loss import launch_gaussian_ppo_loss

    launch_gaussian_ppo_loss(*arguments)


def _gaussian_fake(
    mean: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor, *rest: Any
) -> _Tensors:
    check_gaussian(mean, log_std, actions, rest[:6])
    return _gaussian_allocated(mean, log_std)


def _gaussian_setup(ctx: Any, inputs: tuple[Any, ...], output: _Tensors) -> None:
    ctx.shapes = inputs[0].shape, inputs[1].shape
    _, parts, scale, gradient, shared = output
    ctx.mark_non_differentiable(parts, scale, gradient, shared)
    ctx.save_for_backward(gradient, scale, shared)


def _gaussian_backward(ctx: Any, factor: torch.Tensor, *_: Any) -> tuple[Any, ...]:
    gradient, scale, shared = ctx.saved_tensors
    shape, log_std_shape = ctx.shapes
    scaled = _scaled_op(gradient, scale, factor)
    numbers = shape.numel()
    if shape == log_std_shape:
        d_log_std = scaled[numbers : 2 * numbers].view(shape)
    else:
        d_log_std = (shared * factor).to(gradient.dtype)
    d_values = scaled[-(numbers // shape[-1]) :] if numbers else scaled
    constants = (None,) * 5
    d_mean = scaled[:numbers].view(shape)
    return d_mean, d_log_std, None, None, None, None, d_values.view(shape[:-1]), *constants


def _grpo_allocated(logprobs: torch.Tensor) -> _Tensors:
    """Loss, its parts, the scale of each row of the gradient, and the unscaled gradient."""
    reals = (_reals(logprobs, *size) for size in ((), (3,), (len(logprobs),)))
    return *reals, logprobs.new_empty(logprobs.shape)


def _grpo_body(*arguments: Any, with_gradient: bool = True) -> _Tensors:
    check_grpo(*arguments[:5])
    loss, parts, scale, gradient = _grpo_allocated(arguments[0])
    arrays = (*map(_contiguous, arguments[:4]), _flags(arguments[4]))
    into = grpo_into_rust if _dispatch.runs_in_rust(loss.device) else _grpo_into_triton
    room = gradient if with_gradient else None
    into(arrays, room, (loss, parts, scale), GRPORules(*arguments[5:]))
    return loss, parts, scale, gradient


def _grpo_into_triton(*arguments: Any) -> None:
    from ..kernels.grpo_loss import launch_grpo_loss

    launch_grpo_loss(*arguments)


def _grpo_fake(*arguments: Any) -> _Tensors:
    check_grpo(*arguments[:5])
    return _grpo_allocated(arguments[0])


def _grpo_setup(ctx: Any, inputs: tuple[Any, ...], output: _Tensors) -> None:
    _keep_gradient(ctx, output)


def _grpo_backward(ctx: Any, factor: torch.Tensor, *_: Any) -> tuple[Any, ...]:
    return _scaled_op(*ctx.saved_tensors, factor), *(None,) * 11


def _keep_gradient(ctx: Any, output: _Tensors) -> None:
    """Of loss, parts, scale and unscaled gradient only the loss is a function of the inputs."""
    _, parts, scale, gradient = output
    ctx.mark_non_differentiable(parts, scale, gradient)
    ctx.save_for_backward(gradient, scale)


def _contiguous(x: Any) -> Any:
    return x if x is None else x.contiguous()


def _flags(mask: Any) -> Any:
    """The mask as contiguous bytes, one where a sample counts."""
    if mask is None:
        return None
    flags = mask if mask.dtype is torch.bool else mask != 0
    return flags.contiguous().view(torch.uint8)


def _scaled_rust(gradient: torch.Tensor, scale: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(gradient)
    rows = scale.numel()
    _rust.scaled_raw(
        gradient.data_ptr(),
        scale.data_ptr(),
        factor.data_ptr(),
        out.data_ptr(),
        rows,
        gradient.numel() // max(rows, 1),
        FLOATS[dtype_name(gradient)],
    )
    return out


def _scaled_triton(
    gradient: torch.Tensor, scale: torch.Tensor, factor: torch.Tensor
) -> torch.Tensor:
    from ..kernels.surrogate import launch_scaled

    out = torch.empty_like(gradient)
    launch_scaled(gradient, scale, factor, out)
    return out


def _scaled_fake(gradient: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(gradient)


_scaled_op = _dispatch.register(
    "scaled(Tensor gradient, Tensor scale, Tensor factor) -> Tensor",
    cpu=_scaled_rust,
    cuda=_scaled_triton,
    fake=_scaled_fake,
)
_ppo_op = _dispatch.register(
    "ppo_loss(Tensor logits, Tensor actions, Tensor old_log_probs, Tensor advantages, "
    "Tensor returns, Tensor values, Tensor? old_values, Tensor? mask, float clip_eps, "
    "float vf_coef, float ent_coef) -> (Tensor, Tensor, Tensor, Tensor)",
    cpu=_ppo_body,
    cuda=_ppo_body,
    fake=_ppo_fake,
    setup_context=_ppo_setup,
    backward=_ppo_backward,
)
_gaussian_op = _dispatch.register(
    "gaussian_ppo_loss(Tensor mean, Tensor log_std, Tensor actions, Tensor old_log_probs, "
    "Tensor advantages, Tensor returns, Tensor values, Tensor? old_values, Tensor? mask, "
    "float clip_eps, float vf_coef, float ent_coef) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    cpu=_gaussian_body,
    cuda=_gaussian_body,
    fake=_gaussian_fake,
    setup_context=_gaussian_setup,
    backward=_gaussian_backward,
)
_grpo_op = _dispatch.register(
    "grpo_loss(Tensor logprobs, Tensor old_logprobs, Tensor advantages, Tensor? ref_logprobs, "
    "Tensor? mask, float low, float high, float kl_coef, int kl_kind, bool per_sequence, "
    "int aggregation, float max_tokens) -> (Tensor, Tensor, Tensor, Tensor)",
    cpu=_grpo_body,
    cuda=_grpo_body,
    fake=_grpo_fake,
    setup_context=_grpo_setup,
    backward=_grpo_backward,
)
