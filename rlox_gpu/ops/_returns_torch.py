"""The estimators on torch tensors: checks, registration with torch, and both devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import _dispatch, _rust
from .._checks import described, truncation_pair, unit_number

_VALUE_CODES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
_NAMES = (
    "rewards",
    "values",
    "terminated",
    "last_values",
    "truncated",
    "final_values",
    "out[0]",
    "out[1]",
)
_FLAG_CODES = {
    **_VALUE_CODES,
    torch.bool: 4,
    torch.uint8: 4,
    torch.int8: 4,
    torch.int16: 5,
    torch.uint16: 5,
    torch.int32: 6,
    torch.uint32: 6,
    torch.int64: 7,
    torch.uint64: 7,
}

# rewards, values, terminated, last_values, truncated or None, final_values or None
_Inputs = Sequence[Any]
_Pair = tuple[torch.Tensor, torch.Tensor]


def gae(
    rewards: torch.Tensor,
    values: Any,
    terminated: Any,
    last_values: Any,
    truncated: Any,
    final_values: Any,
    gamma: Any,
    gae_lambda: Any,
    time_dim: int,
    out: Any,
) -> _Pair:
    """``rlox_gpu.gae`` for tensors: check, choose, call."""
    gamma = unit_number("gamma", gamma)
    gae_lambda = unit_number("gae_lambda", gae_lambda)
    if truncated is not None or final_values is not None:
        truncation_pair(truncated, final_values)
    if type(last_values) is not torch.Tensor and isinstance(last_values, (float, int)):
        last_values = torch.full((), last_values, dtype=rewards.dtype, device=rewards.device)
    inputs = (rewards, values, terminated, last_values, truncated, final_values)
    _check_inputs(inputs, time_dim)
    if out is not None:
        _check_out(out, rewards)
    if not _dispatch.is_plain_call(*inputs):
        return _through_torch(inputs, gamma, gae_lambda, time_dim, out)
    device = rewards.device
    if _dispatch.runs_in_rust(device):
        into = _into_rust
    elif device.type in ("cpu", "cuda"):
        into = _into_triton
    else:
        return _through_torch(inputs, gamma, gae_lambda, time_dim, out)
    if out is None:
        advantages, returns = _allocated(values)
    else:
        advantages, returns = out
        _check_overlap(inputs, advantages, returns)
    into(inputs, gamma, gae_lambda, time_dim, advantages, returns)
    return advantages, returns


def _through_torch(
    inputs: _Inputs, gamma: float, gae_lambda: float, time_dim: int, out: _Pair | None
) -> _Pair:
    constants = [None if x is None else x.detach() for x in inputs]
    if out is None:
        result: _Pair = _gae_op(*constants, gamma, gae_lambda, time_dim)
        return result
    advantages, returns = out
    _gae_out_op(*constants, gamma, gae_lambda, time_dim, advantages.detach(), returns.detach())
    return advantages, returns


def _allocated(values: torch.Tensor) -> _Pair:
    return torch.empty_like(values), torch.empty_like(values)


# -- the two devices ---------------------------------------------------------------------------


def _into_rust(
    inputs: _Inputs,
    gamma: float,
    gae_lambda: float,
    time_dim: int,
    advantages: torch.Tensor,
    returns: torch.Tensor,
) -> None:
    rewards, values, terminated, last_values, truncated, final_values = inputs
    cut = final = cut_code = 0
    cut_strides: tuple[int, ...] = ()
    final_strides: tuple[int, ...] = ()
    if truncated is not None:
        cut, cut_strides = truncated.data_ptr(), truncated.stride()
        final, final_strides = final_values.data_ptr(), final_values.stride()
        cut_code = _FLAG_CODES[truncated.dtype]
    _rust.gae_raw(
        rewards.data_ptr(),
        rewards.stride(),
        values.data_ptr(),
        values.stride(),
        terminated.data_ptr(),
        terminated.stride(),
        last_values.data_ptr(),
        last_values.stride(),
        cut,
        cut_strides,
        final,
        final_strides,
        advantages.data_ptr(),
        advantages.stride(),
        returns.data_ptr(),
        returns.stride(),
        rewards.shape,
        time_dim,
        _VALUE_CODES[values.dtype],
        _FLAG_CODES[terminated.dtype],
        cut_code,
        gamma,
        gae_lambda,
    )


@torch.no_grad()
def _into_triton(
    inputs: _Inputs,
    gamma: float,
    gae_lambda: float,
    time_dim: int,
    advantages: torch.Tensor,
    returns: torch.Tensor,
) -> None:
    rewards, values, terminated, last_values, truncated, final_values = inputs
    from ..kernels.gae import launch_gae

    if rewards.numel() == 0:
        return
    launch_gae(
        _time_major(rewards, time_dim),
        _time_major(values, time_dim),
        _time_major(terminated, time_dim),
        last_values.reshape(-1),
        None if truncated is None else _time_major(truncated, time_dim),
        None if final_values is None else _time_major(final_values, time_dim),
        _time_major(advantages, time_dim),
        _time_major(returns, time_dim),
        gamma,
        gae_lambda,
    )


def _time_major(x: torch.Tensor, time_dim: int) -> torch.Tensor:
    if x.ndim == 1:
        return x.unsqueeze(1)
    return x if time_dim == 0 else x.T


# -- the registered ops ------------------------------------------------------------------------


def _gae_body(into: Any) -> Any:
    def gae(*args: Any) -> _Pair:
        *inputs, gamma, gae_lambda, time_dim = args
        _check_inputs(inputs, time_dim)
        advantages, returns = _allocated(inputs[1])
        into(inputs, gamma, gae_lambda, time_dim, advantages, returns)
        return advantages, returns

    return gae


def _gae_out_body(into: Any) -> Any:
    def gae_out(*args: Any) -> None:
        *inputs, gamma, gae_lambda, time_dim, advantages, returns = args
        _check_inputs(inputs, time_dim)
        _check_out((advantages, returns), inputs[0])
        _check_overlap(inputs, advantages, returns)
        into(inputs, gamma, gae_lambda, time_dim, advantages, returns)

    return gae_out


def _gae_fake(*args: Any) -> _Pair:
    *inputs, _, _, time_dim = args
    _check_inputs(inputs, time_dim)
    return _allocated(inputs[1])


def _gae_out_fake(*args: Any) -> None:
    *inputs, _, _, time_dim, advantages, returns = args
    _check_inputs(inputs, time_dim)
    _check_out((advantages, returns), inputs[0])


_ARGUMENTS = (
    "Tensor rewards, Tensor values, Tensor terminated, Tensor last_values, Tensor? truncated, "
    "Tensor? final_values, float gamma, float gae_lambda, int time_dim"
)
_gae_op = _dispatch.register(
    f"gae({_ARGUMENTS}) -> (Tensor, Tensor)",
    cpu=_gae_body(_into_rust),
    cuda=_gae_body(_into_triton),
    fake=_gae_fake,
)
_gae_out_op = _dispatch.register(
    f"gae_out({_ARGUMENTS}, Tensor(a!) advantages, Tensor(b!) returns) -> ()",
    cpu=_gae_out_body(_into_rust),
    cuda=_gae_out_body(_into_triton),
    fake=_gae_out_fake,
)


# -- checks ------------------------------------------------------------------------------------


def _check_inputs(inputs: _Inputs, time_dim: Any) -> None:
    rewards, values, terminated, last_values, truncated, final_values = inputs
    shape, dtype, device = rewards.shape, rewards.dtype, rewards.device
    ndim = len(shape)
    if ndim not in (1, 2):
        raise ValueError(f"rewards: expected 1 or 2 dimensions, got shape {tuple(shape)}")
    if dtype not in _VALUE_CODES:
        raise TypeError(f"rewards: expected float16, bfloat16, float32 or float64, got {dtype}")
    if time_dim not in (0, -1) and not (time_dim == 1 and ndim == 2):
        raise ValueError(f"time_dim: expected 0 or -1 (or 1 in two dimensions), got {time_dim!r}")
    _check_one("values", values, shape, dtype, device)
    _check_one("terminated", terminated, shape, None, device)
    last_shape = shape[:0] if ndim == 1 else shape[1:] if time_dim == 0 else shape[:1]
    _check_one("last_values", last_values, last_shape, dtype, device)
    if truncated is not None:
        _check_one("truncated", truncated, shape, None, device)
        _check_one("final_values", final_values, shape, dtype, device)


def _check_one(
    name: str,
    x: Any,
    shape: torch.Size,
    dtype: torch.dtype | None,
    device: torch.device,
) -> None:
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name}: expected a torch tensor like rewards, got {described(x)}")
    if x.shape != shape:
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(x.shape)}")
    if dtype is None:
        if x.dtype not in _FLAG_CODES:
            raise TypeError(f"{name}: expected bool, integer or float flags, got {x.dtype}")
    elif x.dtype is not dtype:
        raise TypeError(f"{name}: expected {dtype} like rewards, got {x.dtype}")
    if x.device != device:
        raise ValueError(f"{name}: expected a tensor on {device} like rewards, got {x.device}")


def _check_out(out: Any, rewards: torch.Tensor) -> None:
    if not isinstance(out, tuple | list) or len(out) != 2:
        raise TypeError(f"out: expected a pair (advantages, returns), got {described(out)}")
    shape = rewards.shape
    for name, x in zip(("out[0]", "out[1]"), out, strict=True):
        _check_one(name, x, shape, rewards.dtype, rewards.device)
        if 0 in x.stride() and any(
            step == 0 and size > 1 for step, size in zip(x.stride(), shape, strict=True)
        ):
            raise ValueError(f"{name}: expected distinct elements, got an expanded tensor")


def _check_overlap(inputs: _Inputs, advantages: torch.Tensor, returns: torch.Tensor) -> None:
    spans = [None if x is None else _span(x) for x in (*inputs, advantages, returns)]
    for at in (6, 7):
        start, stop = spans[at] or (0, 0)
        for other in range(at):
            span = spans[other]
            if span is not None and start < span[1] and span[0] < stop:
                raise ValueError(
                    f"{_NAMES[at]}: expected memory of its own, got some of {_NAMES[other]}"
                )


def _span(x: torch.Tensor) -> tuple[int, int]:
    """First address and the one past the last; empty for a tensor without elements."""
    start = x.data_ptr()
    if x.is_contiguous():
        return start, start + x.nbytes
    if x.numel() == 0:
        return start, start
    reach = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
    return start, start + (reach + 1) * x.element_size()
