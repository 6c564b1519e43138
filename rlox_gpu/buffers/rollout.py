"""On-policy data: T steps of N environments, then minibatches in random order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlox_gpu.batch import RolloutBatch
from rlox_gpu.ops.returns import gae

from .._checks import WORDS, truncation_pair
from ._specs import positive, shape_of


class RolloutBuffer:
    """Tensors ``[T, N, ...]`` on one device, allocated once and written step by step.

    Parameters
    ----------
    num_steps, num_envs : int
        T and N.
    obs_dim, act_dim : int or shape
        Of an observation and of an action; ``()`` for a single number.
    obs_dtype, act_dtype : torch.dtype
        int64 for discrete actions.
    device : torch.device or str, optional
        Where the tensors live; torch's default device if not given.

    Attributes
    ----------
    obs, actions : Tensor, ``[T, N, *shape]``
    rewards, values, log_probs, final_values, advantages, returns : Tensor, float32 ``[T, N]``
    terminated, truncated : Tensor, bool ``[T, N]``

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """

    def __init__(
        self,
        num_steps: int,
        num_envs: int,
        obs_dim: Any,
        act_dim: Any = (),
        *,
        obs_dtype: torch.dtype = torch.float32,
        act_dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        self.num_steps = positive("num_steps", num_steps, WORDS)
        self.num_envs = positive("num_envs", num_envs, WORDS)

        def zeros(dtype: torch.dtype, shape: list[int]) -> Tensor:
            size = (self.num_steps, self.num_envs, *shape)
            return torch.zeros(size, dtype=dtype, device=device)

        self.obs = zeros(obs_dtype, shape_of("obs_dim", obs_dim))
        self.actions = zeros(act_dtype, shape_of("act_dim", act_dim))
        self.rewards, self.values, self.log_probs, self.final_values = (
            zeros(torch.float32, []) for _ in range(4)
        )
        self.terminated, self.truncated = (zeros(torch.bool, []) for _ in range(2))
        self.advantages, self.returns = (zeros(torch.float32, []) for _ in range(2))
        self._steps = 0
        self._finished = False

    def __len__(self) -> int:
        """Steps that have been added."""
        return self._steps

    def clear(self) -> None:
        """Begin the next rollout."""
        self._steps, self._finished = 0, False

    def add(
        self,
        obs: Any,
        actions: Any,
        rewards: Any,
        terminated: Any,
        values: Any,
        log_probs: Any,
        *,
        truncated: Any = None,
        final_values: Any = None,
    ) -> None:
        """Append one step of all environments; tensors or arrays ``[N, ...]``.

        Parameters
        ----------
        obs, actions, values, log_probs
            What the policy saw, did and said of it.
        rewards, terminated
            What the environments returned.
        truncated, final_values
            Where an episode was cut off, and the value of its final observation there; both or
            neither.

        Raises
        ------
        ValueError
            If the buffer is full, a shape does not fit, or one of ``truncated`` and
            ``final_values`` is given without the other.
        """
        if self._steps == self.num_steps:
            raise ValueError(f"the buffer is full: {self.num_steps} steps; clear() begins anew")
        truncation_pair(truncated, final_values)
        step = {"obs": obs, "actions": actions, "rewards": rewards, "terminated": terminated}
        step |= {"values": values, "log_probs": log_probs}
        step |= {"truncated": truncated, "final_values": final_values}
        rows = {name: getattr(self, name)[self._steps] for name in step}
        found = {name: _like(name, x, rows[name]) for name, x in step.items()}
        for name, row in rows.items():
            row.copy_(found[name])
        self._steps += 1

    def finish(self, last_values: Any, *, gamma: float = 0.99, gae_lambda: float = 0.95) -> None:
        """Compute advantages and returns (:func:`rlox_gpu.gae`).

        Parameters
        ----------
        last_values : tensor or array, ``[N]``
            Values of the observations after the last step.
        gamma, gae_lambda : float
            Discount, and decay of the trace.

        Raises
        ------
        ValueError
            If steps are missing, or an argument does not fit.
        """
        if self._steps < self.num_steps:
            raise ValueError(f"finish: {self._steps} of {self.num_steps} steps have been added")
        result = gae(
            self.rewards,
            self.values,
            self.terminated,
            _like("last_values", last_values, self.values[0]).to(self.values),
            truncated=self.truncated,
            final_values=self.final_values,
            gamma=gamma,
            gae_lambda=gae_lambda,
            out=(self.advantages, self.returns),
        )
        self.advantages, self.returns = result.advantages, result.returns
        self._finished = True

    def as_batch(self) -> RolloutBatch:
        """All transitions, flat over time and environments, as views.

        Raises
        ------
        ValueError
            Before :meth:`finish`.
        """
        if not self._finished:
            raise ValueError("call finish first: there are no advantages")
        return RolloutBatch(
            obs=self.obs.flatten(0, 1),
            actions=self.actions.flatten(0, 1),
            rewards=self.rewards.flatten(),
            dones=(self.terminated | self.truncated).flatten(),
            log_probs=self.log_probs.flatten(),
            values=self.values.flatten(),
            advantages=self.advantages.flatten(),
            returns=self.returns.flatten(),
        )

    def minibatches(
        self, batch_size: int, *, shuffle: bool = True, seed: int | None = None, step: int = 0
    ) -> Iterator[RolloutBatch]:
        """Yield minibatches that together hold each transition once.

        Everything is copied once into the random order, and minibatches are views of that; in the
        order of time (``shuffle=False``) nothing is copied. Arguments are those of
        :meth:`rlox_gpu.RolloutBatch.sample_minibatches`.
        """
        return self.as_batch().sample_minibatches(batch_size, shuffle, seed=seed, step=step)


def _like(name: str, x: Any, row: Tensor) -> Tensor:
    """``x`` as a tensor of the shape of ``row``; zeros if there is none."""
    if x is None:
        return torch.zeros_like(row)
    tensor = x if isinstance(x, Tensor) else torch.from_numpy(np.asarray(x))
    if tensor.shape != row.shape:
        raise ValueError(f"{name}: expected shape {tuple(row.shape)}, got {tuple(tensor.shape)}")
    return tensor
