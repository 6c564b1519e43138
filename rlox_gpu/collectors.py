"""Collection of rollouts, and the advantages of what was collected.

The two functions work on a :class:`~rlox_gpu.batch.RolloutStorage` and keep nothing back, so
either can be replaced; :class:`RolloutCollector` is the object around them. Time limits: every
environment resets in the step that ends an episode; a terminated step bootstraps from nothing, a
truncated one from the value of its own final observation (Pardo et al., "Time limits in
reinforcement learning", ICML 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rlox_gpu.backends import choose_device
from rlox_gpu.batch import RolloutBatch, RolloutStorage
from rlox_gpu.envs.selection import TensorEnv, make_tensor_env, obs_width
from rlox_gpu.ops.random import uniform
from rlox_gpu.ops.returns import gae
from rlox_gpu.policies import ActorCritic, Sample

ACTION_STREAM = 1  # the stream word of action draws, see rust/src/philox.rs


@torch.no_grad()
def collect(
    policy: ActorCritic, env: TensorEnv, storage: RolloutStorage, *, seed: int, step: int
) -> None:
    """Fill ``storage`` with one rollout that starts at ``storage.obs[0]``.

    Parameters
    ----------
    policy : ActorCritic
        With a method ``sample(obs, uniforms)`` the draws below choose the actions; without one
        ``get_action_value(obs)`` draws as it likes.
    env : tensor environment
        ``step_into(actions, buffers)`` writes the step's results where it is told to.
    storage : RolloutStorage
        Overwritten.
    seed, step : int
        Key and counter of the action draws; a rollout has a ``step`` of its own.
    """
    sample = _sampler(policy)
    uniforms = torch.empty_like(storage.rewards)
    uniform(uniforms, seed=seed, step=step, stream=ACTION_STREAM)
    for row, draws in zip(storage.rows, uniforms.unbind(), strict=True):
        actions, log_probs, values = sample(row.obs, draws)
        row.actions.copy_(actions)
        row.log_probs.copy_(log_probs)
        row.values.copy_(values)
        env.step_into(row.actions, row.results)


def _sampler(policy: ActorCritic) -> Callable[[Tensor, Tensor], Sample]:
    if hasattr(policy, "sample"):
        return policy.sample  # type: ignore[no-any-return]
    return lambda obs, _: Sample(*policy.get_action_value(obs))


@torch.no_grad()
def compute_advantages(
    policy: ActorCritic, storage: RolloutStorage, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns ``[T, N]`` of a collected rollout.

    ``policy`` gives the values of the observations that ended episodes by a time limit and of
    those that follow the last step.
    """
    advantages, returns, _ = gae(
        storage.rewards,
        storage.values,
        storage.terminated,
        policy.get_value(storage.obs[-1]),
        truncated=storage.truncated,
        final_values=_final_values(policy, storage),
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    return advantages, returns


def _final_values(policy: ActorCritic, storage: RolloutStorage) -> Tensor:
    """Return values ``[T, N]``, right where an episode was truncated."""
    if storage.obs.device.type != "cpu":
        # All of them: to look which are needed would wait for the device.
        return policy.get_value(storage.final_obs.flatten(0, 1)).view_as(storage.values)
    values = torch.zeros_like(storage.values)
    if storage.truncated.any():
        values[storage.truncated] = policy.get_value(storage.final_obs[storage.truncated])
    return values


class EpisodeTotals(NamedTuple):
    """Sums over the episodes that ended in a rollout, zero-dimensional f32 on its device."""

    episodes: Tensor
    returns: Tensor
    lengths: Tensor


def episode_totals(storage: RolloutStorage) -> EpisodeTotals:
    """Add up the finished episodes of a rollout without reading anything back."""
    ended = storage.terminated | storage.truncated
    return EpisodeTotals(
        ended.sum(dtype=torch.float32),
        torch.where(ended, storage.episode_returns, 0.0).sum(),
        torch.where(ended, storage.episode_lengths, 0).sum(dtype=torch.float32),
    )


class RolloutCollector:
    """Steps environments with a policy and returns batches with advantages.

    Parameters
    ----------
    env_id : str
        A native id, else any Gymnasium id.
    n_envs : int
        Number of environments.
    seed : int
        Determines episodes and actions.
    device : str or torch.device
        Where everything lives; ``"auto"`` is CUDA where it can be used, else the CPU.
    gamma, gae_lambda : float
        Discount and trace decay of the advantages.
    reward_fn : callable, optional
        ``reward_fn(obs, actions, rewards) -> rewards``, called once per rollout on ``[T, N, ...]``
        tensors before the advantages; episode returns stay the environment's own.
    env : tensor environment, optional
        Used instead of making one from ``env_id``; ``n_envs`` is then its own.

    Attributes
    ----------
    episode_rewards, episode_lengths : list
        Of every episode that ended so far, in the order of steps.

    Raises
    ------
    ValueError
        If the environment cannot be made, the device used, or a number is out of range.
    """

    def __init__(
        self,
        env_id: str,
        n_envs: int = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        reward_fn: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        env: TensorEnv | None = None,
    ) -> None:
        for name, value in (("gamma", gamma), ("gae_lambda", gae_lambda)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: expected a number in [0, 1], got {value!r}")
        self.device = choose_device(device)
        self.env = make_tensor_env(env_id, n_envs, device=self.device) if env is None else env
        self.seed, self.gamma, self.gae_lambda, self.reward_fn = seed, gamma, gae_lambda, reward_fn
        self.episode_rewards: list[float] = []
        self.episode_lengths: list[int] = []
        self._rollouts = 0
        self._storage: RolloutStorage | None = None

    def collect(self, policy: ActorCritic, n_steps: int) -> RolloutBatch:
        """Take ``n_steps`` steps in every environment; episodes go on from call to call.

        Returns
        -------
        RolloutBatch
            ``n_steps * n_envs`` transitions that stay valid after the next call.

        Raises
        ------
        ValueError
            If ``n_steps`` is not positive.
        """
        if n_steps < 1:
            raise ValueError(f"n_steps: expected a positive integer, got {n_steps!r}")
        storage = self._next_storage(n_steps)
        collect(policy, self.env, storage, seed=self.seed, step=self._rollouts)
        self._rollouts += 1
        if self.reward_fn is not None:
            storage.rewards.copy_(
                self.reward_fn(storage.obs[:-1], storage.actions, storage.rewards)
            )
        advantages, returns = compute_advantages(
            policy, storage, gamma=self.gamma, gae_lambda=self.gae_lambda
        )
        self._record_episodes(storage)
        return RolloutBatch.from_storage(storage, advantages, returns)

    def _next_storage(self, n_steps: int) -> RolloutStorage:
        obs_dim = obs_width(self.env)
        storage = RolloutStorage.allocate(n_steps, self.env.num_envs, obs_dim, self.device)
        if self._storage is None:
            storage.obs[0].copy_(self.env.reset(seed=self.seed)[0])
        else:
            storage.obs[0].copy_(self._storage.obs[-1])
        self._storage = storage
        return storage

    def _record_episodes(self, storage: RolloutStorage) -> None:
        ended = storage.terminated | storage.truncated
        self.episode_rewards += storage.episode_returns[ended].tolist()
        self.episode_lengths += storage.episode_lengths[ended].tolist()
