"""Log-probabilities of tokens from hidden states: the logits in chunks, for torch tensors."""

from __future__ import annotations

from typing import Any

import torch

from .. import _dispatch
from .._checks import positive_number
from ._logprobs_shared import (
    CHUNK_COLUMNS,
    CHUNK_ROWS,
    Rows,
    check_linear,
    chunks,
    joined,
    nothing_yet,
    settled,
)
from ._logprobs_torch import checked_tokens, empty_rows, real_dtype, streamed, streamed_gradient
from ._results_torch import results_beside

_Tensor = torch.Tensor


def linear_token_logprobs(
    hidden: _Tensor,
    weight: Any,
    tokens: Any,
    bias: Any,
    temperature: float,
    return_entropy: bool,
) -> tuple[_Tensor, _Tensor | None]:
    """``rlox_gpu.linear_token_logprobs`` for tensors: check and call."""
    temperature = positive_number("temperature", temperature)
    check_linear(hidden, weight, tokens, bias)
    logprobs, entropies, _, _ = _forward_op(
        hidden, weight, tokens, bias, temperature, return_entropy
    )
    return logprobs, entropies if return_entropy else None


def _forward(
    hidden: _Tensor,
    weight: _Tensor,
    tokens: _Tensor,
    bias: _Tensor | None,
    temperature: float,
    entropy: bool,
) -> Rows:
    check_linear(hidden, weight, tokens, bias)
    tokens = checked_tokens(tokens, len(weight))
    results = empty_rows(tokens, real_dtype(hidden), entropy=entropy)
    states = hidden.reshape(-1, hidden.shape[-1])
    flat = Rows(*(x.view(-1) for x in results))
    tokens = tokens.view(-1)
    with torch.autocast(hidden.device.type, enabled=False):
        for part in chunks(len(states), CHUNK_ROWS):
            rows = nothing_yet(torch, flat.logprobs[part], entropy=entropy)
            for columns in chunks(len(weight), CHUNK_COLUMNS):
                local = tokens[part] - columns.start
                logits = _logits(states[part], weight, bias, columns)
                found = streamed(logits, local, temperature, entropy)
                del logits  # before the next chunk is made
                inside = (local >= 0) & (local < columns.stop - columns.start)
                rows = joined(torch, rows, found, inside, temperature)
            for target, values in zip(flat, settled(torch, rows), strict=True):
                if len(target):
                    target[part] = values
    return results


def _logits(states: _Tensor, weight: _Tensor, bias: _Tensor | None, columns: slice) -> _Tensor:
    return torch.nn.functional.linear(
        states, weight[columns], None if bias is None else bias[columns]
    )


