"""What the NumPy face and the tensor face share: arguments, spaces, seeds and readiness."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rlox_gpu.envs.parameters import (
    OwnRules,
    check_max_episode_steps,
    envelope,
    own_rules,
    params_of,
    resolve_params,
)
from rlox_gpu.envs.rendering import Renderer, check_render
from rlox_gpu.envs.tasks import Task, find_task

MODE_INDEX = {
    AutoresetMode.NEXT_STEP: 0,
    AutoresetMode.SAME_STEP: 1,
    AutoresetMode.DISABLED: 2,
}


class Rules(NamedTuple):
    """What all environments of a batch share, as plain numbers that kernels take.

    Attributes
    ----------
    task
        Name of the task.
    params
        The task's numbers, the bounds of the initial state included.
    autoreset_mode
        0 next step, 1 same step, 2 disabled.
    max_episode_steps
        Steps after which an episode is truncated.
    """

    task: str
    params: tuple[float, ...]
    autoreset_mode: int
    max_episode_steps: int


class ResetRequest(NamedTuple):
    """What a call of ``reset`` asks for, checked.

    Attributes
    ----------
    mask
        The environments to reset, of the face's own kind; None for all.
    bounds
        Bounds of the initial state.
    seeds
        uint64 ``(N,)`` seeds and bool ``(N,)``, which of them were given; None if none were.
    """

    mask: Any
    bounds: tuple[float, ...]
    seeds: tuple[np.ndarray, np.ndarray] | None


class NativeVectorEnv(VectorEnv[Any, Any, Any], ABC):
    """Base of the vector environments whose physics is ours."""

    # Also of one whose making failed, which Gymnasium closes as well.
    _renderer: Renderer | None = None

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        autoreset_mode: AutoresetMode | str,
        max_episode_steps: Any,
        render_mode: str | None,
        render_envs: Sequence[int] | None,
        params: Mapping[str, Any],
    ) -> None:
        self.task, default_steps = find_task(env_id)
        self.num_envs = check_num_envs(num_envs)
        self.params = resolve_params(self.task, params, self.num_envs)
        self.autoreset_mode = check_autoreset_mode(autoreset_mode)
        self.max_episode_steps = check_max_episode_steps(
            max_episode_steps, default_steps, self.num_envs
        )
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": self.task.render_fps,
            "autoreset_mode": self.autoreset_mode,
        }
        self._set_spaces()
        self._action_shape = (self.num_envs, *(self.single_action_space.shape or ()))
        self.render_mode, self._render_envs = check_render(render_mode, render_envs, num_envs)
        # Actions of the last step, and which step of which episode it was, if to be drawn.
        self._last_step: tuple[Any, Any, Any] | None = None
        self._ready = False

    def _set_spaces(self) -> None:
        observations, actions = self.task.spaces(envelope(self.params))
        self._obs_size = observations.shape[0]
        self.single_observation_space, self.single_action_space = observations, actions
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _reset_request(
        self, seed: Any, options: Mapping[str, Any] | None, as_mask: Callable[[Any], Any]
    ) -> ResetRequest:
        """Check the arguments of ``reset`` and seed the spaces' generator; nothing else changes."""
        self._check_open()
        options = check_options(options, self.task)
        mask = as_mask(options["reset_mask"]) if "reset_mask" in options else None
        if mask is not None and not self._ready:
            raise ResetNeeded("options['reset_mask'] needs a reset() of all environments first")
        request = ResetRequest(
            mask, reset_bounds(options, self.task), new_seeds(seed, self.num_envs)
        )
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
        return request

    @abstractmethod
    def _states_to_draw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what ``self._render_envs`` have on the host: state, episode, elapsed steps."""

    def _remember_step(self, actions: Any, episode: Any, elapsed: Any) -> None:
        """Keep what a picture shows of a step beside the state it led to."""
        rows = list(self._render_envs)
        self._last_step = actions[rows], episode[rows], elapsed[rows]

    def _actions_to_draw(
        self, episode: np.ndarray, elapsed: np.ndarray
    ) -> Sequence[np.ndarray | None]:
        """Return the actions that led to the states, None where an episode has just begun."""
        if self._last_step is None:
            return [None] * len(elapsed)
        actions, *moment = (
            x if isinstance(x, np.ndarray) else x.cpu().numpy() for x in self._last_step
        )
        # A reset, a rollout or a loaded state has led elsewhere than the last step.
        led_here = (elapsed > 0) & (episode == moment[0]) & (elapsed == moment[1])
        return [a if led else None for a, led in zip(actions, led_here, strict=True)]

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Draw the chosen environments with Gymnasium's renderer; reads their states on the host.

        Returns
        -------
        tuple of numpy.ndarray or None
            RGB frames, uint8 ``(height, width, 3)``; None without a render mode.

        Raises
        ------
        gymnasium.error.ClosedEnvironmentError
            After ``close``.
        gymnasium.error.ResetNeeded
            Before the first reset.
        """
        self._check_open()
        if self.render_mode is None:
            return None
        if not self._ready:
            raise ResetNeeded("call reset() before render(): there is nothing to draw")
        if self._renderer is None:
            self._renderer = Renderer(self.task)
        states, *moment = self._states_to_draw()
        params = (params_of(self.params, index) for index in self._render_envs)
        actions = self._actions_to_draw(*moment)
        return tuple(map(self._renderer.draw, states, actions, params))

    def limit_episodes(self, max_episode_steps: int) -> None:
        """Truncate episodes after at most so many steps; a lower limit stays."""
        limits = np.minimum(self.max_episode_steps, max_episode_steps)
        self.max_episode_steps = limits if np.ndim(limits) else int(limits)
        self._renew_rules()

    @abstractmethod
    def _renew_rules(self) -> None:
        """Take over the attributes that the rules are made of."""

    def _rules(self, *bounds: float) -> Rules:
        """Give the shared rules; where environments have their own, those of the first."""
        return Rules(
            task=self.task.name,
            params=tuple(map(float, self.task.pack(params_of(self.params, 0), *bounds))),
            autoreset_mode=MODE_INDEX[self.autoreset_mode],
            max_episode_steps=int(np.ravel(self.max_episode_steps)[0]),
        )

    def _own_rules(self, *bounds: float) -> OwnRules | None:
        limits = self.max_episode_steps
        return own_rules(self.task, self.params, limits, bounds, self.num_envs)

    def _load_rules(self, state: Mapping[str, Any]) -> None:
        """Take over the parameters and the step limit of a snapshot."""
        try:
            params = resolve_params(self.task, state["params"], self.num_envs)
        except TypeError as error:
            raise ValueError(f"state['params'] is another task's: {error}") from None
        limits = check_max_episode_steps(state["max_episode_steps"], 0, self.num_envs)
        same = all(np.array_equal(value, self.params[name]) for name, value in params.items())
        self.params, self.max_episode_steps = params, limits
        if not same:
            self._set_spaces()

    def _raise_not_ready(self) -> None:
        self._check_open()
        raise ResetNeeded("call reset() before step(): no episode has begun")

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError(f"{self!r} is closed")

    def close_extras(self, **kwargs: Any) -> None:
        """Release the renderer; steps ask from now on whether the env is closed."""
        self._ready = False
        if self._renderer is not None:
            self._renderer.close()


