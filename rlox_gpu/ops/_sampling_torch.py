"""The sampling ops on torch tensors: checks, registration with torch, and both devices."""

from __future__ import annotations

import math
from typing import Any

import torch

from .. import _dispatch, _rust
from .._checks import SEEDS, WORDS, integer
from ._arguments import FLOATS, check_like, dtype_name
from ._sampling_checks import check_gaussian, check_rows
from .random import signed

_Tensor = torch.Tensor
_Pair = tuple[_Tensor, _Tensor]
_Triple = tuple[_Tensor, _Tensor, _Tensor]


def sample_categorical(logits: _Tensor, *, seed: Any, step: Any) -> _Triple:
    """``rlox_gpu.sample_categorical`` for tensors."""
    check_rows("logits", logits)
    seed = integer("seed", seed, SEEDS)
    number, step_at = _counter(step, "logits", logits)
    if (
        not _dispatch.is_plain_call(logits, step_at)
        or logits.device.type not in ("cpu", "cuda")
        or _dispatch.wants_grad(logits)
    ):
        log_prob, entropy, actions = _categorical_op(logits, signed(seed), number, step_at)
    else:
        rust = _dispatch.runs_in_rust(logits.device)
        body = _categorical_rust if rust else _categorical_triton
        log_prob, entropy, actions = body(logits, seed, number, step_at)
    return actions, log_prob, entropy


def _counter(step: Any, like_name: str, like: _Tensor) -> tuple[int, _Tensor | None]:
    """The step as a number, or 0 and the tensor that holds it."""
    if not isinstance(step, _Tensor):
        return integer("step", step, WORDS), None
    check_like("step", step, like_name, like, dtypes=("int32", "int64", "uint32"), shape=())
    return 0, step


