"""Inputs shared by tests and benchmarks."""

import numpy as np


def make_gae_inputs(
    rng,
    num_steps,
    num_envs=None,
    dtype=np.float32,
    *,
    flag_dtype=np.bool_,
    truncation=True,
    end_rate=0.05,
):
    """Keyword arguments of ``rlox_gpu.gae``: a rollout ``[T, N]``, or ``[T]`` without ``num_envs``.

    Some transitions are both terminated and truncated. ``final_values`` is NaN wherever it must
    not be read; without ``truncation`` there is neither it nor ``truncated``.
    """
    shape = (num_steps,) if num_envs is None else (num_steps, num_envs)
    terminated = rng.random(shape) < end_rate
    inputs = {
        "rewards": rng.standard_normal(shape).astype(dtype),
        "values": rng.standard_normal(shape).astype(dtype),
        "terminated": terminated.astype(flag_dtype),
        "last_values": rng.standard_normal(shape[1:]).astype(dtype),
    }
    if truncation:
        truncated = rng.random(shape) < end_rate
        final_values = rng.standard_normal(shape)
        final_values[~truncated | terminated] = np.nan
        inputs["truncated"] = truncated.astype(flag_dtype)
        inputs["final_values"] = final_values.astype(dtype)
    return inputs


def row_major(inputs):
    """The same inputs as contiguous ``[N, T]`` arrays, for ``time_dim=-1``."""
    return {
        name: np.ascontiguousarray(value.T) if value.ndim == 2 else value
        for name, value in inputs.items()
    }
