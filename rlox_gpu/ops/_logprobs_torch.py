"""Log-probabilities of tokens for torch tensors: registration with torch, and both devices."""

from __future__ import annotations

from typing import Any

import torch

from .. import _dispatch, _rust
from .._checks import positive_number
from ._arguments import FLOATS, address, dtype_name
from ._logprobs_shared import Rows, check_logits, check_range, two_strides
from ._results_torch import results_beside

_Pair = tuple[torch.Tensor, torch.Tensor | None]


def token_logprobs(
    logits: torch.Tensor, tokens: Any, temperature: float, return_entropy: bool
) -> _Pair:
    """``rlox_gpu.token_logprobs`` for tensors: check, choose, call."""
    temperature = positive_number("temperature", temperature)
    check_logits(logits, tokens)
    direct = logits.device.type in ("cpu", "cuda") and _dispatch.is_plain_call(logits, tokens)
    call = _forward if direct and not _dispatch.wants_grad(logits) else _forward_op
    logprobs, entropies, _, _ = call(logits, tokens, temperature, return_entropy)
    return logprobs, entropies if return_entropy else None


def linear_token_logprobs(*arguments: Any) -> _Pair:
    """``rlox_gpu.linear_token_logprobs`` for tensors."""
    from ._linear_logprobs_torch import linear_token_logprobs

    return linear_token_logprobs(*arguments)


def checked_tokens(tokens: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """The tokens as contiguous int64, looked at where that waits for no device."""
    tokens = tokens.to(torch.int64).contiguous()
    if _dispatch.runs_in_rust(tokens.device) and tokens.numel():
        lowest, highest = tokens.aminmax()
        check_range(int(lowest), int(highest), vocabulary)
    return tokens


def real_dtype(x: torch.Tensor) -> torch.dtype:
    """What results and sums over ``x`` are formed in."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def streamed(logits: torch.Tensor, tokens: torch.Tensor, temperature: float, entropy: bool) -> Rows:
    """What one pass over ``logits`` finds; an int64 token outside the vocabulary gives NaN."""
    rows = empty_rows(tokens, real_dtype(logits), entropy=entropy)
    if tokens.numel() == 0:
        return rows
    view = laid_out(logits)
    entropies = rows.entropies if entropy else None
    if not _dispatch.runs_in_rust(logits.device):
        from ..kernels.logprobs import launch_forward

        launch_forward(view, tokens, temperature, rows.logprobs, entropies, *rows[2:])
        return rows
    _rust.token_logprobs_raw(
        address(view),
        view.shape,
        view.stride()[:2],
        FLOATS[dtype_name(view)],
        address(tokens),
        temperature,
        address(rows.logprobs),
        address(rows.entropies) if entropy else 0,
        address(rows.maxima),
        address(rows.log_sums),
    )
    return rows


def streamed_gradient(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    rows: Rows,
    grad_logprobs: torch.Tensor,
    grad_entropies: torch.Tensor | None,
    temperature: float,
) -> torch.Tensor:
    """The gradient of ``logits``, contiguous; a token outside the vocabulary is no logit's."""
    # Logits that are all one stored row (expanded) have a gradient of their full shape.
    (grad_logits,) = results_beside(logits)
    if tokens.numel() == 0:
        return grad_logits
    view = laid_out(logits)
    grad_logprobs = grad_logprobs.contiguous()
    entropies = None
    if grad_entropies is not None:
        entropies, grad_entropies = rows.entropies, grad_entropies.contiguous()
    if not _dispatch.runs_in_rust(logits.device):
        from ..kernels.logprobs import launch_backward

        launch_backward(
            view,
            tokens,
            temperature,
            rows.maxima,
            rows.log_sums,
            entropies,
            grad_logprobs,
            grad_entropies,
            grad_logits.view(view.shape),
        )
        return grad_logits
    _rust.token_logprobs_backward_raw(
        address(view),
        view.shape,
        view.stride()[:2],
        FLOATS[dtype_name(view)],
        address(tokens),
        temperature,
        address(rows.maxima),
        address(rows.log_sums),
        0 if entropies is None else address(entropies),
        address(grad_logprobs),
        0 if grad_entropies is None else address(grad_entropies),
        address(grad_logits),
    )
    return grad_logits


def empty_rows(tokens: torch.Tensor, dtype: torch.dtype, *, entropy: bool) -> Rows:
    """Room for the results of each row."""
    shapes = (tokens.shape, tokens.shape if entropy else (0,), tokens.shape, tokens.shape)
    return Rows(*(torch.empty(shape, dtype=dtype, device=tokens.device) for shape in shapes))


def laid_out(logits: torch.Tensor) -> torch.Tensor:
    """``logits`` as ``[outer, inner, V]`` with contiguous rows."""
    logits = logits.detach().resolve_neg()
    rows = None
    if logits.shape[-1] == 1 or logits.stride(-1) == 1:
        rows = two_strides(logits.shape[:-1], logits.stride()[:-1])
    if rows is None:
        return logits.contiguous().view(1, -1, logits.shape[-1])
    shape, strides = rows
    return logits.as_strided((*shape, logits.shape[-1]), (*strides, 1))


def _forward(logits: torch.Tensor, tokens: torch.Tensor, temperature: float, entropy: bool) -> Rows:
    check_logits(logits, tokens)
    tokens = checked_tokens(tokens, logits.shape[-1])
    return streamed(logits, tokens, temperature, entropy)


def _forward_fake(
    logits: torch.Tensor, tokens: torch.Tensor, temperature: float, entropy: bool
) -> Rows:
    check_logits(logits, tokens)
    return empty_rows(tokens, real_dtype(logits), entropy=entropy)


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    logits, tokens, ctx.temperature, ctx.entropy = inputs
    _, entropies, maxima, log_sums = output
    ctx.save_for_backward(logits, tokens, entropies, maxima, log_sums)
    ctx.mark_non_differentiable(maxima, log_sums, *(() if ctx.entropy else (entropies,)))


def _gradients(ctx: Any, grad_logprobs: Any, grad_entropies: Any, *_: Any) -> Any:
    grad_entropies = grad_entropies if ctx.entropy else None
    saved = (*ctx.saved_tensors, grad_logprobs, grad_entropies)
    return _backward_op(*saved, ctx.temperature), None, None, None


def _backward(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    entropies: torch.Tensor,
    maxima: torch.Tensor,
    log_sums: torch.Tensor,
    grad_logprobs: torch.Tensor,
    grad_entropies: torch.Tensor | None,
    temperature: float,
) -> torch.Tensor:
    tokens = tokens.to(torch.int64).contiguous()
    rows = Rows(None, entropies, maxima, log_sums)
    return streamed_gradient(logits, tokens, rows, grad_logprobs, grad_entropies, temperature)


def _backward_fake(logits: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


def _no_second_derivative(ctx: Any, *_: Any) -> Any:
    raise NotImplementedError("token_logprobs: expected one derivative, got a second")


_backward_op = _dispatch.register(
    "token_logprobs_backward(Tensor logits, Tensor tokens, Tensor entropies, Tensor maxima, "
    "Tensor log_sums, Tensor grad_logprobs, Tensor? grad_entropies, float temperature) -> Tensor",
    cpu=_backward,
    cuda=_backward,
    fake=_backward_fake,
    backward=_no_second_derivative,
)
_forward_op = _dispatch.register(
    "token_logprobs(Tensor logits, Tensor tokens, float temperature, bool entropy) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    cpu=_forward,
    cuda=_forward,
    fake=_forward_fake,
    setup_context=_setup_context,
    backward=_gradients,
)
