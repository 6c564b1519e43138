"""Proximal policy optimisation (Schulman et al., 2017) with generalised advantages.

An iteration is three functions over plain tensors: :func:`~rlox_gpu.collectors.collect`,
:func:`~rlox_gpu.collectors.compute_advantages` and :func:`~rlox_gpu.algorithms.ppo_update.update`.
The class keeps what they work on and counts; a run is determined by its seed and these counters.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlox_gpu.adam import AdamState
from rlox_gpu.algorithms import ppo_checkpoint
from rlox_gpu.algorithms.common import (
    EpisodeWindow,
    derive_seed,
    prepare_obs,
    suitable_threads,
)
from rlox_gpu.algorithms.ppo_update import (
    UPDATE_METRICS,
    UpdateSettings,
    gradient_for,
    update,
)
from rlox_gpu.backends import choose_device
from rlox_gpu.batch import RolloutBatch, RolloutStorage
from rlox_gpu.callbacks import Callback, CallbackList
from rlox_gpu.collectors import EpisodeTotals, collect, compute_advantages, episode_totals
from rlox_gpu.config import PPOConfig, check_count, check_names, check_seed
from rlox_gpu.envs.selection import make_tensor_env, obs_width
from rlox_gpu.evaluation import evaluate_policy
from rlox_gpu.losses import PPOLoss
from rlox_gpu.parameters import FlatModule, flatten_parameters
from rlox_gpu.policies import check_fits, policy_for_spaces

ITERATION_METRICS = (*UPDATE_METRICS, "explained_variance", *EpisodeTotals._fields)


@dataclass(frozen=True)
class Schedule:
    """The iterations that a call of ``train`` covers; annealing runs over them."""

    start: int = 0
    count: int = 1

    def remaining(self, iteration: int) -> float:
        """Return the fraction that is left before ``iteration``, from 1 down towards 0.

        Iterations that belong to no call of ``train`` are not annealed: 1.
        """
        done = (iteration - self.start) / self.count
        return 1.0 - done if 0 <= done < 1 else 1.0


class PPO:
    """Proximal policy optimisation on a native or a Gymnasium environment.

    Parameters
    ----------
    env_id : str
        A native id, else any Gymnasium id with a flat observation.
    n_envs : int
        Environments that are stepped together.
    seed : int
        Determines weights, episodes, actions and minibatches.
    policy : nn.Module, optional
        A policy of one's own, see :class:`~rlox_gpu.policies.ActorCritic`; default: a
        :class:`~rlox_gpu.policies.DiscretePolicy` for the environment's spaces.
    logger : optional
        Its ``log(step, metrics)`` is called once per iteration and evaluation.
    callbacks : iterable of Callback, optional
        Called as training goes.
    device : str or torch.device
        ``"auto"`` takes CUDA where torch and CuPy can use it, else the CPU.
    **config
        Settings by the names of :class:`~rlox_gpu.config.PPOConfig`.

    Attributes
    ----------
    timesteps, iteration : int
        Environment steps taken (all environments together) and iterations done.
    policy : nn.Module
        What is trained.

    Raises
    ------
    TypeError
        If a setting is unknown or has the wrong type.
    ValueError
        If a setting is out of range or the environment cannot be used.
    """

    name = "ppo"

    def __init__(
        self,
        env_id: str,
        n_envs: int = 8,
        seed: int = 42,
        policy: nn.Module | None = None,
        logger: Any = None,
        callbacks: Iterable[Callback] | None = None,
        *,
        device: torch.device | str = "auto",
        **config: Any,
    ) -> None:
        check_names(config, PPOConfig.names(), "PPO")
        check_seed(seed)
        self.config = PPOConfig.from_dict({"n_envs": n_envs, **config})
        self.env_id, self.seed, self.device = env_id, seed, choose_device(device)
        if logger is not None and not callable(getattr(logger, "log", None)):
            raise TypeError(f"logger: expected an object with log(step, metrics), got {logger!r}")
        self.logger, self.callbacks = logger, CallbackList(callbacks)
        self.env = make_tensor_env(env_id, n_envs, device=self.device)
        self.policy = self._place(policy)
        self.flat = (
            self.policy.flat
            if isinstance(self.policy, FlatModule)
            else flatten_parameters(self.policy)
        )
        self.adam = AdamState.like(self.flat.data)
        self.storage = RolloutStorage.allocate(
            self.config.n_steps, n_envs, obs_width(self.env), self.device
        )
        self.episodes = EpisodeWindow()
        self.schedule = Schedule()
        self.iteration = self.timesteps = 0
        self._episodes_begun = False

    def _place(self, policy: nn.Module | None) -> nn.Module:
        spaces = self.env.single_observation_space, self.env.single_action_space
        if policy is None:
            weights = derive_seed(self.seed, "weights")
            return policy_for_spaces(*spaces, seed=weights, device=self.device)
        if not isinstance(policy, nn.Module):
            raise TypeError(f"policy: expected a torch.nn.Module, got {type(policy).__name__}")
        check_fits(policy, *spaces)
        return policy.to(self.device)

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration, all environments together."""
        return self.config.n_steps * self.config.n_envs

    def train(self, total_timesteps: int, *, resume: bool = False) -> dict[str, float]:
        """Train for ``total_timesteps`` environment steps, as many whole iterations as fit in.

        Parameters
        ----------
        total_timesteps : int
            Steps, all environments together; at least one iteration is made. Annealed settings
            reach zero at the end of them.
        resume : bool
            Go on with the call of ``train`` that was going on when the checkpoint was written:
            ``total_timesteps`` then counts from the start of that call.

        Returns
        -------
        dict of str to float
            The last iteration's metrics, ``mean_reward`` and ``mean_length`` of the episodes that
            finished last (NaN if none did) and ``timesteps``.
        """
        check_count("total_timesteps", total_timesteps)
        start = self.schedule.start if resume else self.iteration
        self.schedule = Schedule(start, max(1, total_timesteps // self.steps_per_iteration))
        self.callbacks.on_training_start(self, self.schedule.count * self.steps_per_iteration)
        work = min(self.config.batch_size, self.steps_per_iteration) * len(self.flat.data)
        with suitable_threads(work):
            metrics = self._run_schedule()
            result = {**metrics, **self.episodes.means(), "timesteps": float(self.timesteps)}
            self.callbacks.on_training_end(self, result)
        return result

    def _run_schedule(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        while self.iteration < self.schedule.start + self.schedule.count:
            metrics = self._timed_iteration()
            if self.logger is not None:
                self.logger.log(self.timesteps, metrics)
            if not self.callbacks.on_iteration(self, metrics):
                break
        return metrics

    def _timed_iteration(self) -> dict[str, float]:
        began = time.perf_counter()
        values = dict(zip(ITERATION_METRICS, self.iterate().tolist(), strict=True))
        seconds = time.perf_counter() - began
        totals = [values.pop(name) for name in EpisodeTotals._fields]
        self.episodes.add(*totals)
        speed = self.steps_per_iteration / seconds
        return {**values, **self.episodes.means(), "steps_per_second": speed}

    def iterate(self) -> Tensor:
        """Collect a rollout and update on it; nothing is read back from the device.

        Returns
        -------
        Tensor
            f32 ``[len(ITERATION_METRICS)]`` on the device.
        """
        if not self.flat.shares_memory_with(self.policy):
            raise RuntimeError(
                "policy: its parameters were replaced (by to(), double() or a new module) after "
                "PPO was made; make another PPO with it"
            )
        self._begin_rollout()
        collect(self.policy, self.env, self.storage, seed=self.seed, step=self.iteration)  # type: ignore[arg-type]
        advantages, returns = compute_advantages(
            self.policy,  # type: ignore[arg-type]
            self.storage,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
        )
        batch = RolloutBatch.from_storage(self.storage, advantages, returns)
        metrics = update(
            batch,
            self.flat,
            self.adam,
            gradient_for(self.policy, self.flat),
            self._loss(),
            self._settings(),
            seed=self.seed,
            step=self.iteration,
        )
        self.iteration += 1
        self.timesteps += len(batch)
        return torch.cat(
            (metrics, _explained_variance(batch), torch.stack(episode_totals(self.storage)))
        )

    def resume_episodes(self, obs: Tensor) -> None:
        """Go on from ``obs [N, obs_dim]``, which the environments are at, without a reset."""
        self.storage.obs[-1].copy_(obs)
        self._episodes_begun = True

    def _begin_rollout(self) -> None:
        if self._episodes_begun:
            self.storage.obs[0].copy_(self.storage.obs[-1])
            return
        obs, _ = self.env.reset(seed=derive_seed(self.seed, "episodes", self.iteration))
        self.storage.obs[0].copy_(obs)
        self._episodes_begun = True

    def _loss(self) -> PPOLoss:
        config = self.config
        left = self.schedule.remaining(self.iteration) if config.anneal_clip else 1.0
        return PPOLoss(
            clip_eps=config.clip_eps * left,
            vf_coef=config.vf_coef,
            ent_coef=config.ent_coef,
            max_grad_norm=config.max_grad_norm,
            clip_vloss=config.clip_vloss,
        )

    def _settings(self) -> UpdateSettings:
        config = self.config
        left = self.schedule.remaining(self.iteration) if config.anneal_lr else 1.0
        return UpdateSettings(
            n_epochs=config.n_epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate * left,
            max_grad_norm=config.max_grad_norm,
            normalize_advantages=config.normalize_advantages,
        )

    @torch.no_grad()
    def predict(self, obs: Any, deterministic: bool = True) -> Any:
        """Return the actions for observations.

        Parameters
        ----------
        obs : array-like or Tensor
            ``(obs_dim,)`` or ``(B, obs_dim)``.
        deterministic : bool
            The most likely action, or a sampled one.

        Returns
        -------
        numpy.ndarray or Tensor
            ``()`` or ``(B,)``; a tensor if a tensor came.

        Raises
        ------
        ValueError
            If the shape does not fit or an entry is NaN.
        """
        rows, single = prepare_obs(obs, self.env.single_observation_space.shape, self.device)  # type: ignore[arg-type]
        policy: Any = self.policy
        actions = policy.act(rows) if deterministic else policy.get_action_value(rows)[0]
        actions = actions[0] if single else actions
        return actions if isinstance(obs, Tensor) else actions.cpu().numpy()

    def evaluate(
        self, n_episodes: int = 10, seed: int = 0, *, deterministic: bool = True
    ) -> dict[str, float]:
        """Run ``n_episodes`` fresh episodes, see :func:`~rlox_gpu.evaluation.evaluate_policy`."""
        check_count("n_episodes", n_episodes)
        env = make_tensor_env(self.env_id, n_episodes, device=self.device)
        try:
            with suitable_threads(n_episodes * len(self.flat.data)):
                return evaluate_policy(self.policy, env, seed=seed, deterministic=deterministic)
        finally:
            env.close()

    def save(self, path: str | Path) -> None:
        """Write everything that a later run needs to go on; see :meth:`from_checkpoint`.

        Native environments are saved in the middle of their episodes and go on bit for bit.
        Gymnasium's cannot be saved: after loading they begin new episodes.
        """
        ppo_checkpoint.save(self, path)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        env_id: str | None = None,
        *,
        policy: nn.Module | None = None,
        logger: Any = None,
        callbacks: Iterable[Callback] | None = None,
        device: torch.device | str = "auto",
    ) -> PPO:
        """Return the algorithm as it was saved.

        Parameters
        ----------
        path : str or Path
            Written by :meth:`save`.
        env_id : str, optional
            Go on in another environment; its episodes start anew.
        policy : nn.Module, optional
            Needed if a policy of one's own was saved: a module of the same shape.
        logger, callbacks, device
            As in the constructor.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is no checkpoint of PPO, is damaged, or does not fit ``policy``.
        """
        state = ppo_checkpoint.load(path)
        same_env = env_id is None or env_id == state.env_id
        ppo = cls(
            state.env_id if env_id is None else env_id,
            seed=state.seed,
            policy=ppo_checkpoint.policy_for(state, policy),
            logger=logger,
            callbacks=callbacks,
            device=device,
            **state.config,
        )
        ppo_checkpoint.restore(ppo, state, with_env=same_env)
        return ppo


def _explained_variance(batch: RolloutBatch) -> Tensor:
    """Return ``1 - Var(returns - values) / Var(returns)`` as ``[1]``, population variances."""
    total = batch.returns.var(correction=0)
    residual = (batch.returns - batch.values).var(correction=0)
    return torch.where(total > 0, 1 - residual / total, 0.0).unsqueeze(0)
