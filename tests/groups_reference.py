"""Group-relative advantages in plain float64 NumPy, written for reading."""

import numpy as np


def group_advantages_reference(
    rewards,
    *,
    group_size=None,
    group_ids=None,
    baseline="mean",
    scale="std",
    ddof=1,
    eps=0.0,
    mask=None,
    token_mask=None,
):
    """What ``rlox_gpu.group_advantages`` should give, in float64."""
    rewards = np.asarray(rewards, np.float64)
    flat = rewards.reshape(-1)
    kept = np.ones(flat.shape, bool) if mask is None else np.asarray(mask).reshape(-1) != 0
    counted = kept & np.isfinite(flat)
    if group_ids is None:
        size = rewards.shape[1] if rewards.ndim == 2 else group_size
        ids = np.arange(flat.size) // max(size, 1)
    else:
        ids = np.asarray(group_ids).reshape(-1)
    out = np.where(kept, np.nan, 0.0)
    everything = _deviation(flat[counted], ddof)
    for group in np.unique(ids):
        at = np.flatnonzero(counted & (ids == group))
        out[at] = _advantages(flat[at], baseline, scale, ddof, eps, everything)
    if token_mask is None:
        return out.reshape(rewards.shape)
    return np.where(np.asarray(token_mask) != 0, out.reshape(rewards.shape)[..., None], 0.0)


def _advantages(rewards, baseline, scale, ddof, eps, everything):
    count = len(rewards)
    if count < 2 or (rewards == rewards[0]).all():
        return np.zeros(count)
    others = (rewards.sum() - rewards) / (count - 1)
    centred = rewards - (others if baseline == "loo" else rewards.mean())
    if scale == "none":
        return centred
    deviation = _deviation(rewards, ddof) if scale == "std" else everything
    return centred / (deviation + eps)


def _deviation(rewards, ddof):
    return np.std(rewards, ddof=ddof) if len(rewards) > 1 else 0.0
