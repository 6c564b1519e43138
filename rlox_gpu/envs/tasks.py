"""The table of native tasks: what differs between them outside Rust and CUDA.

A task's physics lives in ``rust/src/envs/<name>.rs`` and ``csrc/<name>.cuh``; here are its ids,
its parameters under Gymnasium's names, its spaces, and the Gymnasium class that draws it.
``docs/adding-an-environment.md`` walks through all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

Packed = tuple[Any, ...]


@dataclass(frozen=True)
class Task:
    """One native task.

    Attributes
    ----------
    name
        The name of its type in Rust and in CUDA; in lower case, that of their files.
    state_size
        Numbers of state per environment.
    state_dtype
        Their type: float32, or int32 with whole numbers that float32 holds.
    defaults
        Parameters and their default values, by Gymnasium's names.
    positive
        Names of the parameters that must be positive.
    pack
        Turns parameters and the bounds of the initial state into the numbers the kernels take,
        in their order. Parameters are numbers, or arrays of a number per environment.
    shares
        Names of the parameters that must lie between 0 and 1.
    reset_options
        The two options of a reset that bound the initial state, and their defaults: ``"low"`` and
        ``"high"``, or two numbers that bound it on both sides of 0. None where it is fixed.
    spaces
        Builds the observation and action space of one environment from parameters that are
        numbers: a box of one dimension, and actions from 0 or a box of one number.
    renderer
        Import path of the Gymnasium environment that draws the state.
    render_fps
        Pictures per second at the task's own pace.
    """

    name: str
    state_size: int
    defaults: Mapping[str, float | bool]
    positive: frozenset[str]
    pack: Callable[..., Packed]
    reset_options: Mapping[str, float]
    spaces: Callable[[Mapping[str, Any]], tuple[spaces.Box, spaces.Discrete | spaces.Box]]
    renderer: str
    render_fps: int
    state_dtype: type[np.generic] = np.float32
    shares: frozenset[str] = frozenset()


def _pack_cartpole(params: Mapping[str, Any], low: float, high: float) -> Packed:
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
        np.where(penalty_only, 0.0, 1.0),
        np.where(penalty_only, -1.0, 1.0),
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
    name="CartPole",
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
    positive=frozenset(
        {"masscart", "masspole", "length", "tau", "theta_threshold_radians", "x_threshold"}
    ),
    pack=_pack_cartpole,
    reset_options={"low": -0.05, "high": 0.05},
    spaces=_cartpole_spaces,
    renderer="gymnasium.envs.classic_control.cartpole:CartPoleEnv",
    render_fps=50,
)


def _pack_pendulum(params: Mapping[str, Any], x_init: float, y_init: float) -> Packed:
    g, m, length = params["g"], params["m"], params["l"]
    return (
        params["max_speed"],
        params["max_torque"],
        params["dt"],
        3 * g / (2 * length),
        3.0 / (m * (length * length)),
        x_init,
        y_init,
    )


def _pendulum_spaces(params: Mapping[str, Any]) -> tuple[spaces.Box, spaces.Box]:
    high = np.array([1.0, 1.0, params["max_speed"]], dtype=np.float32)
    torque = params["max_torque"]
    return spaces.Box(-high, high, dtype=np.float32), spaces.Box(-torque, torque, (1,), np.float32)


PENDULUM = Task(
    name="Pendulum",
    state_size=2,
    defaults={"max_speed": 8.0, "max_torque": 2.0, "dt": 0.05, "g": 10.0, "m": 1.0, "l": 1.0},
    positive=frozenset({"max_speed", "max_torque", "dt", "m", "l"}),
    pack=_pack_pendulum,
    reset_options={"x_init": math.pi, "y_init": 1.0},
    spaces=_pendulum_spaces,
    renderer="gymnasium.envs.classic_control.pendulum:PendulumEnv",
    render_fps=30,
)


def _pack_in_order(params: Mapping[str, Any], low: float, high: float) -> Packed:
    """Take the parameters as they are, in the order of the task's defaults."""
    return (*params.values(), low, high)


def _mountain_car_box(params: Mapping[str, Any]) -> spaces.Box:
    low = np.array([params["min_position"], -params["max_speed"]], dtype=np.float32)
    high = np.array([params["max_position"], params["max_speed"]], dtype=np.float32)
    return spaces.Box(low, high, dtype=np.float32)


