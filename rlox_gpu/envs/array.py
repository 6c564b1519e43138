"""Vector environments on NumPy arrays, stepped in Rust."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from rlox_gpu import _rust
from rlox_gpu.envs.base import random_seeds
from rlox_gpu.envs.rollouts import Rollout, RolloutVectorEnv

Obs = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
_NO_EPISODE = np.uint32(0xFFFFFFFF)


class ArrayState(NamedTuple):
    """The whole state of a batch of N environments; copies of these arrays are a snapshot.

    Attributes
    ----------
    state
        float32 or int32 ``(N, state_size)``.
    elapsed
        int32 ``(N,)``, steps since the episode began.
    episode
        uint32 ``(N,)``, number of the episode.
    seed
        uint64 ``(N,)``.
    ended
        bool ``(N,)``, the episode has ended and no new one has begun.
    episode_return
        float32 ``(N,)``, rewards since the episode began.
    """

    state: npt.NDArray[Any]
    elapsed: npt.NDArray[np.int32]
    episode: npt.NDArray[np.uint32]
    seed: npt.NDArray[np.uint64]
    ended: npt.NDArray[np.bool_]
    episode_return: npt.NDArray[np.float32]


class NumpyVectorEnv(RolloutVectorEnv):
    """A native task under Gymnasium's vector contract, on NumPy arrays.

    Every result is a fresh array. Episodes are numbered from 0 at a seeded reset, and the initial
    state of an episode depends on the environment's seed, index and episode number alone.

    Parameters
    ----------
    env_id
        A native Gymnasium id, for example ``"CartPole-v1"``.
    num_envs
        Number of environments N.
    autoreset_mode
        When an environment begins its next episode; see ``gymnasium.vector.AutoresetMode``.
    max_episode_steps
        Steps after which an episode is truncated, or one such number per environment; None for
        the task's own limit, -1 for none.
    episode_statistics
        Whether ``infos["episode"]`` holds ``"r"`` (float32 ``(N,)``) and ``"l"`` (int32 ``(N,)``),
        with the mask ``infos["_episode"]``, at steps that end an episode. Gymnasium's
        ``RecordEpisodeStatistics`` wrapper adds the same keys and asks for False here.
    render_mode
        None or ``"rgb_array"``.
    render_envs
        Indices of the environments that ``render`` draws; None for all.
    **params
        The task's parameters by Gymnasium's names, for example ``gravity=1.6``: a number, or
        one per environment in a list or an array ``(N,)``.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: Any = None,
        episode_statistics: bool = True,
        render_mode: str | None = None,
        render_envs: Sequence[int] | None = None,
        **params: Any,
    ) -> None:
        super().__init__(
            env_id,
            num_envs,
            autoreset_mode,
            max_episode_steps,
            render_mode,
            render_envs,
            params,
        )
        self._episode_statistics = episode_statistics
        self._disabled = self.autoreset_mode is AutoresetMode.DISABLED
        self._same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        self._arrays = ArrayState(
            state=np.zeros((self.num_envs, self.task.state_size), dtype=self.task.state_dtype),
            elapsed=np.zeros(self.num_envs, dtype=np.int32),
            episode=np.full(self.num_envs, _NO_EPISODE),
            seed=random_seeds(self.num_envs),
            ended=np.zeros(self.num_envs, dtype=bool),
            episode_return=np.zeros(self.num_envs, dtype=np.float32),
        )
        self._action_dtype = self.action_space.dtype
        self._set_bounds(*self.task.reset_options.values())

    def _renew_rules(self) -> None:
        self._set_bounds(*self._bounds)

    def _set_bounds(self, *bounds: float) -> None:
        self._bounds = bounds
        batch = _rust.EnvBatch(*self._rules(*bounds))
        self._native = batch.bind(*self._arrays, *(self._own_rules(*bounds) or ()))

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Obs, dict[str, Any]]:
        """Begin new episodes.

        Parameters
        ----------
        seed
            None to go on with the environments' own seeds; an integer, which seeds environment i
            with ``seed + i``; or one integer or None per environment.
        options
            ``"reset_mask"``: bool array ``(N,)``, the environments to reset. The bounds of the
            initial state under Gymnasium's names, also for the automatic resets until the next
            call: ``"low"`` and ``"high"``, in Pendulum ``"x_init"`` and ``"y_init"``.

        Returns
        -------
        tuple
            Observations of all environments, float32 ``(N, obs_size)``, and an empty dict.

        Raises
        ------
        gymnasium.error.ClosedEnvironmentError
            After ``close``.
        gymnasium.error.ResetNeeded
            If a mask is given before all environments have begun an episode.
        TypeError, ValueError
            If ``seed`` or ``options`` is not as above.
        """
        mask, bounds, seeds = self._reset_request(
            seed, options, lambda mask: _check_mask(mask, self.num_envs)
        )
        if seeds is not None:
            values, given = seeds
            chosen = given if mask is None else given & mask
            np.copyto(self._arrays.seed, values, where=chosen)
            np.copyto(self._arrays.episode, _NO_EPISODE, where=chosen)
        if bounds != self._bounds:
            self._set_bounds(*bounds)
        self._ready = True
        return self._native.reset(mask), {}

    def step(
        self, actions: npt.NDArray[Any]
    ) -> tuple[Obs, npt.NDArray[np.float32], Flags, Flags, dict[str, Any]]:
        """Step every environment.

        Parameters
        ----------
        actions
            Integers ``(N,)`` from the action space, or finite numbers ``(N, 1)``, which the task
            clips as Gymnasium's does; int64 and float32 are taken as they are, others converted.

        Returns
        -------
        tuple
            Observations float32 ``(N, obs_size)``, rewards float32 ``(N,)``, terminated and
            truncated bool ``(N,)``, and infos. At a step that ends an episode infos hold
            ``"episode"`` and, if environments are reset in the same step, ``"final_obs"`` (dense,
            zeros where no episode ended) and ``"final_info"``, each with its mask.

        Raises
        ------
        gymnasium.error.ResetNeeded
            Before the first reset, or if autoreset is disabled and an episode has ended.
        gymnasium.error.ClosedEnvironmentError
            After ``close``.
        TypeError, ValueError
            If ``actions`` has another dtype, shape or range; no environment has then moved.
        """
        self._check_ready()
        if not (
            type(actions) is np.ndarray
            and actions.dtype is self._action_dtype
            and actions.flags.c_contiguous
            and actions.shape == self._action_shape
        ):
            actions = as_actions(actions, self._action_shape, self._action_dtype)
        results = self._native.step(actions)
        if self.render_mode is not None:
            self._remember_step(actions, self._arrays.episode, self._arrays.elapsed)
        obs, rewards, terminated, truncated, num_ended, *_ = results
        infos = self._infos(terminated | truncated, *results[5:]) if num_ended else {}
        return obs, rewards, terminated, truncated, infos

    def _check_ready(self) -> None:
        if not self._ready:
            self._raise_not_ready()
        if self._disabled and self._arrays.ended.any():
            self._raise_ended()

    def _raise_ended(self) -> None:
        ended = np.flatnonzero(self._arrays.ended)
        raise ResetNeeded(
            f"the episodes of environments {ended[:8].tolist()} have ended; with autoreset "
            "disabled, reset them with options={'reset_mask': ...} before step()"
        )

    def _infos(
        self,
        ended: Flags,
        final_obs: Obs,
        episode_return: npt.NDArray[np.float32],
        episode_length: npt.NDArray[np.int32],
    ) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        if self._same_step:
            infos |= {"final_obs": final_obs, "_final_obs": ended}
            infos |= {"final_info": {}, "_final_info": ended.copy()}
        if self._episode_statistics:
            infos["episode"] = {"r": episode_return, "l": episode_length}
            infos["_episode"] = ended.copy()
        return infos

    def _rollout_actions(self, actions: Any) -> npt.NDArray[Any]:
        num_steps = len(actions) if hasattr(actions, "__len__") else 1
        shape = (num_steps, *self._action_shape)
        return as_actions(actions, shape, self._action_dtype)

    def _allocate(
        self, dtype: np.dtype[Any], shape: tuple[int, ...], zeros: bool
    ) -> npt.NDArray[Any]:
        return (np.zeros if zeros else np.empty)(shape, dtype)

    def _check_result(
        self, name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> None:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{name} must be a numpy array, got {type(value).__name__}")
        if value.dtype != dtype:
            raise TypeError(f"{name} must have dtype {dtype}, got {value.dtype}")
        if value.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {value.shape}")
        if not (value.flags.c_contiguous and value.flags.writeable):
            raise ValueError(f"{name} must be contiguous and writeable")

    def _roll(self, num_steps: int, actions: Any, drawn: bool, out: Rollout) -> None:
        results = list(map(_address, out[:7]))
        self._native.rollout(num_steps, _address(actions), drawn, results)

    def state_dict(self) -> dict[str, Any]:
        """Copy the whole state: what ``load_state_dict`` needs to go on exactly from here."""
        arrays = {name: array.copy() for name, array in self._arrays._asdict().items()}
        params = {name: np.copy(v) if np.ndim(v) else v for name, v in self.params.items()}
        return {
            **arrays,
            "params": params,
            "max_episode_steps": copy.copy(self.max_episode_steps),
            "reset_bounds": self._bounds,
            "ready": self._ready,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that ``state_dict`` gave.

        Raises
        ------
        ValueError
            If ``state`` lacks an entry or comes from another task or number of environments.
        """
        self._check_open()
        names = [*ArrayState._fields, "params", "max_episode_steps", "reset_bounds", "ready"]
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(f"state lacks {', '.join(missing)}")
        for name, array in self._arrays._asdict().items():
            value = np.asarray(state[name])
            if value.shape != array.shape or value.dtype != array.dtype:
                raise ValueError(
                    f"state[{name!r}] must be {array.dtype} {array.shape}, "
                    f"got {value.dtype} {value.shape}"
                )
        self._load_rules(state)
        for name, array in self._arrays._asdict().items():
            array[...] = state[name]
        self._set_bounds(*state["reset_bounds"])
        self._ready = bool(state["ready"])

    def _states_to_draw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, arrays = list(self._render_envs), self._arrays
        return arrays.state[rows], arrays.episode[rows], arrays.elapsed[rows]


def as_actions(actions: Any, shape: tuple[int, ...], dtype: Any = np.int64) -> npt.NDArray[Any]:
    """Convert actions to a contiguous array of a task's shape and dtype.

    Raises
    ------
    TypeError
        If they are not integers, or, where ``dtype`` is a float, not numbers.
    ValueError
        If they have another shape.
    """
    try:
        array = np.asarray(actions)
    except ValueError as error:
        raise ValueError(f"actions must have shape {shape}: {error}") from None
    kinds, what = ("fiu", "numbers") if np.dtype(dtype).kind == "f" else ("iu", "integers")
    if array.dtype.kind not in kinds and array.size:
        raise TypeError(f"actions must be {what}, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"actions must have shape {shape}, got {array.shape}")
    # What is too large for float32 becomes infinite, which the step refuses.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=dtype)


def _address(array: npt.NDArray[Any] | None) -> int:
    return 0 if array is None else array.ctypes.data


def _check_mask(mask: Any, num_envs: int) -> npt.NDArray[np.bool_]:
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"options['reset_mask'] must be a numpy array, got {type(mask).__name__}")
    if mask.dtype != np.bool_:
        raise TypeError(f"options['reset_mask'] must have dtype bool, got {mask.dtype}")
    if mask.shape != (num_envs,):
        raise ValueError(f"options['reset_mask'] must have shape ({num_envs},), got {mask.shape}")
    if not mask.any():
        raise ValueError("options['reset_mask'] must select at least one environment")
    return np.ascontiguousarray(mask)
