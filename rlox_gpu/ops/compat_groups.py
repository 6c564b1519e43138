"""rlox's group advantages: the population's deviation, and nothing added to it.

Arguments may be anything that ``numpy.asarray`` takes, or torch tensors on any device; the results
are float64, of the kind and on the device of ``rewards``.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from .. import _rust
from .compat import _array, _is_tensor

# No leave-one-out, the group's own deviation, ddof, eps; deviations below 1e-8 count as zero.
_RULE = (False, 1, 0.0, 0.0, 1e-8)

_FLOAT64 = np.dtype(np.float64)


def compute_group_advantages(rewards: Any) -> Any:
    """Rewards minus their mean, divided by the population's standard deviation.

    Zeros for a group whose deviation is below 1e-8. A reward that is NaN gives NaN and is left out
    of the others' statistics, where rlox makes the whole group NaN.

    Parameters
    ----------
    rewards : array, ``(K,)``
        One group.

    Returns
    -------
    array
        float64 ``(K,)``.

    Raises
    ------
    TypeError, ValueError
        If ``rewards`` does not fit.

    See Also
    --------
    rlox_gpu.group_advantages : other baselines and scales, masks, groups of different sizes.
    """
    rewards = _rewards(rewards, "(K,)")
    return _advantages(rewards, max(len(rewards), 1))


def compute_batch_group_advantages(rewards: Any, group_size: int) -> Any:
    """:func:`compute_group_advantages` of neighbouring groups of ``group_size`` rewards.

    Parameters
    ----------
    rewards : array, ``(P * K,)``
        One group after the other.
    group_size : int
        K.

    Returns
    -------
    array
        float64 ``(P * K,)``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    # The usual call, checked in the compiled core alone: for few groups the rest is half the time.
    if (
        type(rewards) is np.ndarray
        and rewards.dtype is _FLOAT64
        and rewards.ndim == 1
        and type(group_size) is int
        and group_size > 0
    ):
        return _rust.group_advantages(rewards, group_size, None, None, None, *_RULE)
    try:
        group_size = operator.index(group_size)
    except TypeError:
        kind = type(group_size).__name__
        raise TypeError(f"group_size: expected an integer, got {kind}") from None
    if group_size < 1:
        raise ValueError(f"group_size: expected at least 1, got {group_size}")
    return _advantages(_rewards(rewards, "(P * K,)"), group_size)


def _rewards(rewards: Any, shape: str) -> Any:
    if _is_tensor(rewards):
        import torch

        rewards = rewards.to(torch.float64)
    else:
        rewards = _array("rewards", rewards, np.float64)
    if rewards.ndim != 1:
        raise ValueError(f"rewards: expected shape {shape}, got {tuple(rewards.shape)}")
    return rewards


def _advantages(rewards: Any, group_size: int) -> Any:
    if isinstance(rewards, np.ndarray):
        return _rust.group_advantages(rewards, group_size, None, None, None, *_RULE)
    from ._groups_torch import group_advantages

    return group_advantages(rewards, group_size, None, None, None, *_RULE)
