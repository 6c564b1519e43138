"""Evaluation of a policy over whole episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlox_gpu.batch import RolloutStorage
from rlox_gpu.envs.selection import TensorEnv

CHECK_EVERY = 64  # steps between looks at the device
STEP_LIMIT = 1_000_000


@torch.no_grad()
def evaluate_policy(
    policy: Any, env: TensorEnv, *, seed: int = 0, deterministic: bool = True
) -> dict[str, float]:
    """Run one episode in every environment of ``env`` and describe their returns.

    One episode each, so that short episodes are not counted more often than long ones.

    Parameters
    ----------
    policy : ActorCritic
        ``act(obs)`` is asked, or ``get_action_value(obs)`` if not deterministic.
    env : TensorEnv
        Reset first, with ``seed``.
    seed : int
        Determines the initial states.
    deterministic : bool
        Whether the most likely action is taken or one is sampled.

    Returns
    -------
    dict of str to float
        ``mean_reward std_reward min_reward max_reward mean_length episodes``, returns being sums
        of an episode's rewards.

    Raises
    ------
    RuntimeError
        If an episode has not ended after a million steps.
    """
    obs, _ = env.reset(seed=seed)
    storage = RolloutStorage.allocate(1, env.num_envs, obs.shape[1], obs.device)
    storage.obs[0].copy_(obs)
    results = storage.rows[0].results
    returns = torch.zeros_like(storage.episode_returns[0])
    lengths = torch.zeros_like(storage.episode_lengths[0])
    running = torch.ones_like(storage.terminated[0])
    for step in range(STEP_LIMIT):
        storage.obs[0].copy_(storage.obs[1] if step else obs)
        actions = policy.act(storage.obs[0]) if deterministic else _sampled(policy, storage.obs[0])
        env.step_into(actions, results)
        ended = running & (storage.terminated[0] | storage.truncated[0])
        returns = torch.where(ended, storage.episode_returns[0], returns)
        lengths = torch.where(ended, storage.episode_lengths[0], lengths)
        running &= ~ended
        if (step % CHECK_EVERY == 0 or obs.device.type == "cpu") and not running.any():
            return _describe(returns, lengths)
    raise RuntimeError(f"evaluation: an episode has not ended after {STEP_LIMIT} steps")


def _sampled(policy: Any, obs: Tensor) -> Tensor:
    return policy.get_action_value(obs)[0]  # type: ignore[no-any-return]


def _describe(returns: Tensor, lengths: Tensor) -> dict[str, float]:
    values = returns.cpu().numpy().astype(np.float64)
    return {
        "mean_reward": float(values.mean()),
        "std_reward": float(values.std()),
        "min_reward": float(values.min()),
        "max_reward": float(values.max()),
        "mean_length": float(lengths.cpu().numpy().mean()),
        "episodes": float(len(values)),
    }
