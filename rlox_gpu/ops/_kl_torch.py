"""The divergences on torch tensors: registration with torch, and both devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import _dispatch, _rust
from ._arguments import FLOATS
from ._kl_arguments import (
    K1,
    MEAN,
    NONE,
    SEQUENCE,
    backward_in_rust,
    check_token_kl,
    forward_in_rust,
    reduced_shape,
)
from ._results_torch import LARGE, results_beside

_Optional = torch.Tensor | None
_Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


_CODES = {getattr(torch, name): code for name, code in FLOATS.items()}


def token_kl_at_once(logprobs: torch.Tensor, ref_logprobs: Any, kind: int) -> _Optional:
    """``token_kl`` of contiguous tensors on the CPU; None for anything else.

    What this refuses goes the usual way, where it is served or told what is wrong.
    """
    if not _dispatch.is_plain_call(logprobs, ref_logprobs):
        return None
    dtype, device = logprobs.dtype, logprobs.device
    if not (
        ref_logprobs is not None
        and _dispatch.runs_in_rust(device)
        and ref_logprobs.dtype is dtype
        and ref_logprobs.device == device
        and ref_logprobs.shape == logprobs.shape
        and logprobs.is_contiguous()
        and ref_logprobs.is_contiguous()
        and dtype in _CODES
        and not _dispatch.wants_grad(logprobs, ref_logprobs)
    ):
        return None
    if logprobs.nbytes < LARGE:
        out = torch.empty_like(logprobs)
    else:
        (out,) = results_beside(logprobs, ref_logprobs)
    _rust.token_kl_contiguous(
        logprobs.data_ptr(),
        ref_logprobs.data_ptr(),
        out.data_ptr(),
        out.numel(),
        _CODES[dtype],
        kind,
    )
    return out


def token_kl(
    logprobs: torch.Tensor, ref_logprobs: Any, ratio: Any, mask: Any, kind: int, reduction: int
) -> torch.Tensor:
    """``rlox_gpu.token_kl`` for tensors; ``kind`` and ``reduction`` are codes."""
    check_token_kl(logprobs, ref_logprobs, ratio, mask, reduction)
    plain = _dispatch.is_plain_call(logprobs, ref_logprobs, ratio, mask)
    if plain and not _dispatch.wants_grad(logprobs, ref_logprobs, ratio):
        if _dispatch.runs_in_rust(logprobs.device):
            out = _allocated(logprobs, reduction)
            forward_in_rust(logprobs, ref_logprobs, ratio, mask, kind, reduction, out)
            return out
        if logprobs.device.type in ("cpu", "cuda"):
            return _forward_triton(logprobs, ref_logprobs, ratio, mask, kind, reduction)[0]
    result: torch.Tensor = _token_kl_op(logprobs, ref_logprobs, ratio, mask, kind, reduction)[0]
    return result


def reduced(divergences: torch.Tensor, mask: Any, reduction: int) -> torch.Tensor:
    """Any divergences, reduced as ``token_kl`` reduces its own."""
    if reduction == NONE:
        return divergences
    # Against a reference of zero, k1 is what it is given.
    zeros = divergences.new_zeros(()).expand(divergences.shape)
    return token_kl(divergences, zeros, None, mask, K1, reduction)


def _allocated(logprobs: torch.Tensor, reduction: int) -> torch.Tensor:
    if reduction == NONE:
        return results_beside(logprobs)[0]
    return logprobs.new_empty(reduced_shape(tuple(logprobs.shape), reduction))


def _forward_rust(
    logprobs: torch.Tensor,
    ref_logprobs: torch.Tensor,
    ratio: _Optional,
    mask: _Optional,
    kind: int,
    reduction: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    out = _allocated(logprobs, reduction)
    count = forward_in_rust(logprobs, ref_logprobs, ratio, mask, kind, reduction, out)
    return out, torch.tensor(count)


@torch.no_grad()
def _forward_triton(
    logprobs: torch.Tensor,
    ref_logprobs: torch.Tensor,
    ratio: _Optional,
    mask: _Optional,
    kind: int,
    reduction: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    from ..kernels.kl import launch_token_kl

    out = _allocated(logprobs, reduction)
    count = logprobs.new_empty((), dtype=torch.int64)
    launch_token_kl(logprobs, ref_logprobs, ratio, mask, kind, reduction, out, count)
    return out, count


def _checked(body: Any) -> Any:
    def token_kl(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs, ref_logprobs, ratio, mask, _, reduction = args
        check_token_kl(logprobs, ref_logprobs, ratio, mask, reduction)
        result: tuple[torch.Tensor, torch.Tensor] = body(*args)
        return result

    return token_kl


def _forward_fake(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    logprobs, *_, reduction = args
    return _allocated(logprobs, reduction), logprobs.new_empty((), dtype=torch.int64)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    logprobs, ref_logprobs, ratio, mask, ctx.kind, ctx.reduction = inputs
    count = output[1] if ctx.reduction == MEAN else None
    ctx.save_for_backward(logprobs, ref_logprobs, ratio, mask, count)
    ctx.set_materialize_grads(True)


def _backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[_Optional, ...]:
    logprobs, ref_logprobs, ratio, mask, count = ctx.saved_tensors
    if ctx.reduction == SEQUENCE:
        grad = grad.unsqueeze(-1)
    wanted = list(ctx.needs_input_grad[:3])
    gradients = _backward_op(
        grad.expand(logprobs.shape), logprobs, ref_logprobs, ratio, mask, count, ctx.kind, wanted
    )
    kept = (x if want else None for x, want in zip(gradients, wanted, strict=True))
    return (*kept, None, None, None)


def _gradients(logprobs: torch.Tensor, wanted: Sequence[bool]) -> _Three:
    """Memory for the gradients; nothing for one that is not wanted."""
    first, second, third = (
        results_beside(logprobs)[0] if want else logprobs.new_empty(0) for want in wanted
    )
    return first, second, third


def _chosen(gradients: _Three, wanted: Sequence[bool]) -> Any:
    return tuple(x if want else None for x, want in zip(gradients, wanted, strict=True))


def _backward_rust(
    grad: torch.Tensor,
    logprobs: torch.Tensor,
    ref_logprobs: torch.Tensor,
    ratio: _Optional,
    mask: _Optional,
    count: _Optional,
    kind: int,
    wanted: Sequence[bool],
) -> _Three:
    gradients = _gradients(logprobs, wanted)
    divisor = 1 if count is None else max(1, int(count))
    chosen = _chosen(gradients, wanted)
    backward_in_rust(grad, divisor, logprobs, ref_logprobs, ratio, mask, kind, chosen)
    return gradients


def _backward_triton(
    grad: torch.Tensor,
    logprobs: torch.Tensor,
    ref_logprobs: torch.Tensor,
    ratio: _Optional,
    mask: _Optional,
    count: _Optional,
    kind: int,
    wanted: Sequence[bool],
) -> _Three:
    from ..kernels.kl_backward import launch_token_kl_backward

    gradients = _gradients(logprobs, wanted)
    chosen = _chosen(gradients, wanted)
    launch_token_kl_backward(grad, count, logprobs, ref_logprobs, ratio, mask, kind, chosen)
    return gradients


def _backward_fake(grad: torch.Tensor, logprobs: torch.Tensor, *rest: Any) -> _Three:
    return _gradients(logprobs, rest[-1])


_token_kl_op = _dispatch.register(
    "token_kl(Tensor logprobs, Tensor ref_logprobs, Tensor? ratio, Tensor? mask, int kind, "
    "int reduction) -> (Tensor, Tensor)",
    cpu=_checked(_forward_rust),
    cuda=_checked(_forward_triton),
    fake=_checked(_forward_fake),
    setup_context=_setup_context,
    backward=_backward,
)
_backward_op = _dispatch.register(
    "token_kl_backward(Tensor grad, Tensor logprobs, Tensor ref_logprobs, Tensor? ratio, "
    "Tensor? mask, Tensor? count, int kind, bool[] wanted) -> (Tensor, Tensor, Tensor)",
    cpu=_backward_rust,
    cuda=_backward_triton,
    fake=_backward_fake,
)
