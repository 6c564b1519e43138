"""Group-relative advantages of NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _rust
from ._arguments import INTEGERS, check_like, check_tokens


def group_advantages(
    rewards: NDArray[Any],
    group_size: int | None,
    group_ids: Any,
    mask: Any,
    token_mask: Any,
    *rule: Any,
) -> NDArray[Any]:
    """``rlox_gpu.group_advantages`` for arrays; the compiled core checks what is not checked here.

    ``rule`` is ``leave_one_out, scale, ddof, eps, least``.
    """
    if group_ids is not None:
        check_like("group_ids", group_ids, "rewards", rewards, dtypes=INTEGERS)
        group_ids = np.ascontiguousarray(group_ids, np.int64)
        rewards = np.ascontiguousarray(rewards)
        mask = mask if mask is None else np.ascontiguousarray(mask)
    if token_mask is None:
        return _rust.group_advantages(rewards, group_size, group_ids, mask, None, *rule)
    check_tokens(token_mask, rewards)
    tokens = token_mask.reshape(rewards.size, token_mask.shape[-1])
    spread = _rust.group_advantages(rewards, group_size, group_ids, mask, tokens, *rule)
    shaped: NDArray[Any] = spread.reshape(token_mask.shape)
    return shaped
