"""What a buffer is made of, from the arguments of its constructor."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from .._checks import SEEDS, WORDS, described, integer, unit_number

# A key in a dict of observations or None, a dtype, a shape.
Part = tuple[str | None, "np.dtype[Any]", list[int]]


class Specs:
    """Checked arguments; the messages name them."""

    def __init__(
        self,
        capacity: Any,
        obs_dim: Any,
        act_dim: Any,
        obs_dtype: Any,
        act_dtype: Any,
        num_envs: Any,
        deduplicate: Any,
        n_step: Any,
        gamma: Any,
        seed: Any,
    ) -> None:
        if not isinstance(deduplicate, bool):
            raise TypeError(f"deduplicate: expected a bool, got {described(deduplicate)}")
        self.parts = observation_parts(obs_dim, obs_dtype)
        self.action = (_dtype("act_dtype", act_dtype), shape_of("act_dim", act_dim))
        # In the order of the core.
        self.numbers: dict[str, Any] = {
            "num_envs": positive("num_envs", num_envs, WORDS),
            "deduplicate": deduplicate,
            "n_step": positive("n_step", n_step, WORDS),
            "gamma": unit_number("gamma", gamma),
            "seed": secrets.randbits(64) if seed is None else integer("seed", seed, SEEDS),
        }
        # Slots have 32-bit numbers, the largest of which means none.
        self.capacity = positive("capacity", capacity, WORDS)

    def positional(self, *more: Any) -> tuple[Any, ...]:
        """What the core takes."""
        return (self.capacity, self.parts, self.action, *self.numbers.values(), *more)

    def settings(self) -> dict[str, Any]:
        """The arguments as JSON takes them."""
        dims: Any = {key: shape for key, _, shape in self.parts}
        dtypes: Any = {key: dtype.name for key, dtype, _ in self.parts}
        if None in dims:
            dims, dtypes = dims[None], dtypes[None]
        return {
            "capacity": self.capacity,
            "obs_dim": dims,
            "obs_dtype": dtypes,
            "act_dtype": self.action[0].name,
            "act_dim": self.action[1],
            **self.numbers,
        }


def observation_parts(obs_dim: Any, obs_dtype: Any) -> list[Part]:
    """The parts of an observation: one, or one for each key of a dict."""
    if not isinstance(obs_dim, Mapping):
        return [(None, _dtype("obs_dtype", obs_dtype), shape_of("obs_dim", obs_dim))]
    if not obs_dim:
        raise ValueError("obs_dim: expected at least one key, got an empty dict")
    parts: list[Part] = []
    for key, shape in obs_dim.items():
        if not isinstance(key, str):
            raise TypeError(f"obs_dim: expected strings as keys, got {key!r}")
        if isinstance(obs_dtype, Mapping) and key not in obs_dtype:
            raise ValueError(f"obs_dtype: expected the keys of obs_dim, {key!r} is missing")
        dtype = obs_dtype[key] if isinstance(obs_dtype, Mapping) else obs_dtype
        name = f"[{key!r}]"
        parts.append((key, _dtype(f"obs_dtype{name}", dtype), shape_of(f"obs_dim{name}", shape)))
    return parts


def shape_of(name: str, value: Any) -> list[int]:
    """``value``, a size or a shape, as a shape of positive sizes."""
    sizes = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, Integral):
            raise TypeError(f"{name}: expected an integer or a shape, got {described(value)}")
        if size < 1:
            raise ValueError(f"{name}: expected sizes of at least 1, got {value!r}")
    return [int(size) for size in sizes]


def _dtype(name: str, value: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any]
    try:
        dtype = np.dtype(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected a NumPy dtype, got {value!r}") from error
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or not dtype.isnative:
        raise TypeError(f"{name}: expected bool, an integer or a float type, got {dtype}")
    return dtype


def positive(name: str, value: Any, stop: int) -> int:
    """``value`` as an int in [1, stop)."""
    number = integer(name, value, stop)
    if number == 0:
        raise ValueError(f"{name}: expected at least 1, got 0")
    return number