MOUNTAIN_CAR = Task(
    name="MountainCar",
    state_size=2,
    defaults={
        "min_position": -1.2,
        "max_position": 0.6,
        "max_speed": 0.07,
        "goal_position": 0.5,
        "goal_velocity": 0.0,
        "force": 0.001,
        "gravity": 0.0025,
    },
    positive=frozenset({"max_speed"}),
    pack=_pack_in_order,
    reset_options={"low": -0.6, "high": -0.4},
    spaces=lambda params: (_mountain_car_box(params), spaces.Discrete(3)),
    renderer="gymnasium.envs.classic_control.mountain_car:MountainCarEnv",
    render_fps=30,
)


def _mountain_car_continuous_spaces(params: Mapping[str, Any]) -> tuple[spaces.Box, spaces.Box]:
    actions = spaces.Box(params["min_action"], params["max_action"], (1,), np.float32)
    return _mountain_car_box(params), actions


MOUNTAIN_CAR_CONTINUOUS = Task(
    name="MountainCarContinuous",
    state_size=2,
    defaults={
        "min_action": -1.0,
        "max_action": 1.0,
        "min_position": -1.2,
        "max_position": 0.6,
        "max_speed": 0.07,
        "goal_position": 0.45,
        "goal_velocity": 0.0,
        "power": 0.0015,
    },
    positive=frozenset({"max_speed"}),
    pack=_pack_in_order,
    reset_options={"low": -0.6, "high": -0.4},
    spaces=_mountain_car_continuous_spaces,
    renderer=("gymnasium.envs.classic_control.continuous_mountain_car:Continuous_MountainCarEnv"),
    render_fps=30,
)


def _acrobot_spaces(params: Mapping[str, Any]) -> tuple[spaces.Box, spaces.Discrete]:
    high = np.array([1, 1, 1, 1, params["MAX_VEL_1"], params["MAX_VEL_2"]], dtype=np.float32)
    return spaces.Box(-high, high, dtype=np.float32), spaces.Discrete(3)


ACROBOT = Task(
    name="Acrobot",
    state_size=4,
    defaults={
        "dt": 0.2,
        "LINK_LENGTH_1": 1.0,
        "LINK_MASS_1": 1.0,
        "LINK_MASS_2": 1.0,
        "LINK_COM_POS_1": 0.5,
        "LINK_COM_POS_2": 0.5,
        "LINK_MOI": 1.0,
        "MAX_VEL_1": 4 * math.pi,
        "MAX_VEL_2": 9 * math.pi,
    },
    positive=frozenset(
        {"dt", "LINK_LENGTH_1", "LINK_MASS_1", "LINK_MASS_2", "LINK_COM_POS_1", "LINK_COM_POS_2"}
        | {"LINK_MOI", "MAX_VEL_1", "MAX_VEL_2"}
    ),
    pack=_pack_in_order,
    reset_options={"low": -0.1, "high": 0.1},
    spaces=_acrobot_spaces,
    renderer="gymnasium.envs.classic_control.acrobot:AcrobotEnv",
    render_fps=15,
)


def _pack_frozen_lake(params: Mapping[str, Any]) -> Packed:
    success_rate = np.where(params["is_slippery"], params["success_rate"], 1.0)
    fail_rate = (1.0 - success_rate) / 2.0
    return (
        fail_rate,
        # Above every random number where nothing can fail.
        np.where(fail_rate > 0, fail_rate + success_rate, 2.0),
        params["reward_goal"],
        params["reward_hole"],
        params["reward_frozen"],
    )


FROZEN_LAKE = Task(
    name="FrozenLake",
    state_size=1,
    defaults={
        "is_slippery": True,
        "success_rate": 1.0 / 3.0,
        "reward_goal": 1.0,
        "reward_hole": 0.0,
        "reward_frozen": 0.0,
    },
    positive=frozenset(),
    pack=_pack_frozen_lake,
    reset_options={},
    spaces=lambda params: (spaces.Box(0, 1, (16,), np.float32), spaces.Discrete(4)),
    renderer="gymnasium.envs.toy_text.frozen_lake:FrozenLakeEnv",
    render_fps=4,
    state_dtype=np.int32,
    shares=frozenset({"success_rate"}),
)

# Gymnasium id -> task and its default number of steps per episode.
TASKS: dict[str, tuple[Task, int]] = {
    "CartPole-v0": (CARTPOLE, 200),
    "CartPole-v1": (CARTPOLE, 500),
    "Pendulum-v1": (PENDULUM, 200),
    "MountainCar-v0": (MOUNTAIN_CAR, 200),
    "MountainCarContinuous-v0": (MOUNTAIN_CAR_CONTINUOUS, 999),
    "Acrobot-v1": (ACROBOT, 500),
    "FrozenLake-v1": (FROZEN_LAKE, 100),
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
