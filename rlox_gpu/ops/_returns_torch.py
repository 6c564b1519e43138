"""The estimators on torch tensors: checks, registration with torch, and both devices."""

from __future__ import annotations

from typing import Any

import torch

from .. import _dispatch, _rust
from .._checks import truncation_pair, unit_number
from ._returns_checks import (
    FLAG_CODES,
    VALUE_CODES,
    Inputs,
    check_inputs,
    check_out,
    check_overlap,
)

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
    check_inputs(inputs, time_dim)
    if out is not None:
        check_out(out, rewards)
    if not _dispatch.is_plain_call(*inputs, *(out or ())):
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
        check_overlap(inputs, advantages, returns)
    into(inputs, gamma, gae_lambda, time_dim, advantages, returns)
    return advantages, returns


def _through_torch(
    inputs: Inputs, gamma: float, gae_lambda: float, time_dim: int, out: _Pair | None
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


def _into_rust(
    inputs: Inputs,
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
        cut_code = FLAG_CODES[truncated.dtype]
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
        VALUE_CODES[values.dtype],
        FLAG_CODES[terminated.dtype],
        cut_code,
        gamma,
        gae_lambda,
    )


@torch.no_grad()
def _into_triton(
    inputs: Inputs,
    gamma: float,
    gae_lambda: float,
    time_dim: int,
    advantages: torch.Tensor,
    returns: torch.Tensor,
) -> None:
    rewards, values, terminated, last_values, truncated, final_values = inputs
    from ..kernels.returns import launch_gae

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


def _gae_body(into: Any) -> Any:
    def gae(*args: Any) -> _Pair:
        *inputs, gamma, gae_lambda, time_dim = args
        check_inputs(inputs, time_dim)
        advantages, returns = _allocated(inputs[1])
        into(inputs, gamma, gae_lambda, time_dim, advantages, returns)
        return advantages, returns

    return gae


def _gae_out_body(into: Any) -> Any:
    def gae_out(*args: Any) -> None:
        *inputs, gamma, gae_lambda, time_dim, advantages, returns = args
        check_inputs(inputs, time_dim)
        check_out((advantages, returns), inputs[0])
        check_overlap(inputs, advantages, returns)
        into(inputs, gamma, gae_lambda, time_dim, advantages, returns)

    return gae_out


def _gae_fake(*args: Any) -> _Pair:
    *inputs, _, _, time_dim = args
    check_inputs(inputs, time_dim)
    return _allocated(inputs[1])


def _gae_out_fake(*args: Any) -> None:
    *inputs, _, _, time_dim, advantages, returns = args
    check_inputs(inputs, time_dim)
    check_out((advantages, returns), inputs[0])


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
