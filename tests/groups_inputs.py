"""Rewards in groups, and the comparison with the reference, NumPy and torch alike."""

import numpy as np
import torch
from groups_reference import group_advantages_reference

ROUNDING = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2e-6, "float64": 1e-13}


def make_rewards(seed, shape, dtype="float32", *, constant_rate=0.2, bad_rate=0.0):
    """Rewards, some groups of them constant, as a float64 array that ``dtype`` can hold."""
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=shape)
    if rewards.ndim == 2 and rewards.size:
        same = rng.random(len(rewards)) < constant_rate
        rewards[same] = rewards[same, :1]
    bad = rng.random(rewards.shape) < bad_rate
    rewards[bad] = rng.choice([np.nan, np.inf, -np.inf], bad.sum())
    return torch.from_numpy(rewards).to(getattr(torch, dtype)).double().numpy()


def as_tensor(rewards, dtype):
    return torch.from_numpy(np.asarray(rewards)).to(getattr(torch, dtype))


def to_float64(x):
    return x.double().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x, np.float64)


def assert_advantages(got, rewards, dtype, **options):
    """``got`` is the reference's answer for float64 ``rewards`` to the rounding of ``dtype``."""
    options = {k: to_numpy(v) for k, v in options.items()}
    want = group_advantages_reference(rewards, **options)
    assert str(got.dtype).removeprefix("torch.") == dtype
    assert tuple(got.shape) == want.shape
    got = to_float64(got)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    error = np.nan_to_num(np.abs(got - want)) / (1.0 + np.nan_to_num(np.abs(want)))
    assert error.max(initial=0.0) <= 8 * ROUNDING[dtype], error.max()
    assert (got[want == 0] == 0).all()


def to_numpy(x):
    return x.cpu().numpy() if isinstance(x, torch.Tensor) else x