def check_num_envs(num_envs: Any, name: str = "num_envs") -> int:
    """Check a number of environments."""
    if isinstance(num_envs, bool) or not isinstance(num_envs, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {num_envs!r}")
    if not 1 <= num_envs < 2**31:
        raise ValueError(f"{name} must be at least 1 and below 2**31, got {num_envs}")
    return int(num_envs)


def check_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """Check an autoreset mode, given as Gymnasium's enum or its value."""
    try:
        return AutoresetMode(mode)
    except ValueError:
        names = ", ".join(repr(m.value) for m in AutoresetMode)
        raise ValueError(
            f"autoreset_mode must be a gymnasium.vector.AutoresetMode or one of {names}, "
            f"got {mode!r}"
        ) from None


def check_options(options: Mapping[str, Any] | None, task: Task) -> dict[str, Any]:
    """Check the names in the options of a reset."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(f"options must be a dict or None, got {type(options).__name__}")
    unknown = sorted(set(options) - {"reset_mask", *task.reset_options}, key=str)
    if unknown:
        allowed = [repr(name) for name in ("reset_mask", *task.reset_options)]
        named = " and ".join([", ".join(allowed[:-1]), allowed[-1]] if allowed[1:] else allowed)
        raise ValueError(f"options may hold {named}, got {unknown[0]!r} as well")
    return dict(options)


def reset_bounds(options: Mapping[str, Any], task: Task) -> tuple[float, ...]:
    """Read the bounds of the initial state from the options of a reset."""
    bounds = []
    for name, default in task.reset_options.items():
        try:
            bound = float(options.get(name, default))
        except (TypeError, ValueError):
            raise ValueError(f"options[{name!r}] must be a number, got {options[name]!r}") from None
        if not np.isfinite(bound):
            raise ValueError(f"options[{name!r}] must be finite, got {bound}")
        if name not in ("low", "high") and bound < 0:
            raise ValueError(f"options[{name!r}] must not be negative, got {bound}")
        bounds.append(bound)
    if "low" in task.reset_options and bounds[0] > bounds[1]:
        raise ValueError(
            f"options['low'] ({bounds[0]}) must not be above options['high'] ({bounds[1]})"
        )
    return tuple(bounds)


def random_seeds(num_envs: int) -> np.ndarray:
    """Draw seeds for environments that nobody seeded; uint64 ``(num_envs,)``."""
    return _consecutive(secrets.randbits(63), num_envs)


def new_seeds(
    seed: int | Sequence[int | None] | None, num_envs: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Turn the ``seed`` of a reset into seeds of environments.

    Parameters
    ----------
    seed
        None, an integer (environment i gets ``seed + i``), or a sequence of one integer or None
        per environment.
    num_envs
        Number of environments.

    Returns
    -------
    tuple of numpy.ndarray, or None
        uint64 ``(num_envs,)`` seeds and bool ``(num_envs,)``, which of them were given; None if
        ``seed`` is None.
    """
    if seed is None:
        return None
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        return _consecutive(check_seed(seed, "seed"), num_envs), np.ones(num_envs, dtype=bool)
    if isinstance(seed, (str, bytes)) or not isinstance(seed, (Sequence, np.ndarray)):
        raise TypeError(f"seed must be an integer, a sequence or None, got {seed!r}")
    if len(seed) != num_envs:
        raise ValueError(f"seed must have one entry per environment ({num_envs}), got {len(seed)}")
    given = np.array([entry is not None for entry in seed], dtype=bool)
    seeds = [
        0 if entry is None else check_seed(entry, f"seed[{i}]") for i, entry in enumerate(seed)
    ]
    return np.array(seeds, dtype=np.uint64), given


def _consecutive(first: int, num_envs: int) -> np.ndarray:
    seeds = np.arange(num_envs, dtype=np.uint64)
    seeds += np.uint64(first)
    return seeds


def check_seed(seed: Any, name: str) -> int:
    """Check one seed."""
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {seed!r}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"{name} must be between 0 and 2**64 - 1, got {seed}")
    return int(seed)
