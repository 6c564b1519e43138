"""The table of tasks for the tests: one row per native task beside its Gymnasium class."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from rlox_gpu.envs.array import NumpyVectorEnv


@dataclass(frozen=True)
class Case:
    """One task.

    Attributes
    ----------
    env_id
        Its native id, which is also Gymnasium's.
    scale
        Random states lie within it, on both sides of ``centre``.
    params
        Parameters other than the defaults, which Gymnasium's class has under the same names.
    policy
        ``policy(obs, rng)``: actions under which episodes end or returns differ.
    tolerance
        How far a step may be from Gymnasium's, absolutely and relatively.
    ending
        A state from which action 0 may terminate, if there is one.
    cells
        Of a task whose state is a cell: how many there are. Its observation is Gymnasium's as one
        number per cell.
    reference_arguments
        ``reference_arguments(params)``: arguments of Gymnasium's class, where its attributes are
        not the parameters.
    """

    env_id: str
    scale: tuple[float, ...]
    params: Mapping[str, float]
    policy: Callable[[Any, Any], np.ndarray]
    tolerance: float = 1e-6
    centre: tuple[float, ...] = field(default=(0.0,))
    ending: tuple[float, ...] | None = None
    cells: int | None = None
    reference_arguments: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None

    def make(self, num_envs=1, **arguments):
        return NumpyVectorEnv(self.env_id, num_envs, **arguments)

    def make_reference(self, params=None):
        """Gymnasium's environment without wrappers; ``params`` become its attributes."""
        module, name = self.make().task.renderer.split(":")
        make = getattr(importlib.import_module(module), name)
        if self.reference_arguments is not None:
            return make(**self.reference_arguments(params or {}))
        env = make()
        for key, value in (params or {}).items():
            setattr(env, key, value)
        return env

    def states(self, rng, num_envs):
        if self.cells is not None:
            return rng.integers(0, self.cells, (num_envs, 1)).astype(np.int32)
        scale = np.array(self.scale)
        states = np.array(self.centre) + rng.uniform(-scale, scale, (num_envs, len(scale)))
        return states.astype(np.float32)

    def place(self, reference, state, noise):
        """Put Gymnasium's environment into a state, and its next random number before it."""
        if self.cells is None:
            reference.state = state.astype(np.float64)
        else:
            reference.s = int(state[0])
            reference.np_random = SimpleNamespace(random=lambda: noise)

    def observe(self, obs):
        """Gymnasium's observations as ours."""
        obs = np.asarray(obs)
        return obs if self.cells is None else np.eye(self.cells, dtype=np.float32)[obs]

    def actions(self, rng, *shape):
        """Random actions of the native dtype, continuous ones also beyond their bounds."""
        space = self.make().single_action_space
        if hasattr(space, "n"):
            return rng.integers(0, space.n, shape)
        return rng.uniform(1.5 * space.low, 1.5 * space.high, (*shape, 1)).astype(np.float32)


def pump(obs, rng, column):
    """Push along a velocity most of the time, which gathers energy; three actions."""
    noise = rng.random(len(obs)) < 0.3
    return np.where(noise, rng.integers(0, 3, len(obs)), 1 + np.sign(obs[:, column]).astype(int))


CASES = {
    "CartPole": Case(
        "CartPole-v1",
        scale=(2.5, 3.0, 0.22, 3.0),
        params={"gravity": 3.7, "force_mag": 7.0, "tau": 0.01},
        policy=lambda obs, rng: rng.integers(0, 2, len(obs)),
        ending=(-3.0, 0.0, 0.0, 0.0),
    ),
    "Pendulum": Case(
        "Pendulum-v1",
        scale=(30.0, 8.0),
        params={"g": 3.7, "m": 0.5, "l": 1.5, "dt": 0.02, "max_speed": 5.0, "max_torque": 1.0},
        policy=lambda obs, rng: rng.uniform(-2, 2, (len(obs), 1)).astype(np.float32),
    ),
    "MountainCar": Case(
        "MountainCar-v0",
        scale=(0.9, 0.08),
        centre=(-0.3, 0.0),
        params={"force": 0.002, "gravity": 0.003, "max_speed": 0.05, "goal_position": 0.3},
        policy=lambda obs, rng: pump(obs, rng, 1),
        ending=(0.55, 0.05),
    ),
    "MountainCarContinuous": Case(
        "MountainCarContinuous-v0",
        scale=(0.9, 0.08),
        centre=(-0.3, 0.0),
        params={"power": 0.002, "max_speed": 0.05, "goal_position": 0.3, "max_action": 0.5},
        policy=lambda obs, rng: (pump(obs, rng, 1) - 1.0).astype(np.float32)[:, None],
        ending=(0.55, 0.05),
    ),
    "Acrobot": Case(
        "Acrobot-v1",
        # Where an episode leads. At the limits of the velocities a step multiplies the rounding of
        # its state by a hundred, in float64 as well.
        scale=(3.1, 3.1, 8.0, 18.0),
        params={"dt": 0.1, "LINK_LENGTH_1": 1.2, "LINK_MASS_2": 0.7, "MAX_VEL_1": 5.0},
        policy=lambda obs, rng: pump(obs, rng, 5),
        tolerance=1e-5,
        ending=(3.1, 0.0, 0.0, 0.0),
    ),
    "FrozenLake": Case(
        "FrozenLake-v1",
        scale=(),
        params={"success_rate": 0.5, "reward_hole": -0.5, "reward_frozen": 0.25},
        policy=lambda obs, rng: rng.integers(0, 4, len(obs)),
        # To the left of it is a hole.
        ending=(6,),
        cells=16,
        reference_arguments=lambda params: (
            {name: value for name, value in params.items() if not name.startswith("reward_")}
            | {
                "reward_schedule": (
                    params.get("reward_goal", 1.0),
                    params.get("reward_hole", 0.0),
                    params.get("reward_frozen", 0.0),
                )
            }
        ),
    ),
}