def _real(x: _Tensor) -> torch.dtype:
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def _lines(x: _Tensor) -> _Tensor:
    """``x`` with its leading dimensions as one; a copy only where strides do not allow a view."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _dense_lines(x: _Tensor) -> _Tensor:
    lines = _lines(x)
    return lines if lines.stride(1) == 1 else lines.contiguous()


def _place(lines: _Tensor) -> tuple[int, int, int]:
    return lines.data_ptr(), lines.stride(0), lines.stride(1)


# Torch's own checks of an op add up its results, from the first on: that one is no integer.
def _categorical_empty(logits: _Tensor) -> _Triple:
    shape, device = logits.shape[:-1], logits.device
    dtypes = _real(logits), _real(logits), torch.int64
    log_prob, entropy, actions = (torch.empty(shape, dtype=x, device=device) for x in dtypes)
    return log_prob, entropy, actions


def _dense_like(x: _Tensor) -> _Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _categorical_rust(logits: _Tensor, seed: int, step: int, step_at: _Tensor | None) -> _Triple:
    lines, results = _lines(logits), _categorical_empty(logits)
    _rust.sample_categorical_raw(
        _place(lines),
        lines.shape[0],
        lines.shape[1],
        FLOATS[dtype_name(logits)],
        results[0].data_ptr(),
        results[1].data_ptr(),
        results[2].data_ptr(),
        seed % SEEDS,
        step if step_at is None else int(step_at) % WORDS,
    )
    return results


def _categorical_triton(logits: _Tensor, seed: int, step: int, step_at: _Tensor | None) -> _Triple:
    from ..kernels.categorical import launch_sample

    results = _categorical_empty(logits)
    if results[0].numel():
        launch_sample(_dense_lines(logits), *results, seed % SEEDS, step, step_at)
    return results


def _categorical_fake(logits: _Tensor, seed: int, step: int, step_at: _Tensor | None) -> _Triple:
    _dispatch.same_device(logits, step_at)
    return _categorical_empty(logits)


def _backward_rust(logits: _Tensor, *of_rows: _Tensor) -> _Tensor:
    lines, out = _lines(logits), torch.empty(logits.shape, dtype=logits.dtype)
    log_prob, entropy, actions, *gradients = (x.contiguous() for x in of_rows)
    _rust.sample_categorical_backward_raw(
        _place(lines),
        _place(_lines(out)),
        lines.shape[0],
        lines.shape[1],
        FLOATS[dtype_name(logits)],
        log_prob.data_ptr(),
        entropy.data_ptr(),
        actions.data_ptr(),
        gradients[0].data_ptr(),
        gradients[1].data_ptr(),
    )
    return out


def _backward_triton(logits: _Tensor, *of_rows: _Tensor) -> _Tensor:
    from ..kernels.categorical import launch_sample_backward

    out = _dense_like(logits)
    if out.numel():
        flat = [x.contiguous() for x in of_rows]
        launch_sample_backward(_dense_lines(logits), *flat, _lines(out))
    return out


def _backward_fake(logits: _Tensor, *of_rows: _Tensor) -> _Tensor:
    _dispatch.same_device(logits, *of_rows)
    return _dense_like(logits)


def _keep_categorical(ctx: Any, inputs: Any, output: _Triple) -> None:
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(inputs[0], *output)


def _categorical_gradient(ctx: Any, log_prob: _Tensor, entropy: _Tensor, _: Any) -> Any:
    return _categorical_backward_op(*ctx.saved_tensors, log_prob, entropy), None, None, None


_categorical_op = _dispatch.register(
    "sample_categorical(Tensor logits, int seed, int step, Tensor? step_at)"
    " -> (Tensor, Tensor, Tensor)",
    cpu=_categorical_rust,
    cuda=_categorical_triton,
    fake=_categorical_fake,
    setup_context=_keep_categorical,
    backward=_categorical_gradient,
)
_categorical_backward_op = _dispatch.register(
    "sample_categorical_backward(Tensor logits, Tensor log_prob, Tensor entropy, Tensor actions,"
    " Tensor grad_log_prob, Tensor grad_entropy) -> Tensor",
    cpu=_backward_rust,
    cuda=_backward_triton,
    fake=_backward_fake,
)


def sample_gaussian(mean: _Tensor, log_std: Any, *, seed: Any, step: Any) -> _Pair:
    """``rlox_gpu.sample_gaussian`` for tensors."""
    return _gaussian(mean, log_std, seed, step, squash=False)


def sample_squashed_gaussian(mean: _Tensor, log_std: Any, *, seed: Any, step: Any) -> _Pair:
    """``rlox_gpu.sample_squashed_gaussian`` for tensors."""
    return _gaussian(mean, log_std, seed, step, squash=True)


def _gaussian(mean: _Tensor, log_std: Any, seed: Any, step: Any, *, squash: bool) -> _Pair:
    check_gaussian(mean, log_std)
    seed = integer("seed", seed, SEEDS)
    number, step_at = _counter(step, "mean", mean)
    log_stds = log_std.expand(mean.shape)
    if (
        not _dispatch.is_plain_call(mean, log_std, step_at)
        or mean.device.type not in ("cpu", "cuda")
        or _dispatch.wants_grad(mean, log_std)
    ):
        result: _Pair = _gaussian_op(mean, log_stds, signed(seed), number, step_at, squash)
        return result
    body = _gaussian_rust if _dispatch.runs_in_rust(mean.device) else _gaussian_triton
    return body(mean, log_stds, seed, number, step_at, squash)


def _gaussian_empty(mean: _Tensor) -> _Pair:
    log_prob = torch.empty(mean.shape[:-1], dtype=_real(mean), device=mean.device)
    return _dense_like(mean), log_prob


def _gaussian_rust(
    mean: _Tensor, log_std: _Tensor, seed: int, step: int, step_at: _Tensor | None, squash: bool
) -> _Pair:
    lines, (actions, log_prob) = _lines(mean), _gaussian_empty(mean)
    log_stds = _lines(log_std)
    _rust.sample_gaussian_raw(
        _place(lines),
        _place(log_stds),
        _place(_lines(actions)),
        lines.shape[0],
        lines.shape[1],
        FLOATS[dtype_name(mean)],
        log_prob.data_ptr(),
        seed % SEEDS,
        step if step_at is None else int(step_at) % WORDS,
        squash,
    )
    return actions, log_prob


def _gaussian_triton(
    mean: _Tensor, log_std: _Tensor, seed: int, step: int, step_at: _Tensor | None, squash: bool
) -> _Pair:
    from ..kernels.gaussian import launch_sample

    results = _gaussian_empty(mean)
    if mean.numel():
        inputs = _dense_lines(mean), _dense_lines(log_std)
        launch_sample(*inputs, *results, seed % SEEDS, step, step_at, squash)
    return results


def _gaussian_fake(
    mean: _Tensor, log_std: _Tensor, seed: int, step: int, step_at: _Tensor | None, squash: bool
) -> _Pair:
    _dispatch.same_device(mean, log_std, step_at)
    return _gaussian_empty(mean)


def _gaussian_backward_rust(
    mean: _Tensor,
    log_std: _Tensor,
    of_actions: _Tensor,
    of_log_prob: _Tensor,
    seed: int,
    step: int,
    step_at: _Tensor | None,
    squash: bool,
) -> _Pair:
    lines, log_stds, gradients = _lines(mean), _lines(log_std), _lines(of_actions)
    of_mean, of_log_std, of_rows = _dense_like(mean), _dense_like(mean), of_log_prob.contiguous()
    _rust.sample_gaussian_backward_raw(
        _place(lines),
        _place(log_stds),
        _place(gradients),
        _place(_lines(of_mean)),
        _place(_lines(of_log_std)),
        lines.shape[0],
        lines.shape[1],
        FLOATS[dtype_name(mean)],
        of_rows.data_ptr(),
        seed % SEEDS,
        step if step_at is None else int(step_at) % WORDS,
        squash,
    )
    return of_mean, of_log_std


def _gaussian_backward_triton(
    mean: _Tensor,
    log_std: _Tensor,
    of_actions: _Tensor,
    of_log_prob: _Tensor,
    seed: int,
    step: int,
    step_at: _Tensor | None,
    squash: bool,
) -> _Pair:
    from ..kernels.gaussian import launch_sample_backward

    results = _dense_like(mean), _dense_like(mean)
    if mean.numel():
        inputs = (_dense_lines(x) for x in (mean, log_std, of_actions))
        draw = seed % SEEDS, step, step_at
        launch_sample_backward(*inputs, of_log_prob.contiguous(), *results, *draw, squash)
    return results


def _gaussian_backward_fake(mean: _Tensor, log_std: _Tensor, *_: Any) -> _Pair:
    _dispatch.same_device(mean, log_std)
    return _dense_like(mean), _dense_like(mean)


def _keep_gaussian(ctx: Any, inputs: Any, output: _Pair) -> None:
    mean, log_std, *ctx.draw, step_at, ctx.squash = inputs
    # A captured graph may have counted on before the backward pass draws the noise again.
    ctx.save_for_backward(mean, log_std, None if step_at is None else step_at.clone())


def _gaussian_gradient(ctx: Any, of_actions: _Tensor, of_log_prob: _Tensor) -> Any:
    mean, log_std, step_at = ctx.saved_tensors
    results = _gaussian_backward_op(
        mean, log_std, of_actions, of_log_prob, *ctx.draw, step_at, ctx.squash
    )
    return *results, None, None, None, None


_gaussian_op = _dispatch.register(
    "sample_gaussian(Tensor mean, Tensor log_std, int seed, int step, Tensor? step_at, bool squash)"
    " -> (Tensor, Tensor)",
    cpu=_gaussian_rust,
    cuda=_gaussian_triton,
    fake=_gaussian_fake,
    setup_context=_keep_gaussian,
    backward=_gaussian_gradient,
)
_gaussian_backward_op = _dispatch.register(
    "sample_gaussian_backward(Tensor mean, Tensor log_std, Tensor grad_actions,"
    " Tensor grad_log_prob, int seed, int step, Tensor? step_at, bool squash) -> (Tensor, Tensor)",
    cpu=_gaussian_backward_rust,
    cuda=_gaussian_backward_triton,
    fake=_gaussian_backward_fake,
)