def _backward(
    hidden: _Tensor,
    weight: _Tensor,
    tokens: _Tensor,
    bias: _Tensor | None,
    entropies: _Tensor,
    maxima: _Tensor,
    log_sums: _Tensor,
    grad_logprobs: _Tensor,
    grad_entropies: _Tensor | None,
    temperature: float,
    wanted: list[bool],
) -> tuple[_Tensor, _Tensor, _Tensor]:
    states = hidden.reshape(-1, hidden.shape[-1])
    tokens = tokens.to(torch.int64).reshape(-1)
    entropies, maxima, log_sums = (x.view(-1) for x in (entropies, maxima, log_sums))
    grad_logprobs = grad_logprobs.reshape(-1)
    grad_entropies = None if grad_entropies is None else grad_entropies.reshape(-1)

    def gradient_of_logits(part: slice, columns: slice) -> _Tensor:
        return streamed_gradient(
            _logits(states[part], weight, bias, columns),
            tokens[part] - columns.start,
            Rows(None, entropies[part], maxima[part], log_sums[part]),
            grad_logprobs[part],
            None if grad_entropies is None else grad_entropies[part],
            temperature,
        )

    real = real_dtype(hidden)
    grad_hidden, grad_weight, grad_bias = results = _empty_gradients(hidden, weight, wanted)
    hidden_sums = states.new_zeros(states.shape if wanted[0] else 0, dtype=real)
    with torch.autocast(hidden.device.type, enabled=False):
        for columns in chunks(len(weight), CHUNK_COLUMNS):
            weight_sums = torch.zeros_like(weight[columns], dtype=real)
            bias_sums = weight_sums.new_zeros(len(weight_sums))
            for part in chunks(len(states), CHUNK_ROWS):
                gradient = gradient_of_logits(part, columns)
                if wanted[0]:
                    hidden_sums[part] += gradient @ weight[columns]
                if wanted[1]:
                    weight_sums += gradient.T @ states[part]
                if wanted[2]:
                    bias_sums += gradient.sum(0, dtype=real)
                del gradient
            if wanted[1]:
                grad_weight[columns] = weight_sums
            if wanted[2]:
                grad_bias[columns] = bias_sums
    if wanted[0]:
        grad_hidden.copy_(hidden_sums.view(hidden.shape))
    return results


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    hidden, weight, tokens, bias, ctx.temperature, ctx.entropy = inputs
    _, entropies, maxima, log_sums = output
    ctx.save_for_backward(hidden, weight, tokens, bias, entropies, maxima, log_sums)
    ctx.mark_non_differentiable(maxima, log_sums, *(() if ctx.entropy else (entropies,)))


def _gradients(ctx: Any, grad_logprobs: Any, grad_entropies: Any, *_: Any) -> Any:
    grad_entropies = grad_entropies if ctx.entropy else None
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[3]]
    saved = (*ctx.saved_tensors, grad_logprobs, grad_entropies)
    found = _backward_op(*saved, ctx.temperature, wanted)
    hidden, weight, bias = (x if w else None for x, w in zip(found, wanted, strict=True))
    return hidden, weight, None, bias, None, None


def _forward_fake(
    hidden: _Tensor,
    weight: _Tensor,
    tokens: _Tensor,
    bias: _Tensor | None,
    temperature: float,
    entropy: bool,
) -> Rows:
    check_linear(hidden, weight, tokens, bias)
    return empty_rows(tokens, real_dtype(hidden), entropy=entropy)


def _empty_gradients(
    hidden: _Tensor, weight: _Tensor, wanted: list[bool]
) -> tuple[_Tensor, _Tensor, _Tensor]:
    """Room for the gradients; what is not wanted has no elements."""
    of_hidden, of_weight = (
        results_beside(x)[0] if want else x.new_empty(0)
        for x, want in zip((hidden, weight), wanted[:2], strict=True)
    )
    return of_hidden, of_weight, hidden.new_empty(len(weight) if wanted[2] else 0)


def _backward_fake(
    hidden: _Tensor, weight: _Tensor, *others: Any
) -> tuple[_Tensor, _Tensor, _Tensor]:
    return _empty_gradients(hidden, weight, others[-1])


def _no_second_derivative(ctx: Any, *_: Any) -> Any:
    raise NotImplementedError("linear_token_logprobs: expected one derivative, got a second")


_backward_op = _dispatch.register(
    "linear_token_logprobs_backward(Tensor hidden, Tensor weight, Tensor tokens, Tensor? bias, "
    "Tensor entropies, Tensor maxima, Tensor log_sums, Tensor grad_logprobs, "
    "Tensor? grad_entropies, float temperature, bool[] wanted) -> (Tensor, Tensor, Tensor)",
    cpu=_backward,
    cuda=_backward,
    fake=_backward_fake,
    backward=_no_second_derivative,
)
_forward_op = _dispatch.register(
    "linear_token_logprobs(Tensor hidden, Tensor weight, Tensor tokens, Tensor? bias, "
    "float temperature, bool entropy) -> (Tensor, Tensor, Tensor, Tensor)",
    cpu=_forward,
    cuda=_forward,
    fake=_forward_fake,
    setup_context=_setup_context,
    backward=_gradients,
)
