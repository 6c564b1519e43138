"""The divergence of categoricals on torch tensors: registration with torch, and both devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import _dispatch, _rust
from .._checks import positive_number
from ._arguments import FLOATS, address, dtype_name
from ._full_kl_arguments import Place, check_full_kl, check_reduction, forward_in_rust
from ._kl_torch import reduced
from ._logprobs_torch import laid_out, real_dtype
from ._results_torch import results_beside

_Optional = torch.Tensor | None
_Pair = tuple[torch.Tensor, torch.Tensor]


def full_kl(
    logits: torch.Tensor, ref_logits: Any, temperature: float, mask: Any, reduction: int
) -> torch.Tensor:
    """``rlox_gpu.full_kl`` for tensors; ``reduction`` is a code."""
    temperature = positive_number("temperature", temperature)
    check_full_kl(logits, ref_logits, mask)
    check_reduction(logits, reduction)
    plain = _dispatch.is_plain_call(logits, ref_logits, mask)
    direct = plain and logits.device.type in ("cpu", "cuda")
    call = _forward if direct and not _dispatch.wants_grad(logits, ref_logits) else _forward_op
    divergences, _ = call(logits, ref_logits, mask, temperature)
    return reduced(divergences, mask, reduction)


def _forward(
    logits: torch.Tensor, ref_logits: torch.Tensor, mask: _Optional, temperature: float
) -> _Pair:
    divergences, statistics = _forward_fake(logits, ref_logits, mask, temperature)
    if divergences.numel() == 0:
        return divergences, statistics
    rows, ref_rows = laid_out(logits), laid_out(ref_logits)
    flags = _flags(mask)
    if _dispatch.runs_in_rust(logits.device):
        places = (_place(rows), _place(ref_rows))
        forward_in_rust(places, logits, flags, temperature, divergences, statistics)
    else:
        from ..kernels.full_kl import launch_forward

        launch_forward(rows, ref_rows, flags, temperature, divergences, statistics)
    return divergences, statistics


def _forward_fake(
    logits: torch.Tensor, ref_logits: torch.Tensor, mask: _Optional, temperature: float
) -> _Pair:
    check_full_kl(logits, ref_logits, mask)
    shape, real = logits.shape[:-1], real_dtype(logits)
    divergences = torch.empty(shape, dtype=real, device=logits.device)
    return divergences, torch.empty((*shape, 4), dtype=real, device=logits.device)


def _place(rows: torch.Tensor) -> Place:
    outer, inner, _ = rows.shape
    return address(rows), (outer, inner), (rows.stride(0), rows.stride(1))


def _flags(mask: _Optional) -> _Optional:
    """The mask as contiguous bools."""
    if mask is None:
        return None
    return (mask if mask.dtype is torch.bool else mask != 0).contiguous()


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    logits, ref_logits, mask, ctx.temperature = inputs
    divergences, statistics = output
    ctx.save_for_backward(logits, ref_logits, mask, divergences, statistics)
    ctx.mark_non_differentiable(statistics)


def _gradients(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[_Optional, ...]:
    wanted = list(ctx.needs_input_grad[:2])
    gradients = _backward_op(grad, *ctx.saved_tensors, ctx.temperature, wanted)
    kept = (x if want else None for x, want in zip(gradients, wanted, strict=True))
    return (*kept, None, None)


def _backward(
    grad: torch.Tensor,
    logits: torch.Tensor,
    ref_logits: torch.Tensor,
    mask: _Optional,
    divergences: torch.Tensor,
    statistics: torch.Tensor,
    temperature: float,
    wanted: Sequence[bool],
) -> _Pair:
    gradients = _backward_fake(grad, logits, wanted)
    if divergences.numel() == 0:
        return gradients
    rows, ref_rows = laid_out(logits), laid_out(ref_logits)
    grad, flags = grad.contiguous(), _flags(mask)
    if not _dispatch.runs_in_rust(logits.device):
        from ..kernels.full_kl import launch_backward

        saved = (grad, divergences, statistics)
        targets = [
            x.view(1, -1, logits.shape[-1]) if want else None
            for x, want in zip(gradients, wanted, strict=True)
        ]
        launch_backward(rows, ref_rows, flags, temperature, *saved, *targets)
        return gradients
    to_logits, to_ref = (
        address(x) if want else 0 for x, want in zip(gradients, wanted, strict=True)
    )
    _rust.full_kl_backward_raw(
        _place(rows),
        _place(ref_rows),
        logits.shape[-1],
        FLOATS[dtype_name(logits)],
        0 if flags is None else address(flags),
        temperature,
        address(grad),
        address(divergences),
        address(statistics),
        to_logits,
        to_ref,
    )
    return gradients


def _backward_fake(grad: torch.Tensor, logits: torch.Tensor, *rest: Any) -> _Pair:
    """Memory for the gradients; nothing for one that is not wanted."""
    first, second = (
        results_beside(logits)[0] if want else logits.new_empty(0) for want in rest[-1]
    )
    return first, second


def _no_second_derivative(ctx: Any, *_: Any) -> Any:
    raise NotImplementedError("full_kl: expected one derivative, got a second")


_backward_op = _dispatch.register(
    "full_kl_backward(Tensor grad, Tensor logits, Tensor ref_logits, Tensor? mask, "
    "Tensor divergences, Tensor statistics, float temperature, bool[] wanted) -> (Tensor, Tensor)",
    cpu=_backward,
    cuda=_backward,
    fake=_backward_fake,
    backward=_no_second_derivative,
)
_forward_op = _dispatch.register(
    "full_kl(Tensor logits, Tensor ref_logits, Tensor? mask, float temperature) "
    "-> (Tensor, Tensor)",
    cpu=_forward,
    cuda=_forward,
    fake=_forward_fake,
    setup_context=_setup_context,
    backward=_gradients,
)
