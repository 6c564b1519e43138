"""The estimators as readable float64 NumPy loops: what every backend is compared with."""

import numpy as np


def gae_reference(
    rewards,
    values,
    terminated,
    last_values,
    truncated=None,
    final_values=None,
    gamma=0.99,
    gae_lambda=0.95,
    time_dim=0,
):
    """Advantages and returns of generalised advantage estimation (Schulman et al., 2016).

    One trajectory at a time, one transition at a time, in float64. Arrays are ``[T, N]``
    (``time_dim=0``), ``[N, T]`` (``time_dim=-1`` or ``1``) or ``[T]`` with a scalar
    ``last_values``; a nonzero flag is set. Returns two float64 arrays of the rewards' shape.
    """
    arrays = [rewards, values, terminated, truncated, final_values]
    rewards, values, terminated, truncated, final_values = (
        None if array is None else _time_major(array, time_dim) for array in arrays
    )
    last_values = np.asarray(last_values, dtype=np.float64).reshape(-1)
    num_steps, num_envs = rewards.shape
    advantages = np.zeros((num_steps, num_envs))
    for n in range(num_envs):
        advantage = 0.0
        for t in reversed(range(num_steps)):
            ends = terminated[t, n] != 0
            stops = truncated is not None and truncated[t, n] != 0
            if ends:
                next_value = 0.0
            elif stops:
                next_value = final_values[t, n]
            elif t + 1 < num_steps:
                next_value = values[t + 1, n]
            else:
                next_value = last_values[n]
            delta = rewards[t, n] + gamma * next_value - values[t, n]
            carried = 0.0 if ends or stops else gamma * gae_lambda * advantage
            advantage = delta + carried
            advantages[t, n] = advantage
    returns = advantages + values
    return _as_given(advantages, arrays[0], time_dim), _as_given(returns, arrays[0], time_dim)


def _time_major(array, time_dim):
    array = np.asarray(array).astype(np.float64)
    if array.ndim == 1:
        return array[:, None]
    return array if time_dim == 0 else array.T


def _as_given(result, rewards, time_dim):
    if np.ndim(rewards) == 1:
        return result[:, 0]
    return result if time_dim == 0 else result.T
