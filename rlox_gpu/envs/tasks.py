"""The table of native tasks: what differs between them outside Rust and CUDA.

A task's physics lives in ``rust/src/envs/<name>.rs`` and ``csrc/<name>.cuh``; here are its ids,
its parameters under Gymnasium's names, its spaces, and the Gymnasium class that draws it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces


@dataclass(frozen=True)
class Task:
    """One native task.

    Attributes
    ----------
    name
        The name of its Rust module and CUDA header.
    state_size
        Numbers of state per environment; the observation is the state.
    defaults
        Parameters and their default values, by Gymnasium's names.
    pack
        Turns parameters and the bounds of the initial state into the numbers the kernels take,
        in their order.
    reset_bounds
        Default bounds of the initial state.
    spaces
        Builds the observation and action space of one environment.
    renderer
        Import path of the Gymnasium environment that draws the state.
    """

    name: str
    state_size: int
    defaults: Mapping[str, float | bool]
    pack: Callable[[Mapping[str, Any], float, float], tuple[float, ...]]
    reset_bounds: tuple[float, float]
    spaces: Callable[[Mapping[str, Any]], tuple[spaces.Box, spaces.Discrete]]
    renderer: str


def _pack_cartpole(params: Mapping[str, Any], low: float, high: float) -> tuple[float, ...]:
    penalty_only = params["sutton_barto_reward"]
    return (
        params["gravity"],
        params["masspole"],
        params["masspole"] + params["masscart"],
        params["length"],
        params["masspole"] * params["length"],
        params["force_mag"],
        params["tau"],
        params["theta_threshold_radians"],
        params["x_threshold"],
        0.0 if penalty_only else 1.0,
        -1.0 if penalty_only else 1.0,
        low,
        high,
    )


def _cartpole_spaces(params: Mapping[str, Any]) -> tuple[spaces.Box, spaces.Discrete]:
    # Twice the thresholds: the observation that ends an episode is still inside.
    high = np.array(
        [params["x_threshold"] * 2, np.inf, params["theta_threshold_radians"] * 2, np.inf],
        dtype=np.float32,
    )
    return spaces.Box(-high, high, dtype=np.float32), spaces.Discrete(2)


CARTPOLE = Task(
    name="cartpole",
    state_size=4,
    defaults={
        "gravity": 9.8,
        "masscart": 1.0,
        "masspole": 0.1,
        "length": 0.5,
        "force_mag": 10.0,
        "tau": 0.02,
        "theta_threshold_radians": 12 * 2 * math.pi / 360,
        "x_threshold": 2.4,
        "sutton_barto_reward": False,
    },
    pack=_pack_cartpole,
    reset_bounds=(-0.05, 0.05),
    spaces=_cartpole_spaces,
    renderer="gymnasium.envs.classic_control.cartpole:CartPoleEnv",
)

# Gymnasium id -> task and its default number of steps per episode.
TASKS: dict[str, tuple[Task, int]] = {
    "CartPole-v0": (CARTPOLE, 200),
    "CartPole-v1": (CARTPOLE, 500),
}


def find_task(env_id: str) -> tuple[Task, int]:
    """Give the task behind a Gymnasium id, and its default number of steps per episode.

    Raises
    ------
    TypeError
        If ``env_id`` is not a string.
    ValueError
        If no native task has this id.
    """
    if not isinstance(env_id, str):
        raise TypeError(f"id must be a string, got {type(env_id).__name__}")
    try:
        return TASKS[env_id]
    except KeyError:
        raise ValueError(
            f"id {env_id!r} is not a native environment (native: {', '.join(TASKS)}); "
            f"rlox_gpu.GymVecEnv({env_id!r}, ...) runs any Gymnasium environment"
        ) from None


def resolve_params(task: Task, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a task's parameters from its defaults.

    Raises
    ------
    TypeError
        If a name is unknown to the task or a value is not a number.
    ValueError
        If a number is NaN, or a mass, length or time step is not positive.
    """
    unknown = sorted(set(overrides) - set(task.defaults))
    if unknown:
        raise TypeError(
            f"unknown parameter {unknown[0]!r}; {task.name} has {', '.join(task.defaults)}"
        )
    params = dict(task.defaults)
    for name, value in overrides.items():
        params[name] = _check_param(name, value, task.defaults[name])
    return params


_POSITIVE = {"masscart", "masspole", "length", "tau", "theta_threshold_radians", "x_threshold"}


def _check_param(name: str, value: Any, default: float | bool) -> float | bool:
    if isinstance(default, bool):
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} must be a bool, got {value!r}")
        return bool(value)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if math.isnan(number) or (name in _POSITIVE and number <= 0):
        kind = "positive" if name in _POSITIVE else "a number other than NaN"
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    return number
