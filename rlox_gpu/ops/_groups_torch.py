"""Group-relative advantages of torch tensors: checks, registration with torch, both devices."""

from __future__ import annotations

from typing import Any

import torch

from .. import _dispatch, _rust
from ._arguments import FLAGS, FLOATS, INTEGERS, check_dtype, check_like, check_tokens, dtype_name

_Optional = torch.Tensor | None
_NOTHING = (0, (0, 0), 0)


def group_advantages(
    rewards: torch.Tensor,
    group_size: int | None,
    group_ids: Any,
    mask: Any,
    token_mask: Any,
    *rule: Any,
) -> torch.Tensor:
    """``rlox_gpu.group_advantages`` for tensors: check, choose, call."""
    size = _checked(rewards, group_size, group_ids, mask, token_mask)
    tensors = (rewards, group_ids, mask, token_mask)
    if _dispatch.is_plain_call(*tensors):
        if _dispatch.runs_in_rust(rewards.device):
            return _by_rust(*tensors, size, *rule)
        if rewards.device.type in ("cpu", "cuda"):
            return _by_triton(*tensors, size, *rule)
    constants = (None if x is None else x.detach() for x in tensors)
    result: torch.Tensor = _op(*constants, size, *rule)
    return result


def _checked(
    rewards: torch.Tensor, group_size: int | None, group_ids: Any, mask: Any, token_mask: Any
) -> int:
    """Raise unless the arguments fit each other; the size of the groups, 0 with ids."""
    check_dtype("rewards", rewards, FLOATS)
    shape = rewards.shape
    if len(shape) not in (1, 2):
        raise ValueError(f"rewards: expected 1 or 2 dimensions, got shape {tuple(shape)}")
    if mask is not None:
        check_like("mask", mask, "rewards", rewards, dtypes=FLAGS)
    if token_mask is not None:
        check_tokens(token_mask, rewards)
    if group_ids is not None:
        check_like("group_ids", group_ids, "rewards", rewards, dtypes=INTEGERS)
        return 0
    if len(shape) == 2:
        if group_size not in (None, shape[1]):
            raise ValueError(
                f"group_size: expected the length of a row, {shape[1]}, got {group_size}"
            )
        return shape[1]
    if group_size is None:
        raise ValueError(
            "group_size: expected it or group_ids with rewards of one dimension, got neither"
        )
    if group_size == 0 or shape[0] % group_size:
        raise ValueError(
            f"group_size: expected a number that divides the {shape[0]} rewards, got {group_size}"
        )
    return group_size


def _allocated(rewards: torch.Tensor, token_mask: _Optional) -> torch.Tensor:
    shape = rewards.shape if token_mask is None else token_mask.shape
    return torch.empty(shape, dtype=rewards.dtype, device=rewards.device)


def _by_rust(
    rewards: torch.Tensor,
    group_ids: _Optional,
    mask: _Optional,
    token_mask: _Optional,
    size: int,
    *rule: Any,
) -> torch.Tensor:
    out = _allocated(rewards, token_mask)
    if out.numel() == 0:
        return out
    if group_ids is None:
        ids, shape = 0, (rewards.numel() // size, size)
    else:
        group_ids = group_ids.to(torch.int64).contiguous()
        ids, shape = group_ids.data_ptr(), (1, rewards.numel())
    rewards = rewards.reshape(shape)
    # Tensors that are made here live as long as their names.
    mask = None if mask is None else mask.reshape(shape)
    width = 0
    if token_mask is not None:
        width = token_mask.shape[-1]
        token_mask = token_mask.reshape(-1, width)
    _rust.group_advantages_raw(
        rewards.data_ptr(),
        rewards.stride(),
        shape,
        FLOATS[dtype_name(rewards)],
        ids,
        *_flags(mask),
        *_flags(token_mask),
        width,
        out.data_ptr(),
        *rule,
    )
    return out


def _flags(flags: _Optional) -> tuple[int, tuple[int, ...], int]:
    """Address, strides and code."""
    if flags is None:
        return _NOTHING
    return flags.data_ptr(), flags.stride(), FLAGS[dtype_name(flags)]


def _by_triton(
    rewards: torch.Tensor,
    group_ids: _Optional,
    mask: _Optional,
    token_mask: _Optional,
    size: int,
    *rule: Any,
) -> torch.Tensor:
    from ..kernels.groups import launch_group_advantages

    out = _allocated(rewards, token_mask)
    if out.numel() == 0:
        return out
    with torch.no_grad():
        launch_group_advantages(
            rewards.reshape(-1),
            None if group_ids is None else group_ids.reshape(-1),
            None if mask is None else mask.reshape(-1),
            None if token_mask is None else token_mask.reshape(-1, token_mask.shape[-1]),
            out,
            size,
            *rule,
        )
    return out


def _fake(
    rewards: torch.Tensor,
    group_ids: _Optional,
    mask: _Optional,
    token_mask: _Optional,
    size: int,
    *rule: Any,
) -> torch.Tensor:
    _dispatch.same_device(rewards, group_ids, mask, token_mask)
    return _allocated(rewards, token_mask)


def _body(by: Any) -> Any:
    def group_advantages(*args: Any) -> torch.Tensor:
        rewards, group_ids, mask, token_mask, size, *rule = args
        _checked(rewards, size if rewards.ndim == 1 else None, group_ids, mask, token_mask)
        result: torch.Tensor = by(rewards, group_ids, mask, token_mask, size, *rule)
        return result

    return group_advantages


_op = _dispatch.register(
    "group_advantages(Tensor rewards, Tensor? group_ids, Tensor? mask, Tensor? token_mask, "
    "int group_size, bool leave_one_out, int scale, float ddof, float eps, float least) -> Tensor",
    cpu=_body(_by_rust),
    cuda=_body(_by_triton),
    fake=_fake,
)
