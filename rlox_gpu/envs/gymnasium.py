"""Any Gymnasium environment, through its synchronous or asynchronous vector environment.

Two faces over the same thing: :class:`GymVecEnv` gives NumPy arrays as rlox's does, and
:class:`GymnasiumTensorEnv` writes torch tensors as the native environments do, for the collectors.
Both reset an environment in the step that ends its episode.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from rlox_gpu._checks import choice, integer
from rlox_gpu.envs.kernels import StepBuffers

if TYPE_CHECKING:
    _Wrapper = gym.Wrapper[Any, Any, Any, Any]
else:
    _Wrapper = gym.Wrapper

_MODES = {"sync": 0, "async": 1}


class _OwnFinalObservation(_Wrapper):
    """Copies the observation that ends an episode: the reset that follows may write over it."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            obs = copy.deepcopy(obs)
        return obs, reward, terminated, truncated, info


def make_gymnasium(
    env_id: str,
    num_envs: int,
    *,
    vectorization_mode: str = "sync",
    vector_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> VectorEnv[Any, Any, Any]:
    """Return ``num_envs`` copies of a Gymnasium environment that reset in the same step.

    Parameters
    ----------
    env_id
        A Gymnasium id.
    num_envs
        Number of copies.
    vectorization_mode
        ``"sync"``: one after the other; ``"async"``: a process for each, which writes its
        observations into memory that is shared with this one.
    vector_kwargs
        Keywords of ``gymnasium.vector.SyncVectorEnv`` or ``AsyncVectorEnv``.
    **kwargs
        Keywords of the environment.

    Raises
    ------
    TypeError
        If ``env_id`` is not a string.
    ValueError
        If Gymnasium does not know the id or one of its dependencies is missing, ``num_envs``
        is not positive, or another argument is not as above.
    """
    if not isinstance(env_id, str):
        raise TypeError(f"env_id: expected a string, got {env_id!r}")
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise ValueError(f"n_envs: expected a positive integer, got {num_envs!r}")
    choice("vectorization_mode", vectorization_mode, _MODES)
    given = dict(vector_kwargs or {})
    if "autoreset_mode" in given:
        raise ValueError("vector_kwargs: expected no autoreset_mode, which is the same-step mode")
    try:
        return gym.make_vec(
            env_id,
            num_envs=num_envs,
            vectorization_mode=vectorization_mode,
            vector_kwargs={**given, "autoreset_mode": AutoresetMode.SAME_STEP},
            wrappers=[_OwnFinalObservation],
            **kwargs,
        )
    except (gym.error.UnregisteredEnv, gym.error.DependencyNotInstalled) as error:
        raise ValueError(f"env_id: cannot make {env_id!r}: {error}") from error


class GymVecEnv:
    """``n_envs`` copies of a Gymnasium environment behind rlox's vector API.

    Parameters
    ----------
    env_id : str
        A Gymnasium id, ``"LunarLander-v3"`` for one.
    n_envs : int
        Number of copies.
    seed : int
        Copy i starts from ``seed + i`` at the first reset; later resets continue from there.
    vectorization_mode : str
        ``"sync"`` steps the copies one after the other; ``"async"`` gives each a process of its
        own with shared memory, which pays where a step takes long. Both give the same numbers.
    vector_kwargs : dict, optional
        Keywords of Gymnasium's ``SyncVectorEnv`` or ``AsyncVectorEnv``, for example
        ``{"context": "spawn"}``.
    **kwargs
        Keywords of the environment.

    Raises
    ------
    TypeError, ValueError
        If the environment cannot be made or an argument is not as above.
    """

    def __init__(
        self,
        env_id: str,
        n_envs: int,
        seed: int = 0,
        *,
        vectorization_mode: str = "sync",
        vector_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._next_seed: int | None = integer("seed", seed, 1 << 63)
        self._envs = make_gymnasium(
            env_id,
            n_envs,
            vectorization_mode=vectorization_mode,
            vector_kwargs=vector_kwargs,
            **kwargs,
        )
        self._running = False
        self.num_envs = n_envs
        self.observation_space = self._envs.single_observation_space
        self.action_space = self._envs.single_action_space

    def reset_all(self) -> NDArray[Any]:
        """Reset every environment and return their observations ``(n_envs, *obs_shape)``."""
        if self._envs.closed:
            raise RuntimeError("reset_all: the environment is closed")
        obs, _ = self._envs.reset(seed=self._next_seed)
        self._next_seed, self._running = None, True
        return obs  # type: ignore[no-any-return]

    def step_all(self, actions: Any) -> dict[str, Any]:
        """Step every environment; one whose episode ends is reset in the same step.

        Parameters
        ----------
        actions : array-like
            ``(n_envs,)`` for discrete actions, ``(n_envs, act_dim)`` in f32 or f64 for continuous
            ones; a list and a torch tensor do as well.

        Returns
        -------
        dict
            ``obs`` (after the reset), ``rewards`` f64 ``(n_envs,)``, ``terminated`` and
            ``truncated`` bool ``(n_envs,)``, ``terminal_obs`` a list: the last observation of the
            episode that ended, else None.

        Raises
        ------
        RuntimeError
            Before the first reset and after ``close``.
        ValueError, TypeError
            If the actions do not fit the action space.
        """
        if self._envs.closed or not self._running:
            state = "closed" if self._envs.closed else "not reset yet"
            raise RuntimeError(f"step_all: the environment is {state}")
        checked = check_actions(actions, self.action_space, self.num_envs)
        obs, rewards, terminated, truncated, info = self._envs.step(checked)
        final = info.get("final_obs", [None] * self.num_envs)
        return {
            "obs": obs,
            "rewards": rewards,
            "terminated": terminated,
            "truncated": truncated,
            "terminal_obs": list(final),
        }

    def close(self) -> None:
        """Release the environments; closing twice is allowed."""
        if not self._envs.closed:
            self._envs.close()

    def __len__(self) -> int:
        return self.num_envs


def check_actions(actions: Any, space: gym.Space[Any], num_envs: int) -> NDArray[Any]:
    """Return ``actions`` as the array that Gymnasium's vector environment takes.

    Raises
    ------
    TypeError, ValueError
        If dtype, shape or range do not fit ``space``.
    """
    array = actions.detach().cpu().numpy() if isinstance(actions, Tensor) else np.asarray(actions)
    expected = (num_envs, *(space.shape or ()))
    if array.shape != expected:
        raise ValueError(f"actions: expected shape {expected}, got {array.shape}")
    if isinstance(space, gym.spaces.Discrete):
        if array.dtype.kind not in "iu":
            raise TypeError(f"actions: expected integers for {space}, got {array.dtype}")
        if array.min() < space.start or array.max() >= space.start + space.n:
            raise ValueError(
                f"actions: expected {space.start} to {space.start + space.n - 1}, "
                f"got {array.min()} to {array.max()}"
            )
        return array
    if isinstance(space, gym.spaces.Box):
        if array.dtype.kind not in "fiu":
            raise TypeError(f"actions: expected numbers for {space}, got {array.dtype}")
        if not np.isfinite(array).all():
            raise ValueError("actions: expected finite numbers, got NaN or infinity")
        return array.astype(space.dtype)
    return array


class GymnasiumTensorEnv:
    """Gymnasium environments that write their steps into torch tensors.

    The environments themselves run on the CPU, so a step copies the actions to the host and the
    results to ``device``. Their state cannot be saved; a resumed run starts new episodes.

    Parameters
    ----------
    env_id : str
        A Gymnasium id with a Box observation.
    num_envs : int
        Number of copies.
    device : optional
        Where observations and results go.

    Raises
    ------
    ValueError
        If the environment cannot be made or its observation is not a Box.
    """

    def __init__(self, env_id: str, num_envs: int, *, device: torch.device | str = "cpu") -> None:
        self._envs = make_gymnasium(env_id, num_envs)
        self.num_envs, self.device = num_envs, torch.device(device)
        self.single_observation_space = self._envs.single_observation_space
        self.single_action_space = self._envs.single_action_space
        if not isinstance(self.single_observation_space, gym.spaces.Box):
            raise ValueError(
                f"env_id: expected a Box observation, got {self.single_observation_space}"
            )
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int32)

    def reset(self, *, seed: int | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Start new episodes everywhere; return observations f32 ``[N, obs_dim]`` and an info."""
        obs, info = self._envs.reset(seed=seed)
        self._returns[:] = 0
        self._lengths[:] = 0
        return self._tensor(obs), info

    def step_into(self, actions: Tensor, results: StepBuffers) -> None:
        """Step with ``actions [N]`` or ``[N, act_dim]``; write what happened into ``results``."""
        obs, rewards, terminated, truncated, info = self._envs.step(
            check_actions(actions, self.single_action_space, self.num_envs)
        )
        self._returns += rewards
        self._lengths += 1
        results.obs.copy_(self._tensor(obs))
        results.rewards.copy_(torch.from_numpy(rewards))
        results.terminated.copy_(torch.from_numpy(terminated))
        results.truncated.copy_(torch.from_numpy(truncated))
        self._write_episodes(terminated | truncated, info, results)

    def _write_episodes(
        self, ended: NDArray[np.bool_], info: dict[str, Any], results: StepBuffers
    ) -> None:
        if results.final_obs is not None and ended.any():
            index = torch.from_numpy(np.flatnonzero(ended)).to(self.device)
            results.final_obs[index] = self._tensor(np.stack(list(info["final_obs"][ended])))
        if results.episode_return is not None:
            results.episode_return.copy_(torch.from_numpy(np.where(ended, self._returns, 0)))
        if results.episode_length is not None:
            results.episode_length.copy_(torch.from_numpy(np.where(ended, self._lengths, 0)))
        self._returns[ended] = 0
        self._lengths[ended] = 0

    def close(self) -> None:
        """Release the environments."""
        self._envs.close()

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float32).to(self.device, copy=True)
