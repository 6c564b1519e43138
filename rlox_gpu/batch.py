"""What collection writes and what updates read: time-major storage and flat batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from rlox_gpu.envs.kernels import StepBuffers
from rlox_gpu.ops.random import permutation


class StorageRow(NamedTuple):
    """One step of a rollout: views of the storage, ``[N, ...]`` each."""

    obs: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    results: StepBuffers


@dataclass(frozen=True)
class RolloutStorage:
    """A rollout of T steps in N environments, allocated once and written in place.

    ``obs[t]`` is what the policy saw before step t and ``obs[T]`` what it sees next; everything
    else is indexed by the step t. ``final_obs``, ``episode_returns`` and ``episode_lengths`` mean
    something only where an episode ended at step t.
    """

    obs: Tensor  # f32 [T + 1, N, obs_dim]
    actions: Tensor  # int64 [T, N]
    log_probs: Tensor  # f32 [T, N]
    values: Tensor  # f32 [T, N]
    rewards: Tensor  # f32 [T, N]
    terminated: Tensor  # bool [T, N]
    truncated: Tensor  # bool [T, N]
    final_obs: Tensor  # f32 [T, N, obs_dim]
    episode_returns: Tensor  # f32 [T, N]
    episode_lengths: Tensor  # int32 [T, N]

    @classmethod
    def allocate(
        cls, num_steps: int, num_envs: int, obs_dim: int, device: torch.device | str
    ) -> RolloutStorage:
        """Return zeroed storage."""

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        size = (num_steps, num_envs)
        return cls(
            obs=zeros(num_steps + 1, num_envs, obs_dim),
            actions=zeros(*size, dtype=torch.int64),
            log_probs=zeros(*size),
            values=zeros(*size),
            rewards=zeros(*size),
            terminated=zeros(*size, dtype=torch.bool),
            truncated=zeros(*size, dtype=torch.bool),
            final_obs=zeros(*size, obs_dim),
            episode_returns=zeros(*size),
            episode_lengths=zeros(*size, dtype=torch.int32),
        )

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.actions)

    @cached_property
    def rows(self) -> list[StorageRow]:
        """The views of each step, made once so that a loop over them makes none."""
        results = map(
            StepBuffers,
            self.obs[1:].unbind(),
            self.rewards.unbind(),
            self.terminated.unbind(),
            self.truncated.unbind(),
            self.final_obs.unbind(),
            self.episode_returns.unbind(),
            self.episode_lengths.unbind(),
        )
        policy_side = (self.obs[:-1], self.actions, self.log_probs, self.values)
        return list(map(StorageRow, *(tensor.unbind() for tensor in policy_side), results))


@dataclass(frozen=True)
class RolloutBatch:
    """Transitions without time order; N is steps times environments.

    ``dones`` is terminated or truncated. All tensors have the same first dimension.
    """

    obs: Tensor  # (N, obs_dim)
    actions: Tensor  # (N,)
    rewards: Tensor  # (N,)
    dones: Tensor  # (N,), bool
    log_probs: Tensor  # (N,)
    values: Tensor  # (N,)
    advantages: Tensor  # (N,)
    returns: Tensor  # (N,)

    def __post_init__(self) -> None:
        for field in fields(self):
            if len(getattr(self, field.name)) != len(self.obs):
                raise ValueError(
                    f"{field.name}: expected {len(self.obs)} entries as in obs, "
                    f"got {len(getattr(self, field.name))}"
                )

    def __len__(self) -> int:
        return len(self.obs)

    @classmethod
    def from_storage(
        cls, storage: RolloutStorage, advantages: Tensor, returns: Tensor
    ) -> RolloutBatch:
        """Return views of a rollout and its advantages, flattened over time and environments."""
        return cls(
            obs=storage.obs[:-1].flatten(0, 1),
            actions=storage.actions.flatten(0, 1),
            rewards=storage.rewards.flatten(),
            dones=(storage.terminated | storage.truncated).flatten(),
            log_probs=storage.log_probs.flatten(),
            values=storage.values.flatten(),
            advantages=advantages.flatten(),
            returns=returns.flatten(),
        )

    def __getitem__(self, index: slice | Tensor) -> RolloutBatch:
        """Return the transitions at ``index``; a slice gives views."""
        if isinstance(index, slice):
            return RolloutBatch(*(getattr(self, field.name)[index] for field in fields(self)))
        return RolloutBatch(
            *(getattr(self, field.name).index_select(0, index) for field in fields(self))
        )

    def sample_minibatches(
        self,
        batch_size: int,
        shuffle: bool = True,
        *,
        seed: int | None = None,
        step: int = 0,
    ) -> Iterator[RolloutBatch]:
        """Yield minibatches that together hold each transition once.

        Parameters
        ----------
        batch_size : int
            Transitions per minibatch; the last one may be smaller. If there are no more than
            that, the whole batch is the one minibatch, as it stands.
        shuffle : bool
            Whether to draw a random order first.
        seed, step : int
            Determine the order, on every device alike; without a seed torch's generator gives one.

        Raises
        ------
        ValueError
            If ``batch_size`` is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected a positive integer, got {batch_size}")
        if batch_size >= len(self):
            yield self
            return
        batch = self
        if shuffle:
            if seed is None:
                seed = int(torch.randint(2**62, (), device="cpu"))
            batch = self[permutation(len(self), seed=seed, step=step, device=self.obs.device)]
        for start in range(0, len(self), batch_size):
            yield batch[start : start + batch_size]
